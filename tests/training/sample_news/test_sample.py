from __future__ import annotations

import hashlib
import json
import re

import pandas as pd
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from lorasweep.training.errors import SettingsError
from lorasweep.training.sample_news.sample import CATEGORIES, COLUMNS, sample_news

DEFAULT_SHA256 = "e42a6ab18262b612952653d8383e4aca0b1884270350082abb66e0b7375ec482"


@pytest.fixture(scope="module")
def corpus() -> pd.DataFrame:
    return sample_news()


def _json_lines(frame: pd.DataFrame) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in frame.to_dict("records")).encode()


def _texts(frame: pd.DataFrame) -> pd.Series[str]:
    return frame["headline"] + " " + frame["short_description"]


def test_default_corpus_is_the_same_bytes_everywhere(corpus: pd.DataFrame) -> None:
    # Scores in the README are of this corpus: whoever changes it measures them again and pins the new sum.
    assert hashlib.sha256(_json_lines(corpus)).hexdigest() == DEFAULT_SHA256


def test_seed_decides_and_nothing_else() -> None:
    assert _json_lines(sample_news(200, seed=4)) == _json_lines(sample_news(200, seed=4))
    shared = set(_texts(sample_news(200, seed=4))) & set(_texts(sample_news(200, seed=5)))
    assert len(shared) < 10


def test_columns_are_huffposts_and_hold_text(corpus: pd.DataFrame) -> None:
    assert tuple(corpus.columns) == COLUMNS
    assert tuple(corpus.columns) == (
        "link",
        "headline",
        "category",
        "short_description",
        "authors",
        "date",
    )
    assert not corpus.isna().any(axis=None)
    assert corpus.map(lambda cell: isinstance(cell, str) and cell == cell.strip() != "").all(axis=None)
    assert corpus["link"].str.fullmatch(r"https://example\.com/news/[a-z0-9-]+").all()
    assert corpus["link"].is_unique
    dates = pd.to_datetime(corpus["date"], format="%Y-%m-%d")
    assert dates.is_monotonic_decreasing


def test_no_text_stands_twice(corpus: pd.DataFrame) -> None:
    assert len(corpus) == 3600
    assert _texts(corpus).str.lower().is_unique


def test_seven_classes_the_largest_about_four_times_the_smallest(corpus: pd.DataFrame) -> None:
    counts = corpus["category"].value_counts()
    assert set(counts.index) == set(CATEGORIES)
    assert len(CATEGORIES) == 7
    assert counts.index[0] == "POLITICS"
    assert 3 <= counts.max() / counts.min() <= 4.2
    assert counts.max() / len(corpus) < 0.3


def test_texts_are_as_short_as_news(corpus: pd.DataFrame) -> None:
    headline = corpus["headline"].str.split().str.len()
    description = corpus["short_description"].str.split().str.len()
    assert 8 <= headline.mean() <= 11
    assert headline.between(4, 18).all()
    assert 10 <= description.mean() <= 16
    assert description.between(8, 26).all()


def test_sentences_are_finished(corpus: pd.DataFrame) -> None:
    whole = " ".join(_texts(corpus))
    assert not re.search(r"[{}]|  |None|nan\b", whole)
    assert set(re.findall(r"\b[Aa] [aeiouAEIOU]\w*", whole)) <= {"a union"}
    assert set(re.findall(r"\b[Aa]n [^aeiouAEIOU\W]\w*", whole)) <= {"an hour"}
    assert corpus["headline"].str.match(r"[A-Z0-9]").all()
    assert corpus["short_description"].str.fullmatch(r"[\"A-Z].*[.?]").all()


@pytest.mark.parametrize("seed", [0, 1])
def test_word_counts_alone_get_some_way_and_no_further(corpus: pd.DataFrame, seed: int) -> None:
    # Between noise and giveaway: a pretrained encoder has to have something left to add.
    train, test = train_test_split(
        corpus, train_size=1200, test_size=720, stratify=corpus["category"], random_state=seed
    )
    words = TfidfVectorizer(sublinear_tf=True)
    counts = words.fit_transform(_texts(train))
    model = LogisticRegression(C=10, max_iter=1000).fit(counts, train["category"])
    accuracy = model.score(words.transform(_texts(test)), test["category"])
    assert 0.60 < accuracy < 0.82


def test_shared_nouns_do_not_give_the_class_away(corpus: pd.DataFrame) -> None:
    for noun in ("trial", "court", "cell", "network", "season", "race", "match", "record"):
        rows = corpus[_texts(corpus).str.contains(rf"\b{noun}s?\b", case=False)]
        shares = rows["category"].value_counts(normalize=True)
        assert len(shares) >= 4, noun
        assert shares.iloc[0] < 0.7, noun


@pytest.mark.parametrize("rows", [0, -5])
def test_a_corpus_without_rows_is_refused(rows: int) -> None:
    with pytest.raises(SettingsError, match=f"{rows} rows"):
        sample_news(rows)


def test_few_rows_are_few_rows() -> None:
    assert len(sample_news(1)) == 1

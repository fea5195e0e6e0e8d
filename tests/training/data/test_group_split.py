"""Splits that share no group."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lorasweep.training.data import group_split
from lorasweep.training.data.dataset import Dataset
from lorasweep.training.data.group_split import carve_groups, check_groups
from lorasweep.training.data.load import load_dataset
from lorasweep.training.data.part import part_of
from lorasweep.training.data.summary import describe, summary_lines
from lorasweep.training.errors import DataError, LorasweepError, SettingsError
from lorasweep.training.settings import DataSettings

CARVED = ["validation", "test"]


def frame(groups: int, rows: int, classes: int = 3, seed: int = 0) -> pd.DataFrame:
    """Rows whose groups differ in size and in their usual class."""
    random = np.random.default_rng(seed)
    group = (groups * random.random(rows) ** 2).astype(int)
    usual = random.integers(0, classes, groups)[group]
    label = np.where(random.random(rows) < 0.7, usual, random.integers(0, classes, rows))
    return pd.DataFrame(
        {
            "text": [f"text {number}" for number in range(rows)],
            "label": [f"c{number}" for number in label],
            "author": [f"author {number}" for number in group],
        }
    )


def carved(rows: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    renamed = rows.rename(columns={"author": "group"}).assign(split="train")
    return carve_groups(renamed, CARVED, 0.1, seed)


def sides(rows: pd.DataFrame, group: str = "group") -> pd.Series:
    """The number of splits of each group."""
    return rows.groupby(group)["split"].nunique()


def written(path: Path, rows: pd.DataFrame) -> str:
    rows.to_csv(path, index=False)
    return str(path)


def authors(dataset: Dataset, rows: pd.DataFrame) -> dict[str, set[str]]:
    """The authors of each split."""
    of_text = dict(zip(rows["text"], rows["author"], strict=True))
    return {split: {of_text[text] for text in texts.text} for split, texts in dataset.splits().items()}


@pytest.mark.parametrize("stratified", [True, False])
@pytest.mark.parametrize("seed", [0, 1])
def test_groups_stay_together_and_classes_keep_their_shares(
    monkeypatch: pytest.MonkeyPatch, stratified: bool, seed: int
) -> None:
    monkeypatch.setattr(group_split, "STRATIFIED_GROUPS", 10**6 if stratified else 0)
    rows = carved(frame(150 if stratified else 2000, 3000), seed)
    assert sides(rows).eq(1).all()
    shares = pd.crosstab(rows["split"], rows["label"], normalize="index")
    for split in CARVED:
        assert 0.08 < rows["split"].eq(split).mean() < 0.12
        assert (shares.loc[split] - shares.loc["train"]).abs().max() < (0.02 if stratified else 0.06)


def test_the_same_seed_gives_the_same_splits() -> None:
    one, same, other = (carved(frame(60, 600), seed)["split"].tolist() for seed in (3, 3, 4))
    assert one == same != other


def test_one_large_group_stays_in_training() -> None:
    rows = frame(40, 400).assign(author=lambda rows: [f"a{n}" if n % 2 else "all" for n in range(len(rows))])
    made = carved(rows)
    assert made.loc[made["group"] == "all", "split"].unique().tolist() == ["train"]
    assert made["split"].eq("test").mean() > 0.02


def test_a_class_of_few_groups_is_in_every_split_where_it_can_be() -> None:
    """Of many divisions the one with most classes in each split is taken."""
    rows = frame(60, 600)
    for number in range(9):
        rows.loc[len(rows)] = [f"rare {number}", "rare", f"rare author {number % 3}"]
    made = carved(rows)
    assert made.loc[made["label"] == "rare"].groupby("split").size().tolist() == [3, 3, 3]


def test_as_few_groups_as_splits() -> None:
    rows = frame(3, 90)
    assert sides(carved(rows)).tolist() == [1, 1, 1]
    assert carved(rows)["split"].nunique() == 3
    check_groups(rows.rename(columns={"author": "group"}).assign(split="train"), "author", 2)


def test_a_group_in_two_given_splits_is_named() -> None:
    rows = frame(4, 40).rename(columns={"author": "group"}).assign(split="train")
    check_groups(rows, "author", 0)
    rows.loc[rows.index[rows["group"] == "author 1"][0], "split"] = "test"
    with pytest.raises(
        DataError,
        match=r"^--group author: 'author 1' has rows in the splits (train and test|test and train); ",
    ):
        check_groups(rows, "author", 0)
    rows.loc[rows.index[rows["group"] == "author 2"][0], "split"] = "test"
    with pytest.raises(
        DataError, match=r"(train and test|test and train), and 1 other group, too; keep each"
    ):
        check_groups(rows, "author", 0)


def test_fewer_groups_than_splits_are_named() -> None:
    rows = frame(2, 40).rename(columns={"author": "group"}).assign(split="train")
    check_groups(rows, "author", 1)
    with pytest.raises(
        DataError,
        match=r"^--group author: the rows to split have 2 groups \('author \d', 'author \d'\), and 3 splits need one",
    ):
        check_groups(rows, "author", 2)


def test_a_file_is_split_by_its_groups(tmp_path: Path) -> None:
    rows = frame(80, 1000)
    rows.loc[:4, "author"] = ["", " ", None, "", ""]
    settings = DataSettings(path=written(tmp_path / "a.csv", rows), group="author", max_train_rows=300)
    dataset = load_dataset(settings, 0)
    of_split = authors(dataset, rows)
    assert not of_split["train"] & of_split["validation"]
    assert not (of_split["train"] | of_split["validation"]) & of_split["test"]
    assert dataset.dropped["no group"] == 5
    assert len(dataset.train) == 300
    assert dataset.groups == {split: len(names) for split, names in of_split.items()}
    # A part of the rows to search on is taken from each split alone.
    part = part_of(dataset.train.labels, dataset.validation.labels, 0.5, 0)
    assert (len(part.train), part.validation.max() < len(dataset.validation)) == (150, True)
    dataset.save(tmp_path / "data")
    summary = describe(Dataset.load(tmp_path / "data"))
    counts = ", ".join(f"{split} {count}" for split, count in dataset.groups.items())
    assert f"groups by author, each in one split: {counts}" in summary_lines(summary)


def test_only_what_is_missing_is_split_off(tmp_path: Path) -> None:
    rows = frame(60, 600)
    test = rows[rows["author"].isin({"author 1", "author 5", "author 9"})]
    rest = rows.drop(index=test.index)
    train, held = written(tmp_path / "a.csv", rest), written(tmp_path / "b.csv", test)
    dataset = load_dataset(DataSettings(path=train, test_path=held, group="author"), 0)
    of_split = authors(dataset, rows)
    assert of_split["test"] == set(test["author"])
    assert not of_split["train"] & of_split["validation"]
    held = written(tmp_path / "b.csv", test.assign(text=test["text"] + "!", author="author 2"))
    with pytest.raises(DataError, match="'author 2' has rows in the splits train and test"):
        load_dataset(DataSettings(path=train, test_path=held, group="author"), 0)


def test_a_split_column_may_not_cross_groups(tmp_path: Path) -> None:
    rows = frame(60, 600)
    number = rows["author"].str.split().str[1].astype(int)
    rows["split"] = np.select([number % 10 == 0, number % 10 == 1], ["test", "dev"], "train")
    path = written(tmp_path / "a.csv", rows)
    dataset = load_dataset(DataSettings(path=path, split_column="split", group="author"), 0)
    assert sum(dataset.groups.values()) == rows["author"].nunique()
    rows.loc[rows.index[rows["author"] == "author 7"][0], "split"] = "dev"
    path = written(tmp_path / "a.csv", rows)
    with pytest.raises(DataError, match="'author 7' has rows in the splits"):
        load_dataset(DataSettings(path=path, split_column="split", group="author"), 0)


@pytest.mark.parametrize("keep", [True, False])
def test_a_class_of_too_few_groups_is_left_out(tmp_path: Path, keep: bool) -> None:
    rows = frame(60, 600)
    for number in range(20):
        # Rows enough for every split, but of two authors.
        rows.loc[len(rows)] = [f"rare {number}", "rare", f"rare author {number % 2}"]
    path = written(tmp_path / "a.csv", rows)
    assert "rare" in load_dataset(DataSettings(path=path), 0).label_names
    dataset = load_dataset(DataSettings(path=path, group="author", keep_small_classes=keep), 0)
    assert dataset.left_out_classes == ({} if keep else {"rare": 20})
    assert ("rare" in dataset.label_names) == keep
    if keep:
        assert dataset.label_names.index("rare") in dataset.train.labels
    else:
        assert "classes left out (too few groups for every split): rare (20 rows)" in summary_lines(
            describe(dataset)
        )


def test_a_class_that_training_does_not_see_is_left_out(tmp_path: Path) -> None:
    """Even where small classes are kept: nothing could learn it."""
    rows = frame(30, 600).assign(label=lambda rows: rows["author"].str.replace("author", "by"))
    settings = DataSettings(path=written(tmp_path / "a.csv", rows), group="author", keep_small_classes=True)
    with pytest.raises(DataError, match="no class has the 3 training groups"):
        load_dataset(settings, 0)
    rows.loc[::2, "label"] = "any"
    dataset = load_dataset(settings.model_copy(update={"path": written(tmp_path / "b.csv", rows)}), 0)
    assert dataset.left_out_classes
    assert set(range(len(dataset.label_names))) == set(dataset.train.labels.tolist())


def test_a_group_of_copies_is_none(tmp_path: Path) -> None:
    texts = [f"text {number}" for number in range(30)]
    rows = [(text, "abc"[number % 3], author) for author in "xyz" for number, text in enumerate(texts)]
    path = tmp_path / "a.csv"
    pd.DataFrame(rows, columns=["text", "label", "author"]).to_csv(path, index=False)
    with pytest.raises(DataError, match=r"--group author: the rows to split have 1 group \('x'\)"):
        load_dataset(DataSettings(path=str(path), group="author", keep_small_classes=True), 0)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (
            {"group": "gone"},
            DataError,
            r"no column 'gone' \(--group\); columns present: 'text', 'label', 'author'",
        ),
        ({"group": "label", "label": "label"}, SettingsError, "--group 'label' name a column twice"),
        ({"group": "text", "text": "text"}, SettingsError, "--group 'text' name a column twice"),
        (
            {"group": "author", "split_column": "author"},
            SettingsError,
            "--group 'author' name a column twice",
        ),
        ({"group": "author", "split_by": "date"}, SettingsError, "which --group author would cross"),
        ({"group": "empty"}, DataError, "column 'empty' is empty in every row; name another with --group"),
        (
            {"group": "one"},
            DataError,
            r"--group one: the rows to split have 1 group \('x'\), and 3 splits need",
        ),
    ],
)
def test_groups_that_cannot_be(
    tmp_path: Path, settings: dict[str, Any], error: type[LorasweepError], message: str
) -> None:
    rows = frame(20, 200).assign(empty="", one="x")
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows.to_dict("records")))
    with pytest.raises(error, match=message):
        load_dataset(DataSettings(path=str(path), **settings), 0)

"""Texts labelled in memory: the frame for programs, and what the terminal reads and prints."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from tiny_adapters import LABELS, TEXTS, make_folder

from lorasweep.adapter import Adapter
from lorasweep.training.errors import DataError, ModelError, SettingsError
from lorasweep.training.files.tables import open_table
from lorasweep.training.inference.classifier import Classifier, load_classifier, predict, probabilities
from lorasweep.tuning.adapters.apply.predict import as_texts, predict_frame, print_predictions, read_inputs


@pytest.fixture(scope="module")
def classifier(tiny_base: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    folder = make_folder(tiny_base("bert"), tmp_path_factory.mktemp("a") / "a", text_columns=("news",))
    return load_classifier(folder, "cpu")


@pytest.fixture(scope="module")
def pair_classifier(tiny_base: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    folder = make_folder(
        tiny_base("bert"), tmp_path_factory.mktemp("b") / "b", text_columns=("title", "body")
    )
    return load_classifier(folder, "cpu")


def test_a_frame_holds_the_classifiers_predictions(classifier: Classifier) -> None:
    shares = probabilities(predict(classifier, TEXTS))
    frame = predict_frame(classifier, TEXTS, probabilities=True)
    assert frame.columns.tolist() == ["text", "label", "score", *(f"p_{label}" for label in LABELS)]
    assert frame["text"].tolist() == list(TEXTS)
    assert frame["label"].tolist() == [LABELS[best] for best in shares.argmax(axis=1)]
    np.testing.assert_array_equal(frame["score"], shares.max(axis=1))
    np.testing.assert_array_equal(frame.iloc[:, 3:], shares)
    assert predict_frame(classifier, TEXTS).equals(frame.iloc[:, :3])


def test_a_frame_of_no_text_and_of_odd_ones(classifier: Classifier) -> None:
    empty = predict_frame(classifier, [], probabilities=True)
    assert (len(empty), empty.shape[1]) == (0, 6)
    # Half a surrogate pair is no text that a DataFrame or a terminal can hold.
    assert predict_frame(classifier, ["film \ud83d star", ""])["text"].tolist() == ["film \ufffd star", ""]


def test_texts_of_a_table_and_missing_ones() -> None:
    column = pd.Series(["film", None, float("nan"), pd.NA, 5])
    assert as_texts(column) == ["film", "", "", "", "5"]
    assert as_texts(np.array(["a", "b"])) == ["a", "b"]
    assert as_texts([5.0]) == ["5"], "as in a file"
    with pytest.raises(DataError, match=r"texts, row 2: column 'text' holds \['a'\], not one text"):
        as_texts(["film", ["a"]])
    with pytest.raises(SettingsError, match="a single text is given; put it into a list"):
        as_texts("film")


def test_a_frame_of_pairs(classifier: Classifier, pair_classifier: Classifier) -> None:
    frame = predict_frame(pair_classifier, TEXTS, TEXTS[::-1])
    assert frame.columns.tolist() == ["text", "pair", "label", "score"]
    assert frame["pair"].tolist() == list(TEXTS[::-1])
    shares = probabilities(predict(pair_classifier, TEXTS, TEXTS[::-1]))
    np.testing.assert_array_equal(frame["score"], shares.max(axis=1))
    with pytest.raises(ModelError, match="reads one text a row"):
        predict_frame(classifier, TEXTS, TEXTS)


def test_what_a_label_cannot_mean_is_said(
    classifier: Classifier, pair_classifier: Classifier, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An empty text, and one text where the adapter was trained on two."""
    one, two = Adapter(classifier, tmp_path), Adapter(pair_classifier, tmp_path)
    one.predict(list(TEXTS))
    two.predict(["a", "", "c"], ["", "b", "d"])
    assert caplog.messages == []
    one.predict(["a", " ", ""])
    two.predict([""], [""])
    two.predict(["a"])
    assert caplog.messages == [
        "2 of 3 texts are empty: their labels mean nothing",
        "1 of 1 text is empty: its label means nothing",
        "the adapter reads title + body, and one text is given: the other is empty",
    ]


def test_rows_of_a_file_stay_in_line(
    classifier: Classifier, pair_classifier: Classifier, tmp_path: Path
) -> None:
    path = tmp_path / "a.jsonl"
    rows = [{"news": "one", "more": "x"}, {"news": None, "more": "y"}, {"news": " three "}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_inputs(classifier, [], open_table(path)) == (["one", "", "three"], None)
    two = read_inputs(pair_classifier, [], open_table(path), ["news", "more"])
    assert two == (["one", "y", "three"], ["x", "", ""])
    with pytest.raises(DataError, match="no column 'gone'"):
        read_inputs(classifier, [], open_table(path), ["gone"])
    with pytest.raises(SettingsError, match="texts or --file, not both"):
        read_inputs(classifier, ["text"], open_table(path))
    path.write_text('{"news": ""}\n{"news": null}\n')
    with pytest.raises(DataError, match=r"a\.jsonl: 'news' is empty in every row"):
        read_inputs(classifier, [], open_table(path))


def test_a_text_file_holds_a_text_a_line(
    classifier: Classifier, pair_classifier: Classifier, tmp_path: Path
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffone\r\n\n  two \u2028 x\n".encode())
    for model in (classifier, pair_classifier):
        texts, pairs = read_inputs(model, [], open_table(path))
        assert texts == ["one", "two \u2028 x"]
        assert not pairs


@pytest.mark.parametrize("texts", [["-"], []])
def test_standard_input_is_read_like_a_text_file(
    classifier: Classifier, monkeypatch: pytest.MonkeyPatch, texts: list[str]
) -> None:
    def give(content: bytes) -> None:
        stdin = SimpleNamespace(buffer=io.BytesIO(content), isatty=lambda: False)
        monkeypatch.setattr("sys.stdin", stdin)

    give("\ufeffone\x85\u2028\x0b\x0cstill one\r\n\n two \n".encode())
    assert read_inputs(classifier, texts, None) == (["one\x85\u2028\x0b\x0cstill one", "two"], None)
    give(b"")
    assert read_inputs(classifier, texts, None) == ([], None)
    give("one\né\n".encode("latin-1"))
    with pytest.raises(
        DataError, match=r"^standard input, line 2: not utf-8 text \(byte 0xe9\); .*give it as UTF-8$"
    ):
        read_inputs(classifier, texts, None)


def test_without_texts_and_without_standard_input(
    classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", None)  # as Python sets it where the shell has closed it
    with pytest.raises(SettingsError, match="no texts; give them as arguments"):
        read_inputs(classifier, [], None)
    assert read_inputs(classifier, ["-"], None) == ([], None)


def test_what_is_printed(classifier: Classifier) -> None:
    frame = predict_frame(classifier, ["film\n\tstar", "[bank]"])
    console = Console(width=80, file=io.StringIO())
    print_predictions(frame, console)
    assert isinstance(console.file, io.StringIO)
    head, first, second = console.file.getvalue().splitlines()
    assert head.split() == ["label", "score", "text"]
    assert first.rstrip().endswith(f"{frame['score'][0]:.1%}  film star")
    assert second.rstrip().endswith("[bank]")
    assert frame["label"][0] in first

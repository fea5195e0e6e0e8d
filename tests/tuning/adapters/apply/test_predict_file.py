"""A file labelled: the classifier's own predictions beside the file's own columns, in its own order."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from tiny_adapters import LABELS, TEXTS, make_folder

from lorasweep.training.errors import DataError, ExportError, LorasweepError, ModelError, SettingsError
from lorasweep.training.files.tables import open_table
from lorasweep.training.inference.classifier import Classifier, load_classifier, predict, probabilities
from lorasweep.tuning.adapters.apply.predict_file import FilePredictions, added_columns
from lorasweep.tuning.adapters.apply.predict_file import predict_file as predict_rows

# Of different lengths, out of order, and one of them empty.
ROWS = [" ".join(TEXTS[: 1 + number % 4]) + f" {TEXTS[number % 3]}" for number in range(11)]
ROWS[4] = " "


@pytest.fixture(scope="module")
def classifier(tiny_base: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    folder = make_folder(tiny_base("bert"), tmp_path_factory.mktemp("a") / "a", text_columns=("news",))
    return load_classifier(folder, "cpu")


def predict_file(
    classifier: Classifier, file: Path, out: Path, *, columns: tuple[str, ...] = (), **options: Any
) -> FilePredictions:
    return predict_rows(classifier, open_table(file, columns), out, **options)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        return list(pq.read_table(path).to_pylist())
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    with path.open(newline="") as file:
        rows = csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ",")
        return [{k: (None if v == "" else v) for k, v in row.items()} for row in rows]


@pytest.mark.parametrize("chunk_rows", [2, 3, 100])
@pytest.mark.parametrize("name", ["out.csv", "out.tsv", "out.jsonl", "out.parquet"])
def test_predictions_are_the_classifiers_whatever_the_chunks(
    classifier: Classifier, tmp_path: Path, name: str, chunk_rows: int
) -> None:
    file = write(tmp_path / "in.jsonl", [{"id": i, "news": text} for i, text in enumerate(ROWS)])
    found = predict_file(classifier, file, tmp_path / name, all_probabilities=True, chunk_rows=chunk_rows)
    logits = predict(classifier, ROWS)
    assert np.ptp(logits, axis=0).min() > 0.1  # rows that were swapped would show
    expected = probabilities(logits)
    rows = read(tmp_path / name)
    assert [int(row["id"]) for row in rows] == list(range(len(ROWS)))
    assert list(rows[0]) == ["id", "news", "label", "score", *(f"p_{label}" for label in LABELS)]
    for number, row in enumerate(rows):
        if number == 4:
            assert [row[key] for key in list(row)[2:]] == [None] * 5
            continue
        assert row["label"] == LABELS[expected[number].argmax()]
        assert float(row["score"]) == pytest.approx(expected[number].max(), abs=1e-5)
        spread = [float(row[f"p_{label}"]) for label in LABELS]
        assert spread == pytest.approx(expected[number].tolist(), abs=1e-5)
    assert (found.rows, found.empty) == (11, 1)
    counts = [row["label"] for row in rows if row["label"]]
    assert found.labels == {label: counts.count(label) for label in set(counts)}
    assert f"{tmp_path / name}: 11 rows" in found.text()


def test_without_probabilities_and_with_names_that_collide(classifier: Classifier, tmp_path: Path) -> None:
    rows = [{"label": "mine", "score": 7, "predicted_score": 8, "news": "film"}]
    out = tmp_path / "out.jsonl"
    found = predict_file(classifier, write(tmp_path / "in.jsonl", rows), out)
    assert found.columns == ("predicted_label", "predicted_predicted_score")
    (row,) = read(out)
    assert {key: row[key] for key in rows[0]} == rows[0]
    assert row["predicted_label"] in LABELS
    assert len(row) == 6


def test_names_of_added_columns() -> None:
    names = [name for name, _ in added_columns(("a", "label", "p_x"), ("x", "y", "x y"), True)]
    assert names == ["predicted_label", "score", "predicted_p_x", "p_y", "p_x y"]


def test_a_text_of_any_kind_survives_csv(classifier: Classifier, tmp_path: Path) -> None:
    texts = ['<p class="x">film, star</p>', "film\nstar", "film\r\nstar", "film\rstar", "x"]
    file = tmp_path / "in.csv"
    with file.open("w", newline="") as handle:
        csv.writer(handle, quoting=csv.QUOTE_ALL).writerows([["news", "n"], *([text, "1"] for text in texts)])
    predict_file(classifier, file, tmp_path / "out.csv", chunk_rows=2)
    rows = read(tmp_path / "out.csv")
    assert [row["news"] for row in rows] == texts
    assert [row["label"] for row in rows] == [LABELS[i] for i in predict(classifier, texts).argmax(axis=1)]


def test_a_text_file_and_columns_by_name(classifier: Classifier, tmp_path: Path) -> None:
    lines = tmp_path / "in.txt"
    lines.write_text("film star\n\nbank shares\n")
    predict_file(classifier, lines, tmp_path / "out.csv")
    assert [row["text"] for row in read(tmp_path / "out.csv")] == ["film star", "bank shares"]
    bare = tmp_path / "in.tsv"
    bare.write_text("1\tfilm star\n2\tbank shares\n")
    predict_file(classifier, bare, tmp_path / "out.jsonl", text=("b",), columns=("a", "b"))
    assert [(row["a"], row["b"]) for row in read(tmp_path / "out.jsonl")] == [
        ("1", "film star"),
        ("2", "bank shares"),
    ]


def test_pairs(tiny_base: Callable[[str], Path], tmp_path: Path, classifier: Classifier) -> None:
    folder = make_folder(tiny_base("bert"), tmp_path / "pairs", text_columns=("title", "body"))
    pairs = load_classifier(folder, "cpu")
    rows = [{"title": text, "body": other} for text, other in zip(ROWS, ROWS[::-1], strict=True)]
    predict_file(pairs, write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl", chunk_rows=4)
    titles = [row["title"].strip() or row["body"] for row in rows]
    bodies = [row["body"] if row["title"].strip() else "" for row in rows]
    scores = probabilities(predict(pairs, titles, bodies)).max(axis=1)
    found = [row["score"] for row in read(tmp_path / "out.jsonl")]
    assert found == pytest.approx(scores.tolist(), abs=1e-5)
    with pytest.raises(ModelError, match="reads one text a row"):
        predict_file(classifier, tmp_path / "in.jsonl", tmp_path / "new.csv", text=("title", "body"))


def refused(tmp_path: Path, *arguments: Any, **options: Any) -> LorasweepError:
    before = set(tmp_path.iterdir())
    with pytest.raises(LorasweepError) as caught:
        predict_file(*arguments, **options)
    assert "\n" not in str(caught.value)
    assert set(tmp_path.iterdir()) == before
    return caught.value


def test_nothing_is_written_when_it_fails(classifier: Classifier, tmp_path: Path) -> None:
    good = write(tmp_path / "in.jsonl", [{"news": "film"}, {"news": "bank"}])
    empty = write(tmp_path / "empty.jsonl", [{"news": ""}, {"news": None}])
    odd = write(tmp_path / "odd.jsonl", [{"news": "film"}, {"news": ["film"]}])
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"news": "film"}\n{"news": \n')
    out = tmp_path / "out.csv"
    assert isinstance(refused(tmp_path, classifier, tmp_path / "gone.csv", out), DataError)
    assert "line 2" in str(refused(tmp_path, classifier, broken, out))
    assert "empty in every row" in str(refused(tmp_path, classifier, empty, out))
    assert "from row 2 on, row 1" in str(refused(tmp_path, classifier, odd, out, chunk_rows=1))
    assert "no column 'gone'" in str(refused(tmp_path, classifier, good, out, text=("gone",)))
    assert isinstance(refused(tmp_path, classifier, good, tmp_path / "out.xls"), SettingsError)
    assert isinstance(refused(tmp_path, classifier, good, good), ExportError)
    assert good.read_text().count("\n") == 2


def test_progress_is_shown_on_a_terminal_only(classifier: Classifier, tmp_path: Path) -> None:
    file = write(tmp_path / "in.jsonl", [{"news": text} for text in ROWS])
    for terminal in (True, False):
        shown = io.StringIO()
        console = Console(file=shown, force_terminal=terminal, width=80)
        predict_file(classifier, file, tmp_path / f"{terminal}.csv", console=console, chunk_rows=4)
        assert ("11/11" in shown.getvalue()) == terminal
        assert bool(shown.getvalue()) == terminal

"""An adapter scored on a file: figures known beforehand, rows left out, and what a person and a program see."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from sklearn.metrics import confusion_matrix, log_loss, precision_recall_fscore_support
from tiny_adapters import LABELS, TEXTS, make_folder
from typer.testing import CliRunner

from lorasweep.command_line.main import app
from lorasweep.training.errors import DataError, LorasweepError, ModelError, SettingsError
from lorasweep.training.inference.classifier import Classifier, load_classifier, predict, probabilities
from lorasweep.training.scores.calibration import expected_calibration_error
from lorasweep.tuning.adapters.apply.evaluate import (
    FileEvaluation,
    evaluate_file,
    evaluation_entries,
)
from lorasweep.tuning.adapters.apply.evaluation_text import evaluation_text

ROWS = [f"{text} {other}" for text in TEXTS for other in TEXTS]


@pytest.fixture(scope="module")
def folder(tiny_base: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tiny_base("bert"), tmp_path_factory.mktemp("adapter") / "adapter")


@pytest.fixture(scope="module")
def classifier(folder: Path) -> Classifier:
    return load_classifier(folder, "cpu")


@pytest.fixture(scope="module")
def answers(classifier: Classifier) -> list[str]:
    """What the classifier predicts for `ROWS`; more than one label."""
    found = [LABELS[i] for i in predict(classifier, ROWS).argmax(axis=1)]
    assert len(set(found)) > 1
    return found


def write(path: Path, texts: list[str], labels: list[str | None], **more: object) -> Path:
    lines = [{"text": t, "label": n, **more} for t, n in zip(texts, labels, strict=True)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def shown(found: FileEvaluation, width: int = 80) -> str:
    console = Console(width=width, record=True, highlight=False, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(evaluation_text(found))
    return console.export_text()


def following(label: str) -> str:
    return LABELS[(LABELS.index(label) + 1) % len(LABELS)]


def test_scores_are_those_of_the_rows(classifier: Classifier, answers: list[str], tmp_path: Path) -> None:
    truth = [following(label) if row % 4 == 0 else label for row, label in enumerate(answers)]
    found = evaluate_file(classifier, write(tmp_path / "rows.jsonl", ROWS, [*truth]), adapter=Path("a"))
    assert (found.rows, found.dropped, found.unknown_labels) == (16, {}, {})
    assert found.scores.accuracy == 0.75
    shares = probabilities(predict(classifier, ROWS))
    index = np.array([LABELS.index(label) for label in truth])
    assert found.scores.loss == pytest.approx(log_loss(index, shares, labels=range(3)), rel=1e-5)
    assert found.calibration_error == pytest.approx(expected_calibration_error(shares, index))
    expected = confusion_matrix(truth, answers, labels=LABELS)
    np.testing.assert_array_equal(found.confusion, expected)
    assert not np.array_equal(expected, expected.T)  # true and predicted cannot be taken for each other
    precision, recall, f1, rows = precision_recall_fscore_support(
        truth, answers, labels=LABELS, zero_division=0
    )
    for number, entry in enumerate(found.classes):
        assert entry.label == LABELS[number]
        assert (entry.precision, entry.recall, entry.f1, entry.rows) == pytest.approx(
            (precision[number], recall[number], f1[number], rows[number])
        )
    assert sum(entry.rows for entry in found.bins) == 16
    assert found.confusions()[0][2] == max(int(expected[i, j]) for i in range(3) for j in range(3) if i != j)


def test_rows_that_cannot_be_scored_are_named_and_counted(
    classifier: Classifier, answers: list[str], tmp_path: Path
) -> None:
    texts = [*ROWS, "film", "", "markets", "bank", "bank", "city"]
    labels = [*answers, "SPORTS", LABELS[0], None, "SPORTS", "[odd]", " "]
    path = write(tmp_path / "rows.json", texts, labels)
    with path.open("a") as file:
        file.write("not json\n")
    found = evaluate_file(classifier, path, adapter=Path("a"))
    assert found.rows == len(ROWS)
    assert found.scores.accuracy == 1
    assert found.dropped == {"not a JSON object": 1, "no text": 1, "no label": 2}
    assert found.unknown_labels == {"SPORTS": 2, "[odd]": 1}
    text = " ".join(shown(found).split())
    assert "3 rows whose label the adapter does not know: 'SPORTS' 2, '[odd]' 1" in text
    assert "1 row, no text" in text


def test_a_frame_is_scored_like_its_file(classifier: Classifier, answers: list[str], tmp_path: Path) -> None:
    texts, labels = (
        [*ROWS, "film", "bank", None],
        [following(answers[0]), *answers[1:], "SPORTS", None, LABELS[0]],
    )
    frame = pd.DataFrame({"text": texts, "label": labels}, index=range(7, 26))
    frame.to_parquet(tmp_path / "rows.parquet")
    found = evaluate_file(classifier, frame, adapter=Path("a"))
    assert (found.data, found.rows, found.scores.accuracy) == ("DataFrame", 16, 15 / 16)
    entries = evaluation_entries(evaluate_file(classifier, tmp_path / "rows.parquet", adapter=Path("a")))
    assert evaluation_entries(found) | {"data": entries["data"]} == entries
    with pytest.raises(DataError, match=r"^DataFrame: no column 'gone'"):
        evaluate_file(classifier, frame, adapter=Path("a"), label="gone")
    with pytest.raises(SettingsError, match="columns name those of a file"):
        evaluate_file(classifier, frame, adapter=Path("a"), columns=("text", "label"))
    with pytest.raises(SettingsError, match="delimiter ';': a DataFrame has none"):
        evaluate_file(classifier, frame, adapter=Path("a"), delimiter=";")
    with pytest.raises(SettingsError, match="encoding 'cp1252': a DataFrame has none"):
        evaluate_file(classifier, frame, adapter=Path("a"), encoding="cp1252")
    with pytest.raises(SettingsError, match="sheet 'New': a DataFrame has none"):
        evaluate_file(classifier, frame, adapter=Path("a"), sheet="New")


def test_of_a_file_of_splits_the_test_rows_are_scored(classifier: Classifier, tmp_path: Path) -> None:
    rows = [{"text": "film", "label": LABELS[0]}] * 3
    path = tmp_path / "rows.json"
    path.write_text(json.dumps({"train": rows, "test": rows[:2]}))
    found = evaluate_file(classifier, path, adapter=Path("a"))
    assert (found.data, found.rows) == (f"{path}, test", 2)
    path.write_text(json.dumps({"train": rows}))
    with pytest.raises(DataError, match="holds the splits train, and no test rows to score"):
        evaluate_file(classifier, path, adapter=Path("a"))


def test_no_label_that_the_adapter_knows(classifier: Classifier, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", ["film", "bank"], ["SPORTS", "Business"])
    with pytest.raises(DataError, match=r"no label that my-adapter knows: it holds 'SPORTS'.*'business'"):
        evaluate_file(classifier, path, adapter=Path("my-adapter"))
    path = write(tmp_path / "more.jsonl", ["film", ""], ["", "business"])
    with pytest.raises(DataError, match="no row has both a text"):
        evaluate_file(classifier, path, adapter=Path("my-adapter"))


def test_columns_by_name_and_without_a_header(
    classifier: Classifier, answers: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("".join(f'{label},"{text}"\n' for text, label in zip(ROWS, answers, strict=True)))
    options = {"columns": ("kind", "news"), "text": ("news",), "label": "kind", "adapter": Path("a")}
    found = evaluate_file(classifier, path, **options)  # type: ignore[arg-type]
    assert (found.rows, found.scores.accuracy) == (16, 1)
    assert (found.text_columns, found.label_column) == (("news",), "kind")
    with pytest.raises(SettingsError, match="name a column twice"):
        evaluate_file(classifier, path, **(options | {"label": "news"}))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no column 'gone'"):
        evaluate_file(classifier, path, **(options | {"label": "gone"}))  # type: ignore[arg-type]


def test_numbers_as_labels_and_another_delimiter(tiny_base: Callable[[str], Path], tmp_path: Path) -> None:
    """An adapter of an earlier version may know "2.0" where files are now read as "2", and the other way round."""
    folder = make_folder(tiny_base("bert"), tmp_path / "numbers", labels=("10", "2.0", "30"))
    numbers = load_classifier(folder, "cpu")
    path = tmp_path / "rows.csv"
    path.write_text("text;label\nfilm star;2\nbank, shares;10.0\ncity;30\nbudget;4\n")
    found = evaluate_file(numbers, path, adapter=Path("a"), delimiter=";")
    assert (found.rows, found.unknown_labels) == (3, {"4": 1})
    assert [entry.rows for entry in found.classes] == [1, 1, 1]


@pytest.mark.parametrize("verb", [["predict", "--file"], ["evaluate", "--data"]])
def test_the_commands_say_the_encoding_or_take_it(
    folder: Path,
    verb: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(f"label,text\n{LABELS[0]},film über alles\n{LABELS[2]},bank für Öl\n".encode("cp1252"))
    options = ["--adapter", str(folder), "--json"]
    app([*verb, str(path), *options], standalone_mode=False)
    printed = capsys.readouterr().out
    assert "film über alles" in printed or json.loads(printed)["rows"] == 2
    assert "rows.csv is read as cp1252" in caplog.text
    caplog.clear()
    app([*verb, str(path), *options, "--encoding", "cp1251"], standalone_mode=False)
    assert "ьber" in (printed := capsys.readouterr().out) or json.loads(printed)["rows"] == 2
    assert not caplog.records


def test_an_encoding_is_that_of_a_file(folder: Path) -> None:
    with pytest.raises(SettingsError, match="--encoding goes with --file"):
        app(["predict", "a text", "--encoding", "cp1252", "--adapter", str(folder)], standalone_mode=False)


@pytest.mark.parametrize("verb", [["predict", "--file"], ["evaluate", "--label", "kind", "--data"]])
def test_the_commands_take_a_sheet(
    folder: Path, verb: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pd.ExcelWriter(tmp_path / "rows.xlsx") as book:
        for sheet, text in (("Old", "no news"), ("New", "film star")):
            pd.DataFrame({"kind": [LABELS[0]], "news": [text]}).to_excel(book, sheet_name=sheet, index=False)
    options = [str(tmp_path / "rows.xlsx"), "--text", "news", "--adapter", str(folder), "--json"]
    app([*verb, *options, "--sheet", "New"], standalone_mode=False)
    printed = capsys.readouterr().out
    assert "film star" in printed or json.loads(printed)["rows"] == 1
    with pytest.raises(DataError, match=r"has the sheets 'Old', 'New'.*by --sheet"):
        CliRunner().invoke(app, [*verb, *options], catch_exceptions=False)
    with pytest.raises(SettingsError, match="--sheet goes with --file"):
        app(["predict", "a text", "--sheet", "New", "--adapter", str(folder)], standalone_mode=False)


@pytest.mark.parametrize("verb", [["predict", "--file"], ["evaluate", "--label", "kind", "--data"]])
def test_the_commands_take_another_delimiter_and_a_name_with_a_comma(
    folder: Path, verb: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(f"kind;news, in short\n{LABELS[0]};film, star\n{LABELS[2]};bank\n")
    options = ["--delimiter", "semicolon", "--text", '"news, in short"', "--adapter", str(folder), "--json"]
    app([*verb, str(path), *options], standalone_mode=False)
    printed = capsys.readouterr().out
    assert "film, star" in printed or json.loads(printed)["rows"] == 2
    with pytest.raises(DataError, match="add --delimiter ';'"):
        CliRunner().invoke(app, [*verb, str(path), *options[2:]], catch_exceptions=False)


def test_a_pair_is_read_as_in_training(tiny_base: Callable[[str], Path], tmp_path: Path) -> None:
    folder = make_folder(tiny_base("bert"), tmp_path / "pairs", text_columns=("title", "body"))
    classifier = load_classifier(folder, "cpu")
    titles, bodies = [*ROWS, ""], [*ROWS[::-1], "film star"]
    logits = predict(classifier, [*ROWS, "film star"], [*ROWS[::-1], ""])
    path = tmp_path / "rows.jsonl"
    lines = [
        {"body": body, "title": title, "label": LABELS[best]}
        for title, body, best in zip(titles, bodies, logits.argmax(axis=1), strict=True)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = evaluate_file(classifier, path, adapter=folder)
    assert found.scores.accuracy == 1
    assert found.scores.loss == pytest.approx(
        float(-np.log(probabilities(logits).max(axis=1)).mean()), rel=1e-5
    )
    one = load_classifier(make_folder(tiny_base("bert"), tmp_path / "one", text_columns=("title",)), "cpu")
    with pytest.raises(ModelError, match="reads one text a row"):
        evaluate_file(one, path, adapter=folder, text=("title", "body"))


@pytest.mark.parametrize("name", ["gone.csv", "rows.txt", "rows.docx"])
def test_what_is_no_table(classifier: Classifier, tmp_path: Path, name: str) -> None:
    if name != "gone.csv":
        (tmp_path / name).write_text("film\n")
    with pytest.raises(LorasweepError) as caught:
        evaluate_file(classifier, tmp_path / name, adapter=Path("a"))
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


def test_everything_is_in_the_json(classifier: Classifier, answers: list[str], tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [*ROWS, "film"], [*answers, "SPORTS"])
    found = evaluate_file(classifier, path, adapter=Path("a"))
    entries = json.loads(json.dumps(evaluation_entries(found), allow_nan=False))
    assert entries["data"] == str(path)
    assert (entries["rows"], entries["accuracy"], entries["macro_f1"]) == (16, 1, 1)
    assert entries["loss"] == found.scores.loss
    assert entries["calibration_error"] == found.calibration_error
    assert np.trace(entries["confusion"]) == 16
    assert entries["label_names"] == list(LABELS)
    assert [entry["label"] for entry in entries["classes"]] == list(LABELS)
    assert len(entries["confidence_bins"]) == 15
    assert entries["unknown_labels"] == {"SPORTS": 1}


def test_a_person_reads_it_in_80_columns(classifier: Classifier, answers: list[str], tmp_path: Path) -> None:
    truth = [following(label) if row == 0 else label for row, label in enumerate(answers)]
    found = evaluate_file(classifier, write(tmp_path / "rows.jsonl", ROWS, [*truth]), adapter=Path("a"))
    text = shown(found)
    assert re.search(r"accuracy +93\.8%", text)
    assert "arts & <film>" in text  # a name is no markup
    assert "true ↓" in text
    assert max(map(len, text.splitlines())) <= 80


def test_many_classes_show_their_most_frequent_confusions(
    tiny_base: Callable[[str], Path], tmp_path: Path
) -> None:
    labels = tuple(f"[kind {number}] {'of a very long name' * 3}" for number in range(12))
    classifier = load_classifier(make_folder(tiny_base("bert"), tmp_path / "a", labels=labels), "cpu")
    best = predict(classifier, ROWS).argmax(axis=1).tolist()
    other = 11 if best[0] != 11 else 10
    texts = [ROWS[0]] * 30 + ROWS
    truth = [labels[other]] * 30 + [labels[number] for number in best]
    text = shown(
        evaluate_file(classifier, write(tmp_path / "rows.jsonl", texts, [*truth]), adapter=Path("a"))
    )
    assert "true ↓" not in text
    (first,) = re.findall(r"most confused: true.*?\n(.*)", text)
    assert re.search(rf"^\[kind {other}\].* → \[kind {best[0]}\].* 30 *$", first)
    assert max(map(len, text.splitlines())) <= 80

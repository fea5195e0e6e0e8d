"""A classifier of several labels a text: what it predicts in memory and into files, and how it is scored and served."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from sklearn.metrics import average_precision_score, f1_score
from tiny_adapters import LABELS, TEXTS, make_folder

from lorasweep.training.errors import LorasweepError, ModelError
from lorasweep.training.files.tables import open_table
from lorasweep.training.inference.classifier import Classifier, load_classifier, predict, probabilities
from lorasweep.tuning.adapters.apply.evaluate import evaluate_file, evaluation_entries
from lorasweep.tuning.adapters.apply.evaluation_text import evaluation_text
from lorasweep.tuning.adapters.apply.predict import predict_frame, print_predictions
from lorasweep.tuning.adapters.apply.predict_file import predict_file

ROWS = [f"{one} {other}" for one in TEXTS for other in TEXTS]


def set_folder(base: Path, folder: Path, **own: Any) -> Path:
    """An adapter of several labels, whose thresholds lie amid its probabilities."""
    make_folder(base, folder, text_columns=("news",))
    entries = json.loads((folder / "config.json").read_text())
    entries["problem_type"] = "multi_label_classification"
    entries["lorasweep"] |= {"label_separator": "|"} | own
    (folder / "config.json").write_text(json.dumps(entries))
    return folder


@pytest.fixture(scope="module")
def base(tiny_base: Callable[[str], Path]) -> Path:
    return tiny_base("bert")


@pytest.fixture(scope="module")
def folder(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("sets")
    plain = load_classifier(set_folder(base, place / "plain"), "cpu")
    middle = np.median(probabilities(predict(plain, ROWS), multi_label=True), axis=0)
    # One has the usual threshold, and is never given.
    return set_folder(
        base, place / "a", thresholds={LABELS[0]: middle[0], LABELS[1]: middle[1], LABELS[2]: 0.999}
    )


@pytest.fixture(scope="module")
def classifier(folder: Path) -> Classifier:
    return load_classifier(folder, "cpu")


@pytest.fixture(scope="module")
def expected(classifier: Classifier) -> list[list[str]]:
    """The labels of each of `ROWS`, the most probable first: some rows have both, some none."""
    shares = 1 / (1 + np.exp(-predict(classifier, ROWS).astype(np.float64)))
    found = [
        sorted(
            (name for number, name in enumerate(LABELS) if row[number] > classifier.thresholds[name]),
            key=lambda name, row=row: -row[LABELS.index(name)],
        )
        for row in shares
    ]
    assert {len(labels) for labels in found} == {0, 1, 2}
    return found


def test_a_frame_has_lists(classifier: Classifier, expected: list[list[str]]) -> None:
    found = predict_frame(classifier, ROWS, probabilities=True)
    assert found["label"].tolist() == expected
    shares = found[[f"p_{name}" for name in LABELS]].to_numpy()
    assert np.abs(shares.sum(axis=1) - 1).max() > 0.1
    for labels, scores, row in zip(found["label"], found["score"], shares, strict=True):
        assert scores == [row[LABELS.index(name)] for name in labels]
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    print_predictions(found, console)
    text = console.export_text()
    assert all(f"{', '.join(labels) or '-'}  " in text for labels in expected)


@pytest.mark.parametrize("name", ["out.csv", "out.tsv", "out.jsonl", "out.parquet"])
def test_a_file_has_lists_or_fields_with_the_separator(
    classifier: Classifier, expected: list[list[str]], tmp_path: Path, name: str
) -> None:
    pd.DataFrame({"news": [*ROWS, ""]}).to_json(tmp_path / "in.jsonl", orient="records", lines=True)
    written = predict_file(
        classifier, open_table(tmp_path / "in.jsonl"), tmp_path / name, all_probabilities=True
    )
    assert (written.rows, written.empty) == (17, 1)
    assert written.labels == {
        label: sum(label in labels for labels in expected)
        for label in sorted(LABELS[:2], key=lambda label: -sum(label in labels for labels in expected))
    }
    if name.endswith(("csv", "tsv")):
        with (tmp_path / name).open(newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t" if name.endswith("tsv") else ","))
        assert [row["label"] for row in rows] == ["|".join(labels) for labels in [*expected, []]]
        scores = [[float(part) for part in row["score"].split("|") if part] for row in rows[:-1]]
    else:
        lines = (tmp_path / name).read_text().splitlines() if name.endswith("jsonl") else []
        rows = [json.loads(line) for line in lines] or pq.read_table(tmp_path / name).to_pylist()
        assert [row["label"] for row in rows] == [*expected, None]
        scores = [row["score"] for row in rows[:-1]]
    for labels, values, row in zip(expected, scores, rows, strict=False):
        assert values == pytest.approx([float(row[f"p_{label}"]) for label in labels], rel=1e-5)


def test_labels_with_the_separator_in_them_are_written_as_lists(base: Path, tmp_path: Path) -> None:
    folder = set_folder(base, tmp_path / "a", label_separator="&", thresholds=dict.fromkeys(LABELS, 0.0))
    pd.DataFrame({"news": ROWS}).to_csv(tmp_path / "in.csv", index=False)
    predict_file(load_classifier(folder, "cpu"), open_table(tmp_path / "in.csv"), tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="") as file:
        assert sorted(json.loads(next(csv.DictReader(file))["label"])) == sorted(LABELS)


def truth_of(expected: list[list[str]]) -> list[list[str]]:
    """The predictions with some mistakes."""
    return [["health"] if row % 5 == 0 else labels for row, labels in enumerate(expected)]


@pytest.fixture(scope="module")
def frames(expected: list[list[str]]) -> dict[str, tuple[pd.DataFrame, dict[str, Any]]]:
    """The same labels in each form, with the arguments that read it."""
    truth = truth_of(expected)
    frame = pd.DataFrame({"news": ROWS, "kind": truth})
    flags = pd.DataFrame({name: [int(name in labels) for labels in truth] for name in LABELS})
    return {
        "lists": (frame, {"label": "kind"}),
        "separated": (frame.assign(kind=frame["kind"].map("|".join)), {"label": "kind"}),
        "other separator": (
            frame.assign(kind=frame["kind"].map(" / ".join)),
            {"label": "kind", "label_separator": "/"},
        ),
        "flags": (frame[["news"]].join(flags), {"label": LABELS}),
        "flags found by name": (frame[["news"]].join(flags), {}),
    }


@pytest.mark.parametrize("form", ["lists", "separated", "other separator", "flags", "flags found by name"])
def test_scores_are_those_of_the_rows(
    classifier: Classifier,
    expected: list[list[str]],
    frames: dict[str, tuple[pd.DataFrame, dict[str, Any]]],
    form: str,
) -> None:
    frame, options = frames[form]
    found = evaluate_file(classifier, frame, adapter=Path("a"), **options)
    truth, given = (
        np.array([[name in labels for name in LABELS] for labels in sets])
        for sets in (truth_of(expected), expected)
    )
    assert found.rows == 16
    assert found.scores.more["micro_f1"] == pytest.approx(f1_score(truth, given, average="micro"))
    assert found.scores.accuracy == pytest.approx((truth == given).all(axis=1).mean())
    shares = probabilities(predict(classifier, ROWS), multi_label=True)
    present = [average_precision_score(truth[:, n], shares[:, n]) for n in range(3)]
    assert found.scores.more["average_precision"] == pytest.approx(np.mean(present))
    for number, entry in enumerate(found.classes):
        assert entry.f1 == pytest.approx(f1_score(truth[:, number], given[:, number], zero_division=0))
        assert entry.rows == truth[:, number].sum()
    assert found.confusion.tolist() == (truth.T.astype(int) @ given.astype(int)).tolist()
    assert 0 < found.calibration_error < 1
    entries = json.loads(json.dumps(evaluation_entries(found)))
    assert entries["thresholds"] == dict(classifier.thresholds)
    assert entries["hamming_loss"] == pytest.approx((truth != given).mean())


def test_the_report_shows_labels_and_thresholds(
    classifier: Classifier, frames: dict[str, tuple[pd.DataFrame, dict[str, Any]]]
) -> None:
    frame, options = frames["lists"]
    frame = pd.concat(
        [frame, pd.DataFrame({"news": ["new", "", "city"], "kind": [["sports"], ["health"], None]})]
    )
    found = evaluate_file(classifier, frame, adapter=Path("a"), **options)
    assert (found.rows, found.dropped, found.unknown_labels) == (
        17,
        {"no text": 1, "no label": 1},
        {"sports": 1},
    )
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(evaluation_text(found))
    text = console.export_text()
    assert all(len(line.rstrip()) <= 80 for line in text.splitlines())
    for words in ("micro-F1", "subset accuracy", "Hamming loss", "threshold", "0.999", "has ↓  is given →"):
        assert words in text


@pytest.mark.parametrize(
    ("column", "options", "message"),
    [
        ([["sports"]], {"label": "kind"}, "holds no label that the adapter knows: it holds 'sports'"),
        ([None], {"label": "kind"}, "no row has both a text and known labels"),
        (
            [["health"]],
            {"label": "kind", "label_separator": ";"},
            "--label-separator ';': column 'kind' holds lists",
        ),
        ([["health"]], {"label": "none"}, "no column 'none' (--label)"),
    ],
)
def test_what_cannot_be_scored_is_refused(
    classifier: Classifier, column: list[Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(LorasweepError) as error:
        evaluate_file(
            classifier, pd.DataFrame({"news": ["new"], "kind": column}), adapter=Path("a"), **options
        )
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_one_label_a_text_takes_one_column(base: Path, tmp_path: Path) -> None:
    single = load_classifier(make_folder(base, tmp_path / "a"), "cpu")
    frame = pd.DataFrame({"text": ROWS, "a": 1, "b": 0})
    for options in ({"label": ("a", "b")}, {"label": "a", "label_separator": ";"}):
        with pytest.raises(LorasweepError, match="a gives one label a text; name one column with --label"):
            evaluate_file(single, frame, adapter=Path("a"), **options)


@pytest.mark.parametrize("thresholds", [{"other": 0.5}, {LABELS[0]: 1.5}, {LABELS[0]: "high"}, [0.5]])
def test_thresholds_that_are_none_are_refused(base: Path, tmp_path: Path, thresholds: Any) -> None:
    with pytest.raises(ModelError, match=r"thresholds in its config\.json are .* and a probability"):
        load_classifier(set_folder(base, tmp_path / "a", thresholds=thresholds), "cpu")


def test_a_served_model_predicts_the_same(
    folder: Path, classifier: Classifier, expected: list[list[str]], tmp_path: Path
) -> None:
    import mlflow

    from lorasweep.tuning.tracking.models.packing import pack

    pack(folder, tmp_path / "packed")
    served = mlflow.pyfunc.load_model(str(tmp_path / "packed"), suppress_warnings=True)
    found = served.predict(pd.DataFrame({"news": ROWS}), params={"probabilities": True})
    own = predict_frame(classifier, ROWS)
    assert found["label"].tolist() == expected
    assert [list(map(float, one)) for one in found["score"]] == [
        pytest.approx(one, abs=1e-4) for one in own["score"]
    ]
    assert found[LABELS[2]].max() < 0.999
    assert "label" in str(served.metadata.signature.outputs.to_dict()[0])
    assert served.metadata.signature.outputs.to_dict()[0]["type"] == "array"

"""Sweeps built by hand with labels, texts and errors of the worst kind, and their report as a browser reads it."""

from __future__ import annotations

import csv
import io
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from safetensors.numpy import save_file

from lorasweep.search_spaces.space import SearchSpace
from lorasweep.training.data.dataset import Dataset, Texts, fingerprint
from lorasweep.training.scores.scores import score
from lorasweep.training.settings import TrainingSettings
from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.results import SweepResult, TestScores, Winner
from lorasweep.tuning.record.trial_records import TrialRecord
from lorasweep.tuning.report.page import report_files
from lorasweep.tuning.sweep.winner.winner import TEST_FILE

SCRIPT = "<script>alert(1)</script>"


LONG = "a very long label " * 40 + "end"


LABELS = ("../../x", '"quoted", with comma', "=1+1", "B", LONG, "two\nlines", f"z {SCRIPT}")


SPACE = """
about: of the test
start: {rank: 4, target_modules: all-linear, learning_rate: 1e-3}
rank: {choice: [4, 8, 16]}
target_modules: {choice: [all-linear, query-value]}
learning_rate: {loguniform: [1e-4, 1e-2]}
batch_size: 16
"""


SEARCHED = ("rank", "target_modules", "learning_rate")


SCORES = TestScores(accuracy=0.4, macro_f1=0.25, loss=1.75)


# Rows of the test split: true class, predicted class, probability of the predicted one.
PREDICTED = [(number % 7, number % 7, 0.9) for number in range(14)]
PREDICTED += [(6, 0, 0.95), (1, 6, 0.6), (5, 4, 0.99), *((3, 2, 0.5 + number / 100) for number in range(11))]


def trial(number: int, score: float | None, state: str = "completed", **fields: Any) -> TrialRecord:
    """A record of three rungs, or of one where it was stopped, or of none without a score."""
    rungs = 0 if score is None else 3 if state == "completed" else 1
    values = {
        "rank": (4, 8, 16)[number % 3],
        "target_modules": ("all-linear", "query-value")[number % 2],
        "learning_rate": 1e-4 * 10 ** (number / 4),
    }
    evaluations = [
        {"rung": n, "epoch": n / 3, "accuracy": score, "macro_f1": score, "loss": score, "score": score}
        for n in range(1, rungs + 1)
    ]
    return TrialRecord.model_validate(
        {
            "id": f"t{number:03d}",
            "number": number,
            "state": state,
            "settings": {"method": "lora", "alpha": 32.0, "batch_size": 16} | values,
            "searched": SEARCHED,
            "evaluations": evaluations,
            "score": score,
            "best_rung": rungs or None,
            "trainable_parameters": 100_000 * (1 + number),
            "seconds": 61.0,
            "started": 1_700_000_000.0 + number,
        }
        | fields
    )


TRIALS = [
    trial(0, 0.5),
    trial(1, 0.875, notes=(f"out of memory: {SCRIPT}",)),
    trial(2, None, "failed", error=f"ValueError: {SCRIPT} & \"more\", 'text'\x1b[31m"),
    trial(3, 0.25, "stopped"),
    trial(4, 0.625),
    trial(5, None, "running"),
]


def logits_of(rows: list[tuple[int, int, float]]) -> np.ndarray:
    """Logits, float32 of shape (rows, 7), whose softmax gives the predicted class its probability."""
    logits = np.empty((len(rows), 7), dtype=np.float32)
    for row, (_, predicted, probability) in enumerate(rows):
        logits[row] = np.log((1 - probability) / 6)
        logits[row, predicted] = np.log(probability)
    return logits


def dataset(pairs: bool = True) -> Dataset:
    """Seven classes with labels of the worst kind; the texts name their row."""
    labels = np.array([true for true, _, _ in PREDICTED], dtype=np.int64)
    text = [
        f"=row {row}, {SCRIPT} \"a\" 'b'\nnext\tline \u202e over {'long ' * 200}"
        for row in range(len(labels))
    ]
    test = Texts(text, [f"<b>pair {row}</b>" for row in range(len(labels))] if pairs else None, labels)
    few = Texts([f"{SCRIPT} {n}" for n in range(7)], ["", *"abcdef"] if pairs else None, np.arange(7))
    splits = {"train": few, "validation": few, "test": test}
    return Dataset(
        **splits,
        label_names=LABELS,
        text_columns=("head<b>line", "body") if pairs else ("headline",),
        label_column=f"label {SCRIPT}",
        source=f"{SCRIPT}.csv",
        fingerprint=fingerprint(splits, LABELS),
        rows_read=40,
        dropped={},
        left_out_classes={},
    )


def write_study(folder: SweepFolder) -> None:
    """The sweep's study, as its searcher leaves it."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(study_name=folder.name, storage=folder.study_url, direction="maximize")
    kinds = SearchSpace.from_yaml(SPACE, "test").distributions()
    states = {"completed": "COMPLETE", "stopped": "PRUNED", "failed": "FAIL", "running": "RUNNING"}
    for record in TRIALS:
        study.add_trial(
            optuna.trial.create_trial(
                state=optuna.trial.TrialState[states[record.state]],
                value=record.score if record.state == "completed" else None,
                params={name: getattr(record.hyperparameters, name) for name in SEARCHED},
                distributions=kinds,
            )
        )


def finished_sweep(mlruns: Path) -> SweepFolder:
    """A finished sweep with all its parts; made once, so a test copies it before it changes anything."""
    folder = SweepFolder(mlruns, "demo")
    folder.create(SweepConfig(name="demo", training=TrainingSettings(epochs=1, evaluations_per_epoch=3)))
    folder.write_space(SearchSpace.from_yaml(SPACE, "test"))
    data = dataset()
    data.save(folder.data)
    folder.write_plan(
        {
            "data": {"source": data.source, "rows": {"train": 7, "test": len(data.test)}, "classes": 7},
            "text_columns": data.text_columns,
            "label_column": data.label_column,
            "budget": {"halving": [1]},
        }
    )
    for record in TRIALS:
        folder.write_trial(record)
    write_study(folder)
    logits = logits_of(PREDICTED)
    folder.winner.mkdir()
    save_file({"logits": logits}, folder.winner / TEST_FILE)
    scores = score(logits, data.test.labels)
    folder.write_result(
        SweepResult(
            state="finished",
            metric="accuracy",
            seconds=3723.0,
            winner=Winner(
                id="t001",
                score=0.875,
                hyperparameters=TRIALS[1].hyperparameters,
                test=TestScores(accuracy=scores.accuracy, macro_f1=scores.macro_f1, loss=scores.loss),
            ),
        )
    )
    return folder


class Page(HTMLParser):
    """What a browser makes of a page: tags with attributes, its text, its scripts, and the cells of each table row."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.rows: list[list[str]] = []
        self.tables: list[list[list[str]]] = []
        self.scripts: list[str] = []
        self._cell = False
        self._code = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._code = tag if tag in ("style", "script") else ""
        if tag == "script":
            self.scripts.append("")
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.rows.append([])
            self.tables[-1].append(self.rows[-1])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._cell = True

    def handle_endtag(self, tag: str) -> None:
        self._code = ""
        self._cell &= tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._code == "script":
            self.scripts[-1] += data
        if self._code:
            return
        self.text += data
        if self._cell:
            self.rows[-1][-1] += data

    def below(self, *head: str) -> list[list[str]]:
        """Rows of the table whose head begins so."""
        return next(rows[1:] for rows in self.tables if rows[0][: len(head)] == list(head))


def pieces_of(folder: SweepFolder) -> tuple[Page, dict[str, bytes]]:
    """The page as it is read, and all files."""
    files = report_files(folder)
    return Page(files["report/report.html"].decode("utf-8")), files


def page_of(folder: SweepFolder) -> Page:
    """The page alone."""
    return pieces_of(folder)[0]


def table(content: bytes) -> list[list[str]]:
    """A CSV as any reader takes it; all its rows have one length."""
    rows = list(csv.reader(io.StringIO(content.decode("utf-8"), newline=""), strict=True))
    assert len({len(row) for row in rows}) == 1
    return rows

"""The report of sweeps built by hand: right figures, somebody's texts escaped, and parts that are gone left out."""

from __future__ import annotations

import csv
import hashlib
import io
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from matplotlib.figure import Figure
from safetensors.numpy import save_file

from search_spaces.space import SearchSpace
from training.dataset import Dataset, Texts, fingerprint
from training.errors import SettingsError
from training.evaluate import score
from training.settings import TrainingSettings
from tuning import plots
from tuning.config import SweepConfig
from tuning.record import (
    Confirmed,
    Reference,
    SweepFolder,
    SweepResult,
    TestScores,
    TrialRecord,
    UnmergedReference,
    Winner,
)
from tuning.report_page import report_files, write_report
from tuning.winner import TEST_FILE

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
                params={name: record.settings[name] for name in SEARCHED},
                distributions=kinds,
            )
        )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> SweepFolder:
    """A finished sweep with all its parts; made once, so a test copies it before it changes anything."""
    folder = SweepFolder(tmp_path_factory.mktemp("report") / "mlruns", "demo")
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
                settings=TRIALS[1].settings,
                test=TestScores(accuracy=scores.accuracy, macro_f1=scores.macro_f1, loss=scores.loss),
            ),
        )
    )
    return folder


@pytest.fixture
def folder(finished: SweepFolder, tmp_path: Path) -> SweepFolder:
    """A copy of the finished sweep, to be changed."""
    shutil.copytree(finished.mlruns, tmp_path / "mlruns")
    return SweepFolder(tmp_path / "mlruns", "demo")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made, but not painted."""
    monkeypatch.setattr(plots, "png", lambda figure: b"\x89PNG" + bytes(28))


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, quick: None) -> None:
    """The trials' figures are not even made: for what is about tables and texts."""
    for name in ("learning_curves", "history", "slices", "parallel_coordinates", "adapter_sizes"):
        monkeypatch.setattr(plots, name, lambda *arguments: Figure())


class Page(HTMLParser):
    """What a browser would make of a page: its tags with attributes, its text, and the cells of each table row."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.rows: list[list[str]] = []
        self._cell = False
        self._style = False
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._style = tag == "style"
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._cell = True

    def handle_endtag(self, tag: str) -> None:
        self._style = False
        self._cell &= tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._style:
            return
        self.text += data
        if self._cell:
            self.rows[-1][-1] += data

    def below(self, *head: str) -> list[list[str]]:
        """Rows of the table whose head begins so, up to the next row of another length."""
        start = next(n for n, row in enumerate(self.rows) if row[: len(head)] == list(head))
        width = len(self.rows[start])
        end = next((n for n, r in enumerate(self.rows) if n > start and len(r) != width), len(self.rows))
        return self.rows[start + 1 : end]


def pieces_of(folder: SweepFolder) -> tuple[Page, dict[str, bytes]]:
    """The page as it is read, and all files."""
    files = report_files(folder)
    return Page(files["report.html"].decode("utf-8")), files


def page_of(folder: SweepFolder) -> Page:
    """The page alone."""
    return pieces_of(folder)[0]


def test_the_page_loads_and_runs_nothing(finished: SweepFolder, tmp_path: Path) -> None:
    """One file with its pictures in it; texts of strangers are text, whatever they hold."""
    out = tmp_path / "new" / "folder" / "report.html"
    write_report(finished, out)
    page = Page(out.read_text(encoding="utf-8"))
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "b-", "link", "iframe", "object", "a", "form", "svg", "base"}
    assert all(not key.startswith("on") for _, attributes in page.tags for key in attributes)
    sources = [
        attributes["src"] or "" for tag, attributes in page.tags if "src" in attributes and tag == "img"
    ]
    assert len(sources) == 7
    assert all(source.startswith("data:image/png;base64,iVBOR") for source in sources)
    assert not [
        attributes for tag, attributes in page.tags if tag != "img" and {"src", "href"} & set(attributes)
    ]
    assert "default-src 'none'" in str(page.tags)
    assert all(attributes.get("alt") for tag, attributes in page.tags if tag == "img")
    for label in LABELS:
        assert label in page.text
    assert f"{SCRIPT}.csv" in page.text
    assert f"ValueError: {SCRIPT} & \"more\", 'text' [31m" in page.text, "the error without its escape code"
    assert "\u202e" not in page.text
    assert "<b>pair 16</b>" in page.text
    assert len(out.read_bytes()) < 2_000_000


@pytest.mark.usefixtures("bare")
def test_the_page_says_what_the_records_hold(finished: SweepFolder) -> None:
    """State, time, winner, every trial with its end, the best first."""
    page = page_of(finished)
    assert "demo finished" in " ".join(page.text.split())
    assert "1:02:03" in page.text
    assert "begun 2023-11-14 22:13 UTC" in page.text
    trials = page.below("trial", "state", "accuracy", "rank", "targets", "rate")
    assert [(row[0], row[1], row[2]) for row in trials] == [
        ("t001", "completed", "87.5%"),
        ("t004", "completed", "62.5%"),
        ("t000", "completed", "50.0%"),
        ("t003", "stopped", "25.0%"),
        ("t002", "failed", "-"),
        ("t005", "interrupted", "-"),
    ]
    assert trials[0][3:9] == ["8", "query-value", "1.8e-4", "200.0 K", "3/3", "1:01"]
    assert trials[3][-1] == "stopped by ASHA after rung 1"
    assert SCRIPT in trials[4][-1]
    assert f"full budget; out of memory: {SCRIPT}" == trials[0][-1]
    assert ["learning_rate", "1e-4 ... 0.01 (log)"] in page.rows
    assert ["early stopping", "ASHA after rung 1: the best 1/3 go on"] in page.rows
    assert ["rank", "8", "searched"] in page.rows
    assert ["batch size", "16", ""] in page.rows
    won = [attributes for tag, attributes in page.tags if tag == "tr" and attributes.get("class") == "won"]
    assert len(won) == 2, "the winner's scores, and its row among the trials"
    for absent in ("95 %", "other rules", "other seeds", "untuned", "Left out"):
        assert absent not in page.text, "nothing of this is on record"


@pytest.mark.usefixtures("bare")
def test_the_winners_errors_are_counted_right(finished: SweepFolder) -> None:
    """Classes from the weakest, the pairs that are mixed up, and the mistakes that it is surest of."""
    page = page_of(finished)
    classes = page.below("class", "precision", "recall", "F1", "rows")
    # Of B's 13 rows 2 are found, and nothing else is taken for B; `=1+1` takes 11 of its 13 from B.
    assert classes[0] == ["=1+1", "15.4%", "100.0%", "26.7%", "2"]
    assert classes[1] == ["B", "100.0%", "15.4%", "26.7%", "13"]
    assert len(classes) == 7
    mixed = page.below("true", "taken for", "rows", "of the class")
    assert mixed[0] == ["B", "=1+1", "11", "84.6%"]
    assert len(mixed) == 4
    mistakes = page.below("text", "true", "taken for", "probability")
    assert len(mistakes) == 10
    assert [row[3] for row in mistakes[:4]] == ["99.0%", "95.0%", "60.0%", "60.0%"]
    assert [row[1:3] for row in mistakes[:2]] == [["two\nlines", LONG], [f"z {SCRIPT}", "../../x"]]
    assert mistakes[0][0].startswith(f"=row 16, {SCRIPT}")
    assert len(mistakes[0][0]) < 600, "long texts are cut"


def table(content: bytes) -> list[list[str]]:
    """A CSV as any reader takes it; all its rows have one length."""
    rows = list(csv.reader(io.StringIO(content.decode("utf-8"), newline=""), strict=True))
    assert len({len(row) for row in rows}) == 1
    return rows


def test_the_pieces_for_mlflow(finished: SweepFolder) -> None:
    """Fixed names; tables that a program can read and a spreadsheet does not run."""
    files = report_files(finished)
    pictures = {name for name in files if name.endswith(".png")}
    assert set(files) - pictures == {
        "report.html",
        "trials.csv",
        "per_class.csv",
        "confusion.csv",
        "mistakes.csv",
    }
    names = ("learning_curves", "history", "importances", "slices", "parallel_coordinates", "adapter_sizes")
    assert pictures == {f"plots/{name}.png" for name in (*names, "confusion")}
    assert all(files[name].startswith(b"\x89PNG\r\n") for name in pictures)
    head, *trials = table(files["trials.csv"])
    row = dict(zip(head, trials[2], strict=True))
    assert [line[0] for line in trials] == ["t000", "t001", "t002", "t003", "t004", "t005"]
    assert (row["state"], row["score"], row["rank"], row["rungs"]) == ("failed", "", "16", "0")
    assert row["error"] == f"ValueError: {SCRIPT} & \"more\", 'text' [31m"
    assert (
        float(dict(zip(head, trials[1], strict=True))["learning_rate"]) == TRIALS[1].settings["learning_rate"]
    )
    safe = [label if label != "=1+1" else "'=1+1" for label in LABELS]
    assert [line[0] for line in table(files["per_class.csv"])[1:]] == safe
    confusion = table(files["confusion.csv"])
    assert confusion[0] == ["true / predicted", *safe]
    assert confusion[4] == ["B", "0", "0", "11", "2", "0", "0", "0"]
    assert sum(int(cell) for line in confusion[1:] for cell in line[1:]) == len(PREDICTED)
    mistakes = [
        dict(zip(table(files["mistakes.csv"])[0], r, strict=True)) for r in table(files["mistakes.csv"])[1:]
    ]
    assert [mistake["row"] for mistake in mistakes[:2]] == ["16", "14"]
    assert mistakes[0]["text"].startswith(f"'=row 16, {SCRIPT} \"a\" 'b'\nnext\tline")
    assert len(mistakes[0]["text"]) > 1000, "the whole of it"
    assert mistakes[0]["pair"] == "<b>pair 16</b>"
    assert float(mistakes[0]["probability"]) == pytest.approx(0.99, abs=1e-4)
    assert float(mistakes[0]["probability_of_label"]) == pytest.approx(0.01 / 6, abs=1e-4)


@pytest.mark.usefixtures("bare")
def test_what_else_a_result_may_hold(folder: SweepFolder) -> None:
    """Intervals, comparisons, other rules and other seeds are shown where they are on record."""
    result = folder.result()
    assert result is not None
    assert result.winner is not None
    untuned = Reference(settings={"rank": 8, "learning_rate": 2e-5}, score=0.3, test=SCORES, seconds=1.0)
    winner = result.winner.model_copy(
        update={"interval": {"accuracy": (0.41, 0.69), "loss": (0.5, 1.25)}, "rule": f"best {SCRIPT}"}
    )
    more = {
        "winner": winner,
        "untuned": untuned,
        "unmerged": UnmergedReference(
            settings={}, classes=41, score=0.3, test=SCORES, merged=SCORES, seconds=1.0
        ),
        "baselines": {f"linear {SCRIPT}": SCORES},
        "choices": {"macro-F1": "t001", "smallest within 0.5 points": "t000"},
        "confirmed": (Confirmed(id="t001", scores={"1": 0.5, "2": 0.75}, mean=0.625, spread=0.1768),),
    }
    folder.write_result(result.model_copy(update=more))
    page = page_of(folder)
    assert "95 % interval 41.0% to 69.0%" in " ".join(page.text.split())
    tested = page.below("test split", "accuracy", "macro-F1", "loss")
    assert [row[0] for row in tested[:3]] == ["winner t001", "trained on 41 classes", "and merged afterwards"]
    tested = [tested[0], *tested[3:]]
    assert [row[0] for row in tested[:3]] == ["winner t001", "untuned default", f"linear {SCRIPT}"]
    assert tested[1][1:] == ["40.0%", "25.0%", "1.750", "rank 8, targets null, rate 2.0e-5"]
    assert tested[3][1:4] == ["41.0% – 69.0%", "", "0.500 – 1.250"]
    assert f"chosen by: best {SCRIPT}" in page.text
    gain = 100 * (winner.test.accuracy - 0.4)
    assert f"Tuning adds {gain:+.1f} points" in page.text
    assert ["smallest within 0.5 points", "t000"] in page.rows
    assert ["macro-F1", "t001 (the winner)"] in page.rows
    assert page.below("trial", "mean accuracy") == [["t001", "62.5%", "17.7 points", "50.0%, 75.0%"]]
    assert "script" not in {tag for tag, _ in page.tags}


def break_shape(folder: SweepFolder) -> None:
    save_file({"logits": logits_of(PREDICTED)[:-1]}, folder.winner / TEST_FILE)


def break_numbers(folder: SweepFolder) -> None:
    logits = logits_of(PREDICTED)
    logits[3, 3] = np.nan
    save_file({"logits": logits}, folder.winner / TEST_FILE)


def break_winner(folder: SweepFolder) -> None:
    save_file({"logits": logits_of([(0, 0, 0.9)] * len(PREDICTED))}, folder.winner / TEST_FILE)


BROKEN: dict[str, Callable[[SweepFolder], object]] = {
    "could not be read": lambda folder: (folder.winner / TEST_FILE).unlink(),
    "could not be read (SafetensorError)": lambda folder: (folder.winner / TEST_FILE).write_bytes(b"cut off"),
    "do not fit the test rows": break_shape,
    "do not fit the test rows, and": break_numbers,
    "are not the recorded winner's": break_winner,
    "the prepared rows are gone": lambda folder: shutil.rmtree(folder.data),
}


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("why", BROKEN)
def test_predictions_that_cannot_be_trusted_are_left_out(why: str, folder: SweepFolder) -> None:
    """Never shown as the winner's; the rest of the page stays."""
    BROKEN[why](folder)
    page, files = pieces_of(folder)
    assert why in page.text
    assert "Most certain mistakes" not in page.text
    assert "winner t001" in page.text
    assert {name for name in files if name.endswith(".csv")} == {"trials.csv"}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("broken", ["gone", "text", "empty", "foreign"])
def test_a_study_that_cannot_be_read(broken: str, folder: SweepFolder) -> None:
    """The records tell the same; and no study is made where there was none."""
    path = folder.path / "study.db"
    whole = path.read_bytes()
    contents = {"gone": None, "text": b"no database", "empty": b"", "foreign": whole}
    path.unlink()
    if contents[broken] is not None:
        path.write_bytes(contents[broken] or b"")
    if broken == "foreign":
        optuna.delete_study(study_name="demo", storage=folder.study_url)
    before = path.read_bytes() if path.exists() else None
    page, files = pieces_of(folder)
    assert "study.db" in page.text
    assert {"plots/importances.png", "plots/slices.png"} <= set(files)
    assert (path.read_bytes() if path.exists() else None) == before


@pytest.mark.usefixtures("bare")
def test_a_report_leaves_the_sweep_as_it_is(finished: SweepFolder) -> None:
    """No file is made, changed or removed."""

    def contents() -> dict[Path, str]:
        paths = [path for path in finished.path.rglob("*") if path.is_file()]
        return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}

    before = contents()
    report_files(finished)
    assert contents() == before


@pytest.mark.usefixtures("bare")
def test_an_unfinished_sweep(folder: SweepFolder) -> None:
    """No winner yet: what there is of the trials is shown, as running while somebody drives it."""
    (folder.path / "result.json").unlink()
    with folder.lock():
        page = page_of(folder)
        assert "demo running" in " ".join(page.text.split())
        assert page.below("trial", "state")[-1][1] == "running"
    page, files = pieces_of(folder)
    assert "demo interrupted" in " ".join(page.text.split())
    assert "No winner has been chosen" in page.text
    assert "test split" not in page.text.replace("said of the test split", "")
    assert {"report.html", "trials.csv", "plots/history.png"} <= set(files)
    folder.write_result(SweepResult(state="failed", metric="accuracy", error=f"all failed: {SCRIPT}"))
    page = page_of(folder)
    assert f"all failed: {SCRIPT}" in page.text
    assert "script" not in {tag for tag, _ in page.tags}


@pytest.mark.usefixtures("quick")
def test_a_sweep_before_its_first_trial(tmp_path: Path) -> None:
    """Nothing but a configuration."""
    folder = SweepFolder(tmp_path, "new")
    folder.create(SweepConfig(name="new"))
    page, files = pieces_of(folder)
    assert "No trial has begun" in page.text
    assert "img" not in {tag for tag, _ in page.tags}
    assert table(files["trials.csv"])[0][:3] == ["trial", "state", "score"]


@pytest.mark.usefixtures("quick")
def test_a_loss_in_nats_with_the_lowest_first_and_full_trials_without_a_rank(tmp_path: Path) -> None:
    """One column of text, no pair; a score that is not finite comes last, and is not drawn."""
    folder = SweepFolder(tmp_path, "loss")
    folder.create(SweepConfig(name="loss", training=TrainingSettings(metric="loss")))
    full = {**TRIALS[0].settings, "method": "full"}
    for record in (trial(0, 2.5, settings=full), trial(1, 0.375), trial(2, 7.0), trial(3, 1.5)):
        folder.write_trial(record)
    odd = folder.path / "trials" / "t002.json"
    odd.write_text(odd.read_text().replace("7.0", "-Infinity"))
    assert np.isinf(folder.trials()[2].score or 0.0)
    page = page_of(folder)
    rows = page.below("trial", "state", "loss")
    assert [row[:3:2] for row in rows[:3]] == [["t001", "0.3750"], ["t003", "1.5000"], ["t000", "2.5000"]]
    assert rows[3][:3:2] == ["t002", "-"]
    assert rows[2][3:5] == ["–", "–"], "full fine-tuning has no rank and no target modules"
    assert rows[0][3] == "8"
    data = dataset(pairs=False)
    data.save(folder.data)
    logits = logits_of(PREDICTED)
    folder.winner.mkdir()
    save_file({"logits": logits}, folder.winner / TEST_FILE)
    accuracy = score(logits, data.test.labels).accuracy
    winner = Winner(
        id="t000", score=2.5, settings=full, test=SCORES.model_copy(update={"accuracy": accuracy})
    )
    folder.write_result(SweepResult(state="finished", metric="loss", winner=winner))
    page, files = pieces_of(folder)
    assert "validation loss 2.5000" in page.text
    assert ["method", "full", ""] in page.rows
    assert not [row for row in page.rows if row[0] == "rank" and len(row) == 3]
    assert "Most certain mistakes" in page.text
    assert table(files["mistakes.csv"])[1][2] == ""


@pytest.mark.usefixtures("bare")
def test_the_code_of_a_space_is_not_run(folder: SweepFolder) -> None:
    """A report may be made of a sweep that came from somebody else."""
    (folder.path / "space.yaml").unlink()
    trace = folder.mlruns / "run"
    (folder.path / "space.py").write_text(f"open({str(trace)!r}, 'w')\ndef space(trial): ...\n")
    config = folder.config()
    search = config.search.model_copy(update={"space": "/home/somebody/space.py:space"})
    folder.write_config(config.model_copy(update={"search": search}))
    page = page_of(folder)
    assert not trace.exists()
    assert ["learning_rate", "1e-4 ... 0.01 (log)"] in page.rows, "as the study has it"
    assert "/home/somebody" not in page.text


@pytest.mark.usefixtures("bare")
def test_many_searched_settings_share_a_column(tmp_path: Path) -> None:
    """Ten columns would not fit a page; what a sweep did not write down is not made up."""
    folder = SweepFolder(tmp_path, "many")
    folder.create(SweepConfig(name="many"))
    more = {"dropout": 0.1, "warmup": 0.05, "weight_decay": 0.01, "label_smoothing": 0.0}
    settings = {**TRIALS[0].settings, **more}
    folder.write_trial(trial(0, 0.5, settings=settings, searched=(*SEARCHED, *more)))
    page = page_of(folder)
    row = page.below("trial", "state", "accuracy", "settings", "params")[0]
    assert row[3] == (
        "rank 4, targets all-linear, rate 1.0e-4, dropout 0.1, warmup 0.05, decay 0.01, label_smoothing 0"
    )
    assert ["early stopping", "ASHA"] in page.rows
    folder.write_plan({"budget": {"halving": []}})
    assert ["early stopping", "none"] in page_of(folder).rows


@pytest.mark.usefixtures("bare")
def test_where_it_cannot_be_written(finished: SweepFolder, tmp_path: Path) -> None:
    """Refused in one line; a page that is there is replaced."""
    with pytest.raises(SettingsError, match=r"is a folder; name a file"):
        write_report(finished, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match=r"cannot be written .*; name another file"):
        write_report(finished, tmp_path / "file" / "report.html")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]

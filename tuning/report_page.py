"""A sweep as one web page that needs nothing else, and as files for MLflow: plots, tables, the winner's errors.

Texts, labels and errors are somebody's: the template escapes all of them, the page may load nothing from
anywhere, and no file is named after one.
"""

from __future__ import annotations

import base64
import csv
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import optuna
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure
from optuna.distributions import BaseDistribution
from safetensors.numpy import load_file

from search_spaces.domains import from_distribution
from search_spaces.space import SearchSpace
from training.dataset import Dataset
from training.errors import DataError, SettingsError
from training.evaluate import ClassScores, higher_is_better, log_softmax, score_classes
from tuning import plots
from tuning.config import SweepConfig
from tuning.record import SweepFolder, SweepResult, TestScores, TrialRecord, rank_trials, write_text
from tuning.report import (
    METRIC_NAMES,
    SHORT_NAMES,
    counts_text,
    duration,
    parameters_text,
    score_text,
    setting_text,
    settings_line,
    unmerged_rows,
)
from tuning.winner import TEST_FILE

TEMPLATE = Path(__file__).with_name("report_page.html")
MISTAKES = 10
MIXED_UP = 10
# Columns of settings in the trials' table.
MOST_COLUMNS = 6
# Of a longer text the page shows the beginning; mistakes.csv has the whole of it.
TEXT_LENGTH = 500
# Of the page, which a browser takes for 96: plots are drawn for paper.
PIXELS_AN_INCH = 115

CAPTIONS = {
    "learning_curves": "Validation scores of every trial over its training; a cross ends a trial that was "
    "stopped early.",
    "history": "Trials in the order in which they were proposed, and the best score up to each.",
    "importances": "How far each setting decided which trials are among the best (Optuna's PED-ANOVA). Trials "
    "that were stopped early are counted with the best score that they reached: a trial is stopped for not "
    "being among the best, so this does little harm. With fewer than some 20 trials it is a hint, no more.",
    "slices": "Each trial's score against each setting alone; names stand side by side without an order.",
    "parallel_coordinates": "A line for each trial, the darker the better. Lines through the same choice are "
    "spread by their score; a line has a gap where its trial has no use for a setting.",
    "adapter_sizes": "What a larger adapter brings: rank, score, and as area the number of trained parameters.",
    "confusion": "Rows are true classes, columns what the winner took them for, in per cent of the row.",
}

# What a browser or a table would obey or choke on: control characters, overrides of the writing direction.
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@dataclass(frozen=True)
class Tested:
    """The winner's predictions of the test split: `probabilities` is float64, shape (rows, classes)."""

    data: Dataset
    probabilities: np.ndarray
    classes: list[ClassScores]

    @property
    def predicted(self) -> np.ndarray:
        """Class of each row, int64, shape (rows,)."""
        return np.asarray(self.probabilities.argmax(axis=1))

    def confusion(self) -> np.ndarray:
        """Rows by true class and predicted class, int64, shape (classes, classes)."""
        count = len(self.data.label_names)
        matrix = np.zeros((count, count), dtype=np.int64)
        np.add.at(matrix, (self.data.test.labels, self.predicted), 1)
        return matrix

    def mistakes(self) -> list[dict[str, Any]]:
        """The rows that are wrong with the highest probability, the most certain one first."""
        test, names, predicted = self.data.test, self.data.label_names, self.predicted
        wrong = np.flatnonzero(predicted != test.labels)
        certain = self.probabilities[wrong, predicted[wrong]]
        worst = wrong[np.argsort(-certain, kind="stable")][:MISTAKES]
        return [
            {
                "row": row,
                "text": test.text[row],
                "pair": test.pair[row] if test.pair is not None else "",
                "label": names[test.labels[row]],
                "predicted": names[predicted[row]],
                "probability": float(self.probabilities[row, predicted[row]]),
                "probability_of_label": float(self.probabilities[row, test.labels[row]]),
            }
            for row in worst.tolist()
        ]


@dataclass(frozen=True)
class Sweep:
    """What a sweep's folder still holds; `missing` says of each part that it does not why."""

    name: str
    state: str
    config: SweepConfig
    plan: Mapping[str, Any]
    trials: list[TrialRecord]
    result: SweepResult | None
    searched: plots.Searched
    space: list[tuple[str, str]]
    tested: Tested | None
    missing: list[str]

    @property
    def winner(self) -> str | None:
        """Id of the winner, once there is one."""
        return self.result.winner.id if self.result and self.result.winner else None

    def ranked(self) -> list[TrialRecord]:
        """All trials, the best first; those without a score come last, by number."""
        higher = higher_is_better(self.config.training.metric)
        scored = [t for t in self.trials if t.score is not None and np.isfinite(t.score)]
        return [*rank_trials(scored, higher), *(trial for trial in self.trials if trial not in scored)]


def write_report(folder: SweepFolder, out: Path) -> None:
    """Write the sweep's report as one HTML page, also of a sweep that is unfinished or partly gone.

    Raises:
        SettingsError: `out` cannot be written, or the sweep's own records cannot be read.
    """
    if out.is_dir():
        raise SettingsError(f"{out}: is a folder; name a file, such as {out / 'report.html'}")
    sweep = read_sweep(folder)
    page = _page(sweep, {name: plots.png(figure) for name, figure in sweep_figures(sweep).items()})
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, page)
    except OSError as error:
        raise SettingsError(f"{out}: cannot be written ({error.strerror}); name another file") from error


def report_files(folder: SweepFolder) -> dict[str, bytes]:
    """The report and its pieces, by relative path: report.html, plots/*.png, and tables as CSV in UTF-8.

    The tables are trials.csv and, of a winner whose predictions are there, per_class.csv, confusion.csv and
    mistakes.csv. No name depends on what a sweep holds.

    Raises:
        SettingsError: the sweep's own records cannot be read.
    """
    sweep = read_sweep(folder)
    pictures = {name: plots.png(figure) for name, figure in sweep_figures(sweep).items()}
    texts = {"report.html": _page(sweep, pictures)} | _tables(sweep)
    files = {name: text.encode("utf-8", errors="replace") for name, text in texts.items()}
    return files | {f"plots/{name}.png": picture for name, picture in pictures.items()}


def read_sweep(folder: SweepFolder) -> Sweep:
    """Read what a report needs; the folder is left as it is, and no code of a space is run.

    Raises:
        SettingsError: the sweep's own records cannot be read.
    """
    config, trials, result = folder.config(), folder.trials(), folder.result()
    missing: list[str] = []
    space = _yaml_space(folder, config)
    searched = _searched(folder, trials, space.distributions() if space else {}, missing)
    rows = [(name, from_distribution(kind)) for name, kind in searched.distributions.items()]
    return Sweep(
        name=folder.name,
        state=folder.state(),
        config=config,
        plan=folder.plan(),
        trials=trials,
        result=result,
        searched=searched,
        space=space.describe() if space else rows,
        tested=_tested(folder, result, missing),
        missing=missing,
    )


def sweep_figures(sweep: Sweep) -> dict[str, Figure]:
    """All figures that the sweep gives, by the names of `CAPTIONS`."""
    trials, metric, winner, searched = (
        sweep.trials,
        sweep.config.training.metric,
        sweep.winner,
        sweep.searched,
    )
    draw: dict[str, Callable[[], Figure | None]] = {
        "learning_curves": lambda: plots.learning_curves(trials, metric, winner),
        "history": lambda: plots.history(trials, metric, winner),
        "importances": lambda: plots.importances(searched, trials, metric),
        "slices": lambda: plots.slices(searched, trials, metric, winner),
        "parallel_coordinates": lambda: plots.parallel_coordinates(searched, trials, metric, winner),
        "adapter_sizes": lambda: plots.adapter_sizes(trials, metric, winner),
    }
    tested = sweep.tested
    if tested is not None:
        draw["confusion"] = lambda: plots.confusion(tested.confusion(), tested.data.label_names)
    figures = {name: make() for name, make in draw.items()}
    return {name: figure for name, figure in figures.items() if figure is not None}


def _yaml_space(folder: SweepFolder, config: SweepConfig) -> SearchSpace | None:
    path = folder.path / "space.yaml"
    try:
        return SearchSpace.from_yaml(path.read_text(encoding="utf-8"), Path(config.search.space).stem)
    except (OSError, UnicodeDecodeError, SettingsError):
        return None


def _searched(
    folder: SweepFolder,
    trials: Sequence[TrialRecord],
    known: Mapping[str, BaseDistribution],
    missing: list[str],
) -> plots.Searched:
    path = folder.path / "study.db"
    try:
        # Opened for reading alone: a report must not make or mend a database, least of all a running sweep's.
        url = f"sqlite:///file:{quote(str(path.resolve()))}?mode=ro&uri=true"
        storage = optuna.storages.RDBStorage(url, skip_table_creation=True)
        try:
            study = optuna.load_study(study_name=folder.name, storage=storage)
            return plots.searched_of(trials, study, known)
        finally:
            storage.engine.dispose()
    # A missing, broken or foreign database raises errors of several libraries; the records tell nearly as much.
    except Exception as error:
        missing.append(
            f"Optuna's study (study.db) could not be read ({type(error).__name__}): settings are taken from "
            "the trials' records"
        )
        return plots.searched_of(trials, None, known)


def _tested(folder: SweepFolder, result: SweepResult | None, missing: list[str]) -> Tested | None:
    """The winner's predictions with their rows; None, and a line in `missing`, where they do not fit."""
    if result is None or result.winner is None:
        return None
    try:
        data = Dataset.load(folder.data)
        logits = load_file(folder.winner / TEST_FILE)["logits"]
    except DataError:
        missing.append("the prepared rows are gone: nothing is shown of single classes and rows")
        return None
    except (
        Exception
    ) as error:  # safetensors has errors of its own for what is gone, cut off or of another kind
        missing.append(f"the winner's predictions could not be read ({type(error).__name__})")
        return None
    labels = data.test.labels
    if logits.shape != (len(labels), len(data.label_names)) or not np.isfinite(logits).all():
        missing.append("the winner's predictions do not fit the test rows, and are left out")
        return None
    if abs(float((logits.argmax(axis=1) == labels).mean()) - result.winner.test.accuracy) > 1e-6:
        missing.append("the kept predictions are not the recorded winner's, and are left out")
        return None
    return Tested(data, np.exp(log_softmax(logits)), score_classes(logits, labels, data.label_names))


def _tables(sweep: Sweep) -> dict[str, str]:
    """File name → CSV."""
    names = list(dict.fromkeys(name for trial in sweep.trials for name in trial.settings))
    head = ["trial", "state", "score", *names, "trainable_parameters", "rungs", "best_rung"]
    trials = [
        [
            *(trial.id, trial.state, trial.score),
            *(trial.settings.get(name) for name in names),
            *(trial.trainable_parameters, len(trial.evaluations), trial.best_rung),
            *(trial.seconds, trial.started, trial.ended, trial.error, "; ".join(trial.notes)),
        ]
        for trial in sweep.trials
    ]
    tables = {"trials.csv": _csv([[*head, "seconds", "started", "ended", "error", "notes"], *trials])}
    if sweep.tested is None:
        return tables
    classes = [[c.label, c.precision, c.recall, c.f1, c.rows] for c in sweep.tested.classes]
    labels = sweep.tested.data.label_names
    matrix = zip(labels, sweep.tested.confusion().tolist(), strict=True)
    mistakes = sweep.tested.mistakes()
    keys = ["row", "text", "pair", "label", "predicted", "probability", "probability_of_label"]
    return tables | {
        "per_class.csv": _csv([["label", "precision", "recall", "f1", "rows"], *classes]),
        "confusion.csv": _csv([["true / predicted", *labels], *([name, *counts] for name, counts in matrix)]),
        "mistakes.csv": _csv([keys, *([mistake[key] for key in keys] for mistake in mistakes)]),
    }


def _csv(rows: Iterable[Iterable[Any]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([_cell(value) for value in row] for row in rows)
    return out.getvalue()


def _cell(value: Any) -> Any:
    """A text that a spreadsheet would run as a formula gets the apostrophe that stops it (OWASP)."""
    if not isinstance(value, str):
        return value
    text = CONTROL.sub(" ", value)
    if not text.startswith(("=", "+", "-", "@", "\t", "\r")):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


def _page(sweep: Sweep, pictures: Mapping[str, bytes]) -> str:
    environment = Environment(
        undefined=StrictUndefined, autoescape=True, trim_blocks=True, lstrip_blocks=True, finalize=_plain
    )
    metric, tested = sweep.config.training.metric, sweep.tested
    starts = [trial.started for trial in sweep.trials if trial.started]
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        sweep=sweep,
        result=sweep.result,
        winner=sweep.result.winner if sweep.result else None,
        metric=METRIC_NAMES[metric],
        started=_date(min(starts)) if starts else "",
        written=_date(datetime.now(UTC).timestamp()),
        version=_version(),
        counts=counts_text(sweep.trials),
        wall=duration(sweep.result.seconds) if sweep.result else "",
        worked=duration(sum(trial.seconds for trial in sweep.trials)),
        best=score_text(next((t.score for t in sweep.ranked() if _finite(t.score)), None), metric),
        score=lambda value: score_text(value if _finite(value) else None, metric),
        spread=lambda value: f"{value:.4f}" if metric == "loss" else f"{100 * value:.1f} points",
        search_rows=_search_rows(sweep),
        winner_rows=_winner_rows(sweep),
        test_rows=_test_rows(sweep),
        columns=_heads(sweep),
        trial_rows=[_trial_row(sweep, trial) for trial in sweep.ranked()],
        images={name: _image(picture) for name, picture in pictures.items()},
        captions=CAPTIONS,
        classes=sorted(tested.classes, key=lambda c: (c.f1, c.label)) if tested else [],
        mixed_up=_mixed_up(tested) if tested else [],
        mistakes=[_shortened(mistake) for mistake in tested.mistakes()] if tested else [],
    )


def _image(picture: bytes) -> dict[str, Any]:
    """A PNG for the page, as wide as makes the letters of all pictures equally large."""
    pixels = int.from_bytes(picture[16:20], "big")
    return {"data": base64.b64encode(picture).decode(), "width": round(pixels * PIXELS_AN_INCH / plots.DPI)}


def _plain(value: object) -> object:
    """Every value that the template shows, before it is escaped: no control characters."""
    return CONTROL.sub(" ", value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _finite(value: float | None) -> bool:
    return value is not None and bool(np.isfinite(value))


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _version() -> str:
    try:
        return version("lorasweep")
    except PackageNotFoundError:
        return ""


def _search_rows(sweep: Sweep) -> list[tuple[str, str]]:
    """How the sweep was searched: (what, in words), without what an older sweep did not write down."""
    config, training, search = sweep.config, sweep.config.training, sweep.config.search
    data, base = sweep.plan.get("data", {}), sweep.plan.get("base_model", {})
    budget, resources = sweep.plan.get("budget", {}), sweep.plan.get("resources", {})
    rows = ", ".join(f"{name} {count:,}" for name, count in data.get("rows", {}).items())
    spans = ", ".join(f"{name} {first} to {last}" for name, (first, last) in data.get("dates", {}).items())
    columns = " + ".join(sweep.plan.get("text_columns", []))
    halving = ", ".join(str(rung) for rung in budget.get("halving", []))
    stopping = f"ASHA after rung {halving}: the best 1/{search.reduction_factor} go on" if halving else "ASHA"
    if not search.asha or budget.get("halving") == []:
        stopping = "none"
    asked = f"{search.trials} trials of {training.epochs} epochs, {training.rungs} evaluations (rungs) each"
    found = [
        ("data", data.get("source", "")),
        ("columns", f"{columns} → {sweep.plan.get('label_column', '')}" if columns else ""),
        ("rows", rows),
        ("classes", str(data.get("classes", ""))),
        ("labels merged by", data.get("merged_by", "")),
        ("split by date", spans),
        ("base model", base.get("hub_id") or Path(config.base_model).name),
        # A space may be a file of this machine: its name says enough.
        ("search space", Path(search.space).name),
        ("sampler", {"tpe": "TPE (Optuna)", "random": "random"}[search.sampler]),
        ("early stopping", stopping),
        ("budget", asked),
        ("trials", counts_text(sweep.trials)),
        ("device", f"{sweep.plan.get('device', '')} {sweep.plan.get('precision', '')}".strip()),
        ("at once", str(resources.get("concurrency", ""))),
        ("seed", str(training.seed)),
    ]
    return [(name, text) for name, text in found if text]


def _winner_rows(sweep: Sweep) -> list[tuple[str, str, bool]]:
    """The winner's settings: (name, value, whether it was searched)."""
    if sweep.result is None or sweep.result.winner is None:
        return []
    settings = sweep.result.winner.settings
    unused = plots.ADAPTER_SETTINGS if settings.get("method") == "full" else ()
    searched = set(_columns(sweep))
    return [
        (name.replace("_", " "), setting_text(value), name in searched)
        for name, value in settings.items()
        if name not in unused
    ]


def _test_rows(sweep: Sweep) -> list[dict[str, Any]]:
    """What was scored on the test split: the winner first, then what it is compared with."""
    result = sweep.result
    if result is None or result.winner is None:
        return []

    def row(name: str, test: TestScores, settings: str = "") -> dict[str, Any]:
        return {"name": name, "test": test, "settings": settings}

    rows = [row(f"winner {result.winner.id}", result.winner.test)]
    rows += [row(name.strip(), test) for name, test in unmerged_rows(result)]
    if result.untuned:
        settings = settings_line(result.untuned.settings, _columns(sweep))
        rows.append(row("untuned default", result.untuned.test, settings))
    rows += [row(name, test) for name, test in result.baselines.items()]
    return rows + [
        row(f"{earlier.id}, the winner of fewer trials", earlier.test) for earlier in result.also_tested
    ]


def _columns(sweep: Sweep) -> list[str]:
    """Searched settings that trials have on record, in the space's order."""
    return list(dict.fromkeys(name for t in sweep.trials for name in t.searched if name in t.settings))


def _heads(sweep: Sweep) -> list[str]:
    """The table's columns of settings; one for all of them where they would not fit a printed page."""
    names = [SHORT_NAMES.get(name, name) for name in _columns(sweep)]
    return names if len(names) <= MOST_COLUMNS else ["settings"]


def _trial_row(sweep: Sweep, trial: TrialRecord) -> dict[str, Any]:
    reached = int(trial.evaluations[-1]["rung"]) if trial.evaluations else 0
    state: str = trial.state
    if state == "running" and sweep.state != "running":
        state = "interrupted"
    ends = {"stopped": f"stopped by ASHA after rung {reached}", "completed": "full budget"}
    unused = plots.ADAPTER_SETTINGS if trial.settings.get("method") == "full" else ()
    used = [name for name in _columns(sweep) if name in trial.settings and name not in unused]
    values = [setting_text(trial.settings[name]) if name in used else "–" for name in _columns(sweep)]
    return {
        "id": trial.id,
        "won": trial.id == sweep.winner,
        "state": state,
        "score": score_text(trial.score if _finite(trial.score) else None, sweep.config.training.metric),
        "settings": values if len(values) <= MOST_COLUMNS else [settings_line(trial.settings, used)],
        "parameters": parameters_text(trial.trainable_parameters),
        "rungs": f"{reached}/{sweep.config.training.rungs}",
        "seconds": duration(trial.seconds),
        "end": "; ".join([trial.error or ends.get(state, state), *trial.notes]),
    }


def _mixed_up(tested: Tested) -> list[tuple[str, str, int, float]]:
    """The pairs of classes that share the most mistakes: (true, predicted, rows, share of the true class)."""
    matrix, names = tested.confusion(), tested.data.label_names
    pairs = [(row, column) for row, column in np.argwhere(matrix > 0).tolist() if row != column]
    pairs.sort(key=lambda pair: -matrix[pair])
    return [
        (names[row], names[column], int(matrix[row, column]), float(matrix[row, column] / matrix[row].sum()))
        for row, column in pairs[:MIXED_UP]
    ]


def _shortened(mistake: Mapping[str, Any]) -> dict[str, Any]:
    texts = [text for text in (mistake["text"], mistake["pair"]) if isinstance(text, str) and text]
    cut = [text if len(text) <= TEXT_LENGTH else f"{text[:TEXT_LENGTH]}…" for text in texts]
    return {**mistake, "texts": cut}

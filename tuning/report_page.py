"""A sweep as one web page that needs nothing else, and as files for MLflow: plots, tables, the winner's errors.

Texts, labels and errors are somebody's: the template escapes all of them, the page may load nothing from
anywhere, and no file is named after one.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from training.errors import SettingsError
from tuning import plot_settings, plot_trials, plot_winner
from tuning.plot_style import DPI, png
from tuning.record import SweepFolder, write_text
from tuning.report import METRIC_NAMES, counts_text, duration, score_text
from tuning.report_reading import Sweep, read_sweep
from tuning.report_rows import heads, mixed_up, search_rows, shortened, test_rows, trial_row, winner_rows
from tuning.report_tables import CONTROL, csv_tables
from tuning.searched import is_number

TEMPLATE = Path(__file__).with_name("report_page.html")
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


def write_report(folder: SweepFolder, out: Path) -> None:
    """Write the sweep's report as one HTML page, also of a sweep that is unfinished or partly gone.

    Raises:
        SettingsError: `out` cannot be written, or the sweep's own records cannot be read.
    """
    if out.is_dir():
        raise SettingsError(f"{out}: is a folder; name a file, such as {out / 'report.html'}")
    sweep = read_sweep(folder)
    page = _page(sweep, {name: png(figure) for name, figure in sweep_figures(sweep).items()})
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
    pictures = {name: png(figure) for name, figure in sweep_figures(sweep).items()}
    texts = {"report.html": _page(sweep, pictures)} | csv_tables(sweep)
    files = {name: text.encode("utf-8", errors="replace") for name, text in texts.items()}
    return files | {f"plots/{name}.png": picture for name, picture in pictures.items()}


def sweep_figures(sweep: Sweep) -> dict[str, Figure]:
    """All figures that the sweep gives, by the names of `CAPTIONS`."""
    trials, metric, winner, searched = (
        sweep.trials,
        sweep.config.training.metric,
        sweep.winner,
        sweep.searched,
    )
    draw: dict[str, Callable[[], Figure | None]] = {
        "learning_curves": lambda: plot_trials.learning_curves(trials, metric, winner),
        "history": lambda: plot_trials.history(trials, metric, winner),
        "importances": lambda: plot_settings.importances(searched, trials, metric),
        "slices": lambda: plot_settings.slices(searched, trials, metric, winner),
        "parallel_coordinates": lambda: plot_settings.parallel_coordinates(searched, trials, metric, winner),
        "adapter_sizes": lambda: plot_trials.adapter_sizes(trials, metric, winner),
    }
    tested = sweep.tested
    if tested is not None:
        draw["confusion"] = lambda: plot_winner.confusion(tested.confusion(), tested.data.label_names)
    figures = {name: make() for name, make in draw.items()}
    return {name: figure for name, figure in figures.items() if figure is not None}


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
        best=score_text(next((t.score for t in sweep.ranked() if is_number(t.score)), None), metric),
        score=lambda value: score_text(value if is_number(value) else None, metric),
        spread=lambda value: f"{value:.4f}" if metric == "loss" else f"{100 * value:.1f} points",
        search_rows=search_rows(sweep),
        winner_rows=winner_rows(sweep),
        test_rows=test_rows(sweep),
        columns=heads(sweep),
        trial_rows=[trial_row(sweep, trial) for trial in sweep.ranked()],
        images={name: _image(picture) for name, picture in pictures.items()},
        captions=CAPTIONS,
        classes=sorted(tested.classes, key=lambda c: (c.f1, c.label)) if tested else [],
        mixed_up=mixed_up(tested) if tested else [],
        mistakes=[shortened(mistake) for mistake in tested.mistakes()] if tested else [],
    )


def _image(picture: bytes) -> dict[str, Any]:
    """A PNG for the page, as wide as makes the letters of all pictures equally large."""
    pixels = int.from_bytes(picture[16:20], "big")
    return {"data": base64.b64encode(picture).decode(), "width": round(pixels * PIXELS_AN_INCH / DPI)}


def _plain(value: object) -> object:
    """Every value that the template shows, before it is escaped: no control characters."""
    return CONTROL.sub(" ", value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _version() -> str:
    try:
        return version("lorasweep")
    except PackageNotFoundError:
        return ""

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
from matplotlib.figure import Figure

from lorasweep.training.errors import SettingsError
from lorasweep.tuning.record.files import write_text
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.words import METRIC_NAMES, counts_text, duration, score_text
from lorasweep.tuning.report.plots import settings as plot_settings
from lorasweep.tuning.report.plots import trials as plot_trials
from lorasweep.tuning.report.plots import winner as plot_winner
from lorasweep.tuning.report.plots.style import DPI, png
from lorasweep.tuning.report.reading import Sweep, read_sweep
from lorasweep.tuning.report.rows import (
    CAPTIONS,
    heads,
    mixed_up,
    search_rows,
    shortened,
    shown_text,
    test_rows,
    trial_row,
    winner_rows,
)
from lorasweep.tuning.report.searched import is_number
from lorasweep.tuning.report.tables import csv_tables
from lorasweep.tuning.search.stopping import stopping_rule

TEMPLATE = Path(__file__).with_name("page.html")
# Of the page, which a browser takes for 96: plots are drawn for paper.
PIXELS_AN_INCH = 115


def write_report(folder: SweepFolder, out: Path, interactive: bool = False) -> list[Path]:
    """Write the sweep's report as one HTML page, also of a sweep that is unfinished or partly gone.

    Args:
        interactive: write the plots as a page to point at and zoom, too, which is 5 MB, beside the first.

    Returns:
        The pages that were written.

    Raises:
        SettingsError: one cannot be written, or the sweep's own records cannot be read.
    """
    if out.is_dir():
        raise SettingsError(f"{out}: is a folder; name a file, such as {out / 'report.html'}")
    sweep = read_sweep(folder)
    pages = {out: _page(sweep, {name: png(figure) for name, figure in sweep_figures(sweep).items()})}
    if interactive:
        pages[out.with_name(f"{out.stem}-interactive{out.suffix or '.html'}")] = _interactive(sweep)
    for path, page in pages.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, page)
        except OSError as error:
            raise SettingsError(f"{path}: cannot be written ({error.strerror}); name another file") from error
    return list(pages)


def report_files(folder: SweepFolder) -> dict[str, bytes]:
    """The report and its pieces as artifacts of a run: path below the run's own → content, all below `report/`.

    report.html and interactive.html are pages; learning_curves.png, history.png, importances.png, slices.png,
    parallel_coordinates.png, adapter_sizes.png and confusion.png the plots there is something to draw for;
    trials.csv and, of a winner whose predictions are there, per_class.csv, confusion.csv and mistakes.csv
    tables in UTF-8. MLflow's own pages show each of these kinds. No name depends on what a sweep holds.

    Raises:
        SettingsError: the sweep's own records cannot be read.
    """
    sweep = read_sweep(folder)
    pictures = {name: png(figure) for name, figure in sweep_figures(sweep).items()}
    pages = {"report.html": _page(sweep, pictures), "interactive.html": _interactive(sweep)}
    files = {f"{name}.png": picture for name, picture in pictures.items()}
    files |= {name: text.encode(errors="replace") for name, text in (pages | csv_tables(sweep)).items()}
    return {f"report/{name}": content for name, content in files.items()}


def _interactive(sweep: Sweep) -> str:
    # Plotly takes a second to import, and the plain page does without it.
    from lorasweep.tuning.report.interactive.page import interactive_page

    return interactive_page(sweep)


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
        undefined=StrictUndefined, autoescape=True, trim_blocks=True, lstrip_blocks=True, finalize=shown_text
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
        counts=counts_text(sweep.trials, stopping_rule(sweep.config.search).label),
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


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _version() -> str:
    try:
        return version("lorasweep")
    except PackageNotFoundError:
        return ""

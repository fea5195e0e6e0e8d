"""A sweep as one web page with interactive plots, and as files for MLflow.

The page holds Plotly's code, 5 MB of it, and loads nothing. Texts, labels and errors are somebody's: the template
escapes them, figures carry them as JSON without a `<`, and the page's policy runs only the scripts whose hashes it
names, Plotly's and page.js.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from lorasweep.training.errors import SettingsError
from lorasweep.training.metrics import metric_words
from lorasweep.tuning.record.files import write_text
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.results import SweepState
from lorasweep.tuning.record.starts import start_ids
from lorasweep.tuning.record.words import amount_text, counts_text, duration, judged_text, score_text
from lorasweep.tuning.report.opening import open_report
from lorasweep.tuning.report.plots.data import is_number
from lorasweep.tuning.report.plots.settings import score_places
from lorasweep.tuning.report.plots.table import Heading, draw_plots
from lorasweep.tuning.report.reading import ReportData, read_report_data
from lorasweep.tuning.report.rows import (
    HINT_TRIALS,
    added,
    heads,
    mattered,
    mixed_up,
    search_rows,
    shown_text,
    test_metrics,
    test_rows,
    threshold_line,
    trial_row,
    winner_rows,
)
from lorasweep.tuning.report.tables import csv_tables
from lorasweep.tuning.search.stopping import stopping_rule

HERE = Path(__file__).parent


def write_report(folder: SweepFolder, out: Path) -> Path:
    """Write the sweep's report as one HTML page, also of a sweep that is unfinished or partly gone.

    Returns:
        The page's path, `out`.

    Raises:
        SettingsError: it cannot be written, or the sweep's own records cannot be read.
    """
    if out.is_dir():
        raise SettingsError(f"{out}: is a folder; name a file, such as {out / 'report.html'}")
    page = _report_page(read_report_data(folder))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, page)
    except OSError as error:
        raise SettingsError(f"{out}: cannot be written ({error.strerror}); name another file") from error
    return out


def report_files(folder: SweepFolder) -> dict[str, bytes]:
    """The report as artifacts of a run: path below the run's own → content, all below `report/`.

    report.html is the page. trials.csv and, of a winner whose predictions are there, per_class.csv, confusion.csv
    and mistakes.csv are tables in UTF-8. No name depends on what a sweep holds.

    Raises:
        SettingsError: the sweep's own records cannot be read.
    """
    data = read_report_data(folder)
    # The process that ends the sweep still holds it: it would be called running for good.
    ended = data.record.result.state if data.record.result else None
    files = {"report.html": _report_page(data, ended)} | csv_tables(data)
    return {f"report/{name}": text.encode(errors="replace") for name, text in files.items()}


def plots_page(
    title: str, plots: Mapping[Heading, go.Figure], template: str = "base.html", **values: object
) -> str:
    """An HTML page with plots that needs no network, some 5 MB.

    Args:
        plots: what to say of a figure → the figure, whose texts have passed through `plain`.
        template: beside this file; base.html shows the title and all plots.
        values: what else the template shows. All texts are escaped.
    """
    plotly, own = get_plotlyjs(), (HERE / "page.js").read_text(encoding="utf-8")
    environment = Environment(
        loader=FileSystemLoader(HERE),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=shown_text,
    )
    # Plotly's JSON has no `<`, `>` or `/` in its strings.
    data = ",\n".join(f'"{plot.name}": {figure.to_json(engine="json")}' for plot, figure in plots.items())
    return environment.get_template(template).render(
        title=title,
        plots=list(plots),
        data=Markup(f"{{{data}}}"),
        plotly=Markup(plotly),
        own=Markup(own),
        policy=" ".join(["'unsafe-eval'", _hash(plotly), _hash(own)]),
        **values,
    )


def _hash(code: str) -> str:
    """How a content security policy names a script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'"


def _report_page(data: ReportData, state: SweepState | None = None) -> str:
    record, tested = data.record, data.tested
    metric, result = record.metric, record.result
    starts = [trial.started for trial in record.trials if trial.started]
    # The order of the lines in the parallel coordinates, by which the browser filters the table.
    lines = {trial: number for number, trial in enumerate(score_places(data.plots))}
    known_good = start_ids(record.trials)
    return plots_page(
        record.name,
        draw_plots(data.plots),
        "page.html",
        state=state or record.state,
        result=result,
        opening=open_report(data),
        winner=record.winner,
        metric=metric_words(metric),
        judged=judged_text(metric, record.objective),
        started=_date(min(starts)) if starts else "",
        written=_date(datetime.now(UTC).timestamp()),
        version=_version(),
        counts=counts_text(record.trials, stopping_rule(record.config.search).label),
        wall=duration(record.seconds) if record.seconds else "",
        worked=duration(sum(trial.seconds for trial in record.trials)),
        best=score_text(next((t.score for t in data.ranked() if is_number(t.score)), None), metric),
        score=lambda value: score_text(value if is_number(value) else None, metric),
        spread=lambda value: amount_text(value, metric),
        mattered=mattered(data.plots),
        few=len(data.plots.scored) if len(data.plots.scored) < HINT_TRIALS else 0,
        search_rows=search_rows(record),
        winner_rows=winner_rows(record),
        test_rows=test_rows(record),
        test_metrics=test_metrics(record),
        words=metric_words,
        text=score_text,
        threshold=threshold_line(record),
        several=tested is not None and tested.data.multi_label,
        cuts=record.winner.thresholds.values if record.winner and record.winner.thresholds else {},
        added=added(record),
        space=data.space,
        columns=heads(record),
        trial_rows=[
            trial_row(record, trial) | {"line": lines.get(trial.id, ""), "start": trial.id in known_good}
            for trial in data.ranked()
        ],
        tested=tested,
        classes=sorted(tested.classes, key=lambda c: (c.f1, c.label)) if tested else [],
        mixed_up=mixed_up(tested) if tested else [],
        mistakes=tested.mistakes() if tested else [],
        labels=data.labels,
        labels_command=record.folder.command("check-labels"),
        missing=data.missing,
    )


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _version() -> str:
    try:
        return version("lorasweep")
    except PackageNotFoundError:
        return ""

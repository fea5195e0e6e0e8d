"""A sweep's pictures as one web page that one can point at, zoom and filter; it needs no network.

Plotly's code stands in the page, 5 MB of it. Texts of strangers are data to it: they reach the page as JSON without
a `<`, and as Plotly's own markup only escaped. The page's policy lets no script run but Plotly's and this room's, by
their hashes, and loads nothing.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from pathlib import Path

import plotly.graph_objects as go
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from lorasweep.tuning.record.words import METRIC_NAMES, counts_text
from lorasweep.tuning.report.interactive import settings as interactive_settings
from lorasweep.tuning.report.interactive import trials as interactive_trials
from lorasweep.tuning.report.reading import Sweep
from lorasweep.tuning.report.rows import CAPTIONS, heads, shown_text, trial_row
from lorasweep.tuning.search.stopping import stopping_rule

HERE = Path(__file__).parent
TEMPLATE, SCRIPT = HERE / "page.html", HERE / "page.js"

MORE = {
    "parallel_coordinates": "The darker, the better; the winner is orange. Drag along an axis to keep the trials "
    "that pass there, on several axes if you like; the table below shows those. A click on the axis frees it.",
    "history": "Trials in the order in which they were proposed, and the best score up to each; a trial that "
    "failed without a score stands below the others.",
}


def interactive_page(sweep: Sweep) -> str:
    """The page, some 5 MB; of a sweep without a score it says so."""
    figures = _figures(sweep)
    scripts = {"plotly": get_plotlyjs(), "own": SCRIPT.read_text(encoding="utf-8")}
    environment = Environment(
        undefined=StrictUndefined, autoescape=True, trim_blocks=True, lstrip_blocks=True, finalize=shown_text
    )
    sizes = {name: {"height": f.layout.height, "width": f.layout.width} for name, f in figures.items()}
    for figure in figures.values():
        # The page bounds it instead: a narrower window makes it smaller.
        figure.layout.width = None
    # Plotly's JSON has no `<`, `>` or `/` in its strings.
    data = ",\n".join(f'"{name}": {figure.to_json(engine="json")}' for name, figure in figures.items())
    metric = METRIC_NAMES[sweep.config.training.metric]
    order = interactive_settings.line_order(sweep.trials, sweep.config.training.metric)
    lines = {trial.id: number for number, trial in enumerate(order)}
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        sweep=sweep,
        metric=metric,
        counts=counts_text(sweep.trials, stopping_rule(sweep.config.search).label),
        figures=sizes,
        captions=CAPTIONS | MORE,
        columns=heads(sweep),
        trial_rows=[(trial_row(sweep, trial), lines.get(trial.id)) for trial in sweep.ranked()],
        data=Markup(f"{{{data}}}"),
        scripts={name: Markup(code) for name, code in scripts.items()},
        policy=" ".join(_hash(code) for code in scripts.values()),
    )


def _figures(sweep: Sweep) -> dict[str, go.Figure]:
    """All figures that the sweep gives, by the names of `CAPTIONS`."""
    known = sweep.searched, sweep.trials, sweep.config.training.metric
    draw: dict[str, Callable[[], go.Figure | None]] = {
        "parallel_coordinates": lambda: interactive_settings.parallel_coordinates(*known, sweep.winner),
        "history": lambda: interactive_trials.history(*known, sweep.winner),
        "learning_curves": lambda: interactive_trials.learning_curves(*known, sweep.winner),
        "slices": lambda: interactive_settings.slices(*known, sweep.winner),
        "importances": lambda: interactive_settings.importances(*known),
        "adapter_sizes": lambda: interactive_trials.adapter_sizes(*known, sweep.winner),
    }
    tested = sweep.tested
    if tested is not None:
        draw["confusion"] = lambda: interactive_trials.confusion(tested.confusion(), tested.data.label_names)
    figures = {name: make() for name, make in draw.items()}
    return {name: figure for name, figure in figures.items() if figure is not None}


def _hash(code: str) -> str:
    """How a content security policy names a script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'"

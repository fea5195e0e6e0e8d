"""How a sweep shows its progress: a live table in a terminal, one display in a notebook, a log elsewhere."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.markup import escape

from lorasweep.tuning.record.listener import SweepListener
from lorasweep.tuning.record.results import SweepResult, Winner
from lorasweep.tuning.record.sweep import SweepRecord
from lorasweep.tuning.record.trial_records import TrialRecord
from lorasweep.tuning.record.words import duration
from lorasweep.tuning.terminal.console import console
from lorasweep.tuning.terminal.progress import LiveDisplay, Progress, make_display

if TYPE_CHECKING:
    from lorasweep.tuning.sweep.start import Prepared

# Width of a table in a notebook, in characters.
WIDTH = 100
# Seconds between two updates of a notebook's display.
PAUSE = 0.5


def display_for(prepared: Prepared, verbose: int, *, plan: bool = True) -> SweepListener:
    """Show a sweep's name and plan; returns what shows its progress. Nothing is shown if it is to be silent.

    Args:
        verbose: 0 is silent, and above 1 the plan is whole.
        plan: show the plan, too; whoever resumes a sweep has seen it.
    """
    if not verbose:
        return SweepListener()
    from lorasweep.tuning.terminal.plan import notes_table, plan_text

    name = f"[bold]{escape(prepared.plan.config.name)}[/bold]"
    parts: list[RenderableType] = []
    if plan:
        done = None if prepared.new else SweepRecord(prepared.folder)
        parts += [name, plan_text(prepared.plan, done, prepared.warm, whole=verbose > 1)]
    if prepared.notes:
        parts.append(notes_table(prepared.notes))
    if in_notebook():
        return NotebookDisplay(Group(*parts))
    if parts:
        console.print(Group(*parts))
    return make_display(console)


class Waiting:
    """What is done now: a spinner in a terminal, a line each in a log; nothing if it is to be silent.

    Called with the next thing, it shows that.
    """

    def __init__(self, verbose: int, text: str) -> None:
        self._verbose = verbose
        self._status = console.status(text) if verbose and console.is_terminal and not in_notebook() else None

    def __call__(self, text: str) -> None:
        if self._status is not None:
            self._status.update(text)
        elif self._verbose:
            console.print(escape(text))

    def __enter__(self) -> Waiting:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._status is not None:
            self._status.stop()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Show nothing meanwhile: something else draws."""
        self.__exit__()
        try:
            yield
        finally:
            self.__enter__()


def in_notebook() -> bool:
    """Whether a notebook's kernel runs this, which draws what it is given as HTML."""
    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    return type(get_ipython()).__name__ == "ZMQInteractiveShell"


def to_html(renderable: RenderableType | Any) -> str:
    """What the terminal shows, as HTML with its styles inline."""
    recorded = Console(record=True, width=WIDTH, file=io.StringIO(), highlight=False, force_jupyter=False)
    recorded.print(renderable)
    return recorded.export_html(inline_styles=True, code_format="<pre style='line-height:1.3'>{code}</pre>")


class NotebookDisplay(LiveDisplay):
    """The plan and a terminal's live table, drawn into one output of a notebook's cell that is updated in place."""

    def __init__(self, plan: RenderableType) -> None:
        super().__init__(Console(file=io.StringIO(), width=WIDTH, force_jupyter=False))
        self._plan = plan
        self._output: Any = None
        self._drawn = 0.0
        self._show()

    def begin(self, plan_summary: Mapping[str, Any], past: Sequence[TrialRecord]) -> None:
        """Draw from now on."""
        Progress.begin(self, plan_summary, past)
        self._show()

    def update(self, trial: TrialRecord) -> None:
        """Draw anew, unless that was done a moment ago."""
        super().update(trial)
        if time.monotonic() - self._drawn >= PAUSE:
            self._show()

    def phase(self, text: str) -> None:
        """Show what is done now."""
        super().phase(text)
        self._show()

    def waiting(self, text: str) -> None:
        """Show what trials wait for."""
        super().waiting(text)
        self._show()

    def chosen(self, winner: Winner) -> None:
        """Show the answer."""
        super().chosen(winner)
        self._show()

    def end(self, result: SweepResult, adapters: Mapping[str, Path]) -> None:
        """Draw how it ended; the sweep itself is shown by the cell that returns it."""
        Progress.end(self, result, adapters)
        self._text = f"{result.state} after {duration(result.seconds)}"
        self._show()

    def _show(self) -> None:
        from IPython.display import HTML, display

        self._drawn = time.monotonic()
        drawn: Any = HTML(to_html(Group(self._plan, "", self._draw())))  # type: ignore[no-untyped-call]
        if self._output is None:
            self._output = display(drawn, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._output.update(drawn)

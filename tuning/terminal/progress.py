"""A running sweep: a live table on a terminal, else a log."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table

from lorasweep.training.metrics import metric_words
from lorasweep.training.settings import Metric
from lorasweep.tuning.record.finalists import expected_finalists, finalists, searched_trials
from lorasweep.tuning.record.listener import SweepListener
from lorasweep.tuning.record.results import SweepResult, Winner
from lorasweep.tuning.record.trial_records import TrialRecord, rank_trials
from lorasweep.tuning.record.words import (
    counts_text,
    duration,
    score_text,
    settings_line,
    state_text,
)
from lorasweep.tuning.terminal.result import trials_table
from lorasweep.tuning.terminal.time_left import FEW_SECONDS, TimeLeft, about

# Lines of the live display besides the trials that run.
HEIGHT = 14
# More lines where something is noted.
NOTE_LINES = 2
STOPPING = "stopping; Ctrl-C again to stop at once"


class Progress(SweepListener):
    """The state behind a display: trials so far, the best one, time spent and left."""

    def __init__(self, console: Console) -> None:
        self._console = console
        # Empty until the sweep begins.
        self._budget: Mapping[str, Any] = {}
        self._open = False
        self._metric: Metric = "accuracy"
        self._searched: Sequence[str] = ()
        self._stopping, self._finalists = "", 0
        self._trials: dict[str, TrialRecord] = {}
        self._left: TimeLeft | None = None
        self._winner: Winner | None = None
        self._started = time.monotonic()
        self._text, self._waits = "starting Ray", ""
        self._ending = self._finished = False

    def begin(self, plan_summary: Mapping[str, Any], past: Sequence[TrialRecord]) -> None:
        """The trials are about to start."""
        self._budget, self._metric = plan_summary["budget"], plan_summary["metric"]
        self._finalists = (plan_summary.get("part") or {}).get("best", 0)
        self._searched, self._stopping = plan_summary["searched"], plan_summary["stopping"]
        self._open = plan_summary.get("limits", {}).get("trials", 0) is None
        self._trials = {trial.id: trial for trial in past}
        self._left = TimeLeft(plan_summary, past)
        self._started = time.monotonic()

    def update(self, trial: TrialRecord) -> None:
        """A trial started, was evaluated, or ended."""
        # A new dictionary: a live display's thread may be iterating over the old one.
        self._trials = self._trials | {trial.id: trial}
        self._text = STOPPING if self._ending else ""
        if self._left:
            self._left.update(self._trials.values())

    def phase(self, text: str) -> None:
        """Something other than trials begins."""
        self._text = text
        if self._left:
            self._left.phase(text)

    def waiting(self, text: str) -> None:
        """Trials wait for what somebody else has; or no more."""
        self._waits = text

    def chosen(self, winner: Winner) -> None:
        """The answer, before anything is tidied up."""
        self._winner = winner

    def stopping(self) -> None:
        """The sweep is stopping; how long that takes is not known."""
        self._text, self._ending = STOPPING, True

    def end(self, result: SweepResult, adapters: Mapping[str, Path]) -> None:
        """The sweep ended: no time is left, whatever was expected."""
        self._ending, self._finished = True, result.state == "finished"

    def best(self) -> TrialRecord | None:
        """The best trial so far."""
        ranked = rank_trials(self._trials.values(), self._metric)
        return ranked[0] if ranked else None

    def best_line(self) -> str:
        """The best trial so far with its hyperparameters, on one line."""
        best = self.best()
        if best is None:
            return "none yet"
        score = f"{score_text(best.score, self._metric)} {metric_words(self._metric)}"
        return f"{score}, {best.id}: {self.settings(best)}"

    def winner_line(self, winner: Winner) -> str:
        """The winner with its test score, on one line."""
        score = f"{score_text(winner.test.by(self._metric), self._metric)} {metric_words(self._metric)}"
        ends = [score_text(end, self._metric) for end in winner.interval.get(self._metric, ())]
        return f"{winner.id}: {score} on the test split" + (f" ({' to '.join(ends)})" if ends else "")

    def new_notes(self, trial: TrialRecord) -> list[str]:
        """What a trial's record notes since it was last shown, as that it is tried again."""
        before = self._trials.get(trial.id)
        known = before.notes if before else ()
        return [note for note in trial.notes if note not in known]

    def settings(self, trial: TrialRecord) -> str:
        """A trial's searched hyperparameters on one line."""
        return settings_line(trial.hyperparameters, self._searched)

    def work_done(self) -> float:
        """Share of the sweep's work that is done, in [0, 1], with what comes after the trials."""
        if self._finished:
            return 1.0
        return self._left.share_done(self._trials.values()) if self._left else 0.0

    def seconds_left(self) -> tuple[float, float] | None:
        """Seconds left of the trials and of what comes after them; None while there is too little to tell."""
        return self._left.seconds(self._trials.values()) if self._left and not self._ending else None

    def done(self) -> str:
        """Trials that ended, of all; where only the time ends the sweep, nobody knows how many these are."""
        trials = list(self._trials.values())
        of = "" if self._open else f" of {self._budget['trials']}"
        text = f"{_ended(searched_trials(trials))}{of} done"
        if not (last := finalists(trials)):
            return text
        expected = expected_finalists(trials, self._metric, self._finalists)
        return f"{text}, {_ended(last)} of {len(expected)} finalists"

    def rung(self, trial: TrialRecord) -> str:
        """A trial's evaluations, of a full trial's."""
        return f"{len(trial.evaluations)}/{self._budget['rungs']}"

    def time_line(self) -> str:
        """Time spent and left, and how much of it is for what comes after the trials."""
        line, left = f"{duration(time.monotonic() - self._started)} spent", self.seconds_left()
        if left is None:
            return line
        trials, after = left
        line += f", {about(trials + after)} left"
        return f"{line}, {duration(after)} of it after the trials" if min(left) >= FEW_SECONDS else line


class LiveDisplay(Progress):
    """A few lines that are redrawn while the sweep runs."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._note = ""
        self._spinner = Spinner("dots")
        self._live = Live(console=console, get_renderable=self._draw, refresh_per_second=4, transient=True)

    def begin(self, plan_summary: Mapping[str, Any], past: Sequence[TrialRecord]) -> None:
        """Draw from now on."""
        super().begin(plan_summary, past)
        self._live.start()

    def update(self, trial: TrialRecord) -> None:
        """Show the last note, too."""
        for note in self.new_notes(trial):
            self._note = f"{trial.id} {note}"
        super().update(trial)

    def end(self, result: SweepResult, adapters: Mapping[str, Path]) -> None:
        """Clear the lines; the result is printed in their place."""
        super().end(result, adapters)
        self._live.stop()

    def _draw(self) -> RenderableType:
        table = Table(box=None, show_header=False, padding=(0, 1, 0, 0))
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        if not self._budget:
            return table
        trials = sorted(self._trials.values(), key=lambda trial: (trial.number, trial.id))
        table.add_row("sweep", ProgressBar(total=1.0, completed=self.work_done(), width=40))
        table.add_row("trials", f"{self.done()}: {counts_text(trials, self._stopping)}")
        table.add_row("time", self.time_line())
        if self._winner:
            table.add_row("winner", self.winner_line(self._winner))
        if self._note:
            table.add_row("noted", escape(shorten(self._note, NOTE_LINES * (self._console.width - 10))))
        if self._text:
            self._spinner.update(text=escape(self._text))
            table.add_row("now", self._spinner)
        if self._waits:
            table.add_row("waits", escape(self._waits))
        if not trials:
            return table
        running = max(self._console.height - HEIGHT - NOTE_LINES * bool(self._note), 1)
        rungs = self._budget["rungs"]
        return Group(table, "", trials_table(trials, self._metric, self._searched, rungs, running=running))


class LogDisplay(Progress):
    """One line per event, for files and continuous integration."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._seen: dict[str, tuple[str, int]] = {}
        # Reentrant: a signal handler may log while this very thread prints a line.
        self._lock = threading.RLock()

    def phase(self, text: str) -> None:
        """Log what is done now."""
        super().phase(text)
        left = self.seconds_left()
        self._log(f"{text} ({about(sum(left))} left)" if left else text)

    def waiting(self, text: str) -> None:
        """Log what trials wait for."""
        super().waiting(text)
        if text:
            self._log(text)

    def chosen(self, winner: Winner) -> None:
        """Log the answer."""
        super().chosen(winner)
        self._log(f"winner {self.winner_line(winner)}")

    def stopping(self) -> None:
        """Log that the sweep is stopping."""
        super().stopping()
        self._log(STOPPING)

    def update(self, trial: TrialRecord) -> None:
        """Log a note, a start, a rung or an end, each once."""
        for note in self.new_notes(trial):
            self._log(f"{trial.id} {note}")
        super().update(trial)
        seen, before = (trial.state, len(trial.evaluations)), self._seen.get(trial.id)
        if before == seen:
            return
        self._seen[trial.id] = seen
        score = score_text(trial.score, self._metric)
        if trial.state == "running" and not trial.evaluations:
            event = f"starts: {self.settings(trial)}"
        elif trial.state == "running" and before is None:
            event = f"continues after rung {self.rung(trial)}: {self.settings(trial)}"
        elif trial.state == "running":
            event = f"rung {self.rung(trial)}: {score}"
        elif trial.state == "failed":
            event = f"failed: {trial.error}"
        else:
            how = state_text(trial, self._stopping)
            left = self.seconds_left()
            time_left = f", {about(sum(left))} left" if left else ""
            event = f"{how}: {score}; {self.done()}{time_left}; best {self.best_line()}"
        self._log(f"{trial.id} {event}")

    def _log(self, text: str) -> None:
        with self._lock:
            clock = duration(time.monotonic() - self._started)
            self._console.print(f"{clock:>7}  {escape(text)}", soft_wrap=True, highlight=False)


def _ended(trials: Sequence[TrialRecord]) -> int:
    return sum(not trial.unfinished for trial in trials)


def make_display(console: Console) -> LiveDisplay | LogDisplay:
    """A live table on a terminal, else a log."""
    return (
        LiveDisplay(console) if console.is_terminal and not console.is_dumb_terminal else LogDisplay(console)
    )

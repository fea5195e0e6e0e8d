"""A sweep as it goes: a live table on a terminal, a log where there is none."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from rich.console import Console, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table

from lorasweep.training.settings import higher_is_better
from lorasweep.tuning.record.folder import TrialRecord, rank_trials
from lorasweep.tuning.record.words import METRIC_NAMES, counts_text, duration, score_text, settings_line
from lorasweep.tuning.sweep.plan import SweepPlan


class Progress:
    """What both displays know: the trials so far, the best of them, time spent and left."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._plan: SweepPlan | None = None
        self._trials: dict[int, TrialRecord] = {}
        self._before: dict[int, int] = {}
        self._started = time.monotonic()
        self._text = "starting Ray"

    def begin(self, plan: SweepPlan, past: Sequence[TrialRecord]) -> None:
        """The trials begin."""
        self._plan = plan
        self._trials = {trial.number: trial for trial in past}
        self._before = {trial.number: len(trial.evaluations) for trial in past}
        self._started = time.monotonic()

    def update(self, trial: TrialRecord) -> None:
        """A trial began, reached a rung, or ended."""
        # Made anew, not changed: a live display's thread may be counting the trials just now.
        self._trials = self._trials | {trial.number: trial}
        self._text = ""

    def best(self) -> TrialRecord | None:
        """The best trial so far."""
        if self._plan is None:
            return None
        ranked = rank_trials(list(self._trials.values()), higher_is_better(self._plan.config.training.metric))
        return ranked[0] if ranked else None

    def best_line(self) -> str:
        """The best trial so far with its settings, on one line."""
        best = self.best()
        if best is None or self._plan is None:
            return "none yet"
        metric = self._plan.config.training.metric
        score = f"{score_text(best.score, metric)} {METRIC_NAMES[metric]}"
        return f"{score}, {best.id}: {settings_line(best.hyperparameters, list(self._plan.space.searched))}"

    def work_done(self) -> float:
        """Share of the expected rungs that are done, in [0, 1]."""
        if self._plan is None:
            return 0.0
        expected = self._rungs_done() + self._rungs_left()
        return self._rungs_done() / expected if expected else 0.0

    def seconds_left(self) -> float | None:
        """Time left by the pace of this run, or None before there is a pace."""
        fresh = sum(len(trial.evaluations) - self._before.get(n, 0) for n, trial in self._trials.items())
        if fresh < 2:
            return None
        return (time.monotonic() - self._started) / fresh * self._rungs_left()

    def _rungs_done(self) -> int:
        return sum(len(trial.evaluations) for trial in self._trials.values())

    def _rungs_left(self) -> float:
        """Rungs to come: for each trial that runs or will run what one is expected to take."""
        if self._plan is None:
            return 0.0
        budget = self._plan.budget
        per_trial = budget.rungs * budget.epochs_expected / max(budget.epochs_at_most, 1e-9)
        running = [trial for trial in self._trials.values() if trial.state == "running"]
        # A running trial that is past the average goes, likely, to the end.
        left = sum(
            max(per_trial - len(trial.evaluations), 0.0) or budget.rungs - len(trial.evaluations)
            for trial in running
        )
        return left + (budget.trials - len(self._trials)) * per_trial

    def time_line(self) -> str:
        """Time spent and left."""
        left = self.seconds_left()
        spent = duration(time.monotonic() - self._started)
        return f"{spent} spent" + (f", about {duration(left)} left" if left is not None else "")


class LiveDisplay(Progress):
    """A few lines that are drawn again as the sweep goes."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._spinner = Spinner("dots")
        self._live = Live(console=console, get_renderable=self._draw, refresh_per_second=4, transient=True)

    def begin(self, plan: SweepPlan, past: Sequence[TrialRecord]) -> None:
        """Draw from now on."""
        super().begin(plan, past)
        self._live.start()

    def phase(self, text: str) -> None:
        """What is being done now, when it is not trials."""
        self._text = text

    def stopping(self) -> None:
        """The user asked to stop."""
        self._text = "stopping; Ctrl-C again to stop at once"

    def end(self) -> None:
        """Clear the lines: the result is printed in their place."""
        self._live.stop()

    def _draw(self) -> RenderableType:
        table = Table(box=None, show_header=False, padding=(0, 1, 0, 0))
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        if self._plan is None:
            return table
        trials, budget = list(self._trials.values()), self._plan.budget
        ended = sum(trial.state != "running" for trial in trials)
        table.add_row("sweep", ProgressBar(total=1.0, completed=self.work_done(), width=40))
        table.add_row("trials", f"{ended} of {budget.trials} done: {counts_text(trials)}")
        table.add_row("best", escape(self.best_line()))
        table.add_row("time", self.time_line())
        for trial in trials:
            if trial.state == "running":
                table.add_row("", escape(self._running_line(trial)))
        if self._text:
            self._spinner.update(text=escape(self._text))
            table.add_row("now", self._spinner)
        return table

    def _running_line(self, trial: TrialRecord) -> str:
        assert self._plan is not None
        metric, searched = self._plan.config.training.metric, list(self._plan.space.searched)
        rung = f"rung {len(trial.evaluations)}/{self._plan.budget.rungs}"
        score = score_text(trial.score, metric)
        return f"{trial.id} {rung} {score:>6}  {settings_line(trial.hyperparameters, searched)}"


class LogDisplay(Progress):
    """A line for each thing that happens, for files and continuous integration."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._seen: dict[int, tuple[str, int]] = {}
        # A signal's handler logs too, maybe in the middle of a line that this very thread prints.
        self._lock = threading.RLock()

    def phase(self, text: str) -> None:
        """What is being done now, when it is not trials."""
        self._log(text)

    def stopping(self) -> None:
        """The user asked to stop."""
        self._log("stopping; Ctrl-C again to stop at once")

    def end(self) -> None:
        """Nothing to clear."""

    def update(self, trial: TrialRecord) -> None:
        """One line for a rung or an end."""
        super().update(trial)
        seen, before = (trial.state, len(trial.evaluations)), self._seen.get(trial.number)
        if self._plan is None or before == seen:
            return
        self._seen[trial.number] = seen
        metric, searched = self._plan.config.training.metric, list(self._plan.space.searched)
        score = score_text(trial.score, metric)
        ended = sum(other.state != "running" for other in self._trials.values())
        if trial.state == "running" and not trial.evaluations:
            self._log(f"{trial.id} begins: {settings_line(trial.hyperparameters, searched)}")
        elif trial.state == "running" and before is None:
            rung = f"{len(trial.evaluations)}/{self._plan.budget.rungs}"
            self._log(
                f"{trial.id} goes on after rung {rung}: {settings_line(trial.hyperparameters, searched)}"
            )
        elif trial.state == "running":
            self._log(f"{trial.id} rung {len(trial.evaluations)}/{self._plan.budget.rungs}: {score}")
        elif trial.state == "failed":
            self._log(f"{trial.id} failed: {trial.error}")
        else:
            how = "completed" if trial.state == "completed" else "stopped by ASHA"
            self._log(
                f"{trial.id} {how}: {score}; {ended} of {self._plan.budget.trials} done; "
                f"best {self.best_line()}"
            )

    def _log(self, text: str) -> None:
        with self._lock:
            clock = duration(time.monotonic() - self._started)
            self._console.print(f"{clock:>7}  {escape(text)}", soft_wrap=True, highlight=False)


def make_display(console: Console) -> LiveDisplay | LogDisplay:
    """A live table where there is a terminal to draw on, else a log."""
    return (
        LiveDisplay(console) if console.is_terminal and not console.is_dumb_terminal else LogDisplay(console)
    )

"""What a person sees while a sweep goes, on a terminal and in a log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from lorasweep.training.settings import Hyperparameters
from lorasweep.tuning.record.config import SearchSettings
from lorasweep.tuning.record.results import SweepResult, Winner
from lorasweep.tuning.record.trial_records import TrialRecord
from lorasweep.tuning.search.stopping import plan_budget
from lorasweep.tuning.sweep.winner.phases import Step
from lorasweep.tuning.terminal.progress import LiveDisplay, LogDisplay, Progress, make_display

RESULT = SweepResult(state="finished", metric="accuracy")
SETTINGS = {"rank": 8, "target_modules": "[bold]layer[0-5]"}


def summary_of(
    trials: int = 4, asha: bool = False, metric: str = "accuracy", steps: Sequence[Step] = ()
) -> dict[str, Any]:
    """What the displays read of a plan's summary: 2 epochs of 3 rungs each, two trials at once."""
    return {
        "resources": {"concurrency": 2},
        "steps": [asdict(step) for step in steps],
        "metric": metric,
        "searched": ["rank", "target_modules"],
        "stopping": "ASHA",
        "budget": asdict(plan_budget(SearchSettings(trials=trials, asha=asha), 2, 6)),
    }


def trial(
    number: int, rungs: int, state: str = "running", score: float | None = None, **more: Any
) -> TrialRecord:
    """A record after some rungs."""
    return TrialRecord.model_validate(
        {
            "id": f"t{number:03d}",
            "number": number,
            "state": state,
            "settings": SETTINGS,
            "score": score if score is not None or not rungs else 0.5 + number / 100,
            "evaluations": [
                {"rung": rung, "score": 0.5, "seconds": 10 * rung} for rung in range(1, rungs + 1)
            ],
        }
        | more
    )


def log_lines(*updates: TrialRecord, past: tuple[TrialRecord, ...] = ()) -> list[str]:
    """What the log says, without its clock."""
    file = StringIO()
    display = LogDisplay(Console(file=file, width=80))
    display.phase("starting")
    display.begin(summary_of(), past)
    for update in updates:
        display.update(update)
    display.end(RESULT, {})
    lines = file.getvalue().splitlines()
    assert all(line[:7].strip() == "0:00" for line in lines)
    return [line[9:] for line in lines]


def test_the_log_has_a_line_for_each_event() -> None:
    """Each once, whole however long, with brackets as they are."""
    best = "51.0% accuracy, t001: rank 8, targets [bold]layer[0-5]"
    lines = log_lines(
        trial(1, 0),
        trial(1, 0),
        trial(1, 1),
        trial(1, 1, last_checkpoint="c"),
        trial(2, 0),
        trial(2, 0, "failed", error="no [module] of that name " + "x" * 100),
        trial(1, 6, "completed"),
        trial(3, 2, "stopped", score=0.1),
        trial(4, 3, "completed", score=0.2, stopped_by="early_end"),
    )
    assert lines == [
        "starting",
        "t001 starts: rank 8, targets [bold]layer[0-5]",
        "t001 rung 1/6: 51.0%",
        "t002 starts: rank 8, targets [bold]layer[0-5]",
        "t002 failed: no [module] of that name " + "x" * 100,
        f"t001 completed: 51.0%; 2 of 4 done, about 1:00 left; best {best}",
        f"t003 stopped by ASHA: 10.0%; 3 of 4 done, about 1:00 left; best {best}",
        f"t004 ended early: 20.0%; 4 of 4 done, a few seconds left; best {best}",
    ]


def test_a_trial_that_is_tried_again_says_so_in_one_line() -> None:
    """Each time, also between two evaluations; what is on record from an earlier run is not told again."""
    old, first, second = "began anew", "failure of node gpu-1: no [model]", "failure of node gpu-2: away"
    lines = log_lines(
        trial(1, 1, notes=(old, first)),
        trial(1, 1, notes=(old, first)),
        trial(1, 1, notes=(old, first, second)),
        past=(trial(1, 1, notes=(old,)),),
    )
    assert lines[1:] == [
        f"t001 {first}",
        "t001 continues after rung 1/6: rank 8, targets [bold]layer[0-5]",
        f"t001 {second}",
    ]
    console = Console(file=StringIO(), width=80, height=24, force_terminal=True)
    display = LiveDisplay(console)
    display.begin(summary_of(), ())
    display.update(trial(1, 0, notes=(f"{first} " + "x " * 300,)))
    plain = Console(file=StringIO(), width=80)
    with plain.capture() as drawn:
        plain.print(display._draw())
    display.end(RESULT, {})
    noted = drawn.get().partition("noted ")[2]
    assert noted.strip().startswith(f"t001 {first}")
    assert noted.count("x") < 160, "two lines, however long it is"


def test_a_sweep_in_a_given_time_counts_no_trials_that_may_never_be() -> None:
    file = StringIO()
    display = LogDisplay(Console(file=file, width=80))
    display.begin(summary_of() | {"limits": {"trials": None, "max_minutes": 3}}, ())
    display.update(trial(1, 2, "stopped", stopped_by="time"))
    assert "t001 stopped by the time limit: 51.0%; 1 done, about " in file.getvalue()


def test_the_answer_is_shown_before_the_sweep_is_tidied_up() -> None:
    winner = Winner.model_validate(
        {
            "id": "t000",
            "score": 0.9,
            "settings": SETTINGS,
            "test": {"accuracy": 0.867, "macro_f1": 0.8, "loss": 0.5},
            "interval": {"accuracy": (0.834, 0.903)},
        }
    )
    answer = "t000: 86.7% accuracy on the test split (83.4% to 90.3%)"
    live = LiveDisplay(Console(force_terminal=True, file=StringIO(), width=80, legacy_windows=False))
    file = StringIO()
    for display in (live, LogDisplay(Console(file=file, width=80))):
        display.begin(summary_of(), [trial(0, 6, "completed", 0.9)])
        display.chosen(winner)
    assert f"winner {answer}" in drawn(live)
    live.end(RESULT, {})
    assert file.getvalue() == f"   0:00  winner {answer}\n"


def test_the_log_of_a_trial_that_goes_on() -> None:
    """It goes on after the rungs it has; past trials are in the count and may be the best."""
    lines = log_lines(
        trial(1, 2), trial(1, 3), trial(1, 6, "completed"), past=(trial(0, 6, "completed", 0.9), trial(1, 2))
    )
    assert lines[1] == "t001 continues after rung 2/6: rank 8, targets [bold]layer[0-5]"
    assert lines[2] == "t001 rung 3/6: 51.0%"
    assert lines[3].startswith(
        "t001 completed: 51.0%; 2 of 4 done, about 1:00 left; best 90.0% accuracy, t000"
    )


def test_the_best_of_a_sweep_of_losses() -> None:
    """The lowest; none before there is a score."""
    progress = Progress(Console(file=StringIO()))
    assert progress.best_line() == "none yet"
    progress.begin(summary_of(metric="loss"), [trial(0, 0)])
    assert progress.best_line() == "none yet"
    progress.update(trial(1, 1, score=0.9))
    progress.update(trial(2, 1, score=0.2))
    assert progress.best_line() == "0.2000 loss, t002: rank 8, targets [bold]layer[0-5]"


def drawn(display: LiveDisplay, width: int = 80) -> list[str]:
    """What the display shows, without blanks at the ends of lines."""
    shown = Console(file=StringIO(), width=width, record=True)
    shown.print(display._draw())
    lines = shown.export_text().splitlines()
    assert max(map(len, lines)) <= width
    return [line.rstrip() for line in lines]


def test_the_live_table_draws_and_goes_away() -> None:
    """On a terminal of 80 columns: counts, the best trials and those that run, what is being done."""
    console = Console(force_terminal=True, file=StringIO(), width=80, legacy_windows=False)
    display = LiveDisplay(console)
    display.phase("starting Ray")
    display.begin(summary_of(), [trial(0, 6, "completed", 0.9)])
    display.update(trial(2, 0))
    display.update(trial(1, 2))
    display.phase("scoring t000 on the test split")
    lines = drawn(display)
    display.end(RESULT, {})
    assert lines[1] == "trials 1 of 4 done: 1 completed, 2 running"
    assert "scoring t000 on the test split" in lines[3]
    assert lines[5].split() == ["trial", "accuracy", "rank", "targets", "rungs"]
    assert [line.split() for line in lines[6:]] == [
        ["t000", "90.0%", "8", "[bold]layer[0-5]", "6/6", "completed"],
        ["t001", "51.0%", "8", "[bold]layer[0-5]", "2/6", "running"],
        ["t002", "-", "8", "[bold]layer[0-5]", "0/6", "running"],
    ]


@pytest.mark.parametrize(("width", "metric"), [(80, "accuracy"), (60, "loss")])
def test_the_live_table_fits_a_small_screen(width: int, metric: str) -> None:
    """The best five with their rungs, a line each however many settings, and no more running trials than fit."""
    console = Console(force_terminal=True, file=StringIO(), width=width, height=24, legacy_windows=False)
    display = LiveDisplay(console)
    for searched in (["rank", "target_modules"], list(Hyperparameters.model_fields)):
        display.begin(summary_of(trials=60, metric=metric) | {"searched": searched}, [])
        for number in range(40):
            display.update(trial(number, number % 7, "stopped" if number < 20 else "running"))
        lines = drawn(display, width)
        display.end(RESULT, {})
        assert len(lines) <= 24
        ids = [line.split()[0] for line in lines if line.startswith("t0")]
        best = [39, 38, 37, 36, 34] if metric == "accuracy" else [1, 2, 3, 4, 5]
        assert ids[:5] == [f"t{number:03d}" for number in best]
        assert len(ids) > 5
        assert all(f" {number % 7}/6 " in lines[-len(ids) + place] for place, number in enumerate(best))


def test_a_sweep_that_stops_says_so_to_its_end() -> None:
    """Trials that end meanwhile do not hide it, and no time is told: it is not known."""
    display = LiveDisplay(Console(file=StringIO()))
    display.begin(summary_of(), [])
    display.update(trial(0, 3))
    assert display.seconds_left() is not None
    display.stopping()
    display.update(trial(0, 4))
    lines = drawn(display)
    display.end(RESULT, {})
    assert "stopping; Ctrl-C again" in lines[3]
    assert lines[2] == "time   0:00 spent"


def test_a_display_that_never_began_can_end() -> None:
    """A sweep that breaks before its first trial ends its display all the same."""
    for display in (
        LiveDisplay(Console(force_terminal=True, file=StringIO())),
        LogDisplay(Console(file=StringIO())),
    ):
        display.phase("starting Ray")
        display.end(RESULT, {})


def test_a_table_where_there_is_a_terminal_else_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dumb terminal cannot be drawn on."""
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(make_display(Console(file=StringIO(), force_terminal=True)), LiveDisplay)
    assert isinstance(make_display(Console(file=StringIO())), LogDisplay)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(make_display(Console(file=StringIO(), force_terminal=True)), LogDisplay)


def test_finalists_are_counted_apart_and_lead() -> None:
    """Whatever the scores of the search, which are on other rows."""
    display = Progress(Console(file=StringIO()))
    search = [
        trial(number, 6, "completed", score=0.9 - number / 10, settings={"rank": number + 1})
        for number in range(4)
    ]
    display.begin(summary_of() | {"part": {"best": 2, "finalists": 3}}, search)
    assert display.done() == "4 of 4 done"
    best = display.best()
    assert best is not None
    assert best.id == "t000"
    for number in (0, 1):
        display.update(
            trial(number, 6, "completed", score=0.2, id=f"t00{number}-full", finalist_of=f"t00{number}")
        )
        assert display.done() == f"4 of 4 done, {number + 1} of 2 finalists"
    best = display.best()
    assert best is not None
    assert best.id == "t000-full"
    display.update(trial(3, 0, id="t003-full", finalist_of="t003"))
    assert display.done() == "4 of 4 done, 2 of 3 finalists"


def test_what_trials_wait_for_is_shown_until_one_starts() -> None:
    text = "t001 waits for 1 core: 10.0.0.2 has 0 of 2 cores free"
    file = StringIO()
    log = LogDisplay(Console(file=file, width=80))
    log.begin(summary_of(), [])
    live = LiveDisplay(Console(file=StringIO(), width=80))
    Progress.begin(live, summary_of(), [])

    def drawn() -> str:
        console = Console(file=StringIO(), width=120, record=True)
        console.print(live._draw())
        return console.export_text()

    for display in (log, live):
        display.waiting(text)
        display.update(trial(0, 1))
    assert file.getvalue().count(text) == 1
    # A rung of another trial does not hide it.
    assert f"waits  {text}" in drawn()
    for display in (log, live):
        display.waiting("")
    assert file.getvalue().count("waits") == 1
    assert "waits" not in drawn()

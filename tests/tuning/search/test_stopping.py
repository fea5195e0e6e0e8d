"""ASHA through a restart, its rungs, and the budget, against Ray's own brackets and a brute-force count."""

from __future__ import annotations

import random
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.schedulers.async_hyperband import _Bracket

from lorasweep.training.settings import Metric
from lorasweep.tuning.record.config import SearchSettings
from lorasweep.tuning.record.reported import OBJECTIVE, RUNG
from lorasweep.tuning.record.trial_records import EvaluationRecord, TrialRecord
from lorasweep.tuning.record.words import counts_text
from lorasweep.tuning.search.asha import RecallingASHA
from lorasweep.tuning.search.stopping import (
    RULES,
    StoppingRule,
    format_epochs,
    halving_rungs,
    make_scheduler,
    plan_budget,
    stopping_rule,
)
from lorasweep.tuning.trials.recorder import past_scores

RUNGS = 9
# Keep the best third, from the first rung on.
THIRD = SearchSettings(grace_rungs=1, reduction_factor=3)


def ray_trial(key: str, scores: list[float] | None = None, start: int | None = None) -> Any:
    """What a scheduler reads of one of Ray's trials."""
    return SimpleNamespace(trial_id=key, config={"scores": scores or [], "start": start})


def report(scheduler: TrialScheduler, trial: Any, rung: int, score: float) -> str:
    """The scheduler's decision on one rung."""
    return str(scheduler.on_trial_result(None, trial, {RUNG: rung, OBJECTIVE: score}))


def random_events(seed: int, trials: int = 14) -> list[tuple[int, int, float]]:
    """(trial, rung, running best) in an order as four trials at once may bring it."""
    chance = random.Random(seed)
    best = {number: chance.random() for number in range(trials)}
    rung = dict.fromkeys(range(trials), 0)
    waiting, running, events = list(range(trials)), [], []
    while waiting or running:
        while waiting and len(running) < 4:
            running.append(waiting.pop(0))
        number = chance.choice(running)
        rung[number] += 1
        best[number] += chance.random() / 9
        events.append((number, rung[number], best[number]))
        if rung[number] == RUNGS:
            running.remove(number)
    return events


def play(
    events: list[tuple[int, int, float]], metric: Metric, settings: SearchSettings, cut: int | None
) -> list[str]:
    """Decisions on all events; at `cut` the scheduler is lost and rebuilt from the records."""
    sign = -1.0 if metric == "loss" else 1.0
    scheduler = make_scheduler(settings, metric, RUNGS)
    scores: dict[int, list[float]] = {}
    stopped: set[int] = set()
    added: set[int] = set()
    decisions = []
    for place, (number, rung, score) in enumerate(events):
        if place == cut:
            ended = {n for n, seen in scores.items() if n in stopped or len(seen) == RUNGS}
            # Every third of those that ended had failed: its rungs count for ASHA as those of the others.
            records = [
                TrialRecord(
                    id=f"t{n:03d}",
                    number=n,
                    state=("failed" if n % 3 == 0 else "stopped") if n in ended else "running",
                    evaluations=tuple(EvaluationRecord(rung=n, score=s) for n, s in enumerate(seen, 1)),
                )
                for n, seen in scores.items()
            ]
            scheduler = make_scheduler(settings, metric, RUNGS, past_scores(records))
            added = ended
            for n in set(scores) - ended:
                scheduler.on_trial_add(None, ray_trial(f"again{n}", scores[n]))
                added.add(n)
        if number in stopped:
            continue
        trial = ray_trial(f"again{number}" if cut is not None and place >= cut else f"first{number}")
        if number not in added:
            scheduler.on_trial_add(None, trial)
            added.add(number)
        decisions.append(report(scheduler, trial, rung, sign * score))
        scores.setdefault(number, []).append(sign * score)
        if decisions[-1] == TrialScheduler.STOP:
            stopped.add(number)
    return decisions


@pytest.mark.parametrize("metric", ["accuracy", "loss"])
@pytest.mark.parametrize("seed", range(6))
def test_a_rebuilt_asha_decides_as_one_that_was_never_interrupted(metric: Metric, seed: int) -> None:
    """Whatever the cut: the decisions before and after it are those of an unbroken sweep."""
    events = random_events(seed)
    settings = SearchSettings(reduction_factor=2 + seed % 2)
    whole = play(events, metric, settings, None)
    assert TrialScheduler.STOP in whole
    for cut in range(1, len(events), 5):
        assert play(events, metric, settings, cut) == whole, f"cut before event {cut}"


def test_asha_stops_the_higher_loss_and_the_lower_accuracy() -> None:
    """The direction is the metric's."""
    for metric, good, bad in (("accuracy", 0.9, 0.1), ("loss", 0.1, 0.9)):
        scheduler = make_scheduler(THIRD, metric, RUNGS)  # type: ignore[arg-type]
        for key in ("a", "b", "c"):
            scheduler.on_trial_add(None, ray_trial(key))
        assert report(scheduler, ray_trial("a"), 1, good) == TrialScheduler.CONTINUE
        # One other score is too few to tell the best third.
        assert report(scheduler, ray_trial("b"), 1, bad) == TrialScheduler.CONTINUE
        assert report(scheduler, ray_trial("c"), 1, bad) == TrialScheduler.STOP


@pytest.mark.parametrize("objective", ["accuracy", "loss"])
@pytest.mark.parametrize("resumed", [False, True])
def test_the_known_good_start_is_never_stopped_and_counts_for_the_others(
    objective: Metric, resumed: bool
) -> None:
    """However bad it is; its end is that of its budget. Another start is stopped as any trial is."""
    good, middle, bad = (0.9, 0.5, 0.1) if objective == "accuracy" else (0.1, 0.5, 0.9)
    scheduler = make_scheduler(THIRD, objective, RUNGS)
    for key in ("a", "b"):
        scheduler.on_trial_add(None, ray_trial(key))
        assert report(scheduler, ray_trial(key), 1, good) == TrialScheduler.CONTINUE
    start = ray_trial("start", start=1)
    scheduler.on_trial_add(None, start)
    assert report(scheduler, start, 1, bad) == TrialScheduler.CONTINUE
    assert scheduler.debug_string().startswith("Using AsyncHyperBand: num_stopped=0")
    if resumed:
        # The two others go on as well.
        scheduler = make_scheduler(THIRD, objective, RUNGS)
        start = ray_trial("again", [bad], start=1)
        for trial in (ray_trial("a", [good]), ray_trial("b", [good]), start):
            scheduler.on_trial_add(None, trial)
    for key in ("a", "b"):
        assert report(scheduler, ray_trial(key), 3, good) == TrialScheduler.CONTINUE
    for rung in range(2, RUNGS):
        assert report(scheduler, start, rung, bad) == TrialScheduler.CONTINUE
    assert report(scheduler, start, RUNGS, bad) == TrialScheduler.STOP
    # Among good, good, bad the best third begins at good: without the bad one's score nobody would be judged yet.
    recorded = dict(scheduler._brackets[0]._rungs)  # type: ignore[attr-defined]
    assert [len(recorded[rung]) for rung in (1, 3)] == [3, 3]
    second = ray_trial("second", start=2)
    scheduler.on_trial_add(None, second)
    assert report(scheduler, second, 1, middle) == TrialScheduler.STOP


def test_nothing_is_stopped_before_a_third_of_its_training_unless_asked_for() -> None:
    for rungs, halving in ((2, [1]), (3, [1, 2]), (6, [2, 4]), (12, [4, 8]), (1, [])):
        assert halving_rungs(SearchSettings(), rungs) == halving
    assert halving_rungs(THIRD, 6) == [1, 3]


def test_without_room_for_a_halving_nothing_is_stopped() -> None:
    """Neither without ASHA nor where the grace is the whole trial."""
    assert type(make_scheduler(SearchSettings(asha=False), "accuracy", 9)) is FIFOScheduler
    assert type(make_scheduler(SearchSettings(grace_rungs=4), "accuracy", 4)) is FIFOScheduler
    assert type(make_scheduler(SearchSettings(grace_rungs=3), "accuracy", 4)) is RecallingASHA


def test_halving_rungs_are_the_milestones_of_rays_bracket() -> None:
    """Below the last rung, where every trial ends anyway."""
    for factor in (2, 3, 4, 5):
        for grace in range(1, 7):
            for rungs in range(grace, 130):
                settings = SearchSettings(reduction_factor=factor, grace_rungs=grace)
                bracket = _Bracket(grace, rungs, factor, 0)
                ours = halving_rungs(settings, rungs)
                assert ours == sorted(rung for rung, _ in bracket._rungs if rung < rungs), settings
    assert halving_rungs(SearchSettings(asha=False), 9) == []


def test_the_expected_budget_is_that_of_synchronous_halving() -> None:
    """Count, trial by trial, the rungs of sweeps whose trials divide evenly at each halving."""
    for factor, rungs, trials, epochs in ((2, 8, 32, 4), (3, 9, 81, 3), (3, 6, 27, 3), (2, 5, 16, 5)):
        spent = 0
        for place in range(trials):
            last, keep = rungs, trials
            for halving in halving_rungs(SearchSettings(reduction_factor=factor), rungs):
                keep //= factor
                if place >= keep:
                    last = halving
                    break
            spent += last
        settings = SearchSettings(reduction_factor=factor, trials=trials)
        budget = plan_budget(settings, epochs, rungs)
        assert budget.epochs_expected == pytest.approx(spent * epochs / rungs)
        assert budget.epochs_at_most == epochs * trials


def test_asynchronous_halving_spends_about_the_expected_budget() -> None:
    """Trials one after another pass more easily than expected, and never need more than the most."""
    settings = SearchSettings(trials=60)
    budget = plan_budget(settings, epochs=RUNGS, rungs=RUNGS)
    chance = random.Random(1)
    scheduler, spent = make_scheduler(settings, "accuracy", RUNGS), 0
    for number in range(settings.trials):
        trial, score = ray_trial(str(number)), chance.random()
        scheduler.on_trial_add(None, trial)
        for rung in range(1, RUNGS + 1):
            spent += 1
            if report(scheduler, trial, rung, score) == TrialScheduler.STOP:
                break
    assert budget.epochs_expected * 0.7 < spent < min(budget.epochs_expected * 1.6, budget.epochs_at_most)


def test_a_new_rule_is_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its label, rungs, share and scheduler reach the texts, the budget and Ray."""
    halves = StoppingRule("Halves", lambda settings, rungs: [2], lambda settings: Fraction(1, 2), fifo_of)
    monkeypatch.setitem(RULES, "asha", halves)
    settings = SearchSettings(trials=8)
    assert stopping_rule(settings).text(settings, [2]) == "Halves: keep the best 1/2 after rung 2"
    assert stopping_rule(settings).text(settings, None) == "Halves"
    assert plan_budget(settings, epochs=4, rungs=4).epochs_expected == 8 * 2 + 4 * 2
    assert vars(make_scheduler(settings, "loss", 4, {"t000": [0.5]}))["arguments"] == (
        settings, "loss", 4, {"t000": [0.5]},
    )  # fmt: skip
    records = [TrialRecord(id=f"t{n}", number=n, state="stopped") for n in range(2)]
    assert counts_text(records, stopping_rule(settings).label) == "2 stopped by Halves"


def fifo_of(*arguments: Any) -> TrialScheduler:
    """A scheduler that remembers what it was made of."""
    scheduler = FIFOScheduler()
    scheduler.arguments = arguments  # type: ignore[attr-defined]
    return scheduler


def test_a_budget_is_never_below_one_full_trial_nor_above_all() -> None:
    """A single trial is never stopped; without ASHA all are full."""
    one = plan_budget(SearchSettings(trials=1), epochs=3, rungs=9)
    assert one.epochs_expected == one.epochs_at_most == 3
    assert plan_budget(SearchSettings(asha=False), 3, 6).epochs_expected == 60
    assert [format_epochs(epochs) for epochs in (3.0, 3.25, 20.4)] == ["3", "3.2", "20"]

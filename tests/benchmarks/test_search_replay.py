"""Sweeps replayed on made-up curves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import optuna
import pytest
import search_replay
from made_curves import RATES, curve, curves, settings
from search_replay import Judge, Outcome, Strategy, replay
from surrogate import RUNGS, Surrogate

from lorasweep.search_spaces.space import load_space
from lorasweep.tuning.record.config import SearchSettings

SPACE = load_space("lora_cpu")
FULL = SearchSettings(asha=False)
BAD, GOOD = settings(RATES[0]), settings(2e-3)


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def run(
    strategy: Strategy, *starts: dict[str, object], cost: int = 4, seed: int = 0, **made: float
) -> Outcome:
    surrogate = Surrogate([curve(rate, **made) for rate in RATES])
    return replay(strategy, SPACE, starts, surrogate, cost, seed)


def test_a_trial_that_is_not_stopped_costs_one() -> None:
    """Two workers train the start and a random trial at once, so the start is worth all it has at a cost of two."""
    outcome = run(Strategy("full", FULL), GOOD)
    assert outcome.held_out.shape == (4 * RUNGS,)
    assert outcome.held_out[0] == pytest.approx(curve().held_out["accuracy"][0])
    assert outcome.held_out[2 * RUNGS - 1] == pytest.approx(0.9)
    assert outcome.held_out[:RUNGS].max() < 0.9


def test_the_held_out_score_is_that_of_the_trial_that_validation_chose() -> None:
    outcome = run(Strategy("full", FULL), GOOD, luck=0.02)
    assert outcome.validation == pytest.approx(outcome.held_out + 0.02)


def test_a_lucky_trial_is_chosen_and_shown_for_what_it_is() -> None:
    lucky = [curve(rate, luck=0.3 * (rate == RATES[0])) for rate in RATES]
    outcome = replay(Strategy("full", FULL, starts=2), SPACE, [GOOD, BAD], Surrogate(lucky), 2, 0)
    assert outcome.validation[-1] == pytest.approx(lucky[0].best())
    assert outcome.held_out[-1] == pytest.approx(lucky[0].worth())
    assert lucky[0].worth() < 0.8


def test_fewer_rungs_pay_for_what_lies_between_them() -> None:
    """What both rungs of a sixth have cost is there after two twelfths, from the second evaluation."""
    outcome = run(Strategy("six", FULL, rungs=6), GOOD)
    assert outcome.held_out[0] == 0
    assert outcome.held_out[1] == pytest.approx(curve().held_out["accuracy"][1])


def test_asha_stops_weak_trials_and_so_meets_more_of_them() -> None:
    """With a start that is worth nothing, early stopping gets further at the same cost."""

    def mean(search: SearchSettings) -> float:
        strategy = Strategy("any", search.model_copy(update={"sampler": "random"}), starts=0)
        return float(np.mean([run(strategy, cost=8, seed=seed).held_out for seed in range(8)]))

    assert mean(SearchSettings(grace_rungs=3)) > mean(FULL) + 0.005


def ended(strategy: Strategy, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The states of the study's trials, in order, of a sweep whose first start is bad and slow."""
    made: list[Judge] = []

    class Seen(Judge):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr(search_replay, "Judge", Seen)
    slow = replace(curve(RATES[0]), seconds=(2.5,) * RUNGS)
    starts = [BAD, GOOD, settings(2.5e-3), settings(1.2e-3)]
    replay(strategy, SPACE, starts, Surrogate([slow, *curves()[1:]]), 8, 0)
    return [trial.state.name for trial in made[-1].study.trials]


@pytest.mark.parametrize(("protected", "state"), [(True, "COMPLETE"), (False, "PRUNED")])
def test_the_first_start_is_not_stopped_where_it_is_protected(
    protected: bool, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = SearchSettings(reduction_factor=2, grace_rungs=3)
    states = ended(Strategy("any", search, starts=4, protected=protected), monkeypatch)
    assert states[0] == state
    assert "PRUNED" in states


def test_hyperband_is_optunas() -> None:
    with pytest.MonkeyPatch.context() as patch:
        states = ended(Strategy("hyperband", FULL, guided_by="accuracy", hyperband=True, starts=4), patch)
    assert "PRUNED" in states


def test_asha_and_the_sampler_may_see_different_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[tuple[float, ...]] = set()
    report = optuna.Trial.report
    monkeypatch.setattr(
        optuna.Trial, "report", lambda self, value, step: (seen.add((value,)), report(self, value, step))[1]
    )
    run(Strategy("both", SearchSettings(), stopped_by="accuracy", guided_by="loss"), GOOD, cost=2)
    losses = {value for each in curves() for value in each.validation["loss"]}
    assert {value for (value,) in seen} <= losses


def test_a_diverged_trial_pays_for_the_rung_in_which_it_failed() -> None:
    broken = [curve(rate, rungs=3) for rate in RATES]
    outcome = replay(Strategy("full", FULL), SPACE, [GOOD], Surrogate(broken), 2, 0)
    # Both workers' first trials take four rungs each of the 24, the last of them for nothing.
    assert outcome.held_out[5] == outcome.held_out[-1] == pytest.approx(broken[3].held_out["accuracy"][2])


def test_a_seed_repeats() -> None:
    first, second = (run(Strategy("now"), GOOD, cost=3, seed=3) for _ in range(2))
    assert np.array_equal(first.held_out, second.held_out)

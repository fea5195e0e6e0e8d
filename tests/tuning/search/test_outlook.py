"""Whether more trials would pay: Optuna's bound, where it says something."""

from __future__ import annotations

from math import log

import optuna
import pytest
from scored_trials import drawn, scored

from lorasweep.search_spaces.domains import Choice, Range
from lorasweep.search_spaces.space import SearchSpace
from lorasweep.tuning.search.evidence import Evidence
from lorasweep.tuning.search.outlook import OUTLOOK_TRIALS, regret_bound

SPACE = SearchSpace("two", {"learning_rate": Range(1e-4, 1e-2, log=True), "rank": Choice((4, 8))})


def study(count: int, best: float = 1e-3) -> optuna.Study:
    """Trials whose score falls with the square of the distance to the best rate."""
    trials = drawn(SPACE, count, lambda h: 0.9 - log(h.learning_rate / best) ** 2 / 100)
    return Evidence(SPACE, trials, "accuracy").study


def test_the_bound_holds_what_is_left() -> None:
    """The best score of the space is 0.9."""
    seen = study(40)
    bound = regret_bound(seen)
    assert bound is not None
    assert 0.9 - seen.best_value <= bound < 0.03
    assert bound == regret_bound(seen), "the same page each time"


def test_no_bound_where_it_would_say_nothing() -> None:
    assert regret_bound(study(OUTLOOK_TRIALS)) is not None
    assert regret_bound(study(OUTLOOK_TRIALS - 1)) is None
    equal = scored(SPACE, [{"learning_rate": 1e-3, "rank": 4}] * 40, [0.5] * 40)
    assert regret_bound(Evidence(SPACE, equal, "accuracy").study) is None


def test_no_bound_for_branches_without_a_common_setting() -> None:
    """As a function's may be."""
    branches = optuna.create_study(direction="maximize")
    kind = optuna.distributions.FloatDistribution(0, 1)
    for number in range(40):
        name = ("one", "other")[number % 2]
        branches.add_trial(
            optuna.trial.create_trial(
                value=number / 40, params={name: number / 40}, distributions={name: kind}
            )
        )
    assert regret_bound(branches) is None


@pytest.mark.filterwarnings("error")
def test_nobody_is_warned() -> None:
    """Optuna's terminator is experimental, which a reader of the report cannot mend."""
    assert regret_bound(study(OUTLOOK_TRIALS)) is not None

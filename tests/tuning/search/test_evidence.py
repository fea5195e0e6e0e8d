"""What trials say of a space: nothing that is not there, and what is."""

from __future__ import annotations

from itertools import combinations
from math import log

import numpy as np
import pytest
from scored_trials import drawn, scored

from lorasweep.search_spaces.domains import Choice, IntRange, Range
from lorasweep.search_spaces.space import SearchSpace
from lorasweep.training.settings import Hyperparameters
from lorasweep.tuning.search.evidence import (
    EVIDENCE_TRIALS,
    Evidence,
    more_by_chance,
    none_by_chance,
    place,
    value_at,
    window_by_chance,
)

SPACE = SearchSpace(
    "small",
    {
        "learning_rate": Range(1e-4, 1e-2, log=True),
        "rank": Choice((4, 8, 16, 32)),
        "target_modules": Choice(("query-value", "attention", "all-linear")),
        "dropout": Range(0.0, 0.2),
        "batch_size": 16,
    },
)
RATE = SearchSpace("rate", {"learning_rate": Range(1e-4, 1e-2, log=True)})
RANK = SearchSpace("rank", {"rank": Choice((4, 8, 16, 32))})


def by_rate(chosen: Hyperparameters, best: float = 1e-3) -> float:
    return 0.9 - abs(log(chosen.learning_rate / best)) / 10


def test_probabilities_are_those_of_counting() -> None:
    """Of all ways to be three of seven."""
    ways = list(combinations(range(7), 3))
    for some in range(8):
        assert none_by_chance(7, 3, some) == pytest.approx(np.mean([min(w) >= some for w in ways]))
        for among in range(4):
            seen = np.mean([sum(n < some for n in w) >= among for w in ways])
            assert more_by_chance(7, 3, some, among) == pytest.approx(seen)
    for width in range(1, 8):
        assert window_by_chance(7, 3, width) == pytest.approx(np.mean([w[2] - w[0] < width for w in ways]))


def test_places_and_values_are_each_others_inverse() -> None:
    for domain in (
        Range(1e-4, 1e-2, log=True),
        Range(0.0, 0.2),
        IntRange(4, 64, log=True),
        IntRange(8, 64, step=8),
    ):
        assert [place(domain, domain.low), place(domain, domain.high)] == [0, 1]
        for where in (-0.25, 0.0, 0.3, 1.0, 1.25):
            assert place(domain, value_at(domain, where)) == pytest.approx(where)


def test_chance_seldom_looks_like_influence() -> None:
    """In 200 sweeps whose scores mean nothing; each claim is wrong at most once in twenty times."""
    spans, dead, touched = 0, 0, 0
    for seed in range(200):
        luck = np.random.default_rng(seed)
        findings = Evidence(
            SPACE, drawn(SPACE, 20, lambda _, luck=luck: luck.random(), seed=seed), "accuracy"
        ).findings
        spans += findings["learning_rate"].span is not None
        dead += bool(findings["rank"].dead)
        touched += bool(findings["dropout"].touched)
    assert spans <= 18
    assert touched <= 18
    # Four values, each judged by itself.
    assert dead <= 40


def test_the_good_part_of_a_range() -> None:
    rates = [1e-4 * 10 ** (n / 19 * 2) for n in range(20)]
    trials = scored(
        RATE,
        [{"learning_rate": rate} for rate in rates],
        [by_rate(Hyperparameters(learning_rate=rate)) for rate in rates],
    )
    evidence = Evidence(RATE, trials, "accuracy")
    assert sorted(trial.id for trial in evidence.good) == ["t007", "t008", "t009", "t010", "t011"]
    finding = evidence.findings["learning_rate"]
    assert (finding.trials, finding.good) == (20, 5)
    assert (finding.low, finding.high) == (rates[7], rates[11])
    assert (finding.below, finding.above) == (7, 8)
    # Four of nineteen steps hold them, and a step on each side is added; less than a quarter, so it is made that.
    assert finding.span == pytest.approx((7 / 19 - 1 / 19, 11 / 19 + 1 / 19), abs=0.01)
    assert finding.touched == ()


def test_the_lowest_losses_are_the_best() -> None:
    rates = [1e-4 * 10 ** (n / 19 * 2) for n in range(20)]
    losses = [1 - by_rate(Hyperparameters(learning_rate=rate)) for rate in rates]
    evidence = Evidence(RATE, scored(RATE, [{"learning_rate": rate} for rate in rates], losses), "loss")
    assert evidence.findings["learning_rate"].low == rates[7]
    assert evidence.study.best_value == min(losses)


@pytest.mark.parametrize(("best", "end"), [(1e-2, "high"), (1e-4, "low")])
def test_an_end_of_a_range_that_the_best_touch(best: float, end: str) -> None:
    evidence = Evidence(RATE, drawn(RATE, 24, lambda h: by_rate(h, best)), "accuracy")
    assert evidence.findings["learning_rate"].touched == (end,)


def test_values_that_no_good_trial_has() -> None:
    """Eight trials of each: 4 is dead, 8 and 16 have good trials, and the best lie at 32, the highest."""
    ranks = [4, 8, 16, 32] * 8
    scores = [{4: 0.1, 8: 0.6, 16: 0.65, 32: 0.8}[rank] + number / 1000 for number, rank in enumerate(ranks)]
    scores[1] = scores[2] = 0.95
    finding = Evidence(RANK, scored(RANK, [{"rank": rank} for rank in ranks], scores), "accuracy").findings[
        "rank"
    ]
    assert finding.good == 8
    assert finding.dead == {}, "eight trials of 32 are too few to call a value dead"
    assert finding.touched == (), "the best of all has another rank"
    more = Evidence(
        RANK, scored(RANK, [{"rank": rank} for rank in ranks * 2], [*scores, *scores]), "accuracy"
    )
    assert more.findings["rank"].dead == {4: 16}
    scores[1] = scores[2] = 0.6
    last = Evidence(RANK, scored(RANK, [{"rank": rank} for rank in ranks], scores), "accuracy").findings[
        "rank"
    ]
    assert last.touched == ("high",)


def test_choices_that_are_no_numbers_have_no_ends() -> None:
    space = SearchSpace("modules", {"target_modules": Choice(("attention", "query-value"))})
    trials = drawn(space, 20, lambda h: float(h.target_modules == "attention"))
    finding = Evidence(space, trials, "accuracy").findings["target_modules"]
    assert finding.touched == ()
    assert set(finding.dead) == {"query-value"}


def test_few_trials_say_nothing() -> None:
    trials = drawn(RATE, EVIDENCE_TRIALS - 1, by_rate)
    evidence = Evidence(RATE, trials, "accuracy")
    assert not evidence.enough
    finding = evidence.findings["learning_rate"]
    assert (finding.span, finding.touched, finding.dead) == (None, (), {})
    assert Evidence(RATE, drawn(RATE, EVIDENCE_TRIALS, by_rate), "accuracy").enough


def test_which_trials_count() -> None:
    """None without a finite score, none on other rows, none outside the space, which an older version may have had."""
    settings = [{"learning_rate": 1e-3}] * 3
    trials = scored(RATE, settings, [0.5, None, float("nan")])
    trials.append(trials[0].model_copy(update={"id": "t003", "number": 3, "finalist_of": "t000"}))
    outside = Hyperparameters(learning_rate=0.5)
    trials.append(trials[0].model_copy(update={"id": "t004", "number": 4, "hyperparameters": outside}))
    assert [trial.id for trial in Evidence(RATE, trials, "accuracy").ranked] == ["t000"]
    assert Evidence(RATE, [], "accuracy").ranked == []


def test_full_fine_tuning_says_nothing_of_adapters() -> None:
    space = SearchSpace("methods", {"method": Choice(("lora", "full")), "rank": Choice((4, 8))})
    evidence = Evidence(space, drawn(space, 30, lambda h: h.rank / 10 - (h.method == "full")), "accuracy")
    of_lora = sum(trial.hyperparameters.method == "lora" for trial in evidence.ranked)
    assert 0 < of_lora < 30
    assert evidence.findings["rank"].trials == of_lora
    assert evidence.findings["method"].trials == 30


def test_what_does_not_matter_is_known_from_thirty_trials_on() -> None:
    space = SearchSpace("two", {"learning_rate": Range(1e-4, 1e-2, log=True), "dropout": Choice((0.0, 0.1))})
    for count, known in ((60, True), (20, False)):
        rates = [1e-4 * 10 ** (n // 2 / (count / 2 - 1) * 2) for n in range(count)]
        settings = [{"learning_rate": rate, "dropout": (0.0, 0.1)[n % 2]} for n, rate in enumerate(rates)]
        evidence = Evidence(
            space, scored(space, settings, [by_rate(space.hyperparameters(s)) for s in settings]), "accuracy"
        )
        assert sum(evidence.importances.values()) == pytest.approx(1)
        assert evidence.findings["dropout"].without_influence is known
        assert not evidence.findings["learning_rate"].without_influence

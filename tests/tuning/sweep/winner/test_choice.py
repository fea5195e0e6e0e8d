"""The choice of the winner: by score, by size or speed within a margin, by the mean over other seeds."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import pytest

from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.record.results import Confirmed
from lorasweep.tuning.record.trial_records import TrialRecord
from lorasweep.tuning.sweep.winner.choice import choices, choose, contenders, rule_text, within


def config(metric: str = "accuracy", keep: int = 1, **choice: Any) -> SweepConfig:
    """A sweep's configuration with this way of choosing."""
    entries = {"name": "demo", "training": {"metric": metric}, "choice": choice, "keep": keep}
    return SweepConfig.model_validate(entries)


def trial(
    number: int, score: float, parameters: int = 100, seconds: float = 10.0, **more: Any
) -> TrialRecord:
    """A trial of two evaluations: the first one's macro-F1 is its number's tenth, the loss its opposite."""
    evaluations = [
        {"rung": 1, "accuracy": score / 2, "macro_f1": number / 10, "loss": 1 - number / 10, "score": 0},
        {"rung": 2, "accuracy": score, "macro_f1": 0.0, "loss": 2.0, "score": score},
    ]
    entries = {"id": f"t{number:03d}", "number": number, "state": "completed", "evaluations": evaluations}
    entries |= {"score": score, "trainable_parameters": parameters, "seconds": seconds}
    return TrialRecord.model_validate(entries | {"checkpoint": f"c{number}"} | more)


TRIALS = [
    trial(0, 0.900, 500, 20),
    trial(1, 0.905, 900, 30),
    trial(2, 0.902, 500, 8),
    trial(3, 0.800, 10, 1),
    trial(4, 0.950, 100, 10, checkpoint=None),  # nothing is left of it to export
]


@pytest.mark.parametrize(
    ("rule", "margin", "winner"),
    [
        ("best", 0.5, "t001"),
        ("smallest", 0.5, "t002"),  # of two of one size the better
        ("smallest", 0.0, "t001"),
        ("smallest", 20, "t003"),
        ("fastest", 0.4, "t002"),
    ],
)
def test_by_each_rule(rule: str, margin: float, winner: str) -> None:
    found = choose(TRIALS, config(rule=rule, margin=margin))
    assert found is not None
    assert found.id == winner


def test_the_margin_holds_its_end() -> None:
    """0.905 - 0.9 is a hair more than 0.005 in binary."""
    assert [entry.id for entry in within([TRIALS[1], TRIALS[2], TRIALS[0]], "accuracy", 0.5)] == [
        "t001", "t002", "t000",
    ]  # fmt: skip


def test_a_lower_loss_is_better() -> None:
    losses = [trial(0, 0.70, 9), trial(1, 0.702, 5), trial(2, 0.9, 1)]
    chosen = [choose(losses, config("loss", rule=rule)) for rule in ("best", "smallest")]
    assert [entry.id for entry in chosen if entry] == ["t000", "t001"]


def test_the_mean_over_other_seeds_decides() -> None:
    """Also against the search's own score; trials that were not confirmed do not count."""
    confirmed = [
        Confirmed(id="t000", scores={"1": 0.91}, mean=0.91, spread=0.0),
        Confirmed(id="t001", scores={"1": 0.85}, mean=0.85, spread=0.0),
    ]
    found = choose(TRIALS, config(), confirmed)
    assert found == TRIALS[0]


def test_nothing_to_choose_from() -> None:
    assert choose([], config()) is None
    assert choose([TRIALS[4]], config()) is None
    assert choices([], config()) == {}
    assert contenders([], config(rule="fastest")) == []


def test_who_can_still_win() -> None:
    """The best by count, those to be confirmed, and where size or speed decides those that may win by it."""
    assert contenders(TRIALS, config(keep=2)) == ["t001", "t002"]
    assert contenders(TRIALS, config(confirm="3x2")) == ["t001", "t002", "t000"]
    assert contenders(TRIALS, config(rule="smallest", margin=20)) == ["t001", "t002", "t003"]
    # Whoever wins by a rule is among the contenders.
    for rule in ("best", "smallest", "fastest"):
        settings = config(rule=rule, margin=0.3)
        found = choose(TRIALS, settings)
        assert found is not None
        assert found.id in contenders(TRIALS, settings)


def pruned(trials: Sequence[TrialRecord], settings: SweepConfig) -> list[TrialRecord]:
    """The trials after they have ended one after the other, with the checkpoints that were left each time."""
    kept: list[TrialRecord] = []
    for ended in trials:
        kept.append(ended)
        left = contenders(kept, settings)
        kept = [
            entry if entry.id in left else entry.model_copy(update={"checkpoint": None}) for entry in kept
        ]
    return kept


def test_the_next_smallest_still_has_its_checkpoint_when_the_best_score_rises() -> None:
    """The last trial puts the smallest one out of the margin, and the one before it in its place."""
    sizes = [(0.900, 800), (0.899, 800), (0.898, 800), (0.8965, 200), (0.8955, 100), (0.901, 900)]
    trials = [trial(number, *entry) for number, entry in enumerate(sizes)]
    settings = config(keep=3, rule="smallest")
    found = choose(pruned(trials, settings), settings)
    assert found is not None
    assert found.id == "t003"


@pytest.mark.parametrize("rule", ["best", "smallest", "fastest"])
def test_the_winner_is_that_of_all_checkpoints(rule: str) -> None:
    """Whatever the order in which trials end, also where they choose among base models."""
    random = Random(0)
    for _ in range(300):
        trials = [
            trial(
                number,
                round(random.uniform(0.88, 0.90), 3),
                random.choice([100, 200, 300, 400]),
                random.choice([4.0, 8.0, 12.0, 16.0]),
                hyperparameters={"base_model": random.choice("aaab")},
            ).model_copy(update={"parameters": random.choice([1000, 2000, 3000])})
            for number in range(12)
        ]
        settings = config(rule=rule, margin=1.0)
        found, wanted = choose(pruned(trials, settings), settings), choose(trials, settings)
        assert found is not None
        assert wanted is not None
        assert found.id == wanted.id


def test_a_running_trial_puts_no_other_out() -> None:
    """Its speed may fall yet."""
    quick = trial(1, 0.901, 100, 1, state="running")
    assert "t000" in contenders([trial(0, 0.900, 100, 8), quick], config(rule="fastest"))
    done = quick.model_copy(update={"state": "completed"})
    assert contenders([trial(0, 0.900, 100, 8), done], config(rule="fastest")) == ["t001"]


def test_no_more_checkpoints_are_kept_than_can_win() -> None:
    """By size one for each size; none that a better trial is as small and as fast as."""
    random = Random(1)
    near = [trial(n, round(random.uniform(0.8, 0.9), 4), random.choice([1, 2, 3]) * 100) for n in range(60)]
    assert len(contenders(near, config(rule="smallest", margin=100))) <= 3
    falling = [trial(number, 0.9 - number / 1000, 100 + number, 10 + number) for number in range(9)]
    assert contenders(falling, config(rule="smallest", margin=100)) == ["t000"]


def test_who_would_have_won() -> None:
    assert choices(TRIALS[:4], config()) == {
        "accuracy": "t001",
        "macro-F1": "t003",
        "loss": "t003",
        "smallest within 0.5 points": "t002",
        "fastest within 0.5 points": "t002",
    }


def test_the_rule_in_words() -> None:
    assert rule_text(config(), False) == "best validation accuracy"
    assert rule_text(config("macro_f1", confirm="3x2"), True) == "best mean macro-F1 over 2 other seeds"
    words = rule_text(config("loss", rule="smallest", margin=1), False)
    assert words == "smallest adapter within 0.01 nats of the best validation loss"


def test_the_known_good_start_keeps_its_checkpoint() -> None:
    """However it scores: what the search adds is told against it. Its finalist stands for it on all rows."""
    started = [TRIALS[0], TRIALS[1], TRIALS[2], TRIALS[3].model_copy(update={"start": 1})]
    assert contenders(started, config(keep=2)) == ["t001", "t002", "t003"]
    finalist = trial(5, 0.7, finalist_of="t003")
    assert "t005" in contenders([*started, finalist], config(keep=2))
    second = TRIALS[3].model_copy(update={"start": 2})
    assert contenders([*TRIALS[:3], second], config(keep=2)) == ["t001", "t002"]
    best = [TRIALS[0], TRIALS[1].model_copy(update={"start": 1})]
    assert contenders(best, config(keep=1)) == ["t001"]


def test_a_finalist_is_compared_with_finalists_alone() -> None:
    """A search trial's score is on other rows; and its checkpoint is not needed once a finalist has one."""
    last = [
        trial(number, score, id=f"t00{number}-full", finalist_of=f"t00{number}")
        for number, score in ((0, 0.5), (1, 0.4))
    ]
    both = [*TRIALS, *last]
    assert contenders(both, config(keep=3)) == ["t000-full", "t001-full"]
    assert contenders(both, config(keep=1, rule="smallest", margin=100)) == ["t000-full"]
    waiting = [entry.model_copy(update={"checkpoint": None}) for entry in last]
    assert contenders([*TRIALS, *waiting], config(keep=2)) == ["t001", "t002"]
    found = choose(both, config())
    assert found is not None
    assert found.id == "t000-full"


def test_of_several_base_models_the_smallest_whole_one_wins() -> None:
    """A small adapter on a large base model is not small."""
    trials = [
        trial(0, 0.9, 900, hyperparameters={"base_model": "small"}).model_copy(update={"parameters": 10_000}),
        trial(1, 0.9, 100, hyperparameters={"base_model": "large"}).model_copy(update={"parameters": 90_000}),
    ]
    found = choose(trials, config(rule="smallest", margin=1))
    assert found is not None
    assert found.id == "t000"
    assert rule_text(config(rule="smallest"), False, bases=True).startswith("smallest model within")

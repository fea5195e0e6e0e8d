"""What the search added, in plain words: the start first, noise called noise."""

from __future__ import annotations

from typing import Any

import pytest

from lorasweep.training.settings import Hyperparameters, Metric
from lorasweep.tuning.record.gains import gain_texts
from lorasweep.tuning.record.results import Gain, Reference, StartReference, SweepResult, TestScores, Winner

SCORES = TestScores(accuracy=0.8, macro_f1=0.7, loss=0.5)
LOWER = TestScores(accuracy=0.6, macro_f1=0.5, loss=0.9)
SETTINGS = Hyperparameters()


def result(
    start: str | None, metric: Metric = "accuracy", untuned: bool = False, **fields: Any
) -> SweepResult:
    """A result whose winner is t003."""
    reference = Reference(hyperparameters=SETTINGS, score=0.6, test=LOWER, seconds=1)
    entries = {"winner": Winner(id="t003", score=0.8, hyperparameters=SETTINGS, test=SCORES)}
    known = StartReference(id=start, hyperparameters=SETTINGS, score=0.7, test=LOWER) if start else None
    more = {"start": known, "untuned": reference if untuned else None}
    return SweepResult(state="finished", metric=metric, **{**entries, **more, **fields})


@pytest.mark.parametrize(
    ("metric", "difference", "interval", "text"),
    [
        (
            "accuracy",
            0.031,
            (0.012, 0.049),
            "The search adds +3.1 points of accuracy to its known-good start t000 (95 % interval +1.2 to +4.9).",
        ),
        (
            "macro_f1",
            0.012,
            (-0.001, 0.025),
            "The search adds +1.2 points of macro-F1 to its known-good start t000 (95 % interval -0.1 to +2.5): "
            "within noise.",
        ),
        (
            "accuracy",
            -0.004,
            (-0.02, 0.011),
            "The search found nothing better than its start, t000: -0.4 points of accuracy on the test split "
            "(95 % interval -2.0 to +1.1): within noise.",
        ),
        (
            "accuracy",
            0.0,
            (0.0, 0.0),
            "The search found nothing better than its start, t000: +0.0 points of accuracy on the test split "
            "(95 % interval +0.0 to +0.0): within noise.",
        ),
        (
            "loss",
            -0.02,
            (-0.03, -0.01),
            "The search lowers the loss of its known-good start t000 by 0.0200 nats (95 % interval 0.0100 to 0.0300).",
        ),
        (
            "loss",
            0.02,
            None,
            "The search found nothing better than its start, t000: +0.0200 nats of loss on the test split.",
        ),
    ],
)
def test_what_the_search_adds_to_its_start(
    metric: Metric, difference: float, interval: tuple[float, float] | None, text: str
) -> None:
    gain = Gain(difference=difference, interval=interval)
    assert gain_texts(result("t000", metric, over_start=gain)) == [text]


def test_a_start_that_won_is_said_so() -> None:
    assert gain_texts(result("t003")) == ["The search found nothing better than its start, t003."]


def test_the_untuned_settings_come_second() -> None:
    """Of an older result the difference alone is known."""
    gains = {"over_start": Gain(difference=0.01, interval=(0.002, 0.02))}
    first, second = gain_texts(result("t000", untuned=True, **gains))
    assert first.startswith("The search adds +1.0 points")
    assert second == "Tuning adds +20.0 points of accuracy to the untuned default."
    over = Gain(difference=0.2, interval=(0.1, 0.3))
    (told,) = gain_texts(result(None, untuned=True, over_untuned=over))
    assert (
        told == "Tuning adds +20.0 points of accuracy to the untuned default (95 % interval +10.0 to +30.0)."
    )
    (worse,) = gain_texts(result(None, untuned=True, over_untuned=Gain(difference=-0.01)))
    assert worse == (
        "Tuning found nothing better than the untuned default: -1.0 points of accuracy on the test split."
    )


def test_without_a_start_or_a_winner_nothing_is_said() -> None:
    assert gain_texts(result(None)) == []
    assert gain_texts(SweepResult(state="failed", metric="accuracy")) == []

import math

import pytest

from lorasweep.training.loop.best import Best
from lorasweep.training.settings import Metric


@pytest.mark.parametrize(
    ("metric", "scores", "best", "rung"),
    [
        ("accuracy", [0.5, 0.75, 0.7, 0.75, 0.2], 0.75, 4),
        ("macro_f1", [0.5, 0.4], 0.5, 1),
        ("loss", [1.5, 0.75, 0.8, 0.75, 2.0], 0.75, 4),
        ("loss", [0.0], 0.0, 1),
    ],
)
def test_the_best_evaluation_is_kept_and_the_later_of_equal_ones(
    metric: Metric, scores: list[float], best: float, rung: int
) -> None:
    kept = Best(metric)
    taken = [number for number, score in enumerate(scores, start=1) if kept.update(score, number)]
    assert (kept.score, kept.rung, taken[-1]) == (best, rung, rung)


def test_before_the_first_evaluation_there_is_no_score() -> None:
    assert math.isnan(Best("accuracy").score)
    assert Best("accuracy").rung == 0


def test_a_best_evaluation_that_is_resumed() -> None:
    kept = Best("loss", 0.5, 2)
    assert not kept.update(0.6, 3)
    assert kept.update(0.5, 4)
    assert (kept.score, kept.rung) == (0.5, 4)


def test_no_number_gives_way_to_any() -> None:
    best = Best("macro_f1")
    assert best.update(math.nan, 1)
    assert not best.update(math.nan, 2)
    assert best.update(0.2, 3)
    assert not best.update(math.nan, 4)
    assert (best.score, best.rung) == (0.2, 3)

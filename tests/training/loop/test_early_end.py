"""A trial that no longer learns ends, and stays ended."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from tiny_trials import dataset, hyperparameters, loaded, settings, start

from lorasweep.training.loop.early_end import ends_early
from lorasweep.training.loop.fine_tune import fine_tune
from lorasweep.training.model.base_model import LoadedBase


@pytest.fixture(scope="module")
def bert(tiny_base: Callable[[str], Path]) -> LoadedBase:
    return loaded(tiny_base("bert"))


@pytest.mark.parametrize(
    ("losses", "patience", "ends"),
    [
        ([], 1, False),
        ([3.0], 1, False),
        ([3.0, 2.0], 1, False),
        ([3.0, 3.0], 1, True),  # the same again is no fall
        ([2.0, 3.0], 1, True),
        ([2.0, 3.0], 2, False),
        ([2.0, 3.0, 2.5], 2, True),
        ([2.0, 3.0, 1.5], 2, False),
        ([2.0, 3.0, 1.5, 2.0, 1.4, 1.6], 2, False),
        ([2.0, 3.0], None, False),
        ([None, 2.0, 3.0], 1, True),
    ],
)
def test_when(losses: Sequence[float | None], patience: int | None, ends: bool) -> None:
    assert ends_early(losses, patience) is ends


def test_a_trial_ends_and_a_loaded_one_stays_ended(bert: LoadedBase, tmp_path: Path) -> None:
    """At this rate the loss rises again; the evaluations are those of the trial without an early end."""
    data, chosen = dataset(), hyperparameters(learning_rate=0.1, warmup=0.0)
    shared = settings(epochs=6, evaluations_per_epoch=2)
    whole = [e.scores.loss for e in fine_tune(start(bert, chosen), data, chosen, shared)]
    expected = next(n for n in range(1, 13) if ends_early(whole[:n], 2))
    assert 3 <= expected < 12
    ending = shared.model_copy(update={"early_end": 2})
    state = start(bert, chosen)
    assert [e.scores.loss for e in fine_tune(state, data, chosen, ending)] == whole[:expected]
    state.save(tmp_path)
    again = start(bert, chosen)
    again.load(tmp_path)
    assert list(fine_tune(again, data, chosen, ending)) == []
    assert again.rung == expected

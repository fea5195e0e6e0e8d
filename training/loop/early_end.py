"""When a trial ends before its budget because it no longer learns."""

from __future__ import annotations

from collections.abc import Sequence


def ends_early(losses: Sequence[float | None], patience: int | None) -> bool:
    """Whether a trial ends after these evaluations: its validation loss has not fallen for `patience` of them.

    Args:
        losses: on the validation split, one of each evaluation so far; None where it is not on record.
        patience: `TrainingSettings.early_end`; None never ends a trial.
    """
    known = [loss for loss in losses if loss is not None]
    if patience is None or not known:
        return False
    # Of equal losses the first counts: the same again is no fall.
    return len(known) - 1 - known.index(min(known)) >= patience

"""Running out of memory, told in one line wherever fewer rows at once cannot help."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lorasweep.training.devices import is_out_of_memory
from lorasweep.training.errors import LorasweepError, TrainingError

# Each of them is in the user's hands, the first costs the scores nothing.
ADVICE = "run fewer trials at once on a device, or lower max_length or rank, or choose a smaller base model"


@contextmanager
def no_memory_for(what: str, advice: str = ADVICE) -> Iterator[None]:
    """Turn an error of any form that means a lack of memory into one line; others pass.

    The line is a `TrainingError`, which a trial reports instead of being tried again, as it would fail the same way.

    Args:
        what: what memory was needed for.
        advice: what to change.

    Raises:
        TrainingError: memory ran out inside.
    """
    try:
        yield
    except LorasweepError:
        raise
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(f"out of memory for {what}: {advice}") from error

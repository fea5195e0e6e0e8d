"""One row trained and measured in a process of its own, so that memory and threads are its alone."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import NamedTuple

import numpy as np
import torch

from lorasweep.training import devices
from lorasweep.training.data.encoded import EncodedDataset
from lorasweep.training.errors import LorasweepError, TrainingError, first_line
from lorasweep.training.loop.state import Evaluation
from lorasweep.training.model.hub import BaseModel
from lorasweep.training.model.precision import resolve_precision
from lorasweep.training.scores.scorer import Scorer
from lorasweep.training.settings import Hyperparameters, TrainingSettings
from lorasweep.tuning.compare.measure import measure
from lorasweep.tuning.compare.record import Costs

# A process that has sent its last message has nothing left to do but end.
ENDING_SECONDS = 60
LESS_MEMORY = "lower --batch-size or --max-length"


class RowTask(NamedTuple):
    """What a process needs to train one row, in the precision of its training settings."""

    base: BaseModel
    data: EncodedDataset
    hyperparameters: Hyperparameters
    training_settings: TrainingSettings
    scorer: Scorer
    threads: int
    device: torch.device


def measure_apart(task: RowTask, listen: Callable[[Evaluation], None]) -> tuple[np.ndarray, Costs]:
    """Train and measure a row in a new process.

    Args:
        listen: called at each evaluation.

    Returns:
        As `lorasweep.tuning.compare.measure.measure`.

    Raises:
        LorasweepError: as `lorasweep.tuning.compare.measure.measure`, or the process died.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(task, there), daemon=True)
    process.start()
    there.close()
    try:
        while True:
            message = here.recv()
            if isinstance(message, Evaluation):
                listen(message)
                continue
            # It ends by itself now. Terminated, it would give back none of its semaphores.
            process.join(ENDING_SECONDS)
            if isinstance(message, LorasweepError):
                raise message
            logits, costs = message
            return logits, costs
    except EOFError:
        process.join()
        raise TrainingError(
            f"its process died (exit code {process.exitcode}); the system may have killed it for lack of memory: "
            f"{LESS_MEMORY}"
        ) from None
    finally:
        if process.is_alive():
            process.terminate()
        process.join()
        here.close()


def _work(task: RowTask, pipe: Connection) -> None:
    from lorasweep.tuning.quiet import quiet_environment, quiet_libraries

    quiet_environment()
    quiet_libraries()
    base, data, hyperparameters, training_settings, scorer, threads, device = task
    torch.set_num_threads(threads)
    try:
        devices.begin(device)
        amp = resolve_precision(training_settings.precision, device, base.model_type)
        fast = resolve_precision("auto", device, base.model_type)
        pipe.send(measure(base, data, hyperparameters, training_settings, scorer, amp, fast, pipe.send))
    except LorasweepError as error:
        pipe.send(error)
    except Exception as error:  # goes into the row's own record: the other rows go on
        if devices.is_out_of_memory(error):
            pipe.send(TrainingError(f"out of memory on {device} ({first_line(error)}); {LESS_MEMORY}"))
            return
        pipe.send(TrainingError(f"training failed: {type(error).__name__}: {first_line(error)}"))

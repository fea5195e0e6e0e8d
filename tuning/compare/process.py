"""One row trained and measured in a process of its own: its memory and its threads are its alone."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection

import torch

from lorasweep.training.data.encoding import EncodedDataset
from lorasweep.training.errors import LorasweepError, TrainingError
from lorasweep.training.loop.state import Evaluation
from lorasweep.training.model.hub import BaseModel
from lorasweep.training.model.precision import AmpPolicy, resolve_precision
from lorasweep.training.settings import Hyperparameters, Precision, TrainingSettings
from lorasweep.tuning.compare.measure import Measured, measure


@dataclass(frozen=True)
class RowTask:
    """What a process needs to train one row."""

    base: BaseModel
    data: EncodedDataset
    hyperparameters: Hyperparameters
    settings: TrainingSettings
    precision: Precision
    threads: int


def measure_apart(task: RowTask, tell: Callable[[Evaluation], None]) -> tuple[Measured, str]:
    """Train and measure a row in a new process.

    Args:
        tell: called at each evaluation.

    Returns:
        The measurements, and the precision of the training.

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
            kind, value = here.recv()
            if kind == "evaluation":
                tell(value)
            elif kind == "measured":
                measured, precision = value
                return measured, precision
            elif isinstance(value, LorasweepError):
                raise value
            else:
                raise TrainingError(f"the row broke off: {value}")
    except EOFError:
        process.join()
        raise TrainingError(
            f"its process died (exit code {process.exitcode}); the system may have killed it for want of "
            "memory: lower --batch-size or --max-length"
        ) from None
    finally:
        if process.is_alive():
            process.terminate()
        process.join()
        here.close()


def row_policy(precision: Precision, model_type: str) -> AmpPolicy:
    """The precision that a row trains in on this machine, and the device.

    `auto` is fp32 where the processor has no bf16 of its own: it would emulate it, 25 times slower than fp32.
    """
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    return resolve_precision(precision, device, model_type)


def _work(task: RowTask, pipe: Connection) -> None:
    from lorasweep.tuning.quiet import quiet_environment, quiet_libraries

    quiet_environment()
    quiet_libraries()
    torch.set_num_threads(task.threads)
    try:
        amp = row_policy(task.precision, task.base.model_type)
        fast = row_policy("auto", task.base.model_type)

        def tell(evaluation: Evaluation) -> None:
            pipe.send(("evaluation", evaluation))

        found = measure(task.base, task.data, task.hyperparameters, task.settings, amp, fast, tell)
        pipe.send(("measured", (found, amp.name)))
    except LorasweepError as error:
        pipe.send(("error", error))
    except Exception as error:  # told in the row's own record: the other rows go on
        pipe.send(("error", f"{type(error).__name__}: {error}".splitlines()[0][:300]))

"""How a verb drives a sweep to its end, whichever verb it is."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from lorasweep.tuning.terminal.console import console
from lorasweep.tuning.tracking.store import tracking_store

if TYPE_CHECKING:
    from lorasweep.tuning.record.config import SweepConfig
    from lorasweep.tuning.record.folder import SweepFolder, SweepResult
    from lorasweep.tuning.sweep.plan import SweepPlan


def open_store(config: SweepConfig, mlruns: Path) -> str:
    """The sweep's store, made if need be. A server that is away is no reason to wait: it is filled later."""
    from lorasweep.tuning.tracking.store import StoreAwayError, prepare_store

    uri = tracking_store(config.tracking_uri, mlruns)
    # The sweep tells of it in one line, as it does of a server that goes away in the middle.
    with suppress(StoreAwayError):
        prepare_store(uri, mlruns)
    return uri


def drive(plan: SweepPlan, folder: SweepFolder, uri: str, *, steps: bool = True) -> None:
    """Run or go on with a sweep; then say how it ended and, unless more is to come, what can be done next."""
    from lorasweep.tuning.sweep.run import run_sweep
    from lorasweep.tuning.terminal.console import next_steps
    from lorasweep.tuning.terminal.progress import make_display
    from lorasweep.tuning.terminal.result import result_text
    from lorasweep.tuning.tracking.thread import MLflowCopy

    console.print()
    result = run_sweep(plan, folder, make_display(console), MLflowCopy(folder, uri))
    console.print(result_text(folder, result, folder.trials(), list(plan.space.searched), plan.budget.rungs))
    if steps or result.winner is None:
        next_steps(console, sweep_steps(folder, result))
    if result.state == "interrupted":
        raise typer.Exit(130)


def sweep_steps(folder: SweepFolder, result: SweepResult) -> list[tuple[str, str]]:
    """What can be done with a sweep that runs no more."""
    if result.winner is None:
        return [
            (f"lorasweep resume {folder.name}", "go on where it stopped"),
            (f"lorasweep status {folder.name}", "what there is so far"),
        ]
    return [
        ("lorasweep ui", "browse the trials"),
        (f"lorasweep export {folder.name} --out best-adapter", "take the winner along"),
        ('lorasweep predict --adapter best-adapter "Markets rally as inflation cools"', ""),
    ]

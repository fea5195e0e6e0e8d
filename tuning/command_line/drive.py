"""How a verb drives a sweep to its end, whichever verb it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from lorasweep.tuning.terminal.console import console

if TYPE_CHECKING:
    from lorasweep.tuning.record.folder import SweepFolder, SweepResult
    from lorasweep.tuning.sweep.start import Prepared


def drive(prepared: Prepared, *, steps: bool = True) -> None:
    """Run or go on with a sweep; then say how it ended and, unless more is to come, what can be done next."""
    from lorasweep.tuning.record.sweep import SweepRecord
    from lorasweep.tuning.sweep.start import begin
    from lorasweep.tuning.terminal.console import next_steps
    from lorasweep.tuning.terminal.progress import make_display
    from lorasweep.tuning.terminal.result import result_text

    console.print()
    folder = prepared.folder
    result = begin(prepared, [make_display(console)])
    console.print(result_text(SweepRecord(folder), result))
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

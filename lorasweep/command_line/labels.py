"""The verb `lorasweep check-labels`: training rows whose label is probably wrong."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

import lorasweep
from lorasweep.command_line.options import MLRUNS, Mlruns, SweepName
from lorasweep.tuning.record.commands import shell_command
from lorasweep.tuning.terminal.console import console, next_steps


def check_labels(
    name: SweepName = None,
    folds: Annotated[
        int,
        typer.Option(
            "--folds",
            help="Number of folds: each row is judged by a model that was trained on the other folds.",
        ),
    ] = 5,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "--output",
            help="The file to write, {written formats} [NAME-labels.csv].",
            show_default=False,
        ),
    ] = None,
    rows: Annotated[
        int | None,
        typer.Option(
            "--rows", help="Write at most this many rows, the most suspicious first.", show_default=False
        ),
    ] = None,
    mlruns: Mlruns = MLRUNS,
) -> None:
    """Find training rows whose label is probably wrong.

    The winner's settings are trained on folds of the training rows, and predict the rows that they have not seen.
    """
    from lorasweep.tuning.terminal.label_check import label_check_text

    sweep = lorasweep.open(name, mlruns=mlruns)
    file = out or Path(f"{sweep.name}-labels.csv")
    try:
        check = sweep.check_labels(file, folds=folds, rows=rows)
    except KeyboardInterrupt:
        done = len(list(sweep.record.folder.label_check.glob("fold-*")))
        again = sweep.record.folder.command("check-labels", "--folds", str(folds), "--out", str(file))
        console.print(
            f"interrupted: {done} of {folds} folds are on record; go on with: {again}", markup=False
        )
        raise typer.Exit(130) from None
    console.print(label_check_text(check))
    written = len(check.frame(rows))
    console.print(f"\n{file}: {written} rows, with an empty column `correct`", markup=False)
    if check.suspects:
        next_steps(console, label_steps(sweep, file))


def label_steps(sweep: lorasweep.Sweep, file: Path) -> list[tuple[str, str]]:
    """What to do with the file."""
    from lorasweep.driving import IN_MEMORY

    what = "write the right labels of wrong rows into the column `correct`, then search again"
    # Those that the sweep has trained on count as before.
    files = [*sweep.config.data.corrections, str(file)]
    if sweep.config.data.path == IN_MEMORY:
        return [(f"lorasweep.run(data, corrections={files})", f"{what}, in Python")]
    settings = quote(str(sweep.path / "config.yaml"))
    mlruns = sweep.record.folder.mlruns
    joined = ",".join(f'"{name}"' if "," in name else name for name in files)
    return [(f"{shell_command(mlruns, 'run')} --config {settings} --corrections {quote(joined)}", what)]

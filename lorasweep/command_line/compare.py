"""The verb `lorasweep compare`: full fine-tuning, untuned LoRA and a sweep's winner, side by side."""

from __future__ import annotations

from typing import Annotated, Any

import typer

import lorasweep
from lorasweep.command_line.options import MLRUNS, Mlruns, sweep_options
from lorasweep.options import COMPARE_OPTIONS
from lorasweep.tuning.compare.record import SEARCH_ROWS, SWEEP_OPTIONS
from lorasweep.tuning.record.commands import shell_command
from lorasweep.tuning.terminal.console import console, next_steps

COMPARE, BASELINES = "Comparison", "Baselines"


def _option(flag: str, group: str, help: str) -> Any:
    return typer.Option(flag, help=help, rich_help_panel=group)


@sweep_options(COMPARE_OPTIONS, SWEEP_OPTIONS)
def compare(
    *,
    options: dict[str, Any],
    sweep: Annotated[
        str | None,
        typer.Option(
            "--sweep",
            help="Finished sweep whose winner is compared; without it, a sweep is run first.",
            rich_help_panel=COMPARE,
            show_default=False,
        ),
    ] = None,
    all_rows: Annotated[
        bool,
        _option(
            "--all-rows",
            COMPARE,
            "Train the rows of the comparison on all of the data file of --sweep, not on the rows it searched with.",
        ),
    ] = False,
    search_rows: Annotated[
        int, _option("--search-rows", COMPARE, "Without --sweep, training rows that the sweep searches on.")
    ] = SEARCH_ROWS,
    batch_size: Annotated[
        int, _option("--batch-size", BASELINES, "Batch size of full fine-tuning and untuned LoRA.")
    ] = 32,
    full_rate: Annotated[
        float, _option("--full-rate", BASELINES, "Learning rate of full fine-tuning.")
    ] = 1e-4,
    lora_rate: Annotated[float, _option("--lora-rate", BASELINES, "Learning rate of untuned LoRA.")] = 2e-5,
    tune_baseline: Annotated[
        bool, _option("--tune-baseline", BASELINES, "Search both rates, too, in sweeps of their own.")
    ] = False,
    baseline_trials: Annotated[
        int,
        _option(
            "--baseline-trials", BASELINES, "With --tune-baseline, trials of each search for a learning rate."
        ),
    ] = 6,
    name: Annotated[
        str | None,
        typer.Option(
            "--name",
            help="Name of the comparison; by default that of its sweep and -compared.",
            rich_help_panel="Record",
            show_default=False,
        ),
    ] = None,
    mlruns: Mlruns = MLRUNS,
) -> None:
    """Train full fine-tuning, untuned LoRA and a sweep's winner side by side, and measure all that they cost.

    Interrupted, the same command goes on: what is done is not done again.
    """
    comparison = lorasweep.compare(
        options.pop("data"),
        sweep=sweep,
        all_rows=all_rows,
        search_rows=search_rows,
        batch_size=batch_size,
        full_rate=full_rate,
        lora_rate=lora_rate,
        tune_baseline=tune_baseline,
        baseline_trials=baseline_trials,
        name=name,
        mlruns=mlruns,
        **options,
    )
    from lorasweep.tuning.compare.text import comparison_text

    console.print(comparison_text(comparison.records))
    for path in comparison.files:
        console.print(str(path), markup=False)
    next_steps(
        console,
        [
            (shell_command(mlruns, "ui"), "browse the rows"),
            (
                shell_command(mlruns, "export", comparison.settings.sweep, "--out", "best-adapter"),
                "export the tuned adapter",
            ),
        ],
    )
    if comparison.failed:
        raise typer.Exit(2)

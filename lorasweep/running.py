"""`run`, `resume`, `open` and `sweeps`: sweeps started, continued and found again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from lorasweep.driving import folder_to_resume, resume_folder, run_again, run_options
from lorasweep.frames import sweeps_frame
from lorasweep.libraries import quietly
from lorasweep.options import OPTIONS, RESUME_OPTIONS, show_options
from lorasweep.spelling import naming_options
from lorasweep.sweep import Sweep
from lorasweep.training.errors import SettingsError
from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.record.folder import list_sweeps
from lorasweep.tuning.record.sweep import SweepRecord, read_sweep

if TYPE_CHECKING:
    import pandas as pd


@overload
def run(
    data: Any = None,
    *,
    config: str | Path | SweepConfig | None = None,
    mlruns: str | Path = "mlruns",
    extend: bool | Callable[[str], bool] = False,
    resume: bool = False,
    dry_run: Literal[False] = False,
    verbose: int = True,
    **options: Any,
) -> Sweep: ...
@overload
def run(data: Any = None, *, dry_run: bool, **options: Any) -> Any: ...
@quietly
def run(
    data: Any = None,
    *,
    config: str | Path | SweepConfig | None = None,
    mlruns: str | Path = "mlruns",
    extend: bool | Callable[[str], bool] = False,
    resume: bool = False,
    dry_run: bool = False,
    verbose: int = True,
    **options: Any,
) -> Any:
    """Search the settings that classify best, and keep the winner.

    Without data it runs the demonstration: made-up news, MiniLM, a few minutes on two cores.

    Args:
        data: a file, a folder, a web address, a data set's name on the hub, or a DataFrame; (train, test) or
            (train, validation, test) of these; or a dict with these keys.
        config: a YAML file of settings or a `SweepConfig`; options override it.
        mlruns: the folder of sweeps and of MLflow's record.
        extend: add trials to the sweep of this `name`; or a function that is asked whether to.
        resume: go on with the sweep of this `name` where there is one, here or on its `storage`, under its own
            settings; for jobs that are started again.
        dry_run: check everything, train nothing, and return the `SweepPlan`.
        verbose: show the plan and the progress; 2 shows the whole plan, with all that is known of data and model.
        options: those listed below. `space` may also be a dict, or a Python function of an Optuna trial.

    Returns:
        The `Sweep`. Interrupted with Ctrl-C its state is `interrupted`, and `lorasweep.resume` goes on with it.

    Raises:
        DataError: rows that cannot be read, or do not hold what a sweep needs.
        ModelError: the base model cannot be loaded, or has none of the target modules.
        SettingsError: an option that is not allowed, or a name that is in use.
        TrainingError: every trial failed, or several in a row for one reason.
        SweepStoppedError: the disk is full; the sweep can be resumed.

    Example:
        >>> sweep = lorasweep.run(trials=4, max_train_rows=200, epochs=1)  # doctest: +SKIP
        >>> plan = lorasweep.run("rows.csv", base_model="./base", trials=3, dry_run=True, verbose=False)
        >>> plan.budget.trials
        3
    """
    with naming_options(options, config):
        if resume and (extend is True or dry_run):
            raise SettingsError(
                "--resume: goes neither with --extend nor with --dry-run; leave one of them out"
            )
        if resume and (folder := run_again(options, config, Path(mlruns), verbose)) is not None:
            return Sweep(SweepRecord(folder))
        prepared = run_options(
            data, options, config=config, mlruns=mlruns, extend=extend, dry_run=dry_run, verbose=verbose
        )
    return prepared.plan if dry_run else Sweep(SweepRecord(prepared.folder))


@quietly
def resume(
    name: str | None = None,
    *,
    retry_failed: bool = False,
    confirm: str | None = None,
    mlruns: str | Path = "mlruns",
    verbose: int = True,
    **options: Any,
) -> Sweep:
    """Go on with a sweep that was interrupted or failed: what is done stays, the rest goes on from its checkpoints.

    With `storage`, also one that ran on another machine: its record lies beside its checkpoints. Where all trials
    failed, or several in a row for one reason, these are tried again.

    Args:
        name: the sweep's; the newest if None.
        retry_failed: try all failed trials again, also those of a finished sweep.
        confirm: retrain the best K trials on S other seeds (`"3x3"`), also of a finished sweep, and choose by their
            mean score.
        mlruns: the folder of sweeps.
        verbose: show the progress.
        options: those listed below, where they differ from now on. `address="local"` leaves a cluster for this machine.

    Raises:
        SettingsError: there is none, it is running, or it has finished.
        TrainingError, SweepStoppedError: as `run`.

    Example:
        >>> lorasweep.resume("demo")
        Traceback (most recent call last):
        ...
        lorasweep.training.errors.SettingsError: sweep demo: has finished; see: lorasweep status demo
    """
    folder = folder_to_resume(Path(mlruns), name, options.get("storage"), verbose)
    resume_folder(folder, verbose, retry_failed, confirm, options)
    return Sweep(SweepRecord(folder))


def open(name: str | None = None, *, mlruns: str | Path = "mlruns") -> Sweep:
    """A sweep that exists.

    Args:
        name: the sweep's; the newest if None.

    Raises:
        SettingsError: there is none; the known names are listed.

    Example:
        >>> lorasweep.open("demo")
        Sweep('demo', finished, 3 trials)
    """
    return Sweep(read_sweep(Path(mlruns), name))


def sweeps(mlruns: str | Path = "mlruns") -> pd.DataFrame:
    """All sweeps, the newest first: name, state, trials that have ended and in all, best score, test accuracy.

    Example:
        >>> list(lorasweep.sweeps()["name"])
        ['demo']
    """
    return sweeps_frame(records(mlruns))


def records(mlruns: str | Path) -> list[SweepRecord]:
    """All sweeps, the newest first."""
    return [SweepRecord(folder) for folder in list_sweeps(Path(mlruns))]


show_options(run, OPTIONS)
show_options(resume, RESUME_OPTIONS)

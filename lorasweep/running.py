"""`run`, `resume`, `open` and `sweeps`: sweeps started, continued and found again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from lorasweep.display import Waiting, display_for
from lorasweep.frames import sweeps_frame
from lorasweep.libraries import quietly
from lorasweep.options import OPTIONS, show_options, to_entries
from lorasweep.search_spaces.space import as_space
from lorasweep.sweep import Sweep
from lorasweep.training.errors import SettingsError
from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.record.folder import SweepFolder, list_sweeps
from lorasweep.tuning.record.sweep import SweepRecord, read_sweep
from lorasweep.tuning.sweep.defaults import given_entries, sweep_config
from lorasweep.tuning.sweep.extend import extended_config

if TYPE_CHECKING:
    import pandas as pd

# The data path of a sweep whose rows came from memory.
IN_MEMORY = "DataFrame"
# The splits that `run` takes, and the option that names the file of each.
SPLITS = {"train": "data", "validation": "validation", "test": "test"}


@overload
def run(
    data: Any = None,
    *,
    config: str | Path | SweepConfig | None = None,
    mlruns: str | Path = "mlruns",
    extend: bool | Callable[[str], bool] = False,
    dry_run: Literal[False] = False,
    verbose: bool = True,
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
    dry_run: bool = False,
    verbose: bool = True,
    **options: Any,
) -> Any:
    """Search the settings that classify best, and keep the winner.

    Without data it runs the demonstration: made-up news, MiniLM, a few minutes on two cores.

    Args:
        data: a file or a DataFrame; (train, test) or (train, validation, test) of these; or a dict with these keys.
        config: a YAML file of settings or a `SweepConfig`; options override it.
        mlruns: the folder of sweeps and of MLflow's record.
        extend: add trials to the sweep of this `name`; or a function that is asked whether to.
        dry_run: check everything, train nothing, and return the `SweepPlan`.
        verbose: show the plan and the progress.
        options: those listed below.

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
    mlruns = Path(mlruns)
    paths, frames = split_data(data)
    space = None
    if not isinstance(options.get("space"), str | Path | None):
        space = as_space(options["space"])
        options["space"] = space.name
    given = to_entries(options | {name: path for name, path in paths.items() if path is not None})
    entries = given_entries(given, config)
    folder = SweepFolder(mlruns, str(options.get("name")))
    from lorasweep.tuning.sweep import start

    if options.get("trials") is not None and folder.exists():
        record = SweepRecord(folder)
        config = extended_config(record, entries)
        before = record.config.search.trials
        question = f"sweep {folder.name} has {before} trials; add {config.search.trials - before}?"
        if not dry_run and not (extend(question) if callable(extend) else extend):
            raise SettingsError(f"{question} Say so with --extend, or choose another --name")
        with Waiting(verbose, "reading the sweep"):
            prepared = start.extend(folder, config)
    else:
        config = sweep_config(entries, mlruns)
        with Waiting(verbose, "checking data, model and search space"):
            prepared = start.prepare(config, mlruns, frames=frames, space=space)
    display = display_for(prepared, verbose)
    if dry_run:
        return prepared.plan
    start.begin(prepared, [display])
    return Sweep(SweepRecord(prepared.folder))


def continue_or_run(config: SweepConfig, mlruns: Path, verbose: bool) -> Sweep:
    """Run a sweep of this configuration, or go on with it where its folder is there already."""
    from lorasweep.tuning.sweep import start

    folder = SweepFolder(mlruns, config.name)
    with Waiting(verbose, "checking data, model and search space"):
        prepared = start.resume(folder) if folder.exists() else start.prepare(config, mlruns)
    if prepared is not None:
        start.begin(prepared, [display_for(prepared, verbose, plan=prepared.new)])
    return Sweep(SweepRecord(folder))


def split_data(data: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Data as `run` takes it → the options that name files, and the frames by split.

    Raises:
        SettingsError: a tuple of another length, a split that is not known, or something that is no table.
    """
    if isinstance(data, tuple | list):
        names = {2: ("train", "test"), 3: ("train", "validation", "test")}.get(len(data))
        if names is None:
            raise SettingsError(
                f"data: {len(data)} tables; give (train, test), (train, validation, test), or a dict with these keys"
            )
        data = dict(zip(names, data, strict=True))
    splits = data if isinstance(data, Mapping) else {"train": data}
    if "train" not in splits or not splits.keys() <= SPLITS.keys():
        raise SettingsError(
            f"data: splits {', '.join(map(str, splits))}; name them train, validation and test, with train always"
        )
    paths: dict[str, Any] = {}
    frames: dict[str, Any] = {}
    for split, table in splits.items():
        if table is None or isinstance(table, str | Path):
            paths[SPLITS[split]] = str(table) if table is not None else None
        elif hasattr(table, "columns") and hasattr(table, "iloc"):
            frames[split] = table
            paths[SPLITS[split]] = IN_MEMORY
        else:
            raise SettingsError(
                f"data: the {split} rows are of type {type(table).__name__}; give a path or a pandas DataFrame"
            )
    return paths, frames


@quietly
def resume(name: str | None = None, *, mlruns: str | Path = "mlruns", verbose: bool = True) -> Sweep:
    """Go on with a sweep that was interrupted: finished trials stay, the others go on from their checkpoints.

    Args:
        name: the sweep's; the newest if None.

    Raises:
        SettingsError: there is none, it is running, or it has finished.
        TrainingError, SweepStoppedError: as `run`.

    Example:
        >>> lorasweep.resume("demo")
        Traceback (most recent call last):
        ...
        lorasweep.training.errors.SettingsError: sweep demo: has finished; see: lorasweep status demo
    """
    from lorasweep.tuning.sweep import start

    record = read_sweep(Path(mlruns), name)
    with Waiting(verbose, "reading the sweep"):
        prepared = start.resume(record.folder)
    if prepared is not None:
        start.begin(prepared, [display_for(prepared, verbose, plan=False)])
    else:
        # Its driver died between the result and MLflow's copy of it.
        with Waiting(verbose, "publishing"):
            start.publish(record.folder)
    return Sweep(SweepRecord(record.folder))


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

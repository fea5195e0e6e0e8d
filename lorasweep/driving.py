"""What the face does to run a sweep: options become a configuration, the sweep is prepared, shown and run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorasweep.display import Waiting, display_for
from lorasweep.options import OPTIONS, RESUME_OPTIONS, to_entries
from lorasweep.search_spaces.space import as_space
from lorasweep.spelling import naming_options
from lorasweep.training.errors import SettingsError
from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.record.folder import SweepFolder, find_sweep
from lorasweep.tuning.record.sweep import SweepRecord
from lorasweep.tuning.sweep.extend import MORE, extended_config, trials_of
from lorasweep.tuning.sweep.plan.defaults import given_entries, name_after, sweep_config

if TYPE_CHECKING:
    from lorasweep.tuning.sweep.start import Prepared

# The data path of a sweep whose rows came from memory.
IN_MEMORY = "DataFrame"
# The splits that `run` takes, and the option that names the file of each.
SPLITS = {"train": "data", "validation": "validation", "test": "test"}


def run_options(
    data: Any,
    options: dict[str, Any],
    *,
    config: str | Path | SweepConfig | None = None,
    mlruns: str | Path,
    extend: bool | Callable[[str], bool] = False,
    dry_run: bool = False,
    verbose: int,
) -> Prepared:
    """Prepare the sweep that options describe, new or extended, and run it unless `dry_run`; see `lorasweep.run`."""
    mlruns = Path(mlruns)
    paths, frames = split_data(data)
    space = None
    if not isinstance(options.get("space"), str | Path | None):
        space = as_space(options["space"])
        options["space"] = space.name
    given = to_entries(options | {option: path for option, path in paths.items() if path is not None})
    entries = given_entries(given, config)
    from lorasweep.tuning.sweep import start

    name = options.get("name")
    more = any(options.get(option) is not None for option in MORE)
    folder = SweepFolder(mlruns, name) if name is not None and more else None
    if folder is not None and folder.exists():
        record = SweepRecord(folder)
        config = extended_config(record, entries)
        before = trials_of(record)
        added = "more" if config.search.open else config.search.trials - before
        question = f"sweep {folder.name} has {before} trials; add {added}?"
        if not dry_run and not (extend(question) if callable(extend) else extend):
            raise SettingsError(f"{question} Say so with --extend, or choose another --name")
        with Waiting(verbose, "reading the sweep"):
            prepared = start.extend(folder, config)
    else:
        if name is None and isinstance(entries.get("name"), str):
            # The configuration may be that of an earlier sweep, which has this name.
            entries["name"] = name_after(entries["name"], mlruns)
        config = sweep_config(entries, mlruns)
        with Waiting(verbose, "checking data, model and search space"):
            prepared = start.prepare(config, mlruns, frames=frames, space=space)
    display = display_for(prepared, verbose)
    if not dry_run:
        start.begin(prepared, [display])
    return prepared


def folder_to_resume(mlruns: Path, name: str | None, storage: str | None, verbose: int) -> SweepFolder:
    """The sweep's folder as its last run left it, fetched from its storage if that run was on another machine.

    Raises:
        SettingsError: there is no such sweep, here or there; see `latest_folder`.
    """
    from lorasweep.tuning.storage.restore import latest_folder

    if name is None or storage is None:
        name = find_sweep(mlruns, name).name
    with Waiting(verbose, "looking for the sweep") as waiting:
        return latest_folder(mlruns, name, storage, waiting)


def run_again(
    options: Mapping[str, Any], config: str | Path | SweepConfig | None, mlruns: Path, verbose: int
) -> SweepFolder | None:
    """Go on with the sweep of this name where there is one, here or on its storage; None where there is none.

    It keeps its own settings, but for those that may differ from run to run. One that has finished stays as it is.

    Raises:
        SettingsError: the options give no name; or as `lorasweep.resume`.
    """
    from lorasweep.tuning.storage.restore import sweep_there

    entries = given_entries(to_entries({k: v for k, v in options.items() if k != "space"}), config)
    name, storage = entries.get("name"), entries.get("resources", {}).get("storage")
    if name is None:
        raise SettingsError("--resume: name the sweep that may be there already, with --name")
    if not sweep_there(mlruns, name, storage):
        return None
    folder = folder_to_resume(mlruns, name, storage, verbose)
    sweep = SweepRecord(folder)
    if sweep.state != "finished" or (sweep.result is not None and not sweep.result.published):
        resume_folder(
            folder, verbose, options={key: options[key] for key in RESUME_OPTIONS if key in options}
        )
    return folder


def resume_folder(
    folder: SweepFolder,
    verbose: int,
    retry_failed: bool = False,
    confirm: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> None:
    """Go on with a sweep; see `lorasweep.resume`.

    Raises:
        SettingsError: an option that a sweep keeps; or as `lorasweep.resume`.
    """
    from lorasweep.tuning.sweep import start

    options = options or {}
    for name in options:
        if name in OPTIONS and name not in RESUME_OPTIONS:
            raise SettingsError(
                f"--{name.replace('_', '-')}: a sweep that goes on keeps it; what may differ: "
                f"{', '.join(OPTIONS[other].flag for other in RESUME_OPTIONS)}"
            )
    # Its storage has been found already.
    entries = to_entries({name: value for name, value in options.items() if name != "storage"})
    with Waiting(verbose, "reading the sweep"), naming_options({"confirm": confirm, **options}):
        prepared = start.resume(folder, retry_failed, confirm, entries)
    if prepared is not None:
        # Whoever resumes a sweep has seen its plan, unless that is another one now.
        start.begin(prepared, [display_for(prepared, verbose, plan=bool(prepared.moved))])
        return
    # Its driver died between the result and MLflow's copy of it.
    with Waiting(verbose, "publishing"):
        start.publish(folder, options.get("tracking_uri"))


def continue_or_run(config: SweepConfig, mlruns: Path, verbose: int) -> SweepFolder:
    """Run a sweep of this configuration, or go on with it where its folder is there already."""
    from lorasweep.tuning.sweep import start

    folder = SweepFolder(mlruns, config.name)
    if folder.exists():
        resume_folder(folder, verbose)
    else:
        with Waiting(verbose, "checking data, model and search space"):
            prepared = start.prepare(config, mlruns)
        start.begin(prepared, [display_for(prepared, verbose)])
    return folder


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

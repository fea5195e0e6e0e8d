"""Starts, extends, resumes and publishes sweeps: everything a verb does between asking and printing.

Each of three functions checks everything and writes nothing; `begin` does the rest:

    prepared = prepare(config, mlruns)                        # a new sweep
    prepared = extend(folder, extended_config(sweep, more))   # more trials for an existing one (see `extend.py`)
    prepared = resume(folder)                                 # one that can go on; None: only MLflow lacks it

    result = begin(prepared, [display])                       # MLflow's store, the folder, trials, winner
    result = publish(folder)                                  # fill MLflow from the folder

`prepared.plan` and `prepared.notes` are what a user wants to see in between. Importing this module loads neither
torch nor Ray: the functions set up the environment of both before they import them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorasweep.training.errors import SettingError, SettingsError
from lorasweep.tuning.quiet import quiet_environment, quiet_libraries
from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.listener import SweepListener
from lorasweep.tuning.record.results import SweepResult
from lorasweep.tuning.record.sweep import SweepRecord, read_sweep
from lorasweep.tuning.storage.check import refuse_credentials
from lorasweep.tuning.sweep.extend import confirmed_config
from lorasweep.tuning.sweep.moved import in_job, moved_config, moves
from lorasweep.tuning.trials.ray_access import guard_local_ray

if TYPE_CHECKING:
    import pandas as pd

    from lorasweep.search_spaces.space import Space
    from lorasweep.tuning.sweep.plan.plan import SweepPlan
    from lorasweep.tuning.sweep.warm_start import WarmStart


@dataclass(frozen=True)
class Prepared:
    """A sweep that has passed every check. Nothing is written yet.

    Attributes:
        folder: of the sweep; `begin` makes it for a new one.
        new: the sweep has no folder yet.
        warm: trials of another sweep to learn from.
        retry: ids of trials that failed and are tried again.
        failed: ids of trials that failed and stay so.
        moved: what is different from the sweep's earlier runs, or follows from where it runs, a sentence each.
    """

    plan: SweepPlan
    folder: SweepFolder
    new: bool = False
    warm: WarmStart | None = None
    retry: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    moved: tuple[str, ...] = ()

    @property
    def notes(self) -> list[str]:
        """What the user should know before it starts, a sentence each."""
        notes = [*self.moved, *self.plan.notes, *(self.warm.notes if self.warm else ())]
        if self.retry:
            notes.append(f"tried again after they failed: {', '.join(self.retry)}")
        if self.failed:
            again = self.folder.command("resume", "--retry-failed")
            notes.append(f"failed before: {', '.join(self.failed)}; to try these again, too: {again}")
        return notes


def prepare(
    config: SweepConfig,
    mlruns: Path,
    *,
    frames: Mapping[str, pd.DataFrame] | None = None,
    space: Space | None = None,
) -> Prepared:
    """Check a new sweep.

    Args:
        frames: tables to read in place of the configuration's files; see `load_dataset`.
        space: the search space; loaded as `config.search.space` names it if None.

    Raises:
        LorasweepError: the name is in use, or data, model, space, resources, storage or warm start do not fit.
    """
    folder = SweepFolder(mlruns, config.name)
    folder.check_free()
    # Those of an older sweep are in its files already, and it goes on with them.
    refuse_credentials(config.resources.storage)
    config, joined = in_job(config)
    _set_up(config)
    from lorasweep.tuning.sweep.estimate import with_estimate
    from lorasweep.tuning.sweep.plan.planning import plan_sweep
    from lorasweep.tuning.sweep.warm_start import earlier_trials

    plan = with_estimate(plan_sweep(config, space=space, frames=frames, timed=True))
    other = config.search.warm_start
    warm = earlier_trials(read_sweep(mlruns, other), plan) if other is not None else None
    return Prepared(plan, folder, new=True, warm=warm, moved=(joined,) if joined else ())


def extend(folder: SweepFolder, config: SweepConfig) -> Prepared:
    """Check an existing sweep with more trials.

    Args:
        config: from `extended_config`.

    Raises:
        SettingError: other thresholds of several labels a text, by which its trials were judged.
    """
    prepared, before = existing(folder, config), folder.config()
    if prepared.plan.dataset.multi_label:
        from lorasweep.tuning.sweep.winner.thresholds import set_rule

        if set_rule(config) != set_rule(before):
            raise SettingError(
                ["choice", "threshold"],
                f"the trials of sweep {folder.name} were judged by {set_rule(before)}; leave that out to add trials to "
                "it, or choose another --name",
                value=config.choice.threshold,
            )
    return prepared


def resume(
    folder: SweepFolder,
    retry_failed: bool = False,
    confirm: str | None = None,
    entries: Mapping[str, Any] | None = None,
) -> Prepared | None:
    """Check a sweep that can go on. None if it finished and only MLflow's copy is incomplete: `publish` it.

    Failed trials are tried again without being asked for where none has ended well, and where the sweep stopped
    because they failed for one reason: the user has mended that. A finished sweep goes on where a step after its
    trials failed.

    Args:
        retry_failed: try all failed trials again, also those of a finished sweep.
        confirm: confirm the best trials on other seeds (`KxS`), also those of a finished sweep.
        entries: settings that differ from the sweep's earlier runs, as a nested mapping; see `moved.MOVABLE`.

    Raises:
        SettingsError: the sweep is running, or finished and published; or see `confirmed_config`.
    """
    sweep = SweepRecord(folder)
    if sweep.state == "running":
        raise SettingsError(f"sweep {folder.name}: is running; see: {folder.command('status')}")
    failed = [trial.id for trial in sweep.trials if trial.state == "failed"]
    finished, result = sweep.state == "finished", sweep.result
    config = sweep.config if confirm is None else confirmed_config(sweep, confirm)
    more = (retry_failed and failed) or config != sweep.config
    config = moved_config(config, entries or {})
    if finished and result is not None and not result.missing and not more:
        if result.published:
            again = f"; to try its failed trials again: {folder.command('resume', '--retry-failed')}"
            raise SettingsError(
                f"sweep {folder.name}: has finished; see: {folder.command('status')}"
                + (again if failed else "")
            )
        return None
    prepared = existing(folder, config)
    retry = failed
    if not retry_failed:
        from lorasweep.tuning.trials.failures import worth_another_try

        retry = [] if finished else [trial.id for trial in worth_another_try(sweep.trials)]
    left = tuple(trial_id for trial_id in failed if trial_id not in retry)
    return replace(prepared, retry=tuple(retry), failed=left)


def begin(prepared: Prepared, listeners: Sequence[SweepListener] = ()) -> SweepResult:
    """Run a prepared sweep; MLflow's copy joins the listeners.

    Raises:
        LorasweepError: the folder or MLflow's store cannot be written, or what `run_sweep` raises.
    """
    from lorasweep.tuning.storage.record_copy import RecordCopy
    from lorasweep.tuning.sweep.run import run_sweep
    from lorasweep.tuning.tracking.thread import MLflowCopy

    plan, folder = prepared.plan, prepared.folder
    uri = open_store(plan.config, folder.mlruns)
    if prepared.new:
        create_folder(plan, folder.mlruns, prepared.warm)
    elif plan.config != folder.config():
        if plan.config.search != folder.config().search and (earlier := folder.result()) is not None:
            # What ended its search before may allow more now.
            folder.write_result(earlier.model_copy(update={"stopped_by": None}))
        folder.write_config(plan.config)
        folder.write_plan(plan.summary())
    copies: list[SweepListener] = [RecordCopy(folder)] if plan.config.resources.storage is not None else []
    return run_sweep(plan, folder, [*copies, *listeners, MLflowCopy(folder, uri)], prepared.retry)


def publish(
    folder: SweepFolder, tracking_uri: str | None = None, phase: Callable[[str], None] = lambda text: None
) -> SweepResult | None:
    """Fill MLflow from a sweep's folder with what it lacks, and register the winner of a finished sweep.

    Args:
        tracking_uri: a store other than the sweep's own.
        phase: called with the present step.

    Returns:
        The result as recorded, or None before there is one.

    Raises:
        SettingsError: MLflow does not take all of it.
    """
    from lorasweep.tuning.tracking.store import prepare_store, tracking_store
    from lorasweep.tuning.tracking.thread import MLflowCopy

    sweep = SweepRecord(folder)
    uri = tracking_store(tracking_uri or sweep.config.tracking_uri, folder.mlruns)
    prepare_store(uri, folder.mlruns)
    phase("publishing")
    copy = MLflowCopy(folder, uri)
    copy.publish()
    if sweep.result is None or sweep.state != "finished":
        _copy_record(sweep)
        return sweep.result
    _set_up(sweep.config)
    from lorasweep.tuning.sweep.run import register_winner

    result = register_winner(sweep.result, sweep.config, folder, copy.register, phase)
    if uri == tracking_store(sweep.config.tracking_uri, folder.mlruns):
        folder.write_result(result)
    _copy_record(sweep)
    return result


def _copy_record(sweep: SweepRecord) -> None:
    from lorasweep.tuning.storage.record_copy import RecordCopy

    if sweep.config.resources.storage is not None and sweep.state != "running":
        RecordCopy(sweep.folder).publish()


def create_folder(plan: SweepPlan, mlruns: Path, warm: WarmStart | None = None) -> SweepFolder:
    """Make a new sweep's folder, complete or not at all: configuration, plan, space, prepared rows, study.

    Raises:
        SettingsError: the name is in use, or the folder or the storage cannot be written.
    """
    from lorasweep.tuning.search.study import create_study
    from lorasweep.tuning.storage.storage import Storage

    folder = SweepFolder(mlruns, plan.config.name)
    with folder.making(plan.config) as making:
        making.write_plan(plan.summary())
        making.write_space(plan.space)
        plan.dataset.save(making.data)
        create_study(
            making.study_url,
            folder.name,
            plan.config.objective,
            [warm.start] if warm else plan.space.start_points(),
            warm.trials if warm else (),
            metric=plan.config.training.metric,
        )
        Storage.claim(making, new=True)
    return folder


def open_store(config: SweepConfig, mlruns: Path) -> str:
    """URI of the sweep's MLflow store, which is made if missing. A server that is away is filled later.

    Raises:
        SettingsError: the store cannot be made or written.
    """
    from lorasweep.tuning.tracking.store import StoreAwayError, prepare_store, tracking_store

    uri = tracking_store(config.tracking_uri, mlruns)
    # MLflow's copy says so on one line, as for a server that goes away in the middle.
    with suppress(StoreAwayError):
        prepare_store(uri, mlruns)
    return uri


def existing(folder: SweepFolder, config: SweepConfig) -> Prepared:
    """A sweep with its own rows and search space, checked under this configuration."""
    config, joined = in_job(config)
    changed = moves(folder.config(), config)
    moved = ([joined] if joined else []) + ([f"from now on: {'; '.join(changed)}"] if changed else [])
    _set_up(config)
    from lorasweep.training.data.dataset import Dataset
    from lorasweep.tuning.sweep.estimate import with_estimate
    from lorasweep.tuning.sweep.plan.planning import plan_sweep

    plan = plan_sweep(config, Dataset.load(folder.data), folder.space(config.search.space))
    going_on = with_estimate(plan.going_on(folder.plan()), folder.result())
    return Prepared(going_on, folder, moved=tuple(moved))


def _set_up(config: SweepConfig) -> None:
    quiet_environment()
    guard_local_ray(config.resources.address)
    quiet_libraries()

"""A sweep's folder from its record on a storage: a sweep goes on where its driver's machine is gone."""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path

from pyarrow.fs import FileSelector, FileType
from pydantic import ValidationError

from lorasweep.training.errors import SettingsError, first_line
from lorasweep.tuning.record.config import SweepConfig, merge
from lorasweep.tuning.record.files import write_bytes
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.stopwatch import RUNS_FILE, read_runs
from lorasweep.tuning.record.trial_records import now
from lorasweep.tuning.storage.check import check_storage, refuse_credentials
from lorasweep.tuning.storage.filesystem import filesystem_at, without_credentials
from lorasweep.tuning.storage.record_copy import BEAT_SECONDS, RECORD, STUDY, Driver, read_driver
from lorasweep.tuning.storage.storage import OWNER_FILE, Owner, Storage

# A driver that gives no sign of life for so long has died; its clock may be another one's.
DEAD_SECONDS = 3 * BEAT_SECONDS
LONG_AGO = 600.0
POLL_SECONDS = 3.0


def sweep_there(mlruns: Path, name: str, storage: str | None) -> bool:
    """Whether a sweep of this name can go on: it is in `mlruns`, or its record lies on the storage."""
    return SweepFolder(mlruns, name).exists() or (storage is not None and bool(_records(storage, name)))


def latest_folder(
    mlruns: Path, name: str, storage: str | None = None, waiting: Callable[[str], None] = lambda text: None
) -> SweepFolder:
    """A sweep's folder as its last run left it, on whatever machine that was.

    Args:
        storage: where its record lies; that of its configuration if None. One that differs, as a folder that is
            mounted elsewhere, becomes the sweep's.
        waiting: called with what is waited for.

    Raises:
        SettingsError: there is no such record, the storage cannot be used, or a process elsewhere runs the sweep.
    """
    folder = SweepFolder(mlruns, name)
    if storage is not None:
        refuse_credentials(storage)
        storage = SweepConfig.build(
            {"name": name, "resources": {"storage": storage}}, "settings"
        ).resources.storage
        check_storage(storage, nodes=1)
    if storage is not None and not folder.exists():
        owner = _found(storage, name)
        # The name may be that of the folder on the storage.
        folder = SweepFolder(mlruns, owner.sweep)
        folder.check_free()
        _restore(folder, owner, storage, waiting)
        return folder
    if storage is not None and storage != folder.config().resources.storage:
        _move(folder, storage)
    own = Storage.of(folder)
    if own.shared and own.owner is not None and folder.state() != "running":
        _wait_for_end(own, waiting)
        if _ran_elsewhere(folder, own):
            _download(own, folder.path)
    return folder


def _records(storage: str, name: str) -> list[Owner]:
    """The sweeps of this name, or in the folder of this name, whose record lies on a storage; the newest first."""
    try:
        filesystem, above = filesystem_at(storage)
        entries = filesystem.get_file_info(FileSelector(above, allow_not_found=True))
        owners = []
        for entry in entries:
            if entry.type == FileType.Directory and entry.base_name.startswith(name):
                there = Storage(filesystem, entry.path, entry.base_name, True)
                content = there.read(OWNER_FILE)
                if content is None or there.read(f"{RECORD}/config.yaml") is None:
                    continue
                owner = Owner.model_validate_json(content)
                if name in (owner.sweep, owner.folder):
                    owners.append(owner)
    except (OSError, ValueError, ValidationError) as error:
        raise SettingsError(
            f"--storage {without_credentials(storage)}: cannot be read ({first_line(error)})"
        ) from error
    return sorted(owners, key=lambda owner: -owner.made)


def _found(storage: str, name: str) -> Owner:
    owners = _records(storage, name)
    shown = without_credentials(storage)
    if not owners:
        raise SettingsError(f"--storage {shown}: holds no record of a sweep {name}; see its folders there")
    if len(owners) > 1:
        names = ", ".join(owner.folder for owner in owners)
        raise SettingsError(
            f"--storage {shown}: holds {len(owners)} sweeps of the name {name}; say which of {names}"
        )
    return owners[0]


def _restore(folder: SweepFolder, owner: Owner, storage: str, waiting: Callable[[str], None]) -> None:
    """Make the sweep's folder, complete or not at all."""
    filesystem, above = filesystem_at(storage)
    named = f"{without_credentials(storage)}/{owner.folder}"
    there = Storage(filesystem, f"{above}/{owner.folder}", named, True, owner)
    _wait_for_end(there, waiting)
    waiting(f"fetching the record from {there.named}")
    beside = folder.path.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        _download(there, beside)
        stage = SweepFolder(folder.mlruns, folder.name, beside)
        if stage.config().resources.storage != storage:
            _move(stage, storage)
        beside.rename(folder.path)
    except OSError as error:
        raise SettingsError(f"{folder.path}: cannot be made ({first_line(error)})") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _download(there: Storage, path: Path) -> None:
    for name in there.files(RECORD):
        content = there.read(name)
        target = path / name.removeprefix(f"{RECORD}/")
        if content is None or path.resolve() not in target.resolve().parents:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.name == STUDY:
            for rest in path.glob(f"{STUDY}-*"):  # a journal of the database that is replaced
                rest.unlink()
        write_bytes(target, content)


def _move(folder: SweepFolder, storage: str) -> None:
    """Let a sweep's records and configuration name its storage by another path or URI.

    Raises:
        SettingsError: the sweep's folder is not there.
    """
    before, config = Storage.of(folder), folder.config()
    entries = merge(config.model_dump(mode="json"), {"resources": {"storage": storage}})
    filesystem, above = filesystem_at(storage)
    name = before.owner.folder if before.owner is not None else folder.name
    after = Storage(
        filesystem, f"{above}/{name}", f"{without_credentials(storage)}/{name}", True, before.owner
    )
    if not before.shared or before.owner is None or after.check_owner() is None:
        raise SettingsError(
            f"--storage {after.named}: holds no checkpoints of sweep {folder.name}; {before.named} does"
        )
    for trial in folder.trials():
        paths = {
            field: f"{after.root}{path.removeprefix(before.root)}"
            for field in ("checkpoint", "last_checkpoint")
            if (path := getattr(trial, field)) is not None and path.startswith(f"{before.root}/")
        }
        if paths:
            folder.write_trial(trial.model_copy(update=paths))
    folder.write_config(SweepConfig.build(entries, "config.yaml"))


def _ran_elsewhere(folder: SweepFolder, there: Storage) -> bool:
    """Whether the sweep has run on another machine since it ran here."""
    try:
        driver = read_driver(there)
        if driver is None or driver.host == socket.gethostname():
            return False
        return there.read(f"{RECORD}/{RUNS_FILE}") is not None and driver.seen > _last_seconds(folder)
    except OSError:  # said when the sweep's plan checks its storage
        return False


def _last_seconds(folder: SweepFolder) -> float:
    """When the last run here was on record for the last time."""
    runs = read_runs(folder.path)
    return runs[-1]["started"] + runs[-1]["seconds"] if runs else 0.0


def _wait_for_end(there: Storage, waiting: Callable[[str], None]) -> None:
    """Wait until a driver elsewhere has given no sign of life for a while.

    Raises:
        SettingsError: it lives.
    """
    first = _driver_elsewhere(there)
    if first is None:
        return
    waiting(f"waiting for a sign of the process on {first.host} that ran the sweep last")
    deadline = time.monotonic() + DEAD_SECONDS
    while time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        driver = _driver_elsewhere(there)
        if driver is None:
            return
        if driver != first:
            raise SettingsError(
                f"{there.named}: process {driver.pid} on {driver.host} runs this sweep; wait for its end, or end it"
            )


def _driver_elsewhere(there: Storage) -> Driver | None:
    """The process on another machine that may still run the sweep."""
    try:
        driver = read_driver(there)
    except OSError:
        return None
    if (
        driver is None
        or driver.ended
        or driver.host == socket.gethostname()
        or now() - driver.seen > LONG_AGO
    ):
        return None
    return driver

"""`Storage`: a sweep's folder for checkpoints, and whose it is.

Without `--storage` that is `ray/` in the sweep's own folder. On a storage that is named:

    NAME-ID/               a sweep's name, and an id of its own: two sweeps may have one name
        owner.json         says so; the sweep's folder has the same as storage.json
        run-1/t000/...     checkpoints by run of the sweep and trial

Sweeps of older versions lie in `NAME/`, which a sweep makes its own when it goes on.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pyarrow.fs import FileSelector, FileSystem, FileType, LocalFileSystem
from pydantic import ValidationError

from lorasweep.training.errors import SettingsError, first_line
from lorasweep.tuning.record.files import read_record, write_bytes, write_text
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.trial_records import Record, now
from lorasweep.tuning.storage.filesystem import filesystem_at, is_local, without_credentials

OWNER_FILE = "owner.json"
# The same in the sweep's folder.
OWN_FILE = "storage.json"
CHECKPOINT = "checkpoint_"
RUN = "run-"


class Owner(Record):
    """Which sweep a folder on a storage belongs to.

    Attributes:
        sweep: its name.
        id: its own; another sweep of the same name has another one.
        folder: name of the folder.
        made: when, in seconds since 1970.
    """

    sweep: str
    id: str
    folder: str
    made: float

    @classmethod
    def new(cls, sweep: str, *, older: bool) -> Owner:
        """A sweep's, with a new id.

        Args:
            older: its folder is that of older versions, without the id in its name.
        """
        number = secrets.token_hex(4)
        return cls(sweep=sweep, id=number, folder=sweep if older else f"{sweep}-{number}", made=now())


@dataclass(frozen=True)
class Storage:
    """A sweep's folder for checkpoints. Paths are those of its file system, as trials' records name them.

    Attributes:
        filesystem: where it lies.
        root: its path there.
        named: the folder as messages show it.
        shared: whether it lies on `--storage`.
        owner: whose it is; None in the sweep's own folder, and for a sweep of an older version that has not gone on.
    """

    filesystem: FileSystem
    root: str
    named: str
    shared: bool = False
    owner: Owner | None = None

    @classmethod
    def of(cls, folder: SweepFolder, owner: Owner | None = None) -> Storage:
        """A sweep's storage. Nothing is asked or made.

        Args:
            owner: as the sweep's folder has it, if None.

        Raises:
            SettingsError: the sweep's configuration cannot be read, or its storage not be used.
        """
        storage = folder.config().resources.storage
        if storage is None:
            root = str(folder.ray.resolve())
            return cls(LocalFileSystem(), root, root)
        path = folder.path / OWN_FILE
        if owner is None and path.is_file():
            owner = read_record(path, Owner)
        name = owner.folder if owner is not None else folder.name
        shown = without_credentials(storage).rstrip("/")
        try:
            filesystem, above = filesystem_at(storage)
        except (OSError, ValueError) as error:
            raise SettingsError(f"--storage {shown}: cannot be used ({first_line(error)})") from error
        return cls(filesystem, f"{above}/{name}", f"{shown}/{name}", True, owner)

    @classmethod
    def claim(cls, folder: SweepFolder, *, new: bool = False) -> Storage:
        """A sweep's storage, which says whose it is from now on.

        Args:
            new: the sweep is being made.

        Raises:
            SettingsError: it is another sweep's, or cannot be read or written.
        """
        storage = cls.of(folder)
        if not storage.shared:
            return storage
        known = storage.owner is not None
        owner = storage.owner or Owner.new(folder.name, older=not new)
        storage = cls.of(folder, owner)
        there = storage.check_owner()
        if not known:
            write_text(folder.path / OWN_FILE, owner.model_dump_json(indent=1))
        if there is None:
            try:
                storage.write(OWNER_FILE, owner.model_dump_json(indent=1).encode())
            except OSError as error:
                raise SettingsError(f"{storage.named}: cannot be written ({first_line(error)})") from error
        return storage

    def check_owner(self) -> Owner | None:
        """Whose the folder is, by the file that lies there; None where there is none.

        Raises:
            SettingsError: it is another sweep's, or cannot be read.
        """
        try:
            content = self.read(OWNER_FILE)
            there = None if content is None else Owner.model_validate_json(content)
        except (OSError, ValidationError) as error:
            raise SettingsError(f"{self.named}/{OWNER_FILE}: cannot be read ({first_line(error)})") from error
        if there is not None and self.owner is not None and there.id != self.owner.id:
            made = datetime.fromtimestamp(there.made)
            raise SettingsError(
                f"{self.named}: belongs to another sweep, {there.sweep} of {made:%Y-%m-%d %H:%M}, which may have "
                f"replaced the checkpoints of sweep {self.owner.sweep}; begin that anew under another --name"
            )
        return there

    def path(self, name: str) -> str:
        """The path of a file below the folder."""
        return f"{self.root}/{name}"

    def read(self, name: str) -> bytes | None:
        """The content of a small file below the folder; None if there is none."""
        try:
            with self.filesystem.open_input_stream(self.path(name)) as file:
                return bytes(file.read())
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """Replace a small file below the folder, in one step where the file system can."""
        path = self.path(name)
        if is_local(self.filesystem):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            write_bytes(Path(path), content)
            return
        self.filesystem.create_dir(path.rpartition("/")[0])
        with self.filesystem.open_output_stream(path) as file:
            file.write(content)

    def files(self, below: str = "") -> list[str]:
        """Names of all files below a folder in it, such as `run-1/t000/checkpoint_000000/best.json`; sorted."""
        selector = FileSelector(self.path(below).rstrip("/"), allow_not_found=True, recursive=True)
        found = self.filesystem.get_file_info(selector)
        return sorted(entry.path[len(self.root) + 1 :] for entry in found if entry.type == FileType.File)

    def next_run(self) -> str:
        """Name of the folder for one more run of the sweep: `run-1` is the first. A folder of this machine is made."""
        found = self.filesystem.get_file_info(FileSelector(self.root, allow_not_found=True))
        numbers = [entry.base_name.removeprefix(RUN) for entry in found if entry.base_name.startswith(RUN)]
        run = f"{RUN}{1 + max((int(number) for number in numbers if number.isdecimal()), default=0)}"
        self.filesystem.create_dir(self.path(run))
        return run

    def has(self, checkpoint: str) -> bool:
        """Whether a checkpoint is there."""
        return bool(self.filesystem.get_file_info(checkpoint).type == FileType.Directory)

    def fetch(self, checkpoint: str, folder: Path, without: Collection[str] = ()) -> None:
        """Copy a checkpoint into a folder.

        Args:
            without: names of files that are left out.

        Raises:
            OSError: it cannot be read.
        """
        for entry in self.filesystem.get_file_info(FileSelector(checkpoint, recursive=True)):
            if entry.type == FileType.File and entry.base_name not in without:
                path = folder / entry.path[len(checkpoint) + 1 :]
                path.parent.mkdir(parents=True, exist_ok=True)
                with self.filesystem.open_input_stream(entry.path) as source, path.open("wb") as file:
                    shutil.copyfileobj(source, file)

    def remove(self, checkpoints: Iterable[str]) -> None:
        """Remove checkpoints. What lies elsewhere is not the sweep's, and stays; so does what cannot be removed."""
        for path in checkpoints:
            if self._is_checkpoint(path):
                with suppress(OSError):
                    self.filesystem.delete_dir(path)

    def remove_others(self, needed: Iterable[str]) -> None:
        """Remove all checkpoints but these, as those of a process that died before it had recorded them.

        In a folder of an older version another sweep's may lie, too: there all stay.
        """
        if self.owner is not None and self.owner.folder == self.owner.sweep:
            return
        selector = FileSelector(self.root, allow_not_found=True, recursive=True)
        names = (entry.path[len(self.root) + 1 :] for entry in self.filesystem.get_file_info(selector))
        found = {self.path("/".join(name.split("/")[:3])) for name in names}
        self.remove(sorted(found - set(needed)))

    def _is_checkpoint(self, path: str) -> bool:
        parts = path.removeprefix(f"{self.root}/").split("/")
        return len(parts) == 3 and parts[0].startswith(RUN) and parts[2].startswith(CHECKPOINT)

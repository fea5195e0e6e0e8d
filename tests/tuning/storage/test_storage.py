"""A sweep's folder on a storage: its own, whatever another sweep of its name does there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from s3_server import S3Server

from lorasweep.training.errors import SettingsError
from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.storage.storage import OWN_FILE, OWNER_FILE, Storage


@pytest.fixture(params=["folder", "uri"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A storage that is not there yet."""
    place = tmp_path / "shared"
    return place.as_uri() if request.param == "uri" else str(place)


def sweep(mlruns: Path, storage: str | None, name: str = "demo") -> SweepFolder:
    """A new sweep's folder."""
    folder = SweepFolder(mlruns, name)
    folder.create(SweepConfig.model_validate({"name": name, "resources": {"storage": storage}}))
    return folder


def test_sweeps_of_one_name_have_folders_of_their_own(tmp_path: Path, shared: str) -> None:
    folders = [sweep(tmp_path / mlruns, shared) for mlruns in ("a", "b")]
    one, other = (Storage.claim(folder, new=True) for folder in folders)
    assert one.root != other.root
    for folder, storage in zip(folders, (one, other), strict=True):
        assert storage.owner is not None
        assert storage.root == str(tmp_path / "shared" / f"demo-{storage.owner.id}")
        assert storage.named == f"{shared}/demo-{storage.owner.id}"
        there = json.loads((Path(storage.root) / OWNER_FILE).read_text())
        assert there == json.loads((folder.path / OWN_FILE).read_text())
        assert there["sweep"] == "demo"
        # Read again, by a process that goes on with it.
        assert Storage.of(folder) == storage
        assert Storage.claim(folder) == storage


def test_a_folder_of_another_sweep_is_refused(tmp_path: Path, shared: str) -> None:
    """Whatever brought its owner there, as a copy of the folder."""
    folder, other = sweep(tmp_path / "a", shared), sweep(tmp_path / "b", shared)
    own, foreign = Storage.claim(folder, new=True), Storage.claim(other, new=True)
    shutil.copy(Path(foreign.root) / OWNER_FILE, Path(own.root) / OWNER_FILE)
    for refused in (lambda: Storage.claim(folder), own.check_owner):
        with pytest.raises(
            SettingsError, match=r"demo-\w{8}: belongs to another sweep, demo of 20"
        ) as caught:
            refused()
        assert "\n" not in str(caught.value)
    (Path(own.root) / OWNER_FILE).write_text("{")
    with pytest.raises(SettingsError, match=r"owner\.json: cannot be read"):
        own.check_owner()


def test_a_folder_that_somebody_has_removed_is_made_again(tmp_path: Path, shared: str) -> None:
    folder = sweep(tmp_path / "a", shared)
    storage = Storage.claim(folder, new=True)
    shutil.rmtree(storage.root)
    assert storage.check_owner() is None
    assert Storage.claim(folder) == storage
    assert storage.check_owner() == storage.owner


def test_an_older_sweep_keeps_its_folder_and_makes_it_its_own(tmp_path: Path, shared: str) -> None:
    """Two of one name have mixed there before: the first to go on has it, and removes nothing of the other."""
    one, other = sweep(tmp_path / "a", shared), sweep(tmp_path / "b", shared)
    checkpoint = tmp_path / "shared" / "demo" / "run-1" / "t007" / "checkpoint_000000"
    checkpoint.mkdir(parents=True)
    assert Storage.of(one).root == str(tmp_path / "shared" / "demo")
    assert Storage.of(one).check_owner() is None
    storage = Storage.claim(one)
    assert storage.root == str(tmp_path / "shared" / "demo")
    assert Storage.claim(one) == storage
    storage.remove_others([])
    assert checkpoint.is_dir()
    with pytest.raises(SettingsError, match="belongs to another sweep"):
        Storage.claim(other)
    assert not (other.path / OWN_FILE).exists()


def test_without_a_storage_checkpoints_lie_in_the_sweeps_folder(tmp_path: Path) -> None:
    folder = sweep(tmp_path, None)
    storage = Storage.claim(folder, new=True)
    assert (storage.root, storage.shared) == (str(folder.ray.resolve()), False)
    assert not folder.ray.exists()
    assert not (folder.path / OWN_FILE).exists()


def test_each_run_of_a_sweep_has_a_folder_of_its_own(tmp_path: Path, shared: str) -> None:
    """Also when somebody has removed an earlier one to save space."""
    for storage in (
        Storage.claim(sweep(tmp_path / "a", shared), new=True),
        Storage.of(sweep(tmp_path / "b", None)),
    ):
        assert [storage.next_run() for _ in range(10)][-1] == "run-10"
        (Path(storage.root) / "run-1").rmdir()
        (Path(storage.root) / "run-old").mkdir()
        assert storage.next_run() == "run-11"


def test_small_files_are_written_whole_and_read_back(tmp_path: Path, shared: str) -> None:
    storage = Storage.claim(sweep(tmp_path / "a", shared), new=True)
    assert storage.read("record/trials/t000.json") is None
    for content in (b"first", b"second"):
        storage.write("record/trials/t000.json", content)
        assert storage.read("record/trials/t000.json") == content
    storage.write("record/config.yaml", b"name: demo")
    assert storage.files("record") == ["record/config.yaml", "record/trials/t000.json"]
    assert storage.files() == ["owner.json", *storage.files("record")]
    assert storage.files("none") == []


def test_only_its_own_checkpoints_are_removed(tmp_path: Path, shared: str) -> None:
    """A record may name others, as that of a sweep whose folder was moved by hand."""
    storage = Storage.claim(sweep(tmp_path / "a", shared), new=True)
    paths = [
        tmp_path / "shared" / f"{Path(storage.root).name}-more" / "run-1" / "t000" / "checkpoint_000000",
        tmp_path / "shared" / "demo" / "run-1" / "t000" / "checkpoint_000000",
        Path(storage.root) / "record" / "t000" / "checkpoint_000000",
        Path(storage.root) / "run-1" / "t000" / "other",
        Path(storage.root) / "run-1" / "t000" / "checkpoint_000000",
    ]
    for path in paths:
        path.mkdir(parents=True)
    storage.remove([*map(str, paths), f"{storage.root}/run-1/../../demo/run-1/t000/checkpoint_000000"])
    assert [path.exists() for path in paths] == [True, True, True, True, False]


def test_a_checkpoint_that_is_gone_is_no_error(tmp_path: Path) -> None:
    """Nor is one that cannot be removed: that costs space only."""
    storage = Storage.of(sweep(tmp_path, None))
    storage.remove([f"{storage.root}/run-1/t000/checkpoint_000000"])


def test_a_storage_that_pyarrow_does_not_know_is_one_line(tmp_path: Path) -> None:
    folder = sweep(tmp_path, "foo://key:word@place/x?secret=1")
    with pytest.raises(SettingsError, match=r"^--storage foo://place/x: cannot be used \(Unrecognized"):
        Storage.of(folder)


def test_on_a_bucket_it_is_the_same(s3: S3Server, tmp_path: Path) -> None:
    """Two sweeps of one name; what one writes, fetches and removes is its own."""
    folders = [sweep(tmp_path / mlruns, s3.uri("store")) for mlruns in ("a", "b")]
    one, other = (Storage.claim(folder, new=True) for folder in folders)
    s3.taken()
    assert Storage.claim(folders[0]) == one
    assert len(s3.taken()) == 2
    names = ("weights/a", "trial.json", "optimizer.safetensors")
    for storage in (one, other):
        assert storage.next_run() == "run-1"
        for number in range(2):
            for name in names:
                storage.write(f"run-1/t000/checkpoint_00000{number}/{name}", storage.root.encode())
        assert storage.next_run() == "run-2"
    kept = f"{one.root}/run-1/t000/checkpoint_000001"
    one.remove([f"{other.root}/run-1/t000/checkpoint_000000"])
    one.remove_others([kept])
    assert one.has(kept)
    assert not one.has(f"{one.root}/run-1/t000/checkpoint_000000")
    assert one.files("run-1") == sorted(f"run-1/t000/checkpoint_000001/{name}" for name in names)
    assert len(other.files("run-1")) == 2 * len(names)
    one.fetch(kept, tmp_path / "fetched", without=["optimizer.safetensors"])
    fetched = {path.name for path in (tmp_path / "fetched").rglob("*") if path.is_file()}
    assert fetched == {"a", "trial.json"}
    assert (tmp_path / "fetched" / "weights" / "a").read_text() == one.root
    assert one.read("none") is None
    with pytest.raises(FileNotFoundError):
        one.fetch(f"{one.root}/run-1/t000/checkpoint_000000", tmp_path / "gone")
    other.write(OWNER_FILE, one.read(OWNER_FILE) or b"")
    with pytest.raises(SettingsError, match=r"^s3://bucket/store/demo-\w{8}: belongs to another sweep"):
        Storage.claim(folders[1])

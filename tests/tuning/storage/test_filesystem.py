"""File systems of a storage: a bucket is asked for files, not for folders."""

from __future__ import annotations

import pickle
from pathlib import Path

import pyarrow.fs
import pytest
from pyarrow.fs import FileSelector, FileType
from s3_server import S3Server

from lorasweep.tuning.storage.filesystem import filesystem_at, has_credentials, without_credentials

# As those of a trial: weights and configuration in a folder of their own.
FILES = ("weights/a", "weights/b", "optimizer", "state", "best", "probe")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A folder of six small files."""
    for name in FILES:
        path = tmp_path / "checkpoint" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "checkpoint"


def test_a_checkpoint_costs_a_request_a_file(s3: S3Server, checkpoint: Path, tmp_path: Path) -> None:
    """As Ray copies it: it makes the folders first."""
    filesystem, root = filesystem_at(s3.uri("store"))
    there = f"{root}/demo-1/run-1/t000/checkpoint_000000"
    s3.taken()
    filesystem.create_dir(there)
    pyarrow.fs.copy_files(str(checkpoint), there, destination_filesystem=filesystem)
    taken = s3.taken()
    assert {path for _, path, _ in taken} == {f"/{there}/{name}" for name in FILES}
    assert [method for method, *_ in taken] == ["PUT"] * len(FILES)
    back = tmp_path / "back"
    pyarrow.fs.copy_files(there, str(back), source_filesystem=filesystem)
    assert {name: (back / name).read_text() for name in FILES} == {name: name for name in FILES}
    s3.taken()
    filesystem.delete_dir(there)
    assert len(s3.taken()) <= 5
    assert filesystem.get_file_info(there).type == FileType.NotFound


def test_what_ray_asks_without_need_is_known(s3: S3Server) -> None:
    filesystem, root = filesystem_at(s3.uri("known"))
    s3.taken()
    run = f"{root}/demo-1/run-1"
    asked = [f"{run}/.validate_storage_marker", f"{run}/t000/result.json", f"{run}/t000/progress.csv"]
    types = [filesystem.get_file_info(path).type for path in asked]
    assert types == [FileType.File, FileType.NotFound, FileType.NotFound]
    assert s3.taken() == []
    assert filesystem.get_file_info(f"{run}/t000").type == FileType.NotFound
    assert s3.taken() != []


def test_files_larger_than_a_part_are_whole(s3: S3Server, tmp_path: Path) -> None:
    """Several at once, more than pyarrow has threads for them."""
    content = bytes(range(256)) * (42 << 10)
    for number in range(9):
        (tmp_path / f"{number}").write_bytes(content)
    filesystem, root = filesystem_at(s3.uri("large"))
    pyarrow.fs.copy_files(str(tmp_path), root, destination_filesystem=filesystem)
    for number in range(9):
        with filesystem.open_input_file(f"{root}/{number}") as file:
            assert file.read() == content


def test_it_is_the_same_in_another_process(s3: S3Server) -> None:
    """Ray hands it to its workers; each has its own environment's credentials."""
    filesystem, root = filesystem_at(s3.uri("packed"))
    packed = pickle.dumps(filesystem)
    assert b"a-secret" not in packed
    copy = pickle.loads(packed)
    assert copy == filesystem
    with copy.open_output_stream(f"{root}/file") as file:
        file.write(b"content")
    assert [entry.base_name for entry in filesystem.get_file_info(FileSelector(root))] == ["file"]
    with filesystem.open_input_stream(f"{root}/file") as file:
        assert file.read() == b"content"
    filesystem.move(f"{root}/file", f"{root}/moved")
    filesystem.copy_file(f"{root}/moved", f"{root}/again")
    filesystem.delete_file(f"{root}/moved")
    assert [entry.base_name for entry in filesystem.get_file_info(FileSelector(root))] == ["again"]
    filesystem.delete_dir_contents(root)


def test_paths_are_as_ray_writes_them(s3: S3Server, tmp_path: Path) -> None:
    """Else what is listed would not be what records name."""
    for storage, path in (
        (s3.uri("store/"), "bucket/store"),
        (s3.uri("a//b"), "bucket/a/b"),
        (s3.uri(""), "bucket"),
        (f"file://{tmp_path}/", str(tmp_path)),
        (f"{tmp_path}//x/../y/", f"{tmp_path}/y"),
    ):
        assert filesystem_at(storage)[1] == path


def test_a_server_may_be_named_in_the_environment_alone(s3: S3Server) -> None:
    s3.taken()
    filesystem, root = filesystem_at("s3://bucket/environment?region=us-east-1")
    with filesystem.open_output_stream(f"{root}/file") as file:
        file.write(b"content")
    assert s3.taken() == [("PUT", "/bucket/environment/file", "")]


@pytest.mark.parametrize(
    ("storage", "secret", "shown"),
    [
        ("s3://KEY:WORD@bucket/x", True, "s3://bucket/x"),
        ("s3://KEY@bucket/x?region=r", True, "s3://bucket/x"),
        ("s3://bucket/x?access_key=KEY&secret_key=WORD", True, "s3://bucket/x"),
        ("s3://bucket/x?SESSION_TOKEN=WORD", True, "s3://bucket/x"),
        ("hdfs://user:WORD@host:8020/x", True, "hdfs://host:8020/x"),
        ("s3://bucket/x?region=eu-west-1&endpoint_override=here:9000", False, "s3://bucket/x"),
        ("abfs://container@account/x", False, "abfs://container@account/x"),
        ("hdfs://user@host/x", False, "hdfs://user@host/x"),
        ("/shared/a:b@c?key=d", False, "/shared/a:b@c?key=d"),
    ],
)
def test_credentials_in_a_uri_are_seen_and_not_shown(storage: str, secret: bool, shown: str) -> None:
    assert has_credentials(storage) == secret
    assert without_credentials(storage) == shown
    assert "WORD" not in shown

"""A storage that cannot work is one line, in time, and leaves nothing."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest
from pyarrow.fs import FileSelector
from s3_server import S3Server

from lorasweep.training.errors import SettingsError
from lorasweep.tuning.storage import check
from lorasweep.tuning.storage.check import check_storage, marked, problem_with, refuse_credentials
from lorasweep.tuning.storage.filesystem import filesystem_at


def test_a_storage_that_works_is_as_it_was(s3: S3Server, tmp_path: Path) -> None:
    """A new folder of a bucket empty, one that was missing missing, one that was there there."""
    check_storage(None, 1)
    check_storage(s3.uri("new/deep"), 3)
    filesystem, _ = filesystem_at(s3.uri("new"))
    entries = filesystem.get_file_info(FileSelector("bucket/new", recursive=True, allow_not_found=True))
    assert not [entry.path for entry in entries if entry.is_file]
    check_storage(str(tmp_path / "new" / "deep"), 3)
    assert list(tmp_path.iterdir()) == []
    check_storage(tmp_path.as_uri(), 1)
    assert list(tmp_path.iterdir()) == []


def test_several_nodes_need_one() -> None:
    with pytest.raises(SettingsError, match=r"^--address: the cluster has 3 nodes, .* with --storage$"):
        check_storage(None, 3)


@pytest.mark.parametrize(
    ("storage", "said"),
    [
        ("s3a://bucket/x", "no such kind of storage; name a folder, or a URI of s3"),
        ("http://host/x", "no such kind of storage"),
        ("file://x", "it cannot be used (File URI cannot be relative"),
        ("s3://", "names no bucket or folder"),
        ("s3:///x", "it cannot be used (Missing bucket name"),
        ("s3://bucket/x?nonsense=1", "it cannot be used (Unexpected query parameter in S3 URI: 'nonsense')"),
    ],
)
def test_what_is_no_storage_is_one_line(storage: str, said: str) -> None:
    problem = problem_with(storage)
    assert problem.startswith(said)
    assert "\n" not in problem


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_text("")
    assert problem_with(str(file / "below")).startswith("it cannot be used (")

    def denied(*arguments: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(check, "_try_out", denied)
    assert problem_with(str(tmp_path / "new")).startswith("it cannot be written (permission denied); fix")
    assert not (tmp_path / "new").exists()


def test_a_bucket_that_is_not_there_is_one_line(s3: S3Server) -> None:
    """In the check's own process, as a plan asks it."""
    with pytest.raises(SettingsError) as caught:
        check_storage(s3.uri("x", bucket="another"), 1)
    assert str(caught.value) == "--storage s3://another/x: there is no such bucket; make it first"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            "AWS Error ACCESS_DENIED during PutObject operation: Access Denied",
            "access is denied; see AWS_ACCESS",
        ),
        ("AWS Error UNKNOWN (HTTP status 403) during HeadObject", "access is denied"),
        ("AWS Error NETWORK_CONNECTION during PutObject: curlCode: 7", "the server cannot be reached"),
        ("something\nelse", "it cannot be used (something)"),
    ],
)
def test_what_aws_says_in_words(
    error: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: object) -> None:
        raise OSError(error)

    monkeypatch.setattr(check, "_try_out", fails)
    assert problem_with(str(tmp_path)).startswith(said)


def test_a_server_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """pyarrow would try for minutes, and nothing ends its threads."""
    monkeypatch.setattr(check, "ANSWER_SECONDS", 3)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        storage = f"s3://bucket/x?region=r&scheme=http&endpoint_override=127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(SettingsError, match=r"^--storage s3://bucket/x: no answer in 3 seconds; see"):
            check_storage(storage, 1)
    assert time.monotonic() - began < 10


def test_a_node_that_has_another_folder_there_is_told(s3: S3Server, tmp_path: Path) -> None:
    """Its own disk's, at the same path."""
    for storage in (s3.uri("marked"), str(tmp_path / "marked")):
        with marked(storage) as mark:
            assert problem_with(storage, mark) == ""
            assert problem_with(storage, f"{mark}-2").startswith("the driver's files are not there; name a")
        assert problem_with(storage, mark).startswith("the driver's files are not there")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="the block's own"), marked(str(tmp_path)):
        raise ValueError("the block's own")
    with (
        pytest.raises(SettingsError, match=r"^--storage foo://x: no such kind of storage"),
        marked("foo://x"),
    ):
        pass


def test_credentials_are_refused_without_being_shown() -> None:
    for storage in (None, "/shared", "s3://bucket/x?region=eu-west-1", "abfs://container@account/x"):
        refuse_credentials(storage)
    for storage in ("s3://KEY:WORD@bucket/x", "s3://bucket/x?secret_key=WORD"):
        with pytest.raises(SettingsError, match=r"^--storage s3://bucket/x: .* AWS_ACCESS_KEY_ID ") as caught:
            refuse_credentials(storage)
        assert "WORD" not in str(caught.value)
        assert "KEY:" not in str(caught.value)

"""A shared storage is tried before anything relies on it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from lorasweep.training.errors import SettingsError
from lorasweep.tuning.trials import storage_check as module
from lorasweep.tuning.trials.storage_check import MARK, marked, use_storage


@pytest.mark.parametrize("form", ["{}", "{}/", "file://{}"])
def test_a_storage_that_works_is_left_as_it_was(form: str, tmp_path: Path) -> None:
    storage = form.format(tmp_path)
    with marked(storage, 5) as (uri, mark):
        assert uri is not None
        assert [path.name for path in tmp_path.iterdir()] == [mark]
        use_storage(uri, mark)
    assert list(tmp_path.iterdir()) == []


def test_a_relative_path_is_the_same_folder_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with marked("here", 5) as (uri, mark):
        assert (uri, (tmp_path / "here" / mark).is_file()) == (str(tmp_path / "here"), True)
    with marked(None, 5) as nothing:
        assert nothing == (None, "")


@pytest.mark.parametrize(
    ("storage", "step"), [("{}/file", "written"), ("{}/gone", "written"), ("nosuch://{}", "opened")]
)
def test_what_fails_is_said_in_one_line(storage: str, step: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file is no folder")
    uri = storage.format(tmp_path)
    with pytest.raises(SettingsError, match=rf"^--storage {uri} cannot be {step} there \(") as caught:
        use_storage(uri)
    assert "\n" not in str(caught.value)


def test_a_folder_without_the_others_file_is_another_folder(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="holds nothing of this machine's there"):
        use_storage(str(tmp_path), f"{MARK}1")


def test_a_storage_that_this_machine_cannot_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(SettingsError, match=rf"^--storage {tmp_path}/file/x: cannot be written \("),
        marked(f"{tmp_path}/file/x", 5),
    ):
        raise AssertionError
    monkeypatch.setattr(module, "_write", lambda *arguments: time.sleep(5))
    with (
        pytest.raises(SettingsError, match=r"^--storage s3://b: has not answered in 0.1 s"),
        marked("s3://b", 0.1),
    ):
        raise AssertionError

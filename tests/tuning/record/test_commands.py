"""Commands that can be pasted into a shell."""

from __future__ import annotations

from pathlib import Path

import pytest

from lorasweep.tuning.record.commands import MLRUNS_VARIABLE, shell_command


def test_a_command_finds_the_folder_it_is_about(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--mlruns` stands where the command would look into another folder without it."""
    monkeypatch.delenv(MLRUNS_VARIABLE, raising=False)
    assert shell_command(Path("mlruns"), "export", "a", "--out", "my b") == "lorasweep export a --out 'my b'"
    assert shell_command(Path("x y"), "resume", "a") == "lorasweep resume a --mlruns 'x y'"
    monkeypatch.setenv(MLRUNS_VARIABLE, "x y")
    assert shell_command(Path("x y"), "resume", "a") == "lorasweep resume a"
    assert shell_command(Path("mlruns"), "resume", "a") == "lorasweep resume a --mlruns mlruns"

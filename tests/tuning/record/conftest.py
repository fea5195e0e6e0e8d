"""A sweep's folder as it is made, for the tests of records."""

from __future__ import annotations

from pathlib import Path

import pytest

from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.record.folder import SweepFolder


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    """A new sweep's folder."""
    folder = SweepFolder(tmp_path, "demo")
    folder.create(SweepConfig(name="demo"))
    return folder

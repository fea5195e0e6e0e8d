"""Finished sweeps built by hand, for the tests of reports."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from reported_sweeps import finished_sweep

from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.report import page as report_page


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> SweepFolder:
    """A finished sweep with all its parts; made once, so a test copies it before it changes anything."""
    return finished_sweep(tmp_path_factory.mktemp("report") / "mlruns")


@pytest.fixture
def folder(finished: SweepFolder, tmp_path: Path) -> SweepFolder:
    """A copy of the finished sweep, to be changed."""
    shutil.copytree(finished.mlruns, tmp_path / "mlruns")
    return SweepFolder(tmp_path / "mlruns", "demo")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots are drawn, but Plotly's own code is not in the page."""
    monkeypatch.setattr(report_page, "get_plotlyjs", lambda: "")


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, quick: None) -> None:
    """No plots: for what is about tables and texts."""
    monkeypatch.setattr(report_page, "draw_plots", lambda data: {})

"""Finished sweeps built by hand, for the tests of reports."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from reported_sweeps import finished_sweep

from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.report import page as report_page
from lorasweep.tuning.report.plots import settings as plot_settings
from lorasweep.tuning.report.plots import trials as plot_trials


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
    """Figures are made, but not painted; the interactive page is not made."""
    monkeypatch.setattr(report_page, "_interactive", lambda sweep: "")
    monkeypatch.setattr(report_page, "png", lambda figure: b"\x89PNG" + bytes(28))


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, quick: None) -> None:
    """The trials' figures are not even made: for what is about tables and texts."""
    for room, names in (
        (plot_trials, ("learning_curves", "history", "adapter_sizes")),
        (plot_settings, ("slices", "parallel_coordinates")),
    ):
        for name in names:
            monkeypatch.setattr(room, name, lambda *arguments: Figure())

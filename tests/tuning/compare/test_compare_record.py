"""A comparison's folder: rows kept one by one, settings that do not change under them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from compared import SETTINGS, failed, rows

from lorasweep.training.errors import SettingsError
from lorasweep.training.settings import DataSettings
from lorasweep.tuning.compare.record import ComparisonFolder


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    folder = ComparisonFolder(tmp_path, "demo")
    settings = SETTINGS.model_copy(update={"data": DataSettings(path="a.csv", text=("x", "y"))})
    folder.open(settings)
    assert folder.settings() == settings
    kept = rows()
    kept[1] = failed(kept[1], "out of memory")
    for row in kept:
        folder.write_row(row)
    assert list(folder.rows().values()) == sorted(kept, key=lambda row: row.plan.id)
    folder.open(settings)


def test_a_row_of_an_older_version_is_read(tmp_path: Path) -> None:
    folder = ComparisonFolder(tmp_path, "demo")
    folder.open(SETTINGS)
    (row, *_) = rows()
    entries = json.loads(row.model_dump_json())
    # Hyperparameters stand under `settings`, as they did then; a field that has gone is ignored.
    assert entries["plan"]["settings"]["method"] == "full"
    assert "hyperparameters" not in entries["plan"]
    entries["plan"]["settings"]["gone"] = 1
    (folder.path / "rows" / "full-fp32.json").write_text(json.dumps(entries))
    assert folder.rows() == {"full-fp32": row}


def test_a_comparison_that_an_older_version_began_goes_on(tmp_path: Path) -> None:
    """Without the sweep's threshold: its rows were judged without, and all rows compare."""
    folder = ComparisonFolder(tmp_path, "demo")
    settings = SETTINGS.model_copy(update={"threshold": "f2"})
    assert folder.open(settings) == settings
    assert folder.open(settings) == settings
    with pytest.raises(SettingsError, match=r"other settings \(threshold\)"):
        folder.open(SETTINGS)
    path = folder.path / "settings.yaml"
    entries = path.read_text()
    path.write_text(entries.replace("threshold: f2\n", ""))
    assert path.read_text() != entries
    assert folder.open(settings) == SETTINGS
    with pytest.raises(SettingsError, match=r"other settings \(full_rate\)"):
        folder.open(settings.model_copy(update={"full_rate": 1e-5}))


def test_other_settings_under_the_same_name_are_refused(tmp_path: Path) -> None:
    folder = ComparisonFolder(tmp_path, "demo")
    folder.open(SETTINGS)
    other = SETTINGS.model_copy(update={"full_rate": 1e-5, "batch_size": 8})
    with pytest.raises(SettingsError, match=r"comparison demo: .*\(batch_size, full_rate\)"):
        folder.open(other)


def test_settings_that_were_broken_by_hand_are_named(tmp_path: Path) -> None:
    folder = ComparisonFolder(tmp_path, "demo")
    folder.open(SETTINGS)
    path = folder.path / "settings.yaml"
    path.write_text(path.read_text().replace("batch_size: 32", "batch_size: none"))
    with pytest.raises(SettingsError, match=r"settings.yaml: batch_size: 'none': use a whole number"):
        folder.open(SETTINGS)


def test_one_process_at_a_time(tmp_path: Path) -> None:
    folder = ComparisonFolder(tmp_path, "demo")
    folder.open(SETTINGS)
    with folder.lock(), pytest.raises(SettingsError, match="another process"), folder.lock():
        pass
    with folder.lock():
        pass

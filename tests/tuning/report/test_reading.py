"""What is read of a sweep's folder: parts that are gone or do not fit are left out, and said."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
import pytest
from reported_sweeps import (
    PREDICTED,
    logits_of,
    page_of,
    pieces_of,
)
from safetensors.numpy import save_file

from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.report.page import report_files
from lorasweep.tuning.report.reading import read_report_data
from lorasweep.tuning.sweep.winner.winner import TEST_FILE


def break_shape(folder: SweepFolder) -> None:
    save_file({"logits": logits_of(PREDICTED)[:-1]}, folder.winner / TEST_FILE)


def break_numbers(folder: SweepFolder) -> None:
    logits = logits_of(PREDICTED)
    logits[3, 3] = np.nan
    save_file({"logits": logits}, folder.winner / TEST_FILE)


def break_winner(folder: SweepFolder) -> None:
    save_file({"logits": logits_of([(0, 0, 0.9)] * len(PREDICTED))}, folder.winner / TEST_FILE)


BROKEN: dict[str, Callable[[SweepFolder], object]] = {
    "could not be read": lambda folder: (folder.winner / TEST_FILE).unlink(),
    "could not be read (SafetensorError)": lambda folder: (folder.winner / TEST_FILE).write_bytes(b"cut off"),
    "do not fit the test rows": break_shape,
    "do not fit the test rows, and": break_numbers,
    "are not the recorded winner's": break_winner,
    "the prepared rows are gone": lambda folder: shutil.rmtree(folder.data),
}


@pytest.mark.parametrize("name", ["50% done", "a%20b?c=d#e {f} é:g@h"])
def test_a_study_is_read_in_a_folder_of_any_name(name: str, folder: SweepFolder, tmp_path: Path) -> None:
    mlruns = shutil.move(folder.mlruns, tmp_path / name)
    assert read_report_data(SweepFolder(Path(mlruns), folder.name)).missing == []


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("why", BROKEN)
def test_predictions_that_cannot_be_trusted_are_left_out(why: str, folder: SweepFolder) -> None:
    """Never shown as the winner's; the rest of the page stays."""
    BROKEN[why](folder)
    page, files = pieces_of(folder)
    assert why in page.text
    assert "Most confident mistakes" not in page.text
    assert "winner t001" in page.text
    assert {name for name in files if name.endswith(".csv")} == {"report/trials.csv"}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("broken", ["gone", "text", "empty", "foreign"])
def test_a_study_that_cannot_be_read(broken: str, folder: SweepFolder) -> None:
    """The records tell the same; and no study is made where there was none."""
    path = folder.path / "study.db"
    whole = path.read_bytes()
    contents = {"gone": None, "text": b"no database", "empty": b"", "foreign": whole}
    path.unlink()
    if contents[broken] is not None:
        path.write_bytes(contents[broken] or b"")
    if broken == "foreign":
        optuna.delete_study(study_name="demo", storage=folder.study_url)
    before = path.read_bytes() if path.exists() else None
    page = page_of(folder)
    assert "study.db" in page.text
    assert {"importances", "slices"} <= json.loads(page.scripts[0]).keys()
    assert (path.read_bytes() if path.exists() else None) == before


@pytest.mark.usefixtures("bare")
def test_a_report_leaves_the_sweep_as_it_is(finished: SweepFolder) -> None:
    """No file is made, changed or removed."""

    def contents() -> dict[Path, str]:
        paths = [path for path in finished.path.rglob("*") if path.is_file()]
        return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}

    before = contents()
    report_files(finished)
    assert contents() == before


@pytest.mark.usefixtures("bare")
def test_the_code_of_a_space_is_not_run(folder: SweepFolder) -> None:
    """A report may be made of a sweep that came from somebody else."""
    (folder.path / "space.yaml").unlink()
    trace = folder.mlruns / "run"
    (folder.path / "space.py").write_text(f"open({str(trace)!r}, 'w')\ndef space(trial): ...\n")
    config = folder.config()
    search = config.search.model_copy(update={"space": "/home/somebody/space.py:space"})
    folder.write_config(config.model_copy(update={"search": search}))
    page = page_of(folder)
    assert not trace.exists()
    assert ["learning_rate", "1e-4 ... 0.01 (log)"] in page.rows, "as the study has it"
    assert "/home/somebody" not in page.text


@pytest.mark.usefixtures("quick")
def test_plots_show_the_search_and_tables_the_finalists_too(folder: SweepFolder) -> None:
    """A finalist's score is on other rows; the plots mark the search trial of the winner."""
    config, result = folder.config(), folder.result()
    assert result is not None
    assert result.winner is not None
    folder.write_config(config.model_copy(update={"search": config.search.model_copy(update={"proxy": 0.5})}))
    trials = folder.trials()
    origin = next(trial for trial in trials if trial.id == result.winner.id)
    last = f"{origin.id}-full"
    folder.write_trial(origin.model_copy(update={"id": last, "finalist_of": origin.id, "score": 0.01}))
    won = result.winner.model_copy(update={"id": last})
    folder.write_result(result.model_copy(update={"winner": won}))
    data = read_report_data(folder)
    assert [trial.id for trial in data.plots.trials] == [trial.id for trial in trials]
    assert data.plots.winner == origin.id
    assert data.ranked()[0].id == last
    page, files = pieces_of(folder)
    assert f"winner {last}" in page.text
    rows = list(csv.DictReader(files["report/trials.csv"].decode().splitlines()))
    assert {row["trial"]: row["finalist_of"] for row in rows} == {
        **{trial.id: "" for trial in trials},
        last: origin.id,
    }

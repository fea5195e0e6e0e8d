"""`lorasweep compare` as a user runs it: killed in the middle, gone on with, and on a sweep that is there."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pandas as pd
import pytest
from whole_sweeps import lorasweep, start, wait_for

from lorasweep.tuning.compare.process import row_policy
from lorasweep.tuning.compare.record import ComparisonFolder
from lorasweep.tuning.record.folder import SweepFolder

COMPARE = ["compare", "--epochs", "1", "--trials", "2", "--max-length", "16"]
DATA = ["--data", "rows.csv", "--base-model", "./base"]
ROWS = {"full-fp32", "full-amp", "lora-fp32", "lora-amp", "tuned"}

pytestmark = pytest.mark.slow


def test_a_comparison_that_is_killed_is_gone_on_with(place: Path) -> None:
    arguments = [*COMPARE, *DATA, "--name", "both", "--tune-baseline", "--baseline-trials", "2"]
    process = start(place, *arguments)
    folder = ComparisonFolder(place / "mlruns", "both")
    wait_for(lambda: len(folder.rows()) >= 2, process, 280)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    done = folder.rows()
    sweeps = {path.name for path in (place / "mlruns" / "sweeps").iterdir()}
    assert sweeps == {"both-sweep", "both-full-rate", "both-lora-rate"}

    out, err = lorasweep(place, *arguments)
    assert "Traceback" not in err
    assert max(len(line) for line in out.splitlines() if "/" not in line) <= 80
    rows = folder.rows()
    assert set(rows) == ROWS | {"lora-rate"}
    assert {name: rows[name] for name in done} == done
    for row in rows.values():
        assert row.error is None
        assert row.train_rows == 48
        assert row.test is not None
        assert row.latencies
        assert row.operators
        for figure in (
            "epoch_seconds",
            "samples_per_second",
            "trainable_parameters",
            "stored_bytes",
            "peak_bytes",
        ):
            assert getattr(row, figure) > 0, (row.plan.id, figure)
    found = SweepFolder(place / "mlruns", "both-full-rate").result()
    assert found is not None
    assert found.winner is not None
    assert rows["full-fp32"].plan.hyperparameters.learning_rate == found.winner.hyperparameters.learning_rate
    assert rows["tuned"].stored_bytes < rows["full-fp32"].stored_bytes
    amp = row_policy("auto", "bert").name
    assert rows["full-amp"].precision == amp
    assert rows["full-amp"].same_as == ("full-fp32" if amp == "fp32" else None)
    entries = json.loads((folder.path / "comparison.json").read_text())
    assert [row["plan"]["id"] for row in entries["rows"]][-1] == "tuned"
    assert "## Test split" in (folder.path / "comparison.md").read_text()
    assert (folder.path / "comparison.png").read_bytes().startswith(b"\x89PNG")
    _, err = lorasweep(place, *arguments, "--full-rate", "0.5", code=2)
    assert "comparison both: was begun with other settings (full_rate)" in err


def test_a_sweep_that_is_there_is_compared_on_more_rows(place: Path) -> None:
    run = ["run", *DATA, "--max-length", "16", "--epochs", "1", "--trials", "2", "--name", "small"]
    lorasweep(place, *run, "--max-train-rows", "24", "--max-validation-rows", "6", "--no-register")
    lorasweep(place, "compare", "--sweep", "small", "--all-rows")
    rows = ComparisonFolder(place / "mlruns", "small-compared").rows()
    assert set(rows) == ROWS
    assert {row.train_rows for row in rows.values()} == {48}
    winner = SweepFolder(place / "mlruns", "small").result()
    assert winner is not None
    assert winner.winner is not None
    assert rows["tuned"].plan.hyperparameters == winner.winner.hyperparameters
    _, err = lorasweep(place, "compare", "--sweep", "small", "--seed", "4", code=2)
    assert "--sweep small with --seed: the sweep has set these" in err


def test_labels_that_were_merged_are_scored_both_ways(place: Path) -> None:
    (place / "map.yaml").write_text("art: [film, health]\n")
    lorasweep(place, *COMPARE, *DATA, "--name", "merged", "--merge-labels", "map.yaml")
    rows = ComparisonFolder(place / "mlruns", "merged").rows()
    row = rows["tuned-unmerged"]
    assert row.plan.hyperparameters == rows["tuned"].plan.hyperparameters
    assert row.merged is not None
    assert row.test is not None
    assert row.merged.accuracy >= row.test.accuracy
    assert set(pd.read_csv(place / "rows.csv")["label"]) == {"money", "film", "health"}

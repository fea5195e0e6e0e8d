"""`lorasweep compare` as a user runs it: killed in the middle, continued, and on a sweep that is finished.

One comparison shows most of it: with tuned baselines, merged labels and a search on a part of the rows.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest
from whole_sweeps import lorasweep, started, wait_for

from lorasweep.training.devices import choose_device
from lorasweep.training.model.precision import resolve_precision
from lorasweep.tuning.compare.record import ComparedRow, ComparisonFolder
from lorasweep.tuning.record.folder import SweepFolder

ROWS = {"full-fp32", "full-amp", "lora-fp32", "lora-amp", "tuned", "tuned-unmerged"}
COMPARE = ["compare", "--data", "rows.csv", "--base-model", "./base", "--merge-labels", "map.yaml"]
COMPARE += ["--epochs", "1", "--max-length", "16", "--trials", "2", "--search-rows", "24"]
COMPARE += ["--tune-baseline", "--baseline-trials", "2", "--name", "both"]

pytestmark = pytest.mark.slow


class Continued(NamedTuple):
    """A comparison that was killed and continued.

    Attributes:
        before: the rows on record when it was killed.
        out: what the second command printed.
    """

    folder: ComparisonFolder
    before: dict[str, ComparedRow]
    out: str


@pytest.fixture(scope="module")
def compared(place: Path) -> Continued:
    (place / "map.yaml").write_text("art: [film, health]\n")
    folder = ComparisonFolder(place / "mlruns", "both")
    with started(place, *COMPARE) as process:
        wait_for(lambda: len(folder.rows()) >= 2, process, 600)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    before = folder.rows()
    out, err = lorasweep(place, *COMPARE)
    assert "Traceback" not in err
    return Continued(folder, before, out)


def test_a_comparison_that_is_killed_is_continued(compared: Continued, place: Path) -> None:
    sweeps = {path.name for path in (place / "mlruns" / "sweeps").iterdir()}
    assert sweeps >= {"both-sweep", "both-full-rate", "both-lora-rate"}
    assert not [line for line in compared.out.splitlines() if len(line) > 80 and "/" not in line]
    rows = compared.folder.rows()
    assert set(rows) == ROWS | {"lora-rate"}
    assert {name: rows[name] for name in compared.before} == compared.before
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
    amp = resolve_precision("auto", choose_device(), "bert").name
    assert rows["full-amp"].precision == amp
    assert rows["full-amp"].same_as == ("full-fp32" if amp == "fp32" else None)
    entries = json.loads((compared.folder.path / "comparison.json").read_text())
    assert [row["plan"]["id"] for row in entries["rows"]][-2:] == ["tuned", "tuned-unmerged"]
    assert "## Test split" in (compared.folder.path / "comparison.md").read_text()
    assert 'id="plot-costs"' in (compared.folder.path / "comparison.html").read_text(encoding="utf-8")
    _, err = lorasweep(place, *COMPARE, "--full-rate", "0.5", code=2)
    assert "comparison both: was begun with other settings (full_rate)" in err


def test_labels_that_were_merged_are_scored_both_ways(compared: Continued, place: Path) -> None:
    rows = compared.folder.rows()
    row = rows["tuned-unmerged"]
    assert row.plan.hyperparameters == rows["tuned"].plan.hyperparameters
    assert row.merged is not None
    assert row.test is not None
    assert row.merged.accuracy >= row.test.accuracy
    assert set(pd.read_csv(place / "rows.csv")["label"]) == {"money", "film", "health"}


def test_a_finished_sweep_is_compared_on_more_rows(compared: Continued, place: Path) -> None:
    sweep = SweepFolder(place / "mlruns", "both-sweep")
    assert sweep.config().data.max_train_rows == 24
    lorasweep(place, "compare", "--sweep", "both-sweep", "--all-rows")
    rows = ComparisonFolder(place / "mlruns", "both-sweep-compared").rows()
    assert set(rows) == ROWS
    assert {row.train_rows for row in rows.values()} == {48}
    winner = sweep.result()
    assert winner is not None
    assert winner.winner is not None
    assert rows["tuned"].plan.hyperparameters == winner.winner.hyperparameters
    _, err = lorasweep(place, "compare", "--sweep", "both-sweep", "--seed", "4", code=2)
    assert "--sweep both-sweep with --seed: the sweep has set these" in err

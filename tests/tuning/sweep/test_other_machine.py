"""A sweep whose driver's machine is gone, with all that was on it, goes on from its storage."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from whole_sweeps import RUN, check_study, lorasweep, started, wait_for

from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.storage.storage import Storage

pytestmark = pytest.mark.slow

TRIALS, RUNGS = 6, 12


def test_a_job_that_is_started_again_goes_on_where_its_machine_was_lost(place: Path, tmp_path: Path) -> None:
    """The same command on an empty machine; a third time it has nothing to do."""
    storage, elsewhere = tmp_path / "shared", tmp_path / "elsewhere"
    # What a job's image has.
    shutil.copytree(place, elsewhere)
    job = [
        *RUN,
        "--trials",
        str(TRIALS),
        "--epochs",
        str(RUNGS // 2),
        "--concurrency",
        "2",
        "--cpus-per-trial",
        "1",
    ]
    job += ["--storage", str(storage), "--name", "job", "--resume", "--no-baselines"]
    folder = SweepFolder(place / "mlruns", "job")

    def going() -> bool:
        trials = folder.trials() if folder.exists() else []
        return sum(not trial.unfinished for trial in trials) >= 2 and any(
            trial.reached >= 2 for trial in trials
        )

    with started(place, *job) as process:
        wait_for(going, process)
        root = Path(Storage.of(folder).root)
        # What was on record a moment ago is on the storage.
        before = {trial.id: trial for trial in folder.trials()}
        wait_for(
            lambda: _ended(root) >= {trial.id for trial in before.values() if not trial.unfinished}, process
        )
        process.kill()
        process.wait()
    shutil.rmtree(place / "mlruns")

    out, _ = lorasweep(elsewhere, *job)
    there = SweepFolder(elsewhere / "mlruns", "job")
    records = there.trials()
    assert [record.id for record in records] == [f"t{number:03d}" for number in range(TRIALS)]
    assert there.state() == "finished"
    for record in records:
        assert record.state in ("completed", "stopped"), record.error
        assert [entry.rung for entry in record.evaluations] == list(range(1, record.reached + 1))
        if record.id in before and not before[record.id].unfinished:
            assert record.evaluations == before[record.id].evaluations
    check_study(there, records)
    assert [path.name for path in storage.iterdir()] == [root.name], "the sweep was begun a second time"
    assert (there.path / "best").is_dir()

    said, _ = lorasweep(elsewhere, *job)
    assert there.trials() == records
    winner = json.loads(lorasweep(elsewhere, "status", "job", "--json")[0])["winner"]["id"]
    assert all(f"winner {winner}" in text for text in (out, said))


def _ended(root: Path) -> set[str]:
    """The trials that have ended, as the storage has them."""
    trials = (json.loads(path.read_text()) for path in (root / "record" / "trials").glob("t*.json"))
    return {str(trial["id"]) for trial in trials if trial["state"] != "running"}

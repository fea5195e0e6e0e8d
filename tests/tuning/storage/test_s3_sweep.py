"""Two sweeps of one name on one bucket: neither touches the other's, and they ask the server for little."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from s3_server import S3Server
from whole_sweeps import RUN, check_study, lorasweep, started, wait_for

from lorasweep.tuning.adapters.export.sweep import export_sweep
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.storage.storage import OWNER_FILE, Storage

GIVEN = (*RUN, "--name", "demo", "--trials", "2", "--no-asha", "--no-baselines", "--no-register")
# 151 before; each costs money and time.
REQUESTS_AN_EVALUATION = 15


@pytest.mark.slow
def test_sweeps_of_one_name_share_a_bucket(
    s3: S3Server, place: Path, record_property: Callable[[str, object], None]
) -> None:
    """One is interrupted, the other runs from begin to end, the first goes on from its own checkpoints."""
    storage = ("--storage", f"s3://bucket/store?region={s3.environment['AWS_DEFAULT_REGION']}")
    one, other = (SweepFolder(place / mlruns, "demo") for mlruns in ("one", "other"))
    s3.taken()
    first = (*GIVEN, *storage, "--epochs", "24", "--mlruns", "one", "--concurrency", "1")
    with started(place, *first, **s3.environment) as process:
        wait_for(lambda: any(trial.reached >= 5 for trial in one.trials()), process)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)
    before = one.trials()
    assert any(trial.last_checkpoint for trial in before)
    more = ("--epochs", "3", "--seed", "1", "--mlruns", "other")
    lorasweep(place, *GIVEN, *storage, *more, **s3.environment)
    lorasweep(place, "resume", "demo", "--mlruns", "one", **s3.environment)
    roots = set()
    evaluations = 0
    for folder, rungs in ((one, 48), (other, 6)):
        kept = Storage.of(folder)
        assert kept.owner is not None
        assert json.loads(kept.read(OWNER_FILE) or b"") == kept.owner.model_dump()
        roots.add(kept.root)
        records = folder.trials()
        check_study(folder, records)
        for record in records:
            assert record.state == "completed"
            assert [evaluation.rung for evaluation in record.evaluations] == list(range(1, rungs + 1))
            assert record.notes == (), "it went on from its checkpoint"
        evaluations += sum(len(record.evaluations) for record in records)
        # What can still be chosen is there, and nothing else; all of it is the sweep's own.
        named = {record.checkpoint for record in records if record.checkpoint}
        assert all(path.startswith(f"{kept.root}/run-") for path in named)
        there = {"/".join(name.split("/")[:3]) for name in kept.files() if "/checkpoint_" in name}
        assert {kept.path(name) for name in there} == named
        # Verified: it predicts what the trial did.
        result = folder.result()
        assert result is not None
        assert result.winner is not None
        (other_one,) = {record.id for record in records} - {result.winner.id}
        assert export_sweep(folder, place / f"out-{folder.mlruns.name}", trial=other_one).rows == 6
    assert len(roots) == 2
    assert before[0].evaluations == one.trials()[0].evaluations[: before[0].reached]
    requests = len(s3.taken()) / evaluations
    record_property("requests_an_evaluation", round(requests, 1))
    assert requests < REQUESTS_AN_EVALUATION

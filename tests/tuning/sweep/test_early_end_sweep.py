"""A whole sweep whose trials end once they no longer learn: recorded, shown, resumed and extended."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from whole_sweeps import RUN, check_study, kill_when, lorasweep

from lorasweep.training.loop.early_end import ends_early
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.trial_records import TrialRecord

pytestmark = pytest.mark.slow

RUNGS, PATIENCE = 60, 2
SPACE = """
about: rates at which a tiny model soon learns no more
learning_rate: {loguniform: [2e-2, 2e-1]}
init: {choice: [default, pissa]}
sampling: {choice: [natural, balanced]}
rank: 2
target_modules: query-value
"""


def check_early(trials: list[TrialRecord]) -> None:
    """Each has ended at the first rung where it had to, and not by anything else."""
    for trial in trials:
        assert (trial.state, trial.stopped_by) == ("completed", "early_end"), trial.id
        assert trial.reached < RUNGS
        assert ends_early(trial.losses, PATIENCE)
        assert not ends_early(trial.losses[:-1], PATIENCE)
        assert trial.score == max(entry.accuracy or 0 for entry in trial.evaluations)


def test_trials_end_once_they_no_longer_learn(place: Path) -> None:
    (place / "space.yaml").write_text(SPACE)
    folder = SweepFolder(place / "mlruns", "early")
    begun = [
        *RUN, "--name", "early", "--space", "space.yaml", "--trials", "4", "--epochs", str(RUNGS),
        "--evaluations-per-epoch", "1", "--early-end", str(PATIENCE), "--grace-rungs", str(RUNGS),
        "--concurrency", "1", "--cpus-per-trial", "1", "--no-baselines",
    ]  # fmt: skip
    kill_when(place, begun, folder, lambda: any(t.stopped_by for t in folder.trials()))
    ended = {trial.id: trial for trial in folder.trials() if not trial.unfinished}
    lorasweep(place, "resume", "early")
    lorasweep(place, "run", "--name", "early", "--trials", "5", "--extend")
    trials, result = folder.trials(), folder.result()
    assert len(trials) == 5
    check_early(trials)
    # Neither has revived what had ended.
    for trial in trials:
        if trial.id in ended:
            assert trial.evaluations == ended[trial.id].evaluations
    check_study(folder, trials)
    assert result is not None
    assert result.winner is not None
    assert result.winner.score == max(trial.score or 0 for trial in trials)
    shown = lorasweep(place, "status", "early")[0]
    assert "5 ended early" in shown
    entries = json.loads(lorasweep(place, "status", "early", "--json")[0])
    assert {trial["stopped_by"] for trial in entries["trials"]} == {"early_end"}
    assert lorasweep(place, "export", "early", "--out", "best")[1] == ""
    lorasweep(place, "report", "early")
    pages = [path.read_text() for path in place.rglob("*.html")]
    assert any("ended early after rung" in page for page in pages)

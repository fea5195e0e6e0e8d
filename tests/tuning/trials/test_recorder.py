"""The recorder, called as Ray Tune calls its callbacks."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lorasweep.training.settings import Hyperparameters
from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.listener import Listeners, SweepListener
from lorasweep.tuning.record.ran_on import RanOn
from lorasweep.tuning.record.reported import BEST_RUNG, ERROR, OBJECTIVE, RUNG, SCORE
from lorasweep.tuning.record.trial_records import EvaluationRecord, TrialRecord
from lorasweep.tuning.record.words import counts_text
from lorasweep.tuning.storage.storage import Storage
from lorasweep.tuning.trials.failures import worth_another_try
from lorasweep.tuning.trials.faults import error_line
from lorasweep.tuning.trials.node_watch import GIVEN_UP, PAUSES, NodeWatch
from lorasweep.tuning.trials.recorder import Recorder, past_scores, ray_trial_name

RUNGS = 3
TRACEBACK = """Failure # 1 (occurred at 2024-05-01_12-00-00)
ray::ImplicitFunc.train() (pid=1, ip=127.0.0.1)
  File "deep.py", line 13, in run
    raise ValueError("line one\\nline two")
    ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
ValueError: line one
  line two
"""
FAILING = """
import os, sys
from pathlib import Path
from lorasweep.tuning.quiet import quiet_environment, quiet_libraries
quiet_environment()
quiet_libraries()
from ray import tune
from lorasweep.tuning.trials.cluster import start_ray
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.trials.recorder import Recorder, ray_trial_name

def fail(config):
    if config["number"] == 1:
        os._exit(9)
    raise ValueError("line one\\nline two")

folder = SweepFolder(Path(sys.argv[1]), "demo")
start_ray(None, 2, None)
tune.Tuner(
    tune.with_resources(fail, {"cpu": 1}),
    param_space={"number": tune.grid_search([0, 1]), "hyperparameters": {}},
    tune_config=tune.TuneConfig(trial_name_creator=ray_trial_name, trial_dirname_creator=ray_trial_name),
    run_config=tune.RunConfig(
        name="run-1",
        storage_path=str(folder.ray.resolve()),
        callbacks=[Recorder(folder, 3, [])],
        verbose=0,
    ),
).fit()
"""


class Heard(SweepListener):
    """A listener that also looks at the disk: nobody hears of what is not yet there."""

    def __init__(self, folder: SweepFolder) -> None:
        self.folder = folder
        self.states: list[tuple[int, str, int]] = []

    def update(self, trial: TrialRecord) -> None:
        """Keep what was told."""
        assert trial in self.folder.trials()
        self.states.append((trial.number, trial.state, len(trial.evaluations)))


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    """A new sweep's folder."""
    folder = SweepFolder(tmp_path, "demo")
    folder.create(SweepConfig(name="demo"))
    return folder


def ray_trial(number: int, error_file: Path | None = None, ray_id: str = "ray") -> Any:
    """What the recorder reads of one of Ray's trials; the first is the known-good start."""
    return SimpleNamespace(
        trial_id=f"{ray_id}{number}",
        config={"number": number, "hyperparameters": {"rank": 8}, "start": None if number else 1},
        error_file=error_file and str(error_file),
    )


def reach(
    recorder: Recorder, trial: Any, rung: int, score: float, best: float, best_rung: int, **more: Any
) -> None:
    """One rung and its checkpoint."""
    result = {
        SCORE: best,
        OBJECTIVE: 1 - best,
        RUNG: rung,
        BEST_RUNG: best_rung,
        "evaluation": {"rung": rung, "accuracy": score, "seconds": 1.5 * rung},
        "trainable_parameters": 99,
        "notes": [],
    }
    recorder.on_trial_result(0, [], trial, result | more)
    recorder.on_checkpoint(0, [], trial, SimpleNamespace(path=f"c{rung}"))  # type: ignore[arg-type]


def test_who_waits_for_the_last_trial_hears_once_that_it_has_started(folder: SweepFolder) -> None:
    recorder = Recorder(folder, RUNGS, ["rank"])
    calls: list[int] = []
    recorder.when_started(2, lambda: calls.append(len(recorder.trials)))
    for number in (0, 0, 1, 1):  # each is restarted once
        recorder.on_trial_start(0, [], ray_trial(number))
    assert calls == [2]


def test_a_trial_that_moves_keeps_what_its_best_evaluation_ran_on(folder: SweepFolder) -> None:
    recorder, trial = Recorder(folder, RUNGS, ["rank"]), ray_trial(0)
    recorder.on_trial_start(0, [], trial)
    reach(recorder, trial, 1, 0.7, 0.7, 1, ran_on={"node": "a", "precision": "bf16"})
    reach(recorder, trial, 2, 0.6, 0.7, 1, ran_on={"node": "b", "precision": "fp32"})
    record = folder.trials()[0]
    assert record.ran_on == RanOn(node="b", precision="fp32")
    assert record.best_ran_on == RanOn(node="a", precision="bf16")


def test_a_trial_is_recorded_rung_by_rung(folder: SweepFolder) -> None:
    """Best and last checkpoint apart; a trial of all rungs is completed, one of fewer stopped."""
    heard = Heard(folder)
    recorder = Recorder(folder, RUNGS, ["rank"], heard)
    full, weak = ray_trial(0), ray_trial(1)
    recorder.on_trial_start(0, [], full)
    recorder.on_trial_start(0, [], weak)
    for rung, score, best, best_rung in ((1, 0.4, 0.4, 1), (2, 0.7, 0.7, 2), (3, 0.6, 0.7, 2)):
        reach(
            recorder,
            full,
            rung,
            score,
            best,
            best_rung,
            notes=["micro-batches of 8 rows"] if rung > 1 else [],
        )
    reach(recorder, weak, 1, 0.1, 0.1, 1)
    recorder.on_trial_complete(0, [], full)
    recorder.on_trial_complete(0, [], weak)
    first, second = folder.trials()
    assert (first.state, second.state) == ("completed", "stopped")
    assert (first.id, first.ray_id, first.hyperparameters, first.searched) == (
        "t000",
        "ray0",
        Hyperparameters(rank=8),
        ("rank",),
    )
    assert (first.score, first.best_rung, first.checkpoint, first.last_checkpoint) == (0.7, 2, "c2", "c3")
    assert (first.seconds, first.trainable_parameters) == (4.5, 99)
    assert [(e.rung, e.accuracy, e.score, e.objective) for e in first.evaluations] == [
        (1, 0.4, 0.4, pytest.approx(0.6)),
        (2, 0.7, 0.7, pytest.approx(0.3)),
        (3, 0.6, 0.7, pytest.approx(0.3)),
    ]
    assert (first.start, second.start) == (1, None)
    assert first.notes == ("micro-batches of 8 rows",)
    assert first.ended is not None
    assert first.started <= first.ended
    assert heard.states[0] == (0, "running", 0)
    assert heard.states[-2:] == [(0, "completed", 3), (1, "stopped", 1)]


def test_a_trial_that_the_time_ended_says_so(folder: SweepFolder) -> None:
    """Unless it had all its rungs by then; the stopping rule's own are its own."""
    cut: set[str] = set()
    recorder = Recorder(folder, RUNGS, ["rank"], cut=cut)
    for number, rungs in enumerate((1, 1, RUNGS)):
        reach(recorder, ray_trial(number), rungs, 0.5, 0.5, 1)
        if number:
            cut.add(f"ray{number}")
        recorder.on_trial_complete(0, [], ray_trial(number))
    ends = [(trial.state, trial.stopped_by) for trial in folder.trials()]
    assert ends == [("stopped", None), ("stopped", "time"), ("completed", None)]
    assert counts_text(folder.trials(), "ASHA") == (
        "1 completed, 1 stopped by ASHA, 1 stopped by the time limit"
    )


def test_a_trial_that_no_longer_learns_is_completed_and_says_so(folder: SweepFolder) -> None:
    """Whoever else would have ended it there; not one of fewer evaluations, nor one of all rungs."""
    cut = {"ray1"}
    recorder = Recorder(folder, RUNGS, ["rank"], cut=cut, early_end=1)
    for number, losses in enumerate([(0.5, 0.6), (0.5, 0.5), (0.5, 0.4), (0.5, 0.4, 0.6)]):
        for rung, loss in enumerate(losses, 1):
            entry = {"rung": rung, "loss": loss, "accuracy": 0.5, "seconds": 1.5 * rung}
            reach(recorder, ray_trial(number), rung, 0.5, 0.5, 1, evaluation=entry)
        recorder.on_trial_complete(0, [], ray_trial(number))
    ends = [(trial.state, trial.stopped_by) for trial in folder.trials()]
    early = ("completed", "early_end")
    assert ends == [early, early, ("stopped", None), ("completed", None)]
    assert counts_text(folder.trials(), "ASHA") == "1 completed, 2 ended early, 1 stopped by ASHA"
    assert not any(trial.unfinished for trial in folder.trials())


def test_failures_are_one_line(folder: SweepFolder, tmp_path: Path) -> None:
    """Told by the trial itself, or by Ray; also when its process died before it began."""
    recorder = Recorder(folder, RUNGS, ["rank"])
    report = tmp_path / "error.txt"
    report.write_text(TRACEBACK)
    told, broke, unborn = ray_trial(0), ray_trial(1, report), ray_trial(2)
    recorder.on_trial_start(0, [], told)
    recorder.on_trial_result(0, [], told, {ERROR: "the loss is not finite", RUNG: 0})
    recorder.on_trial_result(0, [], told, {RUNG: 0, "done": True})
    recorder.on_trial_complete(0, [], told)
    recorder.on_trial_start(0, [], broke)
    reach(recorder, broke, 1, 0.4, 0.4, 1)
    recorder.on_trial_error(0, [], broke)
    recorder.on_trial_error(0, [], unborn)
    trials = folder.trials()
    assert [trial.state for trial in trials] == ["failed"] * 3
    assert trials[0].error == "the loss is not finite"
    assert trials[1].error == "ValueError: line one"
    assert trials[1].score == 0.4
    assert trials[2].error == "the trial ended without saying why; its process may have been killed"
    assert all(trial.ended for trial in trials)


class Restarted(SimpleNamespace):
    """One of Ray's trials that breaks, as the recorder sees and changes it."""

    def breaks(self, report: str) -> None:
        """Ray adds to the file of the trial's failures."""
        with Path(self.error_file).open("a", encoding="utf-8") as file:
            file.write(f"Failure # 1 (occurred at noon)\n{report}\n")

    def set_config(self, config: dict[str, Any]) -> None:
        """As Ray's."""
        self.config = config

    def update_resources(self, resources: Any) -> None:
        """As Ray's."""
        self.placed = resources


def restarted(number: int, tmp_path: Path) -> Any:
    trial = ray_trial(number, tmp_path / f"error{number}.txt")
    return Restarted(**vars(trial), status="PENDING", placed=None)


NODE_BROKE = "x.NodeFailedError: [{0}] gpu-{0} (10.0.0.1): no model"


def test_a_process_that_breaks_too_often_fails_the_trial_once(folder: SweepFolder, tmp_path: Path) -> None:
    """Ray restarts it all the same: it then ends at once, and its record stays as it is."""
    heard = Heard(folder)
    recorder = Recorder(folder, RUNGS, ["rank"], heard, max_failures=1)
    trial = restarted(0, tmp_path)
    recorder.on_trial_start(0, [], trial)
    trial.breaks(TRACEBACK)
    recorder.on_trial_recover(0, [], trial)
    assert GIVEN_UP not in trial.config
    assert folder.trials()[0].notes == ("restarted after a crash: ValueError: line one",)
    trial.breaks(TRACEBACK.replace("ValueError", "TypeError"))
    recorder.on_trial_recover(0, [], trial)
    (failed,) = folder.trials()
    assert (failed.state, failed.error) == ("failed", "TypeError: line one")
    assert trial.config[GIVEN_UP] == failed.error
    told = list(heard.states)
    recorder.on_trial_start(0, [], trial)
    recorder.on_trial_result(0, [], trial, {ERROR: trial.config[GIVEN_UP], RUNG: 0})
    recorder.on_trial_complete(0, [], trial)
    recorder.on_trial_error(0, [], trial)
    assert trial.max_failures == 0, "a process that cannot even be told so is not started for ever"
    assert (folder.trials(), heard.states) == ([failed], told)


def test_a_node_that_breaks_a_trial_fails_no_trial(folder: SweepFolder, tmp_path: Path) -> None:
    """It is tried again elsewhere, after longer and longer, whatever `--max-failures` says; at last the sweep stops."""
    nodes = NodeWatch(lambda: ("a", "b"))
    recorder = Recorder(folder, RUNGS, ["rank"], nodes=nodes, placed=lambda config: tuple(config["avoid"]))
    trial, other = restarted(0, tmp_path), restarted(1, tmp_path)
    recorder.on_trial_start(0, [], trial)
    trial.breaks(NODE_BROKE.format("a"))
    recorder.on_trial_recover(0, [], trial)
    (record,) = folder.trials()
    assert (record.state, record.error) == ("running", None)
    assert record.notes == ("failure of node gpu-a (10.0.0.1): no model; tried on another node after 2 s",)
    assert (trial.placed, trial.config["pause"], trial.config["number"]) == (("a",), PAUSES[0], 0)
    reach(recorder, other, 1, 0.5, 0.5, 1, ray_node="b")
    assert nodes.avoided() == ("a",), "successes on other nodes say nothing of it"
    for _ in PAUSES[1:]:
        assert recorder.watch.reason is None
        trial.breaks(NODE_BROKE.format("a"))
        recorder.on_trial_recover(0, [], trial)
    trial.breaks(NODE_BROKE.format("a"))
    recorder.on_trial_recover(0, [], trial)
    assert recorder.watch.of_node
    assert recorder.watch.reason == (
        "failure of node gpu-a (10.0.0.1): no model (trial t000 was tried 7 times)"
    )
    assert folder.trials()[0].state == "running"
    reach(recorder, trial, 1, 0.5, 0.5, 1, ray_node="a")
    assert (nodes.tries("t000"), nodes.avoided()) == (0, ())


def test_a_trial_does_not_wait_for_nodes_that_are_gone(folder: SweepFolder, tmp_path: Path) -> None:
    left = ["a", "b"]
    recorder = Recorder(folder, RUNGS, ["rank"], nodes=NodeWatch(lambda: left))
    trial = restarted(0, tmp_path)
    trial.config["avoid"] = ["a"]
    recorder.on_step_begin(0, [trial])
    assert recorder.watch.reason is None
    left.remove("b")
    recorder.on_step_begin(0, [trial])
    assert recorder.watch.reason is None, "Ray asks ten times a second"
    recorder._looked = 0.0
    recorder.on_step_begin(0, [trial])
    assert recorder.watch.reason == "failure of node a: and no other node is left for a trial"


def test_a_process_lost_between_two_trials_is_a_failure_of_its_node(
    folder: SweepFolder, tmp_path: Path
) -> None:
    """Ray restarts no trial that it has not begun. `resume` does, and the failure counts for nothing else."""
    recorder, trial = Recorder(folder, RUNGS, ["rank"]), restarted(0, tmp_path)
    for _ in range(4):
        trial.breaks(NODE_BROKE.format("a"))
        recorder.on_trial_error(0, [], trial)
    assert recorder.watch.reason is None
    good = TrialRecord(id="t009", number=9, state="completed", ended=1.0)
    assert worth_another_try([good, *folder.trials()]) == folder.trials()


def test_a_storage_that_is_away_when_a_trial_ends_breaks_nothing(
    folder: SweepFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*arguments: Any) -> None:
        raise OSError("Input/output error")

    monkeypatch.setattr("lorasweep.tuning.trials.recorder.prune", away)
    recorder = Recorder(folder, RUNGS, ["rank"], contenders=lambda trials: [])
    recorder.on_trial_start(0, [], ray_trial(0))
    reach(recorder, ray_trial(0), 3, 0.4, 0.4, 3)
    recorder.on_trial_complete(0, [], ray_trial(0))
    assert folder.trials()[0].state == "completed"


def test_a_trial_that_goes_on_keeps_its_record(folder: SweepFolder) -> None:
    """A rung that is done again takes the place of its first version: no gaps, no doubles."""
    first = Recorder(folder, RUNGS, ["rank"])
    first.on_trial_start(0, [], ray_trial(4))
    reach(first, ray_trial(4), 1, 0.5, 0.5, 1)
    reach(first, ray_trial(4), 2, 0.4, 0.5, 1)
    before = folder.trials()[0]
    again = Recorder(folder, RUNGS, ["rank"], past=folder.trials())
    trial = ray_trial(4, ray_id="new")
    again.on_trial_start(0, [], trial)
    for rung, score, best, best_rung in ((2, 0.45, 0.5, 1), (3, 0.6, 0.6, 3)):
        reach(again, trial, rung, score, best, best_rung)
    again.on_trial_complete(0, [], trial)
    (after,) = folder.trials()
    assert [(e.rung, e.accuracy) for e in after.evaluations] == [(1, 0.5), (2, 0.45), (3, 0.6)]
    assert (after.state, after.ray_id, after.started) == ("completed", "new4", before.started)
    assert (after.score, after.best_rung, after.checkpoint) == (0.6, 3, "c3")


def test_a_rung_done_again_that_scores_less_is_not_the_best(folder: SweepFolder) -> None:
    """Interrupted between a rung's result and its checkpoint, and a device does not repeat itself exactly."""
    first = Recorder(folder, RUNGS, ["rank"])
    first.on_trial_start(0, [], ray_trial(0))
    reach(first, ray_trial(0), 1, 0.5, 0.5, 1)
    result: dict[str, Any] = {
        SCORE: 0.6,
        OBJECTIVE: 0.4,
        RUNG: 2,
        BEST_RUNG: 2,
        "trainable_parameters": 9,
        "notes": [],
    }
    first.on_trial_result(0, [], ray_trial(0), result | {"evaluation": {"rung": 2, "seconds": 3.0}})
    again = Recorder(folder, RUNGS, ["rank"], past=folder.trials())
    reach(again, ray_trial(0), 2, 0.4, 0.5, 1)
    (after,) = folder.trials()
    assert (after.score, after.best_rung, after.checkpoint, after.last_checkpoint) == (0.5, 1, "c1", "c2")


def test_the_error_behind_rays_own() -> None:
    """Ray wraps what a trial raised; the person wants the cause, not Ray's banner."""
    assert error_line(TRACEBACK) == "ValueError: line one"
    assert error_line(TRACEBACK + TRACEBACK.replace("ValueError", "demo.Worse")) == "demo.Worse: line one"
    assert error_line("Failure # 1 (occurred at noon)\nno such trainable\n") == "no such trainable"
    assert len(error_line(TRACEBACK.replace("line one", "x" * 9000))) == 500


@pytest.mark.slow
def test_real_failures_say_why(folder: SweepFolder, tmp_path: Path) -> None:
    """Of trials that raise, and of one whose process dies, in a real run of Ray Tune."""
    script = tmp_path / "failing.py"
    script.write_text(FAILING)
    root = str(Path(__file__).parents[3])
    command = [sys.executable, str(script), str(folder.mlruns)]
    ended = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": root}, capture_output=True, text=True, timeout=180
    )
    assert ended.returncode == 0, ended.stderr
    raised, died = folder.trials()
    assert (raised.state, raised.error) == ("failed", "ValueError: line one")
    assert died.state == "failed"
    assert died.error is not None
    assert "its process died" in died.error
    assert "Trials did not complete" not in ended.stdout + ended.stderr


def test_asha_recalls_all_that_ended() -> None:
    """Of those that run, the trial itself brings its scores."""
    evaluations = (EvaluationRecord(rung=1, score=0.1), EvaluationRecord(rung=2, score=0.2))
    records = [
        TrialRecord(id=state, number=0, state=state, evaluations=evaluations)
        for state in ("running", "completed", "stopped", "failed")
    ]
    assert past_scores(records) == {key: [0.1, 0.2] for key in ("completed", "stopped", "failed")}
    # A sweep with an objective of its own is judged by that.
    judged = tuple(e.model_copy(update={"objective": 1.5 - e.rung / 10}) for e in evaluations)
    assert past_scores([records[1].model_copy(update={"evaluations": judged})]) == {"completed": [1.4, 1.3]}


def test_ray_can_pickle_it(folder: SweepFolder) -> None:
    """Ray saves its callbacks; what this one holds (a terminal, a database) stays behind."""
    recorder = Recorder(folder, RUNGS, ["rank"], Listeners([Heard(folder)]))
    assert pickle.loads(pickle.dumps(recorder)).__dict__ == {}


def test_the_best_evaluations_outcomes_are_kept_when_a_trial_ends(
    folder: SweepFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Well or not: what failed may still win. Trials are compared after the losers' checkpoints are gone."""
    kept: list[tuple[str, str | None, str]] = []

    def keep(folder: SweepFolder, storage: Storage, record: TrialRecord) -> None:
        kept.append((record.id, record.checkpoint, record.state))

    monkeypatch.setattr("lorasweep.tuning.trials.recorder.keep_outcomes", keep)
    recorder = Recorder(folder, RUNGS, ["rank"], contenders=lambda trials: [])
    for number in range(2):
        reach(recorder, ray_trial(number), 1, 0.4, 0.4, 1)
        reach(recorder, ray_trial(number), 2, 0.3, 0.4, 1)
    assert kept == []
    recorder.on_trial_complete(0, [], ray_trial(0))
    recorder.on_trial_error(0, [], ray_trial(1))
    assert kept == [("t000", "c1", "stopped"), ("t001", "c1", "failed")]
    assert [trial.checkpoint for trial in folder.trials()] == [None, None]


def test_a_trials_checkpoints_are_removed_as_they_are_replaced(
    folder: SweepFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never one that the record on disk names."""
    recorder, trial = Recorder(folder, RUNGS, ["rank"]), ray_trial(0)
    place = folder.ray.resolve() / "run-1" / "t000"

    def next_rung(rung: int, score: float, best: float, best_rung: int) -> set[str]:
        checkpoint = place / f"checkpoint_{rung}"
        checkpoint.mkdir(parents=True)
        evaluation = {"rung": rung, "accuracy": score, "seconds": 1.0}
        told = {SCORE: best, OBJECTIVE: 1 - best, RUNG: rung, BEST_RUNG: best_rung, "evaluation": evaluation}
        recorder.on_trial_result(0, [], trial, told | {"trainable_parameters": 9, "notes": []})
        recorder.on_checkpoint(0, [], trial, SimpleNamespace(path=str(checkpoint)))  # type: ignore[arg-type]
        return {path.name[-1] for path in place.iterdir()}

    assert next_rung(1, 0.4, 0.4, 1) == {"1"}
    assert next_rung(2, 0.3, 0.4, 1) == {"1", "2"}
    assert next_rung(3, 0.2, 0.4, 1) == {"1", "3"}
    with monkeypatch.context() as full:
        full.setattr(SweepFolder, "write_trial", lambda *_: (_ for _ in ()).throw(OSError("Errno 28")))
        assert next_rung(4, 0.6, 0.6, 4) == {"1", "3", "4"}
    assert recorder.watch.disk_full
    (on_disk,) = folder.trials()
    assert {str(on_disk.checkpoint)[-1], str(on_disk.last_checkpoint)[-1]} == {"1", "3"}


def test_a_finalist_has_a_record_of_its_own(folder: SweepFolder) -> None:
    """Under its own id, with the number and the place among the starts of its search trial."""
    heard = Heard(folder)
    recorder = Recorder(folder, RUNGS, ["rank"], heard)
    reach(recorder, ray_trial(0), 1, 0.4, 0.4, 1)
    last = ray_trial(0)
    last.config |= {"id": "t000-full", "finalist_of": "t000"}
    assert ray_trial_name(last) == "t000-full"
    recorder.on_trial_start(0, [], last)
    reach(recorder, last, 1, 0.3, 0.3, 1)
    first, second = folder.trials()
    assert (first.id, first.finalist_of, first.score) == ("t000", None, 0.4)
    assert (second.id, second.number, second.finalist_of, second.score) == ("t000-full", 0, "t000", 0.3)
    assert (second.start, second.searched, second.checkpoint) == (1, ("rank",), "c1")
    ended = [record.model_copy(update={"state": "stopped"}) for record in (first, second)]
    assert past_scores(ended).keys() == {"t000"}, "the stopping rule sees one kind of scores"

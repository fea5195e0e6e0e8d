"""Sweeps that lose their driver, their workers or their disk, and end as if nothing had happened."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import time
from contextlib import suppress
from itertools import accumulate
from pathlib import Path

import psutil
import pytest
from whole_sweeps import END, RUN, SOON, Process, check_study, lorasweep, started, wait_for

from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.outcomes import read_outcomes
from lorasweep.tuning.record.reported import SCORE
from lorasweep.tuning.record.results import SweepResult
from lorasweep.tuning.record.stopwatch import WRITE_SECONDS
from lorasweep.tuning.search.study import open_study, own_trials

pytestmark = pytest.mark.slow

RUNGS = 16
LONG = ["--trials", "14", "--epochs", "8", "--concurrency", "2", "--cpus-per-trial", "1", "--keep", "2"]
KILLS = 5
# Long enough for that many kills on a fast machine.
LONGER = [*LONG[:2], "--epochs", "16", *LONG[4:]]


def kill_driver(process: Process) -> None:
    """`kill -9` of the driver alone; what it had started has to notice by itself."""
    process.kill()
    process.wait()


def trial_processes(driver: int) -> list[psutil.Process]:
    """The workers of a driver that train a trial: Ray names them after its wrapper of a function."""
    found = []
    for child in psutil.Process(driver).children(recursive=True):
        # One may end meanwhile.
        with suppress(psutil.NoSuchProcess):  # of which a zombie is a kind
            if "ImplicitFunc" in " ".join(child.cmdline()):
                found.append(child)
    return found


def check_whole(folder: SweepFolder, trials: int, rungs: int) -> None:
    """Records, Optuna, Ray and MLflow hold the same trials, each rung once, and none is left running."""
    from mlflow import MlflowClient

    records = folder.trials()
    assert [record.id for record in records] == [f"t{number:03d}" for number in range(trials)]
    for record in records:
        assert record.state in ("completed", "stopped"), record.error
        reached = [evaluation.rung for evaluation in record.evaluations]
        assert reached == list(range(1, len(reached) + 1))
        assert (record.state == "completed") == (len(reached) == rungs)
        # The score is that of the best evaluation, not of the last.
        assert record.score == max(evaluation.accuracy for evaluation in record.evaluations)
        best = record.evaluations[(record.best_rung or 0) - 1]
        assert best.accuracy == record.score
    check_study(folder, records)
    in_ray = {path.name for path in folder.ray.glob("run-*/t*") if path.is_dir()}
    assert in_ray == {record.id for record in records}

    client = MlflowClient(f"sqlite:///{folder.mlruns / 'mlflow.db'}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(experiments, f"tags.`lorasweep.sweep` = '{folder.name}'")
    assert {run.info.status for run in runs} == {"FINISHED"}
    children = {run.data.tags["lorasweep.trial"]: run for run in runs if "lorasweep.trial" in run.data.tags}
    assert len(runs) == trials + 1
    assert children.keys() == {record.id for record in records}
    assert {run.info.run_name.split()[1] for run in children.values()} <= {"completed", "stopped", "winner"}
    for record in records:
        history = client.get_metric_history(children[record.id].info.run_id, "val_accuracy")
        told = sorted((point.step, point.value) for point in history)
        assert told == [(entry.rung, entry.accuracy) for entry in record.evaluations]
        assert children[record.id].data.metrics[SCORE] == record.score


def checkpoints(folder: SweepFolder) -> list[Path]:
    """All checkpoint folders of a sweep."""
    return list(folder.ray.glob("run-*/*/checkpoint_*"))


def wait_for_news(folder: SweepFolder, process: Process) -> None:
    """Wait until one more evaluation is on record, or the process has ended."""

    def evaluations() -> int:
        return sum(len(record.evaluations) for record in folder.trials()) if folder.exists() else 0

    before, deadline = evaluations(), time.monotonic() + SOON
    while evaluations() == before and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_driver_killed_again_and_again(place: Path) -> None:
    """At random moments, from its first second on: nothing is lost, nothing is done twice."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    folder = SweepFolder(place / "mlruns", "killed")
    ended: dict[str, tuple[str, float | None, int]] = {}
    reached: dict[str, int] = {}
    first = [*RUN, *LONGER, "--objective", "loss", "--name", "killed"]
    kills, spent = 0, 0.0
    while kills < KILLS and folder.state() != "finished":
        arguments = ["resume", "killed"] if folder.exists() else first
        with started(place, *arguments) as process:
            # Now and then early, in the set-up, and else while trials run, however long this machine takes to begin.
            if kills % 4 == 0:
                moment = chance.uniform(0.1, 6)
            else:
                wait_for_news(folder, process)
                moment = chance.uniform(0, 1.5)
            try:
                process.wait(timeout=moment)
            except subprocess.TimeoutExpired:
                kills += 1
            kill_driver(process)
        if not folder.exists():
            continue
        assert folder.state() in ("interrupted", "finished")
        assert folder.seconds() >= spent
        spent = folder.seconds()
        for record in folder.trials():
            # What has ended stays as it is, and what runs loses no evaluation that is on record.
            before = ended.get(record.id)
            if before is not None:
                assert (record.state, record.score, len(record.evaluations)) == before
            assert len(record.evaluations) >= reached.get(record.id, 0)
            reached[record.id] = len(record.evaluations)
            if record.state != "running":
                ended[record.id] = (record.state, record.score, len(record.evaluations))
        # Best and last of each of two trials, in two runs; one being written; the two kept; and the start's.
        assert len(checkpoints(folder)) <= 2 * (2 + 3) + 3
    assert kills >= KILLS - 1, f"the sweep ended after {kills} kills: make it longer"
    if folder.state() != "finished":
        lorasweep(place, "resume", "killed")
    check_whole(folder, 14, 32)
    check_judged(folder, 32)
    assert "; trials were judged by loss" in " ".join(lorasweep(place, "status", "killed")[0].split())
    # No time was lost but the last moments before each kill.
    result = folder.result()
    assert result is not None
    worked = sum(record.seconds for record in folder.trials())
    assert result.seconds >= max(spent - WRITE_SECONDS, worked / 2 - 2 * kills * WRITE_SECONDS)
    check_truth(folder)
    # Only those that were kept for the winner's sake are left, and the start's, with which it is compared.
    assert len(checkpoints(folder)) in (2, 3)
    assert {path.parent.name for path in checkpoints(folder)} >= {"t000"}
    assert {record.id for record in folder.trials() if record.checkpoint} == {
        path.parent.name for path in checkpoints(folder)
    }
    assert not list((place / "mlruns" / "sweeps").glob(".*"))


def test_a_killed_worker_is_taken_up_from_its_checkpoint(place: Path) -> None:
    """Killed more often than a trial is restarted, the trial fails; tried again, it goes on from there, too."""
    name = "worker"
    folder = SweepFolder(place / "mlruns", name)
    arguments = ["--trials", "3", "--epochs", "12", "--no-asha", "--concurrency", "1", "--keep", "3"]
    killed: set[str] = set()
    with started(place, *RUN, *arguments, "--max-failures", "1", "--name", name) as process:
        for trial_id, least in (("t000", 3), ("t001", 3), ("t001", 6)):

            def going(trial_id: str = trial_id, least: int = least) -> bool:
                records = {record.id: record for record in folder.trials()}
                return trial_id in records and least <= len(records[trial_id].evaluations) < 24

            wait_for(going, process)
            for worker in trial_processes(process.pid):
                worker.kill()
                killed.add(trial_id)
        out, err = process.communicate(timeout=END)
    assert process.returncode == 0, out + err
    assert killed == {"t000", "t001"}
    first, failed, third = folder.trials()
    assert (first.state, failed.state, third.state) == ("completed", "failed", "completed")
    assert "its process died" in (failed.error or "")
    assert f"lorasweep resume {name} --retry-failed" in out
    reached = len(failed.evaluations)
    assert 6 <= reached < 24

    out, _ = lorasweep(place, "resume", name, "--retry-failed")
    assert "tried again after they failed: t001" in out
    check_whole(folder, 3, 24)
    again = folder.trials()
    assert [again[0].evaluations, again[2].evaluations] == [first.evaluations, third.evaluations]
    # The last one's checkpoint may not have been written.
    assert again[1].evaluations[: reached - 1] == failed.evaluations[:-1]
    for record in again:
        noted = [note for note in record.notes if note.startswith("restarted after a crash")]
        assert bool(noted) == (record.id in killed)
    assert again[1].notes[-1] == f"tried again after it failed: {failed.error}"


def check_judged(folder: SweepFolder, rungs: int) -> None:
    """Trials were compared by their loss, and the winner and each trial's checkpoint chosen by accuracy."""
    from mlflow import MlflowClient

    config, records, result = folder.config(), folder.trials(), folder.result()
    assert (config.search.objective, config.objective, config.training.metric) == ("loss", "loss", "accuracy")
    for record in records:
        losses = [entry.loss for entry in record.evaluations]
        accuracies = [entry.accuracy for entry in record.evaluations]
        assert [entry.objective for entry in record.evaluations] == list(accumulate(losses, min))
        assert [entry.score for entry in record.evaluations] == list(accumulate(accuracies, max))
        # The checkpoint is the one of the best accuracy: export scores it.
        assert record.score == accuracies[(record.best_rung or 0) - 1]
    # The known-good start is trained to its end, whatever its loss.
    assert [record.start for record in records if record.start is not None][:1] == [1]
    assert (records[0].start, records[0].state, records[0].reached) == (1, "completed", rungs)
    assert result is not None
    assert result.winner is not None
    assert result.winner.score == max(record.score or 0 for record in records)

    study = open_study(folder.study_url, folder.name)
    assert study.direction.name == "MINIMIZE"
    for record, trial in zip(records, own_trials(study).values(), strict=True):
        assert trial.user_attrs["accuracy"] == record.score
        if record.state == "completed":
            assert trial.value == min(entry.loss for entry in record.evaluations if entry.loss is not None)

    client = MlflowClient(f"sqlite:///{folder.mlruns / 'mlflow.db'}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(experiments, f"tags.`lorasweep.sweep` = '{folder.name}'")
    assert {run.data.tags["lorasweep.objective"] for run in runs} == {"loss"}
    children = {run.data.tags["lorasweep.trial"]: run for run in runs if "lorasweep.trial" in run.data.tags}
    for record in records:
        history = client.get_metric_history(children[record.id].info.run_id, "objective")
        told = sorted((point.step, point.value) for point in history)
        assert told == [(entry.rung, entry.objective) for entry in record.evaluations]
    assert children["t000"].data.tags["lorasweep.start"] == "1"


def check_truth(folder: SweepFolder) -> SweepResult:
    """The known-good start stands beside the winner, each trial's outcomes and errors are there, MLflow says so."""
    from mlflow import MlflowClient

    result, records = folder.result(), {record.id: record for record in folder.trials()}
    assert result is not None
    assert result.winner is not None
    assert result.start is not None
    assert result.missing == {}
    start = records[result.start.id]
    assert (start.number, start.start, start.state) == (0, 1, "completed")
    assert (result.start.score, result.start.hyperparameters) == (start.score, start.hyperparameters)
    if result.start.id == result.winner.id:
        assert (result.start.test, result.over_start) == (result.winner.test, None)
    else:
        assert result.over_start is not None
        assert result.over_start.interval is not None
        assert result.over_start.difference == pytest.approx(
            result.winner.test.accuracy - result.start.test.accuracy
        )
        assert result.over_start.interval[0] <= result.over_start.difference <= result.over_start.interval[1]
        assert folder.compared("start").is_file()
    for record in records.values():
        outcomes = read_outcomes(folder.outcomes(record.id), record.best_rung)
        assert outcomes is not None
        assert (outcomes.labels == outcomes.predicted).mean() == pytest.approx(record.score)
        assert all(evaluation.standard_error is not None for evaluation in record.evaluations)
    scores = {record.id: record.score for record in records.values()}
    # Six validation rows: one of them more or less is noise.
    close = {name for name, score in scores.items() if abs((score or 0) - result.winner.score) < 0.17}
    assert close - {result.winner.id} <= set(result.near)
    client = MlflowClient(f"sqlite:///{folder.mlruns / 'mlflow.db'}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(experiments, f"tags.`lorasweep.sweep` = '{folder.name}'")
    (parent,) = [run for run in runs if "lorasweep.trial" not in run.data.tags]
    assert parent.data.metrics["start/test_accuracy"] == result.start.test.accuracy
    assert (
        "its known-good start" in parent.data.tags["lorasweep.added"]
        or "found nothing better than its start" in (parent.data.tags["lorasweep.added"])
    )
    marked = {run.data.tags["lorasweep.trial"] for run in runs if run.data.tags.get("lorasweep.start") == "1"}
    assert marked == {start.id}
    return result


def test_a_sweep_is_extended_and_goes_on_with_what_it_knows(place: Path) -> None:
    short = ["--trials", "3", "--epochs", "2", "--name", "grown"]
    lorasweep(place, *RUN, *short)
    folder = SweepFolder(place / "mlruns", "grown")
    before, first = folder.trials(), check_truth(folder)
    assert first.winner is not None
    _, err = lorasweep(place, "run", "--name", "grown", "--trials", "5", code=2)
    assert err == (
        "lorasweep: sweep grown has 3 trials; add 2? Say so with --extend, or choose another --name\n"
    )
    out, _ = lorasweep(place, "run", "--name", "grown", "--trials", "5", "--extend")
    assert "done    3 of them" in out
    check_whole(folder, 5, 4)
    assert [record.id for record in folder.trials()[:3]] == [record.id for record in before]
    assert [record.evaluations for record in folder.trials()[:3]] == [record.evaluations for record in before]
    check_truth(folder)
    rates = [record.hyperparameters.learning_rate for record in folder.trials()]
    assert len(set(rates)) == 5, "settings were proposed again"
    result = folder.result()
    assert result is not None
    assert result.winner is not None
    assert result.baselines == first.baselines
    if result.winner.id == first.winner.id:
        assert result.winner.test == first.winner.test
    else:
        assert [entry.id for entry in result.also_tested] == [first.winner.id]

    # Confirmed on another seed, with nothing else trained: only the winner may be another one.
    out, _ = lorasweep(place, "resume", "grown", "--confirm", "2x1")
    assert "confirming the best 2 on other seeds: 0 of 2 done" in out
    confirmed = check_truth(folder)
    assert confirmed.winner is not None
    assert confirmed.winner.id in {entry.id for entry in confirmed.confirmed}
    assert [list(entry.scores) for entry in confirmed.confirmed] == [["1"], ["1"]]
    assert [record.evaluations for record in folder.trials()[:3]] == [record.evaluations for record in before]
    _, err = lorasweep(place, "resume", "grown", "--confirm", "best", code=2)
    assert "--confirm best: write KxS, such as 3x3" in err

    out, _ = lorasweep(
        place, *RUN, "--name", "warm", "--trials", "2", "--epochs", "2", "--warm-start", "grown"
    )
    warm = SweepFolder(place / "mlruns", "warm").trials()
    assert [record.id for record in warm] == ["t000", "t001"]
    best = max(folder.trials(), key=lambda record: record.score or 0.0)
    assert warm[0].hyperparameters == best.hyperparameters
    assert f"learns  from 5 trials of grown; begins with its best, {best.id}" in out
    assert "lorasweep export warm" in out
    _, err = lorasweep(
        place,
        *RUN,
        "--name",
        "cold",
        "--trials",
        "2",
        "--warm-start",
        "grown",
        "--space",
        "quickstart",
        code=2,
    )
    assert "--warm-start grown: the spaces differ in" in err


def test_a_winner_confirmed_on_other_seeds(place: Path) -> None:
    arguments = ["--trials", "4", "--epochs", "2", "--no-asha", "--confirm", "2x2", "--name", "confirmed"]
    out, _ = lorasweep(place, *RUN, *arguments)
    folder = SweepFolder(place / "mlruns", "confirmed")
    status = json.loads(lorasweep(place, "status", "confirmed", "--json")[0])
    confirmed = status["confirmed"]
    assert len(confirmed) == 2
    for entry in confirmed:
        assert sorted(entry["scores"]) == ["1", "2"]
        values = list(entry["scores"].values())
        assert entry["mean"] == pytest.approx(sum(values) / 2)
        assert entry["spread"] == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
    assert confirmed[0]["mean"] == max(entry["mean"] for entry in confirmed)
    assert status["winner"]["id"] in {entry["id"] for entry in confirmed}
    ranked = sorted((trial["score"] for trial in status["trials"]), reverse=True)
    scores = {trial["id"]: trial["score"] for trial in status["trials"]}
    assert all(scores[entry["id"]] >= ranked[1] for entry in confirmed)
    assert "confirming the best 2 on other seeds: 1 of 4 done (" in out
    assert "best mean accuracy over 2 other seeds" in " ".join(out.split())
    assert folder.confirmations().keys() == {entry["id"] for entry in confirmed}


def test_the_same_seed_gives_the_same_sweep(place: Path) -> None:
    """Trial for trial, with one at a time on a CPU. That another seed proposes otherwise, a study's tests show."""
    arguments = [
        "--trials",
        "5",
        "--epochs",
        "2",
        "--concurrency",
        "1",
        "--cpus-per-trial",
        "1",
        "--no-register",
    ]

    def swept(name: str, seed: int) -> list[tuple[object, ...]]:
        lorasweep(place, *RUN, *arguments, "--name", name, "--seed", str(seed), "--no-baselines")
        times = {"seconds", "samples_per_second"}
        return [
            (
                record.hyperparameters,
                record.state,
                [entry.model_dump(exclude=times) for entry in record.evaluations],
            )
            for record in SweepFolder(place / "mlruns", name).trials()
        ]

    first = swept("same-1", 3)
    assert first == swept("same-2", 3)


def test_a_full_disk_stops_the_sweep_and_a_freed_one_lets_it_go_on(place: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("a small file system is mounted for this, which takes root")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", str(disk)], check=False)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        mlruns = ["--mlruns", str(disk / "mlruns")]
        folder = SweepFolder(disk / "mlruns", "full")
        arguments = [*LONG[2:], "--trials", "5", "--no-asha", "--name", "full", *mlruns, "--no-baselines"]
        ballast = disk / "ballast"
        with started(place, *RUN, *arguments) as process:
            wait_for(lambda: any(len(record.evaluations) >= 3 for record in folder.trials()), process)
            with suppress(OSError), ballast.open("wb", buffering=0) as file:
                while True:
                    file.write(b"\0" * 4096)
            out, err = process.communicate(timeout=SOON)
        assert process.returncode == 2, out + err
        assert "Traceback" not in out + err
        told = err.strip().splitlines()[-1]
        assert told.startswith("lorasweep: sweep full: the disk is full")
        assert "lorasweep resume full" in told
        before = {record.id: record for record in folder.trials()}
        ballast.unlink()
        assert folder.state() == "interrupted"
        lorasweep(place, "resume", "full", *mlruns)
        check_whole(folder, 5, RUNGS)
        for record in folder.trials():
            if record.id in before and before[record.id].state != "running":
                assert record.evaluations == before[record.id].evaluations
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


def test_nothing_trains_on_after_its_driver_is_gone(place: Path) -> None:
    folder = SweepFolder(place / "mlruns", "orphans")
    with started(place, *RUN, *LONG, "--name", "orphans") as process:
        wait_for(lambda: any(record.evaluations for record in folder.trials()), process)
        workers = trial_processes(process.pid)
        assert workers
        # Ray listens on every address: it was told to let nobody in but the sweep's own processes.
        assert {worker.environ().get("RAY_AUTH_MODE") for worker in workers} == {"token"}
        kill_driver(process)
        _, alive = psutil.wait_procs(workers, timeout=60)
        for worker in alive:
            worker.kill()
    assert not alive

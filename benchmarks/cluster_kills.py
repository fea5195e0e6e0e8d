"""Node, head and driver of a cluster, killed at random moments: is anything lost, done twice or mixed up?

    python benchmarks/cluster_kills.py [--rounds 10] [--kill node head driver] [--seed 0] [--write]

Each round is a sweep of 8 trials of the demonstration's rows on a cluster of this machine: a head without cores and
three nodes of one core. In random order, each at a random moment of the trials, a node, the head and the driver are
killed with SIGKILL. Another node, or another cluster, takes its place; where the driver has ended, `lorasweep resume`
goes on. All rounds have one name and one storage. At the end of a round the records are compared with what they were
before each kill, Optuna's study with the records, and the exports of the best trials have to predict what these did.
Some three minutes a round on two CPU cores.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common import finish, table

from lorasweep.tuning.adapters.export.sweep import export_sweep
from lorasweep.tuning.quiet import quiet_environment, quiet_libraries
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.trial_records import TrialRecord
from lorasweep.tuning.search.study import open_study, own_trials
from lorasweep.tuning.storage.storage import Storage

LIBRARIES = ("ray", "optuna", "torch", "peft")
TRIALS, RUNGS, NODES = 8, 8, 3
KINDS = ("node", "head", "driver")
NAME = "killed"
# Small enough that a kill is what takes the time of a round.
ROWS = ("--max-train-rows", "96", "--max-validation-rows", "64", "--no-compare-untuned", "--no-baselines")
BUDGET = ("--epochs", "2", "--evaluations-per-epoch", "4", "--gpus-per-trial", "0", "--precision", "fp32")
# Ray's processes give up a head after this time, a minute by default.
PATIENCE = {"RAY_gcs_rpc_server_reconnect_timeout_s": "20"}
# Times in a row that a driver may refuse to begin, and seconds after each.
REFUSALS, REFUSED_SECONDS = 4, 10.0
# Seconds that a driver may need to its end.
LONGEST = 900.0


@dataclass
class Findings:
    """What was wrong in a round: nothing, as it should be.

    Attributes:
        lost: evaluations that were on record before a kill and are gone or others at the end; trials without an end.
        doubled: trials, rungs or entries of the study that are there twice.
        mixed: exports that do not predict what the trial did; changed files of another sweep.
    """

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    mixed: list[str] = field(default_factory=list)


class Machines:
    """A head without cores, and nodes of one core, as processes of this machine."""

    def __init__(self) -> None:
        self._cluster = self._start()

    def _start(self) -> Any:
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        for _ in range(NODES):
            cluster.add_node(num_cpus=1)
        return cluster

    @property
    def address(self) -> str:
        """Of the head."""
        return str(self._cluster.address)

    def kill_node(self, chance: random.Random) -> None:
        """Any node but the head; another one joins."""
        nodes = sorted(self._cluster.worker_nodes, key=lambda node: str(node.node_id))
        self._cluster.remove_node(chance.choice(nodes), allow_graceful=False)
        self._cluster.add_node(num_cpus=1)

    def kill_head(self) -> None:
        """The head's processes, with what only they know."""
        self._cluster.head_node.kill_gcs_server()
        self._cluster.head_node.kill_raylet()

    def start_again(self) -> None:
        """Another cluster."""
        self.stop()
        self._cluster = self._start()

    def stop(self) -> None:
        """End what is left of it."""
        with suppress(Exception):  # Ray's own processes, some of which are dead
            self._cluster.shutdown()


def environment() -> dict[str, str]:
    """Of a driver: without a cluster that this process knows."""
    return {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | PATIENCE


@contextmanager
def driver(place: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """`lorasweep` in a process group of its own; its output goes to a file."""
    with (place / "output.txt").open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "lorasweep", *arguments],
            cwd=place,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def progress(folder: SweepFolder) -> int:
    """Evaluations on record."""
    return sum(len(trial.evaluations) for trial in folder.trials()) if folder.exists() else 0


def wait_until(true: Callable[[], bool], process: subprocess.Popen[bytes]) -> bool:
    """Wait until something is true; False where the process ends before."""
    deadline = time.monotonic() + LONGEST
    while not true():
        if process.poll() is not None:
            return False
        if time.monotonic() > deadline:
            raise SystemExit(f"a driver has not come further in {LONGEST:g} s")
        time.sleep(0.1)
    return True


def run_round(
    machines: Machines, place: Path, storage: Path, kinds: list[str], chance: random.Random
) -> tuple[str, Findings]:
    """One sweep and its kills; what was killed when, in words, and what was wrong at the end."""
    folder = SweepFolder(place / "mlruns", NAME)
    chance.shuffle(kinds)
    told: list[str] = []
    seen: list[list[TrialRecord]] = []
    refused = 0
    while not (folder.exists() and folder.state() == "finished"):
        before = len(told)
        begin = ["resume", NAME] if folder.exists() else ["run", *ROWS, *BUDGET, "--trials", str(TRIALS)]
        begin += [] if folder.exists() else ["--name", NAME, "--no-asha", "--storage", str(storage)]
        with driver(place, *begin, "--address", machines.address) as process:
            while kinds and process.poll() is None:
                # The later the kill, the fewer evaluations are left for those after it.
                moment = progress(folder) + chance.randint(1, TRIALS * RUNGS // 4)
                if not wait_until(lambda moment=moment: progress(folder) >= moment, process):  # type: ignore[misc]
                    break
                time.sleep(chance.uniform(0, 1.5))
                seen.append(folder.trials())
                kind = kinds.pop(0)
                told.append(f"{kind} at {sum(len(trial.evaluations) for trial in seen[-1])}")
                if kind == "node":
                    machines.kill_node(chance)
                elif kind == "head":
                    machines.kill_head()
                    process.wait(LONGEST)
                    machines.start_again()
                else:
                    process.kill()
            process.wait(LONGEST)
        # A driver that has ended before a kill did not begin, or Ray had attached it to a node that was killed.
        refused = refused + 1 if process.returncode and len(told) == before else 0
        if refused:
            time.sleep(REFUSED_SECONDS)
        if refused > REFUSALS:
            raise SystemExit((place / "output.txt").read_text()[-2000:])
    return ", ".join(told), check(folder, seen, place)


def check(folder: SweepFolder, seen: Sequence[list[TrialRecord]], place: Path) -> Findings:
    """Compare a finished sweep with what was on record before each kill."""
    found = Findings()
    trials = {trial.id: trial for trial in folder.trials()}
    if len(trials) != TRIALS:
        found.lost.append(f"{TRIALS - len(trials)} trials")
    for before in seen:
        for trial in before:
            count = len(trial.evaluations)
            if trials[trial.id].evaluations[:count] != trial.evaluations:
                found.lost.append(f"{trial.id}: evaluations of before a kill")
    for trial in trials.values():
        rungs = [evaluation.rung for evaluation in trial.evaluations]
        twice = [rung for rung, times in Counter(rungs).items() if times > 1]
        found.doubled += [f"{trial.id}: rung {rung}" for rung in twice]
        if trial.state != "completed" or sorted(set(rungs)) != list(range(1, RUNGS + 1)):
            found.lost.append(f"{trial.id}: {trial.state} with {len(rungs)} evaluations ({trial.error})")
        if trial.checkpoint is None:  # only those of the best are kept
            continue
        try:
            shutil.rmtree(place / "export", ignore_errors=True)
            export_sweep(folder, place / "export", trial=trial.id)
        except Exception as error:
            found.mixed.append(f"{trial.id}: {error}")
    study = own_trials(open_study(folder.study_url, folder.name))
    found.doubled += [f"study: trial {number}" for number in study if number >= TRIALS]
    for trial in trials.values():
        scores = {evaluation.rung: evaluation.judged for evaluation in trial.evaluations}
        if study[trial.number].intermediate_values != scores:
            found.lost.append(f"study: values of {trial.id}")
    return found


def fingerprint(folder: SweepFolder) -> str:
    """Of all that a sweep has on its storage."""
    storage, digest = Storage.of(folder), hashlib.sha256()
    for name in storage.files():
        digest.update(name.encode() + (storage.read(name) or b""))
    return digest.hexdigest()


def main(words: Sequence[str] | None = None) -> list[Findings]:
    """Run all rounds, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--kill", nargs="+", choices=KINDS, default=KINDS, help="what dies in each round")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="into results/cluster_kills.md")
    options = parser.parse_args(words)
    quiet_environment()
    os.environ.update(PATIENCE)
    quiet_libraries()
    chance, rows, all_found = random.Random(options.seed), [], []
    with tempfile.TemporaryDirectory(prefix="lorasweep-kills-") as temporary:
        root, machines = Path(temporary), Machines()
        folders: list[SweepFolder] = []
        try:
            for number in range(options.rounds):
                begun, place = time.monotonic(), root / f"round-{number}"
                place.mkdir()
                prints = [fingerprint(folder) for folder in folders]
                told, found = run_round(machines, place, root / "storage", list(options.kill), chance)
                changed = [i for i, folder in enumerate(folders) if fingerprint(folder) != prints[i]]
                found.mixed += [f"the files of round {number} were changed" for number in changed]
                folders.append(SweepFolder(place / "mlruns", NAME))
                counts = [str(len(each)) for each in (found.lost, found.doubled, found.mixed)]
                rows.append([str(number), told, *counts, f"{time.monotonic() - begun:.0f}"])
                all_found.append(found)
                print(f"round {number}: {told}: {found}", file=sys.stderr, flush=True)
        finally:
            machines.stop()
    head = ["round", "killed at evaluation", "lost", "doubled", "mixed", "seconds"]
    finish(
        [
            "# Killed on a cluster",
            f"Sweeps of {TRIALS} trials of {RUNGS} evaluations on a head without cores and {NODES} nodes of one core, "
            "all on one machine, with one name and one storage. Lost: evaluations or trials. Doubled: rungs, trials or "
            "entries of Optuna's study. Mixed: exports of the best trials that do not predict what these did, and "
            "changed files of an earlier round's sweep.",
            table(head, rows),
        ],
        "cluster_kills.md",
        f"python benchmarks/cluster_kills.py --rounds {options.rounds} --seed {options.seed} --write",
        LIBRARIES,
        write=options.write,
    )
    return all_found


if __name__ == "__main__":
    raise SystemExit(any(each.lost or each.doubled or each.mixed for each in main()))

"""What a further trial at once adds to the memory in use, for `scale.py`: real trainings of MiniLM, side by side."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from common import table
from scale_costs import Costs, drive
from scale_process import Memory, aim, in_fresh_process, let_workers_import, memory_of, progress
from scale_worker import parts_of_a_trial

from lorasweep.training.settings import DataSettings, Hyperparameters, TrainingSettings
from lorasweep.tuning.quiet import quiet_libraries
from lorasweep.tuning.record.config import ResourceSettings, SearchSettings, SweepConfig
from lorasweep.tuning.sweep.plan.plan import trial_setup
from lorasweep.tuning.sweep.plan.planning import plan_sweep
from lorasweep.tuning.trials.cluster import start_ray, stop_ray
from lorasweep.tuning.trials.trial import run_trial

SPACE = """
about: one setting, as large as the shipped spaces start with
start: {learning_rate: 2e-3}
rank: 16
alpha: 32
target_modules: all-linear
batch_size: 32
learning_rate: {loguniform: [1e-3, 3e-3]}
"""
SAMPLING_SECONDS = 0.3
AIM_MEGABYTES = 400.0
# Packages that have a line of their own in the table of what fills a process.
NAMED_PACKAGES = 12


@dataclass(frozen=True)
class Together:
    """Memory at the moment at which the trials' processes held most.

    Attributes:
        trials: of the processes that trained.
        all: of the driver and everything that it started.
    """

    at_once: int
    trials: Memory
    all: Memory


def memory_together(at_once: int, data: DataSettings) -> Together:
    """Train as many trials at once; call it in a process of its own."""
    quiet_libraries()
    let_workers_import()
    with tempfile.TemporaryDirectory(prefix="lorasweep-") as temporary, _sampled(at_once) as samples:
        drive(_config(Path(temporary), data, at_once), run_trial, Path(temporary), Costs(), to_the_end=False)
    assert samples, f"never were {at_once} trials seen at once"
    return max(samples, key=lambda sample: sample.trials.pss)


def parts(data: DataSettings) -> tuple[dict[str, float], dict[str, float], list[str]]:
    """What one trial's process is made of; call it in a process of its own."""
    import ray

    quiet_libraries()
    let_workers_import()
    with tempfile.TemporaryDirectory(prefix="lorasweep-") as temporary:
        plan = plan_sweep(_config(Path(temporary), data, 1))
        setup = trial_setup(plan, plan.resources)
        start_ray(None, cpus=1)
        try:
            reference = ray.put((plan.encoded, setup, Hyperparameters()))
            task = ray.remote(parts_of_a_trial).remote([reference])
            sizes: tuple[dict[str, float], dict[str, float], list[str]] = ray.get(task)
            return sizes
        finally:
            stop_ray()


def _config(folder: Path, data: DataSettings, at_once: int) -> SweepConfig:
    space = folder / "space.yaml"
    space.write_text(SPACE)
    return SweepConfig(
        name="memory",
        data=data,
        training=TrainingSettings(epochs=1, evaluations_per_epoch=2),
        search=SearchSettings(space=str(space), trials=at_once, asha=False),
        resources=ResourceSettings(concurrency=at_once, cpus_per_trial=1, gpus_per_trial=0),
    )


@contextmanager
def _sampled(at_once: int) -> Iterator[list[Together]]:
    """Samples, taken beside, of the moments at which all trials' processes were there."""
    samples: list[Together] = []
    closing = threading.Event()

    def watch() -> None:
        while not closing.wait(SAMPLING_SECONDS):
            driver = psutil.Process()
            others = {child.pid: _title(child) for child in driver.children(recursive=True)}
            workers = [pid for pid, title in others.items() if title.startswith("ray::ImplicitFunc")]
            if len(workers) == at_once:
                trials = memory_of(workers)
                rest = memory_of([driver.pid, *(pid for pid in others if pid not in workers)])
                samples.append(Together(at_once, trials, trials + rest))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        closing.set()
        thread.join()


def _title(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def small(source: Path | None, text: Sequence[str]) -> DataSettings:
    """Few rows, for trainings of which only the memory is looked at."""
    few = {"max_train_rows": 512, "max_validation_rows": 256}
    if source is None:
        return DataSettings(**few)
    return DataSettings(path=str(source), text=tuple(text), label="category", **few)


def memory_section(data: DataSettings, counts: Sequence[int]) -> list[str]:
    """What a further trial at once adds, and what one is made of."""
    measured = []
    for at_once in counts:
        progress(f"memory: {at_once} trainings at once")
        measured.append(in_fresh_process(memory_together, at_once, data))
    progress("memory: the parts of one")
    by_part, by_package, loaded = in_fresh_process(parts, data)
    lines = []
    for earlier, now in zip([None, *measured], measured, strict=False):
        added = f"{(now.trials - earlier.trials).pss:.0f}" if earlier else ""
        added_all = f"{(now.all - earlier.all).pss:.0f}" if earlier else ""
        trials = [f"{value:.0f}" for value in (now.trials.rss, now.trials.pss, now.trials.own)]
        lines.append([str(now.at_once), *trials, added, f"{now.all.pss:.0f}", added_all])
    further = (measured[-1].trials - measured[0].trials).pss / (measured[-1].at_once - measured[0].at_once)
    head = ["trials at once", "RSS", "PSS", "own", "PSS added", "PSS of all processes", "added"]
    ranked = sorted(by_package.items(), key=lambda item: -item[1])
    rest = sum(megabytes for _, megabytes in ranked[NAMED_PACKAGES:])
    packages = [[f"`{name}`", f"{megabytes:.0f}"] for name, megabytes in ranked[:NAMED_PACKAGES]]
    return [
        "## Memory of a trial at once",
        "MiniLM, rank 16 on every linear layer, batches of 32, really trained, side by side in one sweep; megabytes of "
        "the trials' processes together when they held most. RSS counts a library's pages in each process that has "
        "them; PSS shares them out, so its sums are true; own pages are those that nobody can share.",
        table(head, lines),
        aim("memory that a further trial adds", AIM_MEGABYTES, further, "MB"),
        "What a trial's process keeps for itself, in megabytes, in the order in which it comes:",
        table(["part", "MB"], [[part, f"{megabytes:.0f}"] for part, megabytes in by_part.items()]),
        f"The imports by package, without what each imports of others ({len(loaded)} packages are loaded in the end):",
        table(["package", "MB"], [*packages, ["all others", f"{rest:.0f}"]]),
    ]

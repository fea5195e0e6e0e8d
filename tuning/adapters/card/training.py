"""What a model card tells of the training itself: how long it took, on what machine, with which packages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lorasweep.tuning.record.folder import SweepResult, TrialRecord
from lorasweep.tuning.record.machine import package_versions
from lorasweep.tuning.record.words import duration


def training_rows(
    trial: TrialRecord,
    trials: Sequence[TrialRecord],
    result: SweepResult | None,
    plan: Mapping[str, Any],
) -> list[tuple[str, str]]:
    """Name and plain text of each line.

    Args:
        trial: the exported one.
        plan: as the sweep has kept it. Sweeps of older versions have no machine in theirs, and say so here.
    """
    rows = [
        ("this trial", f"{duration(trial.seconds)} with its evaluations" if trial.seconds else "not recorded")
    ]
    total = sum(entry.seconds for entry in trials)
    if total:
        rows.append((f"all {len(trials)} trials", f"{duration(total)}, added up"))
    if result and result.seconds:
        rows.append(("the whole sweep", f"{duration(result.seconds)} from start to end"))
    if isinstance(device := plan.get("device"), str):
        rows.append(("device", f"{device}, {plan.get('precision', 'precision not recorded')}"))
    resources = _mapping(plan, "resources")
    if {"cpus_per_trial", "gpus_per_trial", "concurrency"} <= resources.keys():
        gpus = resources["gpus_per_trial"]
        each = (
            f"{gpus} GPU and {resources['cpus_per_trial']} cores"
            if gpus
            else f"{resources['cpus_per_trial']} cores"
        )
        rows.append(("a trial had", f"{each}; {resources['concurrency']} at once"))
    return rows + _machine_rows(_mapping(plan, "machine"))


def _machine_rows(machine: Mapping[str, Any]) -> list[tuple[str, str]]:
    if not machine:
        return [("hardware", "not recorded when the sweep ran")]
    rows = [("processor", f"{machine.get('cpu', 'not recorded')}, {machine.get('cores', '?')} cores used")]
    if isinstance(memory := machine.get("memory_bytes"), int | float):
        rows.append(("memory", f"{memory / 2**30:.0f} GiB"))
    gpus = machine.get("gpus")
    if isinstance(gpus, list) and gpus:
        names = [str(name) for name in gpus]
        rows.append(("GPUs", ", ".join(f"{names.count(name)} × {name}" for name in dict.fromkeys(names))))
    system = [machine.get("os"), f"Python {machine['python']}" if "python" in machine else None]
    system.append(f"CUDA {machine['cuda']}" if machine.get("cuda") else None)
    rows.append(("system", ", ".join(str(part) for part in system if part) or "not recorded"))
    return rows


def versions_line(plan: Mapping[str, Any]) -> str:
    """The packages of the training; of the export, where the sweep has kept none."""
    packages, when = _mapping(_mapping(plan, "machine"), "packages"), "Versions of the training"
    if not packages:
        packages, when = package_versions(), "Versions at the export, those of the training being unknown"
    return f"{when}: " + ", ".join(f"{name} {number}" for name, number in packages.items()) + "."


def _mapping(entries: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = entries.get(name)
    return found if isinstance(found, Mapping) else {}

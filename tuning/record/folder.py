"""A sweep's folder: the one place that holds its configuration, trials and result.

Layout of `mlruns/sweeps/<name>/`:

    config.yaml        the resolved `SweepConfig`
    space.yaml         a copy of the search space; space.py if it is a function
    plan.json          resolved resources, rungs, budget, and the machine
    data/              the prepared rows, so that a resumed sweep and an export use the same ones
    study.db           Optuna's study, under the sweep's name
    ray/               Ray Tune's experiment with the trials' checkpoints
    trials/t000.json   one `TrialRecord` per trial, replaced at each evaluation; t000-full.json is a finalist's
    unmerged.json      the winner's hyperparameters trained on the labels before merging
    confirm.json       validation scores of the best trials on other seeds
    winner/            the winner's weights and its predictions of the test split
    best/              the best trials as adapter folders
    label_check/       predictions of training rows by models that have not seen them, after `check-labels`
    result.json        the `SweepResult`, once there is one
    runs.json          when each run of the sweep started, and how long it ran
    mlflow.json        the identity of the sweep's runs in MLflow
    storage.json       the sweep's id and its folder on `--storage`, if it has one
    lock               held by the process that runs the sweep, for as long as it lives
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from lorasweep.search_spaces.function_space import FunctionSpace
from lorasweep.search_spaces.space import SearchSpace, Space
from lorasweep.training.errors import SettingsError
from lorasweep.training.files.yaml_file import read_yaml
from lorasweep.tuning.record.commands import shell_command
from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.record.files import hold, is_held, read_record, sqlite_url, write_text
from lorasweep.tuning.record.results import SweepResult, SweepState, UnmergedReference
from lorasweep.tuning.record.stopwatch import read_runs
from lorasweep.tuning.record.trial_records import TrialRecord


class SweepFolder:
    """Reads and writes one sweep's folder. Files are replaced whole: a reader never sees half a file."""

    def __init__(self, mlruns: Path, name: str, path: Path | None = None) -> None:
        self.mlruns = mlruns
        self.name = name
        self.path = path or mlruns / "sweeps" / name

    @property
    def data(self) -> Path:
        """Folder of the prepared rows."""
        return self.path / "data"

    @property
    def ray(self) -> Path:
        """Folder of Ray Tune's experiment, unless `--storage` names another."""
        return self.path / "ray"

    @property
    def winner(self) -> Path:
        """Folder of the winner's weights and its predictions on the test split."""
        return self.path / "winner"

    def outcomes(self, trial_id: str) -> Path:
        """File of what became of each validation row at a trial's best evaluation."""
        return self.path / "validation" / f"{trial_id}.safetensors"

    def compared(self, name: str) -> Path:
        """File of the test predictions of what the winner is compared with."""
        return self.path / "compared" / f"{name}.safetensors"

    @property
    def label_check(self) -> Path:
        """Folder of what `check-labels` has predicted of the training rows."""
        return self.path / "label_check"

    @property
    def study_url(self) -> str:
        """URL of Optuna's storage; its study has the sweep's name."""
        return sqlite_url(self.path / "study.db")

    def exists(self) -> bool:
        """Whether there is a sweep of this name."""
        return (self.path / "config.yaml").is_file()

    def check_free(self) -> None:
        """Refuse a name that is in use.

        Raises:
            SettingsError: it is.
        """
        if self.exists():
            raise SettingsError(
                f"sweep {self.name}: the name is in use in {self.mlruns}; choose another --name, "
                f"or continue it: {self.command('resume')}"
            )

    def create(self, config: SweepConfig) -> None:
        """Make the folder and write the configuration.

        Raises:
            SettingsError: the name is in use, or the folder cannot be written.
        """
        self.check_free()
        with self._writable():
            (self.path / "trials").mkdir(parents=True, exist_ok=True)
            self.write_config(config)

    @contextmanager
    def making(self, config: SweepConfig) -> Iterator[SweepFolder]:
        """A new sweep's folder under a temporary name, renamed when the block ends: complete or absent.

        Raises:
            SettingsError: the name is in use, or the folder cannot be written.
        """
        self.check_free()
        beside = self.path.with_name(f".{self.name}.{os.getpid()}")
        shutil.rmtree(beside, ignore_errors=True)
        stage = SweepFolder(self.mlruns, self.name, beside)
        try:
            stage.create(config)
            yield stage
            with self._writable():
                # Fails if another process made a sweep of this name in the meantime.
                beside.rename(self.path)
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    @contextmanager
    def _writable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SettingsError(
                f"{self.path}: cannot be written ({error.strerror}); fix its permissions, or choose another folder "
                "with --mlruns"
            ) from error

    def write_config(self, config: SweepConfig) -> None:
        """Replace the configuration, as an extended sweep does."""
        write_text(self.path / "config.yaml", config.to_yaml())

    def config(self) -> SweepConfig:
        """The resolved configuration.

        Raises:
            SettingsError: the file is no valid configuration any more.
        """
        path = self.path / "config.yaml"
        try:
            entries = read_yaml(path)
        except SettingsError as error:
            raise SettingsError(f"{error}; restore it, or remove the sweep's folder") from error
        return SweepConfig.build(entries, str(path))

    def trials(self) -> list[TrialRecord]:
        """All trials so far, by number; a finalist follows its search trial."""
        paths = sorted((self.path / "trials").glob("t*.json"))
        trials = (read_record(path, TrialRecord) for path in paths)
        return sorted(trials, key=lambda trial: (trial.number, trial.id))

    def write_trial(self, trial: TrialRecord) -> None:
        """Replace one trial's record."""
        write_text(self.path / "trials" / f"{trial.id}.json", trial.model_dump_json(indent=1))

    def result(self) -> SweepResult | None:
        """How it ended, or None while it has not."""
        path = self.path / "result.json"
        return read_record(path, SweepResult) if path.is_file() else None

    def write_result(self, result: SweepResult) -> None:
        """Replace the result."""
        write_text(self.path / "result.json", result.model_dump_json(indent=1))

    def confirmations(self) -> dict[str, dict[str, float]]:
        """Trial id → seed → validation score of the hyperparameters retrained on that seed."""
        path = self.path / "confirm.json"
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}

    def write_confirmations(self, scores: dict[str, dict[str, float]]) -> None:
        """Replace the confirmations."""
        write_text(self.path / "confirm.json", json.dumps(scores, indent=1))

    def unmerged(self) -> UnmergedReference | None:
        """The reference on unmerged labels that was trained last, or None."""
        path = self.path / "unmerged.json"
        return read_record(path, UnmergedReference) if path.is_file() else None

    def write_unmerged(self, reference: UnmergedReference) -> None:
        """Replace the reference on unmerged labels."""
        write_text(self.path / "unmerged.json", reference.model_dump_json(indent=1))

    def plan(self) -> dict[str, Any]:
        """`SweepPlan.summary()` as it was written: resources, rungs, budget, data; empty if missing."""
        path = self.path / "plan.json"
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}

    def write_plan(self, plan: dict[str, Any]) -> None:
        """Replace the plan's summary."""
        write_text(self.path / "plan.json", json.dumps(plan, indent=1))

    def write_space(self, space: Space) -> None:
        """Copy the search space: a resumed sweep uses this copy, whatever happens to the original."""
        if isinstance(space, FunctionSpace):
            write_text(self.path / "space.py", space.source)
        else:
            write_text(self.path / "space.yaml", space.to_yaml())

    def space(self, spec: str) -> Space:
        """The copied search space. A function's file is imported, so its code runs.

        Args:
            spec: `search.space` of the configuration.
        """
        path = self.path / "space.yaml"
        if path.is_file():
            return SearchSpace.from_yaml(path.read_text(encoding="utf-8"), Path(spec).stem)
        space = FunctionSpace(self.path / "space.py", spec.rpartition(":")[2])
        space.check()
        return space

    def command(self, verb: str, *more: str) -> str:
        """A command on this sweep, ready to be pasted into a shell."""
        return shell_command(self.mlruns, verb, self.name, *more)

    def seconds(self) -> float:
        """Wall time of the sweep's runs so far; of a killed one until a moment before."""
        return sum(run["seconds"] for run in read_runs(self.path))

    def state(self) -> SweepState:
        """`running` while a living process holds the lock, else as recorded, or `interrupted`."""
        if is_held(self.path / "lock"):
            return "running"
        result = self.result()
        return result.state if result else "interrupted"

    def lock(self) -> AbstractContextManager[None]:
        """Hold the sweep: one process runs it at a time. The system releases the lock when the process dies.

        Raises:
            SettingsError: another process runs this sweep.
        """
        return hold(
            self.path / "lock",
            f"sweep {self.name}: another process is running it; see: {self.command('status')}",
        )


def list_sweeps(mlruns: Path) -> list[SweepFolder]:
    """All sweeps in a folder, newest first."""
    # A name with a leading dot is a sweep that is still being made.
    folders = [path for path in (mlruns / "sweeps").glob("[!.]*") if (path / "config.yaml").is_file()]
    folders.sort(key=lambda path: (path / "config.yaml").stat().st_mtime, reverse=True)
    return [SweepFolder(mlruns, path.name) for path in folders]


def find_sweep(mlruns: Path, name: str | None) -> SweepFolder:
    """The sweep of this name, or the newest one.

    Raises:
        SettingsError: there is none; the message lists the names.
    """
    sweeps = list_sweeps(mlruns)
    if not sweeps:
        raise SettingsError(f"no sweeps in {mlruns}: start one with: {shell_command(mlruns, 'run')}")
    if name is None:
        return sweeps[0]
    for sweep in sweeps:
        if sweep.name == name:
            return sweep
    names = ", ".join(sweep.name for sweep in sweeps[:8])
    raise SettingsError(f"sweep {name}: not known in {mlruns}; there are: {names}")

"""A sweep's folder: the one place where its configuration, trials and result are kept.

Layout of `mlruns/sweeps/<name>/`:

    config.yaml        the resolved `SweepConfig`
    space.yaml         the search space as it was then; space.py where it is a function
    plan.json          what was asked for: resolved resources, rungs, budget; and the machine it ran on
    data/              the prepared rows, so that a resumed sweep and an export see the same ones
    study.db           Optuna's study, under the sweep's name
    ray/               Ray Tune's experiment: trial checkpoints and the state that a restore needs
    trials/t000.json   one `TrialRecord` a trial, replaced whole at each evaluation
    unmerged.json      the winner's settings trained on the labels before they were merged
    confirm.json       validation scores of the best trials trained again on other seeds
    winner/            the winner's weights and its predictions of the test split
    best/              the best trials as adapter folders
    result.json        the `SweepResult`, once there is one
    mlflow.json        by which the sweep's runs in MLflow are found again
    lock               held by the process that drives the sweep, and by nobody after its death
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lorasweep.search_spaces.function_space import FunctionSpace
from lorasweep.search_spaces.space import SearchSpace, Space
from lorasweep.training.errors import SettingsError
from lorasweep.training.files.yaml_file import read_yaml
from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.record.files import read_record, write_text
from lorasweep.tuning.record.reported import SCORE
from lorasweep.tuning.record.results import (
    Confirmed,
    Reference,
    RegisteredVersion,
    SweepResult,
    SweepState,
    TestScores,
    TrialRecord,
    TrialState,
    UnmergedReference,
    Winner,
    now,
    rank_trials,
    trial_id,
)

__all__ = [
    "SCORE",
    "Confirmed",
    "Reference",
    "RegisteredVersion",
    "SweepFolder",
    "SweepResult",
    "TestScores",
    "TrialRecord",
    "TrialState",
    "UnmergedReference",
    "Winner",
    "find_sweep",
    "list_sweeps",
    "now",
    "rank_trials",
    "trial_id",
    "write_text",
]

# Tries for the lock, 50 ms apart.
LOCK_TRIES = 10


class SweepFolder:
    """Reads and writes one sweep's folder. Files are replaced whole, so a reader never sees half of one."""

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
        """Folder of Ray Tune's experiment, where no other storage is named."""
        return self.path / "ray"

    def next_attempt(self) -> int:
        """Make the folder of another run of this sweep below `ray`; its number, from 1."""
        runs = [path.name.removeprefix("run-") for path in self.ray.glob("run-*")]
        attempt = 1 + max((int(run) for run in runs if run.isdecimal()), default=0)
        (self.ray / f"run-{attempt}").mkdir(parents=True)
        return attempt

    @property
    def winner(self) -> Path:
        """Folder of the winner's weights and its predictions on the test split."""
        return self.path / "winner"

    @property
    def study_url(self) -> str:
        """Optuna's storage; the study in it has the sweep's name."""
        return f"sqlite:///{(self.path / 'study.db').resolve()}"

    def exists(self) -> bool:
        """Whether a sweep of this name was ever started here."""
        return (self.path / "config.yaml").is_file()

    def check_free(self) -> None:
        """Refuse a name that is in use.

        Raises:
            SettingsError: it is.
        """
        if self.exists():
            raise SettingsError(
                f"sweep {self.name}: the name is in use in {self.mlruns}; choose another --name, "
                f"or go on with it: lorasweep resume {self.name}"
            )

    def create(self, config: SweepConfig) -> None:
        """Make the folder with its configuration.

        Raises:
            SettingsError: the name is in use, or the folder cannot be written.
        """
        self.check_free()
        with self._writable():
            (self.path / "trials").mkdir(parents=True, exist_ok=True)
            self.write_config(config)

    @contextmanager
    def making(self, config: SweepConfig) -> Iterator[SweepFolder]:
        """A new sweep's folder under another name, which takes its own when the block ends: whole or not at all.

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
                # Somebody else's sweep of this name may have come first: a folder with files is not replaced.
                beside.rename(self.path)
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    @contextmanager
    def _writable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SettingsError(
                f"{self.path}: cannot be written ({error.strerror}); mend the rights, or name another folder "
                "with --mlruns"
            ) from error

    def write_config(self, config: SweepConfig) -> None:
        """Replace the configuration: a sweep may be extended."""
        write_text(self.path / "config.yaml", config.to_yaml())

    def config(self) -> SweepConfig:
        """The resolved configuration it was started with.

        Raises:
            SettingsError: the file was changed, and is no configuration any more.
        """
        path = self.path / "config.yaml"
        try:
            entries = read_yaml(path)
        except SettingsError as error:
            raise SettingsError(f"{error}; restore it, or remove the sweep's folder") from error
        return SweepConfig.build(entries, str(path))

    def trials(self) -> list[TrialRecord]:
        """All trials so far, by number."""
        paths = sorted((self.path / "trials").glob("t*.json"))
        return sorted((read_record(path, TrialRecord) for path in paths), key=lambda trial: trial.number)

    def write_trial(self, trial: TrialRecord) -> None:
        """Replace one trial's record."""
        write_text(self.path / "trials" / f"{trial.id}.json", trial.model_dump_json(indent=1))

    def result(self) -> SweepResult | None:
        """How it ended, or None while it has not."""
        path = self.path / "result.json"
        return read_record(path, SweepResult) if path.is_file() else None

    def won(self, verb: str, *, finished: bool = False) -> tuple[SweepResult, Winner]:
        """The result and its winner.

        Args:
            verb: what is to be done with it.
            finished: only of a sweep that has finished and runs no more.

        Raises:
            SettingsError: there is no winner.
        """
        result = self.result()
        if result is None or result.winner is None or (finished and self.state() != "finished"):
            raise SettingsError(
                f"sweep {self.name}: has no winner to {verb} (it is {self.state()}); go on with: "
                f"lorasweep resume {self.name}"
            )
        return result, result.winner

    def write_result(self, result: SweepResult) -> None:
        """Replace the result."""
        write_text(self.path / "result.json", result.model_dump_json(indent=1))

    def confirmations(self) -> dict[str, dict[str, float]]:
        """Trial → seed → validation score of the settings trained again on that seed."""
        path = self.path / "confirm.json"
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}

    def write_confirmations(self, scores: dict[str, dict[str, float]]) -> None:
        """Replace them."""
        write_text(self.path / "confirm.json", json.dumps(scores, indent=1))

    def unmerged(self) -> UnmergedReference | None:
        """The settings last trained on unmerged labels, or None."""
        path = self.path / "unmerged.json"
        return read_record(path, UnmergedReference) if path.is_file() else None

    def write_unmerged(self, reference: UnmergedReference) -> None:
        """Keep them as soon as they are trained: a sweep that goes on does not train them again."""
        write_text(self.path / "unmerged.json", reference.model_dump_json(indent=1))

    def plan(self) -> dict[str, Any]:
        """What was worked out before the first trial: resources, rungs, budget, data summary."""
        path = self.path / "plan.json"
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}

    def write_plan(self, plan: dict[str, Any]) -> None:
        """Keep what was worked out before the first trial."""
        write_text(self.path / "plan.json", json.dumps(plan, indent=1))

    def write_space(self, space: Space) -> None:
        """Keep the search space: a resumed sweep searches this one, whatever became of the file."""
        if isinstance(space, FunctionSpace):
            write_text(self.path / "space.py", space.source)
        else:
            write_text(self.path / "space.yaml", space.to_yaml())

    def space(self, spec: str) -> Space:
        """The search space that was kept.

        Args:
            spec: how the configuration names it.
        """
        path = self.path / "space.yaml"
        if path.is_file():
            return SearchSpace.from_yaml(path.read_text(encoding="utf-8"), Path(spec).stem)
        space = FunctionSpace(self.path / "space.py", spec.rpartition(":")[2])
        space.check()
        return space

    def state(self) -> SweepState:
        """`running` while a living process holds the lock; else as recorded, or `interrupted`."""
        if self._locked():
            return "running"
        result = self.result()
        return result.state if result else "interrupted"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the sweep: one driver at a time. The system lets go of it when the process dies, however.

        Raises:
            SettingsError: another process drives this sweep.
        """
        # Opened without emptying it: who is refused must not wipe out the holder's number.
        with (self.path / "lock").open("a") as file:
            # Whoever asks for the state holds the lock for a moment too: that is waited for.
            for _ in range(LOCK_TRIES):
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError:
                    time.sleep(0.05)
            else:
                raise SettingsError(
                    f"sweep {self.name}: another process is running it; see: lorasweep status {self.name}"
                )
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            yield

    def _locked(self) -> bool:
        try:
            with (self.path / "lock").open("r") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except OSError:
                    return True
                return False
        except FileNotFoundError:
            return False


def list_sweeps(mlruns: Path) -> list[SweepFolder]:
    """Sweeps under a folder, the newest first."""
    # A dot begins the name of one that is still being made.
    folders = [path for path in (mlruns / "sweeps").glob("[!.]*") if (path / "config.yaml").is_file()]
    folders.sort(key=lambda path: (path / "config.yaml").stat().st_mtime, reverse=True)
    return [SweepFolder(mlruns, path.name) for path in folders]


def find_sweep(mlruns: Path, name: str | None) -> SweepFolder:
    """The sweep of this name, or the newest one.

    Raises:
        SettingsError: there is none; the known names are listed.
    """
    sweeps = list_sweeps(mlruns)
    if not sweeps:
        raise SettingsError(f"no sweeps in {mlruns}: start one with: lorasweep run")
    if name is None:
        return sweeps[0]
    for sweep in sweeps:
        if sweep.name == name:
            return sweep
    known = ", ".join(sweep.name for sweep in sweeps[:8])
    raise SettingsError(f"sweep {name}: not known in {mlruns}; there are: {known}")

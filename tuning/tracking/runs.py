"""The runs of one sweep in an MLflow store: found by their tags, written without duplicates."""

from __future__ import annotations

import getpass
import hashlib
import json
import math
import tempfile
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lorasweep.tuning.record.files import write_text
from lorasweep.tuning.tracking.entries import (
    ADAPTER,
    ID,
    KIND,
    NOTE_VERSION,
    REPORT,
    RUNG_METRIC,
    STATE,
    SWEEP,
    TRIAL,
    milliseconds,
)
from lorasweep.tuning.tracking.notes import child_name
from lorasweep.tuning.tracking.store import artifact_location, connect, is_server

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput

EXPERIMENT = "lorasweep"
# The most that MLflow gives in one answer.
MOST_RUNS = 50_000
PARENT = "mlflow.parentRunId"
NOTE = "mlflow.note.content"
IDENTITY_FILE = "mlflow.json"


@dataclass
class TrackedRun:
    """What the store holds of a run, so that only what is missing is sent.

    Attributes:
        metrics: the last value of each.
        artifacts: paths at the top level; None until they are listed.
        copied: the record that the run was last brought in line with.
    """

    id: str
    name: str = ""
    status: str = "RUNNING"
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    artifacts: set[str] | None = None
    has_data: bool = False
    copied: object = None


class SweepRuns:
    """A sweep's parent run and its children, one for each trial.

    Every method may raise whatever the store raises. What it was about to write can then be sent again.

    Args:
        experiment: name of MLflow's experiment; made if there is none.
        artifacts: where artifacts go if this process writes them itself; a server has a place of its own.
        sweep: the sweep's name, a tag of every run.
        identity: tells this sweep from others of its name; the runs are found again by it.
        kinds: what parent and children are, a tag of each.

    Attributes:
        experiment: id of the experiment that has the runs.
        trials: trial → its run, of those that have one.
    """

    def __init__(
        self,
        uri: str,
        experiment: str,
        artifacts: Path,
        sweep: str,
        identity: str,
        kinds: tuple[str, str] = ("sweep", "trial"),
    ) -> None:
        self._client: MlflowClient = connect(uri)
        self._kinds = kinds
        self._tags = {SWEEP: sweep, ID: identity, "mlflow.source.name": "lorasweep"}
        with suppress(KeyError, OSError):  # a container's user may have no name
            self._tags["mlflow.user"] = getpass.getuser()
        self._experiment_tags: dict[str, str] = {}
        self.experiment = self._open_experiment(
            experiment, None if is_server(uri) else artifact_location(artifacts / experiment)
        )
        parents: list[TrackedRun] = []
        trials: dict[str, list[TrackedRun]] = {}
        mine, oldest_first = f"tags.`{ID}` = '{identity}'", ["attributes.start_time ASC"]
        for run in self._client.search_runs(
            [self.experiment], mine, max_results=MOST_RUNS, order_by=oldest_first
        ):
            tracked = TrackedRun(
                run.info.run_id,
                run.info.run_name,
                run.info.status,
                dict(run.data.params),
                dict(run.data.tags),
                dict(run.data.metrics),
                has_data=bool(run.inputs and run.inputs.dataset_inputs),
            )
            if tracked.tags.get(KIND) == kinds[0]:
                parents.append(tracked)
            else:
                trials.setdefault(tracked.tags.get(TRIAL, ""), []).append(tracked)
        children = Counter(run.tags.get(PARENT) for runs in trials.values() for run in runs)
        self._parent = self._only(parents, lambda run: children[run.id]) if parents else None
        self.trials = {name: self._only(runs, lambda run: len(run.metrics)) for name, runs in trials.items()}
        if self._parent is not None:
            for run in self.trials.values():
                self.send(run, {}, {PARENT: self._parent.id})

    def parent(self, started: float) -> TrackedRun:
        """The sweep's own run; made, with this Unix time as its start, if there is none."""
        if self._parent is None:
            self._parent = self._create(self._tags[SWEEP], started, {KIND: self._kinds[0]})
        return self._parent

    def trial(self, trial_id: str, started: float) -> TrackedRun:
        """A trial's run under the parent; made if there is none."""
        if trial_id not in self.trials:
            tags = {KIND: self._kinds[1], TRIAL: trial_id, PARENT: self.parent(started).id}
            self.trials[trial_id] = self._create(child_name(trial_id, self._tags[SWEEP]), started, tags)
        return self.trials[trial_id]

    def send(
        self,
        run: TrackedRun,
        params: Mapping[str, str],
        tags: Mapping[str, str | None],
        rungs: Sequence[tuple[int, float, Mapping[str, float]]] = (),
    ) -> None:
        """Write params, tags and the metrics of rungs, as one request where any of them is missing.

        Args:
            params: one that the run has already stays as it is.
            tags: None takes a tag away.
            rungs: rung, Unix time and metrics of each evaluation, in order. `RUNG_METRIC` is the last of a
                rung's metrics and grows from rung to rung, so its value tells how many rungs have arrived.
        """
        from mlflow.entities import Metric, Param, RunTag

        # MLflow does not let a param change, and refuses all others with it.
        missing = {key: value for key, value in params.items() if key not in run.params}
        changed = {
            key: value for key, value in tags.items() if value is not None and run.tags.get(key) != value
        }
        reached = run.metrics.get(RUNG_METRIC, -math.inf)
        news = [rung for rung in rungs if rung[2].get(RUNG_METRIC, math.inf) > reached]
        points = [
            Metric(name, value, milliseconds(at), rung)
            for rung, at, metrics in news
            for name, value in metrics.items()
        ]
        self._client.log_batch(
            run.id,
            metrics=points,
            params=[Param(key, value) for key, value in missing.items()],
            tags=[RunTag(key, value) for key, value in changed.items()],
        )
        run.params |= missing
        run.tags |= changed
        for _, _, metrics in news:
            run.metrics |= metrics
        for key in [key for key, value in tags.items() if value is None and key in run.tags]:
            self._client.delete_tag(run.id, key)
            del run.tags[key]

    def send_experiment_tags(self, tags: Mapping[str, str]) -> None:
        """Write tags of the experiment."""
        for key, value in tags.items():
            if self._experiment_tags.get(key) != value:
                self._client.set_experiment_tag(self.experiment, key, value)
                self._experiment_tags[key] = value

    def send_note(self, run: TrackedRun, text: str | None) -> None:
        """Describe a run, or take its description away; one that a person has written stays."""
        there, version = run.tags.get(NOTE), run.tags.get(NOTE_VERSION)
        if there is not None and there != text and version != _version(there):
            return
        self.send(run, {}, {NOTE: text, NOTE_VERSION: None if text is None else _version(text)})

    def send_metrics(self, run: TrackedRun, metrics: Mapping[str, float], at: float) -> None:
        """Write single values, where the run shows others."""
        from mlflow.entities import Metric

        changed = {name: value for name, value in metrics.items() if run.metrics.get(name) != value}
        points = [Metric(name, value, milliseconds(at), 0) for name, value in changed.items()]
        self._client.log_batch(run.id, metrics=points)
        run.metrics |= changed

    def set_status(self, run: TrackedRun, status: str, ended: float, name: str | None = None) -> None:
        """Let a run go on (`RUNNING`), or end it at this Unix time; and name it."""
        if name not in (None, run.name) or (status == "RUNNING" and status != run.status):
            self._client.update_run(run.id, status if status == "RUNNING" else None, name)
            run.name = name or run.name
        if status not in ("RUNNING", run.status):
            self._client.set_terminated(run.id, status, milliseconds(ended))
        run.status = status

    def send_text(self, run: TrackedRun, text: str, name: str) -> None:
        """Keep a text as an artifact of this name, unless there is one."""
        if run.artifacts is None:
            run.artifacts = {entry.path for entry in self._client.list_artifacts(run.id)}
        if name not in run.artifacts:
            self._client.log_text(run.id, text, name)
            run.artifacts.add(name)

    def send_data(self, run: TrackedRun, data: DatasetInput | None) -> None:
        """Note the data set that a run has used, unless one is noted."""
        if data is not None and not run.has_data:
            self._client.log_inputs(run.id, [data])
            run.has_data = True

    def send_report(self, run: TrackedRun, files: Mapping[str, bytes], version: str) -> None:
        """Keep a report's files, by their paths, as the run's artifacts, unless this version is there whole."""
        if run.tags.get(REPORT) == version:
            return
        with tempfile.TemporaryDirectory(prefix="lorasweep-") as temporary:
            for name, content in files.items():
                path = Path(temporary) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            self._client.log_artifacts(run.id, temporary)
        # The tag comes after the files, so an upload that was cut off is done again.
        self.send(run, {}, {REPORT: version})

    def send_adapter(self, run: TrackedRun, folder: Path, version: str) -> None:
        """Keep a folder as the run's `adapter`, unless this version of it is there whole.

        Raises:
            FileNotFoundError: there is no such folder.
        """
        if run.tags.get(ADAPTER) == version:
            return
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: no adapter folder")
        self._client.log_artifacts(run.id, str(folder), "adapter")
        self.send(run, {}, {ADAPTER: version})

    def _open_experiment(self, name: str, location: str | None) -> str:
        from mlflow.exceptions import MlflowException

        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            try:
                return str(self._client.create_experiment(name, artifact_location=location))
            except MlflowException:
                # Another sweep may have made it in the meantime.
                experiment = self._client.get_experiment_by_name(name)
                if experiment is None:
                    raise
        self._experiment_tags = dict(experiment.tags)
        if experiment.lifecycle_stage == "deleted":
            self._client.restore_experiment(experiment.experiment_id)
        return str(experiment.experiment_id)

    def _only(self, twins: list[TrackedRun], worth: Callable[[TrackedRun], int]) -> TrackedRun:
        # A server may carry out a request that its caller has given up and repeated: then there are two runs.
        # The one that holds less is deleted; whatever it held alone is sent again.
        best = max(twins, key=worth)
        for run in twins:
            if run is not best:
                self._client.delete_run(run.id)
        return best

    def _create(self, name: str, started: float, tags: Mapping[str, str]) -> TrackedRun:
        tags = self._tags | {STATE: "running"} | dict(tags)
        run = self._client.create_run(self.experiment, milliseconds(started), tags, name)
        return TrackedRun(run.info.run_id, name, tags=dict(tags), artifacts=set())


def identity_of(folder: Path) -> str:
    """What tells the sweep or comparison in a folder from others of its name; made at the first call."""
    path = folder / IDENTITY_FILE
    if not path.exists():
        write_text(path, json.dumps({"id": uuid.uuid4().hex}))
    return str(json.loads(path.read_text(encoding="utf-8"))["id"])


def _version(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]

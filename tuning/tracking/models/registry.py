"""The model registry: a sweep's winner as a version that MLflow serves.

The best version has the alias `champion`, the newest that did not replace it `challenger`.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorasweep.training.data.dataset import Dataset, fingerprint
from lorasweep.training.errors import SettingsError
from lorasweep.training.inference.folder import ExportedFolder, read_folder
from lorasweep.training.metrics import higher_is_better, metric_key, metric_words
from lorasweep.training.model.hub import ADAPTER_WEIGHTS, FULL_WEIGHTS
from lorasweep.tuning.record.config import MODEL_NAME, MODEL_NAME_RULE
from lorasweep.tuning.record.results import RegisteredVersion
from lorasweep.tuning.record.sweep import SweepRecord
from lorasweep.tuning.record.words import settings_line
from lorasweep.tuning.tracking.entries import ID, SWEEP, TAG_LENGTH, TRIAL
from lorasweep.tuning.tracking.models.packing import pack, sha256
from lorasweep.tuning.tracking.notes import version_note
from lorasweep.tuning.tracking.store import connect, is_server, store_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

CHAMPION, CHALLENGER = "champion", "challenger"
# Tags of a version, beside `lorasweep.test_accuracy` and its like.
DATA, TEST_DATA, METRIC = (f"lorasweep.{name}" for name in ("fingerprint", "test_fingerprint", "metric"))
WEIGHTS, SELF_CONTAINED, THRESHOLDS = (
    f"lorasweep.{name}" for name in ("weights", "self_contained", "thresholds")
)
BASE, HYPERPARAMETERS = (f"lorasweep.{name}" for name in ("base_model", "hyperparameters"))
DECISION, REASON = (f"lorasweep.{name}" for name in ("decision", "reason"))
RIVAL, RIVAL_SCORE = (f"lorasweep.{name}" for name in ("champion_then", "champion_score"))
TEST_SCORE = "lorasweep.test_{}"
# The whole description that versions once had.
EARLIER_NOTE = "trial {} of sweep {}"
# MLflow's limit, in characters.
DESCRIPTION_LENGTH = 5000
# Not "adapter": MLflow would mix its files with the run's artifacts of that name.
LOGGED_NAME = "classifier"


class Registered(RegisteredVersion):
    """A version of a registered model.

    Attributes:
        created: whether it is new; False if this winner was registered before.
        note: a restriction that the user should know, or "".
    """

    created: bool
    note: str = ""

    def text(self) -> str:
        """One line for the user."""
        before = "" if self.created else ", registered before,"
        note = f"; {self.note}" if self.note else ""
        return f"models:/{self.name}/{self.version}{before} is the {self.alias}: {self.reason}{note}"


def check_name(name: str) -> None:
    """Refuse a name that a registered model cannot have.

    Raises:
        SettingsError: it is not allowed.
    """
    if not MODEL_NAME.fullmatch(name):
        raise SettingsError(f"registered model {name!r}: not a name for one; {MODEL_NAME_RULE}")


def register(
    sweep: SweepRecord, uri: str, name: str, adapter: Path, run_id: str, *, self_contained: bool = False
) -> Registered:
    """Make a sweep's winner a version of a registered model, unless it is one already.

    It becomes the champion if there is none yet, or if it beats the champion by the sweep's metric on the same
    test rows; otherwise the challenger. Both scores, the decision and its reason become the version's tags.

    Args:
        sweep: a finished one; the scores are its winner's.
        uri: a store that `prepare_store` has passed.
        adapter: the winner as an exported folder.
        run_id: the winner's run, or the sweep's, in that store.
        self_contained: include the base model instead of only naming it.

    Raises:
        SettingsError: a name that is not allowed, a sweep without a winner, or a store that fails.
        ModelError: the adapter or its base model cannot be loaded.
        DataError: the sweep's prepared rows are gone.
        ExportError: what was packed does not predict what the adapter does.
    """
    check_name(name)
    exported = read_folder(adapter)
    identity, tags, about = _describe(sweep, exported, self_contained)
    note = ""
    if exported.is_adapter and not exported.base_names and not self_contained:
        note = "its base model is a folder of this machine, so it can only be served here"
    client = connect(uri)
    with store_errors(uri):
        run = client.get_run(run_id)
        identity[ID] = run.data.tags.get(ID, "")
        entry = _earlier_version(client, name, identity)
    created = entry is None
    if entry is None:
        with tempfile.TemporaryDirectory(prefix="lorasweep-") as temporary:
            packed = Path(temporary) / "model"
            pack(adapter, packed, self_contained=self_contained)
            with store_errors(uri):
                params = sweep.won("register")[1].hyperparameters.model_dump()
                entry = _publish(client, uri, name, packed, run, identity | tags, params, about)
    else:
        with store_errors(uri):
            _complete(client, entry, tags, about)
    number, decided = str(entry.version), entry.tags
    if created or DECISION not in decided:
        with store_errors(uri):
            alias, decided = _decide(client, entry, tags)
            for key, value in decided.items():
                client.set_model_version_tag(name, number, key, value)
            client.set_registered_model_alias(name, alias, number)
            # Last, so that a decision that was interrupted is made again.
            client.set_model_version_tag(name, number, DECISION, alias)
    else:
        alias = decided[DECISION]
    why = decided[REASON]
    return Registered(name=name, version=number, alias=alias, reason=why, created=created, note=note)


def _describe(
    sweep: SweepRecord, exported: ExportedFolder, self_contained: bool
) -> tuple[dict[str, str], dict[str, str], str]:
    """Tags that identify this winner, tags with its scores and hyperparameters, and a description."""
    result, winner = sweep.won("register")
    data = Dataset.load(sweep.folder.data)
    weights = exported.path / (ADAPTER_WEIGHTS if exported.is_adapter else FULL_WEIGHTS)
    identity = {SWEEP: sweep.name, TRIAL: winner.id, WEIGHTS: sha256(weights) or ""}
    identity[SELF_CONTAINED] = str(self_contained).lower()
    if exported.thresholds:  # with others it labels texts otherwise
        identity[THRESHOLDS] = json.dumps(exported.thresholds, ensure_ascii=False)
    tags = {METRIC: str(result.metric), DATA: data.fingerprint}
    # Of the test rows alone: sweeps that train on different parts of the data can still be compared.
    tags[TEST_DATA] = fingerprint({"test": data.test}, data.label_names)
    tags |= {TEST_SCORE.format(metric_key(name)): repr(score) for name, score in winner.test.values().items()}
    tags[BASE] = sweep.config.base_model
    tags[HYPERPARAMETERS] = settings_line(winner.hyperparameters, sweep.searched)[:TAG_LENGTH]
    tags = {key: value for key, value in tags.items() if value}
    return identity, tags, version_note(sweep, result, data.source)[:DESCRIPTION_LENGTH]


def _earlier_version(client: MlflowClient, name: str, identity: Mapping[str, str]) -> ModelVersion | None:
    """The version that this winner was registered as before, or None."""
    same_weights = f"name = '{name}' and tags.`{WEIGHTS}` = '{identity[WEIGHTS]}'"
    versions = client.search_model_versions(same_weights)
    return next((version for version in versions if identity.items() <= version.tags.items()), None)


def _publish(
    client: MlflowClient,
    uri: str,
    name: str,
    packed: Path,
    run: Run,
    tags: dict[str, str],
    hyperparameters: Mapping[str, Any],
    about: str,
) -> ModelVersion:
    """Log a packed model to a run and make it a version, all through the client: it has no global state."""
    from mlflow.entities import LoggedModelOutput
    from mlflow.exceptions import MlflowException
    from mlflow.models import Model

    run_id, params = run.info.run_id, {key: str(value) for key, value in hyperparameters.items()}
    logged = client.create_logged_model(run.info.experiment_id, LOGGED_NAME, run_id, tags, params)
    try:
        model = Model.load(str(packed))
        model.run_id, model.artifact_path = run_id, logged.artifact_location
        model.model_id = model.model_uuid = logged.model_id
        model.save(str(packed / "MLmodel"))
        client.log_model_artifacts(logged.model_id, str(packed))
        client.finalize_logged_model(logged.model_id, "READY")
    except BaseException:
        with suppress(Exception):
            client.finalize_logged_model(logged.model_id, "FAILED")
        raise
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, 0)])
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    # By its place, as MLflow would look up models:/ID in its global store.
    place, model_id = logged.artifact_location, logged.model_id
    made = client.create_model_version(name, place, run_id, tags, description=about, model_id=model_id)
    if not is_server(uri):  # a server does this itself
        versions = json.dumps([{"name": name, "version": made.version}])
        client.set_logged_model_tags(model_id, {"mlflow.modelVersions": versions})
    return made


def _complete(client: MlflowClient, entry: ModelVersion, tags: Mapping[str, str], about: str) -> None:
    """Add what a version that was registered by an earlier lorasweep does not say."""
    for key in tags.keys() - entry.tags.keys():
        client.set_model_version_tag(entry.name, str(entry.version), key, tags[key])
    if entry.description == EARLIER_NOTE.format(entry.tags[TRIAL], entry.tags[SWEEP]):
        client.update_model_version(entry.name, str(entry.version), about)


def _decide(client: MlflowClient, entry: ModelVersion, tags: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """The alias of a version, and the tags that say why."""
    current = client.get_registered_model(entry.name).aliases.get(CHAMPION)
    if current is None:
        return CHAMPION, {REASON: "there was no champion"}
    if str(current) == str(entry.version):  # interrupted before the decision was recorded
        return CHAMPION, {REASON: entry.tags.get(REASON, "it became so in an interrupted registration")}
    rival = client.get_model_version(entry.name, str(current))
    metric = tags[METRIC]
    score, rival_score = (
        tags[TEST_SCORE.format(metric_key(metric))],
        rival.tags.get(TEST_SCORE.format(metric_key(metric))),
    )
    if rival_score is None or rival.tags.get(TEST_DATA) != tags[TEST_DATA]:
        why = f"version {current}, the champion, was tested on other rows, so the two cannot be compared"
        return CHALLENGER, {REASON: why, RIVAL: str(current)}
    own, other = float(score), float(rival_score)
    what = metric_words(metric)
    why = f"test {what} {own:.4f}, where version {current}, the champion, had {other:.4f} on the same rows"
    better = own > other if higher_is_better(metric) else own < other
    decided = {REASON: why, RIVAL: str(current), RIVAL_SCORE: rival_score}
    return CHAMPION if better else CHALLENGER, decided

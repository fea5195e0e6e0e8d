"""Downloads the model of a registered version or a run in MLflow, as an adapter or in another format."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from lorasweep.training.errors import ExportError, SettingsError
from lorasweep.training.inference.folder import ADAPTER_CONFIG, MODEL_CONFIG, read_folder
from lorasweep.tuning.adapters.export.formats import FORMATS, ExportFormat, check_format
from lorasweep.tuning.adapters.export.staging import staged_folder
from lorasweep.tuning.tracking.entries import KIND, TRIAL, WINNER
from lorasweep.tuning.tracking.models.packing import copy_folder
from lorasweep.tuning.tracking.store import connect, store_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient

VERSION = re.compile(r"models:/(?P<name>[^/@]+)(@(?P<alias>[\w-]+)|/(?P<number>\d+))")
RUN = re.compile(r"runs:/(?P<id>\w+)")


def fetch_as(form: ExportFormat, uri: str, tracking_uri: str, out: Path) -> str:
    """Download what MLflow holds.

    Another format than the adapter is made from it here and compared with it on made-up rows.

    Returns:
        What was written, as a line for the user.

    Raises:
        SettingsError, ExportError, ModelError: as `fetch_adapter`; also where the packages for ONNX are
            missing, or the other format predicts something else.
    """
    check_format(form)
    convert = FORMATS[form].convert
    if convert is None:
        exported = read_folder(fetch_adapter(uri, tracking_uri, out))
        return f"{out}: the {'adapter' if exported.is_adapter else 'whole model'} of {uri}"
    with staged_folder(out) as stage, tempfile.TemporaryDirectory(prefix="lorasweep-") as temporary:
        fetched = fetch_adapter(uri, tracking_uri, Path(temporary) / "fetched")
        return f"{out}: {uri} as {convert(fetched, stage, out.name, None)}"


def fetch_adapter(uri: str, tracking_uri: str, out: Path) -> Path:
    """Download the adapter of a registered model or of a run in MLflow.

    Args:
        uri: `models:/NAME@ALIAS`, `models:/NAME/VERSION` or `runs:/ID`; a sweep's run stands for its winner's.
        tracking_uri: the store.
        out: must not exist; it appears whole or not at all, with nothing but an adapter folder's own files.

    Raises:
        SettingsError: not such an address, nothing there, or a store that fails.
        ExportError: `out` exists or cannot be written, or there is no adapter.
        ModelError: the adapter lacks a part, or its weights are a pickle.
    """
    client = connect(tracking_uri)
    with store_errors(tracking_uri):
        place = _place(client, uri)
    with staged_folder(out) as stage, tempfile.TemporaryDirectory(prefix="lorasweep-") as temporary:
        with store_errors(tracking_uri):
            fetched = _download(place, tracking_uri, temporary)
        if fetched is None:
            raise ExportError(
                f"{uri}: holds no adapter (no {ADAPTER_CONFIG}, no {MODEL_CONFIG}); name another"
            )
        copy_folder(fetched, stage)
        read_folder(stage)
    return out


def _place(client: MlflowClient, uri: str) -> str:
    """Where the artifacts of a version or a run are."""
    if match := VERSION.fullmatch(uri):
        name, number = match["name"], match["number"]
        number = number or client.get_model_version_by_alias(name, match["alias"]).version
        return str(client.get_model_version_download_uri(name, str(number)))
    if match := RUN.fullmatch(uri):
        run = client.get_run(match["id"])
        if run.data.tags.get(KIND) == "sweep" and (winner := run.data.tags.get(WINNER)):
            children = f"tags.`mlflow.parentRunId` = '{run.info.run_id}' and tags.`{TRIAL}` = '{winner}'"
            run = next(iter(client.search_runs([run.info.experiment_id], children)), run)
        return str(run.info.artifact_uri)
    raise SettingsError(
        f"{uri}: not the address of a model in MLflow; write models:/NAME@champion, models:/NAME/3 or runs:/ID"
    )


def _download(place: str, tracking_uri: str, into: str) -> Path | None:
    from mlflow.artifacts import download_artifacts, list_artifacts

    # Where `pack` puts it, where a trial's run keeps it, or anywhere else.
    for below in ("artifacts/adapter", "adapter", ""):
        address = f"{place}/{below}".rstrip("/")
        listed = list_artifacts(artifact_uri=address, tracking_uri=tracking_uri)
        if {Path(entry.path).name for entry in listed} & {ADAPTER_CONFIG, MODEL_CONFIG}:
            stores = {"tracking_uri": tracking_uri, "registry_uri": tracking_uri}
            return Path(download_artifacts(artifact_uri=address, dst_path=into, **stores))
    return None

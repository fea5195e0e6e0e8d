"""`export`: a sweep's winner, or what MLflow holds, as a folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorasweep.adapter import MLFLOW
from lorasweep.libraries import quietly
from lorasweep.training.errors import SettingsError
from lorasweep.tuning.record.sweep import read_sweep

if TYPE_CHECKING:
    from lorasweep.tuning.adapters.export.formats import ExportFormat


@dataclass(frozen=True)
class Exported:
    """What `export` wrote.

    Attributes:
        path: the folder.
        text: what it is, and how its predictions compare with the trial's own.
        uploaded: its address on the hub, if it was uploaded.
    """

    path: Path
    text: str = field(repr=False)
    uploaded: str | None = None


@quietly
def export(
    sweep: Any,
    out: str | Path,
    format: ExportFormat = "adapter",
    *,
    trial: str | None = None,
    push_to_hub: str | None = None,
    public: bool = False,
    tracking_uri: str | None = None,
    mlruns: str | Path = "mlruns",
) -> Exported:
    """Write a sweep's winner, or what MLflow holds, as a folder whose predictions are checked.

    Args:
        sweep: a `Sweep` or its name (the newest if None), `models:/NAME@ALIAS` or `runs:/ID`.
        out: the folder; it must not exist, and appears whole or not at all.
        format: `adapter`, `merged` (a whole transformers model) or `onnx`.
        trial: the id of another trial than the winner.
        push_to_hub: upload the folder to this repository of the Hugging Face hub.
        public: make a new repository public.
        tracking_uri: the MLflow store of `models:/` and `runs:/`; `mlruns`'s own if left out.

    Raises:
        SettingsError: no such sweep, or options that exclude each other.
        ExportError: no winner, `out` exists, or the folder does not predict what the trial did.
        ModelError: the base model cannot be found.

    Example:
        >>> lorasweep.export("demo", "best-model", "merged").path
        PosixPath('best-model')
    """
    out = Path(out)
    fetched = isinstance(sweep, str) and sweep.startswith(MLFLOW)
    if fetched and trial is not None:
        raise SettingsError(f"{sweep}: is an adapter as it was recorded; leave out --trial")
    if public and push_to_hub is None:
        raise SettingsError("export: --public goes with --push-to-hub")
    repo = None
    if push_to_hub is not None:
        from lorasweep.tuning.adapters.export.hub_upload import check_upload, push_folder

        repo = check_upload(push_to_hub)
    if isinstance(sweep, str) and fetched:
        from lorasweep.tuning.tracking.models.fetch import fetch_as
        from lorasweep.tuning.tracking.store import prepare_store, tracking_store

        uri = tracking_store(tracking_uri, Path(mlruns))
        prepare_store(uri, Path(mlruns))
        text = fetch_as(format, sweep, uri, out)
    else:
        from lorasweep.tuning.adapters.export.sweep import export_sweep

        record = read_sweep(Path(mlruns), sweep) if sweep is None or isinstance(sweep, str) else sweep.record
        text = export_sweep(record.folder, out, trial=trial, form=format).text()
    address = push_folder(out, repo, public=public) if repo is not None else None
    return Exported(out, text, address)

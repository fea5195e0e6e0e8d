"""The winner as a folder that plain PEFT, transformers or ONNX Runtime load, checked before it is shown."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from lorasweep.training.data.load import Dataset, Texts
from lorasweep.training.errors import ExportError, first_line
from lorasweep.training.loop.state import WEIGHTS_FOLDER
from lorasweep.training.model.base_model import resolve_base_model
from lorasweep.training.model.hub import BaseModel
from lorasweep.training.settings import Precision
from lorasweep.tuning.adapters import ExportFormat
from lorasweep.tuning.adapters.card.card import loading_lines, model_card
from lorasweep.tuning.adapters.export.onnx_model import OnnxReport, check_packages, write_onnx
from lorasweep.tuning.adapters.export.staging import staged_folder
from lorasweep.tuning.adapters.export.verify import comparison, verify_export
from lorasweep.tuning.adapters.export.weights import export_weights, load_arguments
from lorasweep.tuning.record.folder import SweepFolder, TrialRecord, rank_trials

PROBE_FILE = "probe.safetensors"


@dataclass(frozen=True)
class ExportReport:
    """What was exported, and how its predictions compare with the trial's own.

    Attributes:
        out: the folder.
        trial: id of the trial.
        is_adapter: an adapter, which needs its base model; else a whole model.
        precision: of the comparison.
        rows: validation rows that were compared.
        max_difference: largest absolute difference of a logit.
        tolerance: what was allowed.
        loading: Python lines that load the folder.
        onnx: the ONNX model that was made of it; the other fields tell of what it was made from.
    """

    out: Path
    trial: str
    is_adapter: bool
    precision: Precision
    rows: int
    max_difference: float
    tolerance: float
    loading: str
    onnx: OnnxReport | None = None

    def text(self) -> str:
        """What to tell the user."""
        if self.onnx is not None:
            return f"{self.out}: trial {self.trial} as {self.onnx.text()}"
        kind = "an adapter" if self.is_adapter else "a whole model"
        return (
            f"{self.out}: trial {self.trial} as {kind}; loaded back with plain "
            f"{'PEFT' if self.is_adapter else 'transformers'} it predicts what the trial did on {self.rows} "
            f"validation rows (logits differ by at most {self.max_difference:.2g} in {self.precision})"
        )


def export_sweep(
    folder: SweepFolder, out: Path, *, trial: str | None = None, form: ExportFormat = "adapter"
) -> ExportReport:
    """Write a sweep's winner, or another of its trials at its best evaluation, as a verified folder.

    Args:
        out: must not exist; it appears whole or not at all.
        trial: id of another trial than the winner.
        form: the format; after full fine-tuning an adapter is a whole model too.

    Raises:
        ExportError: no winner, no such trial or checkpoint, `out` exists or cannot be written, the folder
            does not predict what the trial did, or the packages for ONNX are missing.
        ModelError: the base model is gone.
        DataError: the sweep's prepared rows are gone.
    """
    if form == "onnx":
        check_packages()
    config = folder.config()
    record = _choose(folder, trial)
    method = record.hyperparameters.method
    data = Dataset.load(folder.data)
    base = _base_model(folder, config.base_model)
    arguments = load_arguments(base, data.label_names)
    merged, onnx = form == "merged", None
    adapter = method != "full" and not merged
    with (
        staged_folder(out) as stage,
        tempfile.TemporaryDirectory(prefix="lorasweep-") as temporary,
        _checkpoint(folder, record) as checkpoint,
    ):
        # The ONNX model is made from a folder that has been verified itself.
        written = Path(temporary) if form == "onnx" else stage
        weights = checkpoint / WEIGHTS_FOLDER
        loading = loading_lines(out.name, adapter, arguments)
        card = model_card(folder, record, data, base, loading, adapter=adapter)
        export_weights(
            weights,
            base,
            data.label_names,
            written,
            merged=merged,
            method=method,
            card=card,
            max_length=config.training.max_length,
            text_columns=data.text_columns,
        )
        expected = _probe(checkpoint)
        rows = Texts(
            data.validation.text[: len(expected)],
            data.validation.pair[: len(expected)] if data.validation.pair is not None else None,
            data.validation.labels[: len(expected)],
        )
        plan = folder.plan()
        trained_in: Precision = plan.get("precision", config.training.precision)
        amp, tolerance = comparison(trained_in, plan.get("device", "cpu"), expected, merged)
        difference = verify_export(written, rows, expected, amp, tolerance, arguments)
        if form == "onnx":
            onnx = write_onnx(written, stage, out.name, rows)
    return ExportReport(
        out, record.id, adapter, amp.name, len(expected), difference, tolerance, loading, onnx
    )


def _choose(folder: SweepFolder, trial: str | None) -> TrialRecord:
    """The winner's record, or the named trial's."""
    trials = {record.id: record for record in folder.trials()}
    if trial is None:
        result = folder.result()
        if result is None or result.winner is None:
            raise ExportError(
                f"sweep {folder.name}: has no winner (it is {folder.state()}); go on with: "
                f"lorasweep resume {folder.name}, or name a trial that has a score with --trial"
            )
        trial = result.winner.id
    record = trials.get(trial)
    if record is None:
        known = ", ".join(list(trials)[:12]) or "none"
        raise ExportError(f"sweep {folder.name}: has no trial {trial}; there are: {known}")
    if record.checkpoint is None:
        metric = folder.config().training.metric
        best = rank_trials([entry for entry in trials.values() if entry.checkpoint], metric)
        others = f"; trials that have one: {', '.join(entry.id for entry in best[:12])}" if best else ""
        raise ExportError(
            f"sweep {folder.name}: trial {trial} ({record.state}) has no checkpoint to export{others}"
        )
    return record


@contextmanager
def _checkpoint(folder: SweepFolder, record: TrialRecord) -> Iterator[Path]:
    """The trial's checkpoint as a local folder, fetched from the sweep's shared storage if it lies there."""
    result = folder.result()
    won = result is not None and result.winner is not None and result.winner.id == record.id
    # The winner's is kept apart from Ray's folders too, which a user may have cleared.
    if won and (folder.winner / WEIGHTS_FOLDER).is_dir() and (folder.winner / PROBE_FILE).is_file():
        yield folder.winner
        return
    path = Path(record.checkpoint or "")
    storage = folder.config().resources.storage
    if path.is_dir():
        yield path
        return
    if storage is None or "://" not in storage:
        raise ExportError(
            f"sweep {folder.name}: the checkpoint of trial {record.id} is gone ({path}); name another --trial"
        )
    from lorasweep.tuning.trials.checkpoints import open_checkpoint  # only here: it imports Ray

    with tempfile.TemporaryDirectory(prefix="lorasweep-") as temporary:
        try:
            checkpoint = open_checkpoint(record.checkpoint, storage)
            fetched = checkpoint.to_directory(temporary) if checkpoint else temporary
        except OSError as error:
            raise ExportError(
                f"sweep {folder.name}: the checkpoint of trial {record.id} cannot be fetched from {storage} "
                f"({first_line(error)}); name another --trial"
            ) from error
        yield Path(fetched)


def _base_model(folder: SweepFolder, name: str) -> BaseModel:
    """The base model at the commit that the trials have used; the hub's may have moved on since."""
    base = resolve_base_model(name)
    if base.hub_id is None or base.hub_id != base.location:
        return base
    return replace(base, revision=folder.plan().get("base_model", {}).get("revision") or base.revision)


def _probe(checkpoint: Path) -> np.ndarray:
    """The trial's own logits of the first validation rows; float32, shape (rows, classes)."""
    path = checkpoint / PROBE_FILE
    try:
        return np.asarray(load_file(path)["logits"], dtype=np.float32)
    except (OSError, KeyError, SafetensorError) as error:
        raise ExportError(
            f"{path}: the trial's own predictions cannot be read ({first_line(error)}), so nothing can be "
            "verified; export another --trial"
        ) from error

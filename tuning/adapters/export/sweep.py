"""A sweep's winner as a folder that plain PEFT, transformers or ONNX Runtime load, checked before it appears."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from lorasweep.training.data.dataset import Dataset, Texts
from lorasweep.training.data.part import part_of
from lorasweep.training.errors import ExportError, first_line
from lorasweep.training.loop.state import OPTIMIZER_FILE, WEIGHTS_FOLDER
from lorasweep.training.model.base_model import resolve_base_model
from lorasweep.training.model.hub import BaseModel
from lorasweep.training.model.quantized import INT8_TOLERANCE
from lorasweep.training.settings import Precision
from lorasweep.tuning.adapters.card.card import model_card
from lorasweep.tuning.adapters.card.loading import loading_lines
from lorasweep.tuning.adapters.export.formats import FORMATS, ExportFormat, check_format
from lorasweep.tuning.adapters.export.staging import staged_folder
from lorasweep.tuning.adapters.export.verify import comparison, verify_export
from lorasweep.tuning.adapters.export.weights import export_weights, load_arguments
from lorasweep.tuning.record.bases import base_entry, base_name
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.outcomes import OUTCOMES_FILE, checkpoint_thresholds
from lorasweep.tuning.record.reported import BEST_FILE, DEVICE, PRECISION, PROBE_FILE
from lorasweep.tuning.record.sweep import SweepRecord
from lorasweep.tuning.record.thresholds import positive_label, thresholds_of
from lorasweep.tuning.record.trial_records import TrialRecord
from lorasweep.tuning.storage.filesystem import is_local
from lorasweep.tuning.storage.storage import Storage


@dataclass(frozen=True)
class ExportReport:
    """What was exported, and how its predictions compare with the trial's.

    Attributes:
        out: the folder.
        trial: id of the trial.
        is_adapter: an adapter, which needs its base model; else a whole model.
        precision: of the comparison with the trial.
        rows: validation rows that were compared.
        max_difference: largest absolute difference of a logit.
        converted: the format that was made of the trial's weights, in words, if another was.
    """

    out: Path
    trial: str
    is_adapter: bool
    precision: Precision
    rows: int
    max_difference: float
    converted: str | None = None

    def text(self) -> str:
        """What to tell the user."""
        kind, library = ("an adapter", "PEFT") if self.is_adapter else ("a whole model", "transformers")
        written = self.converted or (
            f"{kind}; loaded back with plain {library} it predicts what the trial did on {self.rows} "
            f"validation rows (logits differ by at most {self.max_difference:.2g} in {self.precision})"
        )
        return f"{self.out}: trial {self.trial} as {written}"


def export_sweep(
    sweep: SweepRecord | SweepFolder, out: Path, *, trial: str | None = None, form: ExportFormat = "adapter"
) -> ExportReport:
    """Write a sweep's winner, or another of its trials at its best evaluation, as a verified folder.

    Args:
        sweep: a sweep that has a winner, or any sweep with a trial's id.
        out: must not exist; it appears whole or not at all.
        trial: id of the trial to export instead of the winner.
        form: a format of `FORMATS`. After full fine-tuning "adapter" gives a whole model.

    Raises:
        ExportError: no winner, no checkpoint, `out` exists or cannot be written, the folder does not predict what
            the trial did, or packages that the format needs are missing.
        SettingsError: no such trial.
        ModelError: the base model is gone.
        DataError: the sweep's prepared rows are gone.
    """
    check_format(form)
    sweep = SweepRecord(sweep) if isinstance(sweep, SweepFolder) else sweep
    record = _choose(sweep, trial)
    data = Dataset.load(sweep.folder.data)
    convert = FORMATS[form].convert
    with (
        staged_folder(out) as stage,
        tempfile.TemporaryDirectory(prefix="lorasweep-") as temporary,
        _checkpoint(sweep, record) as checkpoint,
    ):
        # Another format is made from a folder that has been verified itself.
        folder = stage if convert is None else Path(temporary)
        report = _write(sweep, record, data, checkpoint, folder, out)
        if convert is not None:
            judged_by = _judged_by(sweep, record, data)
            converted = convert(folder, stage, out.name, _first_rows(data, report.rows, judged_by))
            report = replace(report, converted=converted, is_adapter=False)
    return report


def _write(
    sweep: SweepRecord, record: TrialRecord, data: Dataset, checkpoint: Path, folder: Path, out: Path
) -> ExportReport:
    """Write the trial's weights into a folder, and compare its predictions with the trial's own."""
    config = sweep.config
    method = record.hyperparameters.method
    base = _base_model(sweep, record)
    # Full fine-tuning has a whole model of its own.
    quantize = None if method == "full" else config.training.quantize
    arguments = load_arguments(base, data.label_names, quantize)
    is_adapter = method != "full"
    loading = loading_lines(out.name, is_adapter, arguments)
    thresholds = (
        _set_thresholds(data, checkpoint, config.choice.threshold)
        if data.multi_label
        else thresholds_of(sweep, record, data.label_names)
    )
    export_weights(
        checkpoint / WEIGHTS_FOLDER,
        base,
        data.label_names,
        folder,
        method=method,
        card=model_card(sweep, record, data, base, loading, thresholds),
        max_length=config.training.max_length,
        text_columns=data.text_columns,
        long=config.training.long,
        positive=None if data.multi_label else positive_label(config, data.label_names),
        thresholds=thresholds,
        label_separator=data.label_separator if data.multi_label else None,
        quantize=quantize,
    )
    expected = _probe(checkpoint)
    amp, tolerance = comparison(*_ran_in(checkpoint, sweep, record), expected)
    if quantize == "int8":
        tolerance = max(tolerance, INT8_TOLERANCE * float(np.abs(expected).max()))
    rows = _first_rows(data, len(expected), _judged_by(sweep, record, data))
    difference = verify_export(folder, rows, expected, amp, tolerance, arguments, base)
    return ExportReport(out, record.id, is_adapter, amp.name, len(expected), difference)


def _set_thresholds(data: Dataset, checkpoint: Path, rule: str | None) -> dict[str, float]:
    """The thresholds of the exported evaluation, chosen on the validation rows that it was judged by."""
    found = checkpoint_thresholds((checkpoint / PROBE_FILE).read_bytes(), rule)
    return dict(zip(data.label_names, found.tolist(), strict=True))


def _judged_by(sweep: SweepRecord, record: TrialRecord, data: Dataset) -> np.ndarray:
    """Numbers of the validation rows that a trial was judged by; int64, shape (rows,)."""
    proxy = sweep.config.search.proxy
    if proxy is None or not sweep.on_part(record):
        return np.arange(len(data.validation))
    return part_of(data.train.labels, data.validation.labels, proxy, sweep.config.training.seed).validation


def _first_rows(data: Dataset, count: int, judged_by: np.ndarray) -> Texts:
    """The first validation rows of a trial: those whose logits it keeps with its checkpoint."""
    texts, rows = data.validation, judged_by[:count].tolist()
    return Texts(
        [texts.text[row] for row in rows],
        [texts.pair[row] for row in rows] if texts.pair is not None else None,
        texts.labels[rows],
    )


def _choose(sweep: SweepRecord, trial: str | None) -> TrialRecord:
    """The winner's record, or the named trial's."""
    trial = trial if trial is not None or sweep.winner is None else sweep.winner.id
    if trial is None:
        raise ExportError(
            f"sweep {sweep.name}: has no winner (it is {sweep.state}); go on with: "
            f"{sweep.folder.command('resume')}, or name a trial that has a score with --trial"
        )
    record = sweep.trial(trial)
    if record.checkpoint is None:
        best = [entry.id for entry in sweep.ranked() if entry.checkpoint]
        others = f"; trials that have one, the best first: {', '.join(best[:12])}" if best else ""
        raise ExportError(
            f"sweep {sweep.name}: trial {record.id} ({record.state}) has no checkpoint to export{others}"
        )
    return record


@contextmanager
def _checkpoint(sweep: SweepRecord, record: TrialRecord) -> Iterator[Path]:
    """The trial's checkpoint as a local folder, fetched from the sweep's shared storage if it lies there."""
    winner_folder = sweep.folder.winner
    won = sweep.winner is not None and sweep.winner.id == record.id
    # The winner's is kept apart from Ray's folders too, which a user may have cleared.
    if won and (winner_folder / WEIGHTS_FOLDER).is_dir() and (winner_folder / PROBE_FILE).is_file():
        yield winner_folder
        return
    path = Path(record.checkpoint or "")
    storage = Storage.of(sweep.folder)
    storage.check_owner()
    if path.is_dir():
        yield path
        return
    if is_local(storage.filesystem):
        raise ExportError(
            f"sweep {sweep.name}: the checkpoint of trial {record.id} is gone ({path}); name another --trial"
        )
    with tempfile.TemporaryDirectory(prefix="lorasweep-") as temporary:
        try:
            storage.fetch(record.checkpoint or "", Path(temporary), without=(OPTIMIZER_FILE, OUTCOMES_FILE))
        except OSError as error:
            raise ExportError(
                f"sweep {sweep.name}: the checkpoint of trial {record.id} cannot be fetched from {storage.named} "
                f"({first_line(error)}); name another --trial"
            ) from error
        yield Path(temporary)


def _base_model(sweep: SweepRecord, record: TrialRecord) -> BaseModel:
    """A trial's base model at the commit that the trials used; the hub's may have moved on since."""
    base = resolve_base_model(base_name(sweep, record.hyperparameters))
    if base.hub_id is None or base.hub_id != base.location:
        return base
    return replace(base, revision=base_entry(sweep, record.hyperparameters).get("revision") or base.revision)


def _ran_in(checkpoint: Path, sweep: SweepRecord, record: TrialRecord) -> tuple[Precision, str]:
    """Precision and type of the device in which the trial computed its logits.

    The checkpoint's word counts, then the trial's record; the plan's, which may be another machine's, for older ones.
    """
    try:
        stored = json.loads((checkpoint / BEST_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        stored = {}
    planned = {PRECISION: sweep.config.training.precision, DEVICE: "cpu"} | sweep.plan
    if (ran := record.best_ran_on) is not None:
        planned |= {PRECISION: ran.precision, DEVICE: ran.device}
    return stored.get(PRECISION, planned[PRECISION]), stored.get(DEVICE, planned[DEVICE])


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

"""Trains the rows of a comparison, one after the other, on the same data."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from lorasweep.training.data.dataset import Dataset, Texts
from lorasweep.training.data.encoded import EncodedDataset
from lorasweep.training.data.encoding import encode_dataset
from lorasweep.training.data.load import load_dataset
from lorasweep.training.devices import choose_device
from lorasweep.training.errors import LorasweepError, SettingsError
from lorasweep.training.loop.state import Evaluation
from lorasweep.training.metrics import misfit
from lorasweep.training.model.base_model import load_tokenizer, resolve_base_model
from lorasweep.training.model.hub import BaseModel
from lorasweep.training.model.precision import resolve_precision
from lorasweep.training.scores.noise import bootstrap_intervals
from lorasweep.training.scores.scorer import Scorer
from lorasweep.training.settings import TrainingSettings
from lorasweep.tuning.compare.process import RowTask, measure_apart
from lorasweep.tuning.compare.record import ComparedRow, CompareSettings, ComparisonFolder, RowPlan
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.machine import machine, usable_cores
from lorasweep.tuning.record.trial_records import now
from lorasweep.tuning.sweep.plan.judging import check_metric_fits
from lorasweep.tuning.sweep.plan.planning import SETS_METRIC
from lorasweep.tuning.sweep.winner.after_trials import score_after_merging, score_test, unmerged_data


@dataclass(frozen=True)
class Prepared:
    """What all rows share."""

    dataset: Dataset
    encoded: EncodedDataset
    base: BaseModel


def prepare(settings: CompareSettings, folder: ComparisonFolder, sweep: SweepFolder) -> Prepared:
    """Read, split and encode the data once; an interrupted comparison continues with the data that it wrote.

    Raises:
        DataError: the files no longer hold what the sweep read from them.
        SettingsError: the sweep trained on texts of the comparison's test split, or evaluated on them.
    """
    if folder.data.is_dir():
        dataset = Dataset.load(folder.data)
    else:
        dataset = (
            load_dataset(settings.data, settings.training.seed) if settings.data else Dataset.load(sweep.data)
        )
        beside = folder.path / f".data.{os.getpid()}"
        dataset.save(beside)
        beside.rename(folder.data)
    check_metric_fits(settings.training, dataset)
    _check_held_out(dataset, sweep)
    base = resolve_base_model(settings.base_model)
    training = settings.training
    encoded = encode_dataset(dataset, load_tokenizer(base), training.max_length, training.long)
    return Prepared(dataset, encoded, base)


def _check_held_out(dataset: Dataset, sweep: SweepFolder) -> None:
    """A winner must not be tested on texts that its sweep has seen."""

    def rows(texts: Texts) -> set[tuple[str, str]]:
        return set(zip(texts.text, texts.pair or [""] * len(texts.text), strict=True))

    held_out, of_sweep = rows(dataset.test), Dataset.load(sweep.data).splits()
    for name in ("train", "validation"):
        if shared := len(rows(of_sweep[name]) & held_out):
            raise SettingsError(
                f"sweep {sweep.name}: its {name} split has {shared} of the comparison's test rows; give the "
                "data and the seed of the sweep"
            )


def run_rows(
    plans: list[RowPlan],
    settings: CompareSettings,
    folder: ComparisonFolder,
    prepared: Prepared,
    report: Callable[[str], None],
) -> list[ComparedRow]:
    """Train and measure each row that is not on record, and write its record when it is done.

    A row that fails is recorded with the reason, the others go on, and the next call tries it again. Where the
    device has no AMP type, a row with AMP equals the row without and takes its figures. All rows train on the same
    device: the GPU with the most free memory, or the CPU.

    Args:
        report: called with a line about the row that is trained, at its start and at each evaluation.
    """
    recorded, device = folder.rows(), choose_device()
    rows: list[ComparedRow] = []
    for number, plan in enumerate(plans, 1):
        row = recorded.get(plan.id)
        # An older version may have described the same training in other words.
        if row and not row.error and row.plan.model_copy(update={"about": plan.about}) == plan:
            rows.append(row.model_copy(update={"plan": plan}))
            continue
        wanted = _outcome(plan, resolve_precision(plan.precision, device, prepared.base.model_type).name)
        if equal := next((r for r in rows if not r.error and _outcome(r.plan, r.precision) == wanted), None):
            row = equal.model_copy(update={"plan": plan, "same_as": equal.plan.id, "started": equal.ended})
        else:
            label = f"row {number} of {len(plans)}, {plan.name} ({plan.precision})"
            row = _run_row(plan, settings, prepared, device, report, label)
        folder.write_row(row)
        rows.append(row)
    return rows


def _scorer(label_names: tuple[str, ...], settings: TrainingSettings) -> Scorer:
    return Scorer.of(label_names, settings.positive, settings.metric)


def _outcome(plan: RowPlan, precision: str) -> tuple[object, ...]:
    """What decides the outcome of a row's training."""
    return plan.hyperparameters, plan.unmerged, precision


def _run_row(
    plan: RowPlan,
    settings: CompareSettings,
    prepared: Prepared,
    device: torch.device,
    report: Callable[[str], None],
    label: str,
) -> ComparedRow:
    def listen(evaluation: Evaluation) -> None:
        rungs, accuracy = settings.training.rungs, evaluation.scores.accuracy
        report(f"{label}: evaluation {evaluation.rung} of {rungs}: {accuracy:.1%}")

    report(f"{label}: loading")
    dataset, data = prepared.dataset, prepared.encoded
    if plan.unmerged:
        data = unmerged_data(dataset, data)
    training_settings = settings.training.model_copy(update={"precision": plan.precision})
    if (
        misfit(training_settings.metric, data.label_names, data.multi_label) is not None
    ):  # of labels before they were merged
        training_settings = training_settings.model_copy(update={"metric": "loss"})
    if data.multi_label and "metric" not in settings.training.model_fields_set:
        training_settings = training_settings.model_copy(update={"metric": SETS_METRIC})
    scorer = _scorer(data.label_names, training_settings)
    if data.multi_label:
        scorer = replace(scorer, several=True, rule=settings.threshold)
    merged_scorer = _scorer(dataset.label_names, settings.training)
    threads = usable_cores()
    here, started = machine(cuda=device.type == "cuda"), now()
    try:
        logits, costs = measure_apart(
            RowTask(prepared.base, data, plan.hyperparameters, training_settings, scorer, threads, device),
            listen,
        )
    except LorasweepError as error:
        return ComparedRow(plan=plan, started=started, ended=now(), machine=here, error=str(error))
    scorer = scorer.fixed(costs.thresholds)
    return ComparedRow(
        plan=plan,
        test=score_test(logits, data.test.labels, scorer),
        merged=score_after_merging(dataset, logits, merged_scorer) if plan.unmerged else None,
        interval=bootstrap_intervals(scorer.outcomes(logits, data.test.labels), scorer.metrics),
        train_rows=len(dataset.train),
        machine=here,
        started=started,
        ended=now(),
        **dict(costs),
    )

"""The model card of an exported folder, written from the sweep's own record. Its words are in model_card.md."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined, Undefined
from markupsafe import Markup

from lorasweep.training.data.dataset import Dataset
from lorasweep.training.data.sources import SAMPLE_SOURCE
from lorasweep.training.metrics import ALWAYS, Metric, metric_words
from lorasweep.training.model.hub import BaseModel
from lorasweep.training.scores.scores import ClassScores
from lorasweep.tuning.adapters.card.found import budget_text, ranges, setting_rows
from lorasweep.tuning.adapters.card.loading import predicting_lines
from lorasweep.tuning.adapters.card.metadata import base_licence, card_metadata
from lorasweep.tuning.record.finalists import searched_trials
from lorasweep.tuning.record.gains import gain_texts
from lorasweep.tuning.record.machine import package_versions
from lorasweep.tuning.record.predictions import winner_class_scores
from lorasweep.tuning.record.results import SweepResult, TestScores, Winner
from lorasweep.tuning.record.sweep import SweepRecord
from lorasweep.tuning.record.thresholds import thresholds_of
from lorasweep.tuning.record.trial_records import EvaluationRecord, TrialRecord
from lorasweep.tuning.record.words import (
    counts_text,
    duration,
    escape,
    judged_text,
    part_text,
    shown_metrics,
    threshold_text,
)
from lorasweep.tuning.search.stopping import stopping_rule

TEMPLATE = Path(__file__).with_name("model_card.md")
# Below this F1 a class's mistakes, missed or wrongly given, are more than twice its hits.
LOW_F1 = 0.5
# One row more or less moves such a class's scores by five points or more.
FEW_ROWS = 20
# Names in one sentence; a table of all classes stands beside it.
MOST_NAMED = 15


def model_card(
    sweep: SweepRecord,
    trial: TrialRecord,
    data: Dataset,
    base: BaseModel,
    loading: str,
    thresholds: Mapping[str, float] | None = None,
) -> str:
    """The text of README.md: metadata for the hub, how to load it, where it comes from, its scores and limits.

    Args:
        trial: the exported one: an adapter, or after full fine-tuning a whole model.
        data: the sweep's prepared rows.
        loading: Python lines that load the folder.
        thresholds: label → probability from which on it is predicted; the winner's or none if None.
    """
    result, machine = sweep.result, _trained_on(sweep, trial)
    won = sweep.winner is not None and sweep.winner.id == trial.id
    tested = _tested(result, trial)
    test = tested.test if tested else None
    classes = winner_class_scores(sweep.folder, data, tested) if won and tested else []
    shown = _shown(sweep, trial, tested)
    thresholds = thresholds_of(sweep, trial, data.label_names) if thresholds is None else thresholds
    several = data.multi_label
    cut = next(((data.label_names.index(label), value) for label, value in thresholds.items()), None)
    sample = sweep.config.data.path is None and data.source == SAMPLE_SOURCE
    packages = _mapping(machine, "packages")
    adapter = trial.hyperparameters.method != "full"
    return _render(
        sweep=sweep,
        config=sweep.config,
        trial=trial,
        data=data,
        base=base,
        # The hub's name, or the folder's own: the rest of a path says nothing to others.
        base_name=base.hub_id or Path(base.location).name,
        base_licence=base_licence(base),
        metadata=Markup(card_metadata(sweep.name, base, trial, data, test, sample=sample)),
        loading=Markup(loading),
        predicting=Markup(
            predicting_lines(
                data.text_columns,
                sweep.config.training.long,
                cut,
                several,
                "config" if adapter else "model.config",
            )
        ),
        task=_task(data),
        adapter=adapter,
        quantize=sweep.config.training.quantize,
        sample=sample,
        won=won,
        tested=tested,
        metrics=[metric_words(name) for name in shown],
        scores=list(_score_rows(trial, tested, result, shown)),
        thresholds=thresholds,
        threshold=threshold_text(tested.thresholds, sweep.metric)
        if tested and tested.thresholds and not several
        else "",
        added=gain_texts(result) if won and result else [],
        classes=classes,
        class_rows=_class_rows(data, classes, thresholds if several else {}),
        left_out=[(name, f"{rows:,}") for name, rows in data.left_out_classes.items()],
        weak=_lowest(
            [(one.f1, one.label, f"{one.f1:.2f}") for one in classes if one.rows and one.f1 < LOW_F1]
        ),
        few=_lowest([(one.rows, one.label, str(one.rows)) for one in classes if one.rows < FEW_ROWS]),
        simpler=_no_worse(result, test),
        low_f1=LOW_F1,
        few_rows=FEW_ROWS,
        most_named=MOST_NAMED,
        # A space may be a file of this machine: its name says enough.
        space=Path(sweep.config.search.space).name,
        ranges=ranges(sweep),
        budget=budget_text(sweep),
        rule=sweep.winner.rule if won and sweep.winner else "",
        judged_by=metric_words(sweep.metric),
        settings=setting_rows(trial),
        part=part_text(sweep.plan),
        searched=len(searched_trials(sweep.trials)),
        counts=counts_text(sweep.trials, stopping_rule(sweep.config.search).label),
        stopping=stopping_rule(sweep.config.search).label,
        judged=f"; trials {judged}" if (judged := judged_text(sweep.metric, sweep.objective)) else "",
        all_seconds=sum(entry.seconds for entry in sweep.trials),
        resources=_mapping(sweep.plan, "resources"),
        device=_device(sweep, trial),
        machine=machine,
        gpus=Counter(map(str, gpus)) if isinstance(gpus := machine.get("gpus"), list) else {},
        versions=("of the training", packages) if packages else ("at the export", package_versions()),
        duration=duration,
    )


def _render(**values: Any) -> str:
    """Fill the template in. What is no `Markup` is escaped, so that no name can be more than a name."""

    def plain(value: object) -> object:
        return value if isinstance(value, Markup | Undefined) else Markup(escape(str(value)))

    environment = Environment(
        autoescape=True,
        finalize=plain,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(values)


def _tested(result: SweepResult | None, trial: TrialRecord) -> Winner | None:
    """The trial's look at the test split: the winner's, or that of fewer trials' winner."""
    looks = [*([result.winner] if result.winner else []), *result.also_tested] if result else []
    return next((entry for entry in looks if entry.id == trial.id), None)


def _score_rows(
    trial: TrialRecord, tested: Winner | None, result: SweepResult | None, shown: Sequence[Metric]
) -> Iterator[list[str]]:
    """Rows of the table: validation at the exported evaluation, and the test split where it was looked at."""
    if trial.best_evaluation:
        yield ["this", "validation", *_figures(trial.best_evaluation, shown)]
    if tested:
        yield ["this", "test", *_figures(tested.test, shown)]
        if tested.interval:
            ends = {name: f"{low:.4f} to {high:.4f}" for name, (low, high) in tested.interval.items()}
            yield ["this, 95 % bootstrap interval", "test", *(ends.get(name, "") for name in shown)]
    if result and result.start:
        yield [f"known-good start {result.start.id}", "test", *_figures(result.start.test, shown)]
    if result and result.untuned:
        yield ["untuned settings", "test", *_figures(result.untuned.test, shown)]
    for name, test in result.baselines.items() if result else ():
        yield [name, "test", *_figures(test, shown)]


def _figures(scores: EvaluationRecord | TestScores, shown: Sequence[Metric]) -> list[str]:
    """A cell for each metric, empty where it is not on record."""
    values = [scores.by(name) for name in shown]
    return ["" if value is None or math.isnan(value) else f"{value:.4f}" for value in values]


def _shown(sweep: SweepRecord, trial: TrialRecord, tested: Winner | None) -> list[Metric]:
    """The columns of the table of scores."""
    best = trial.best_evaluation
    more = tested.test.more if tested else best.more if best else {}
    return [*ALWAYS, *shown_metrics(more, sweep.metric)]


def _task(data: Dataset) -> str:
    number = len(data.label_names)
    return (
        f"it gives texts any of {number} labels, or none"
        if data.multi_label
        else f"it sorts texts into {number} classes"
    )


def _class_rows(
    data: Dataset, classes: Sequence[ClassScores], thresholds: Mapping[str, float]
) -> list[list[str]]:
    """Rows of each class in each split; precision, recall and F1 on the test split, and thresholds, where known."""
    counts = [
        texts.labels.sum(axis=0, dtype=np.int64)
        if data.multi_label
        else np.bincount(texts.labels, minlength=len(data.label_names))
        for texts in data.splits().values()
    ]
    rows = [
        [name, *(f"{split[number]:,}" for split in counts)] for number, name in enumerate(data.label_names)
    ]
    for row, scores in zip(rows, classes, strict=False):
        row += [f"{value:.2f}" for value in (scores.precision, scores.recall, scores.f1)]
    if thresholds:
        for row, name in zip(rows, data.label_names, strict=True):
            row.append(f"{thresholds.get(name, 0.5):.3f}")
    return rows


def _lowest(classes: list[tuple[float, str, str]]) -> list[tuple[str, str]]:
    """Names and values, the lowest first, of triples (value, name, value in words)."""
    return [(name, shown) for _, name, shown in sorted(classes, key=lambda entry: entry[0])]


def _no_worse(result: SweepResult | None, test: TestScores | None) -> list[tuple[str, list[str]]]:
    """Baselines that did as well on the same rows, each with the scores by which it did."""
    equals: list[tuple[str, list[str]]] = []
    if result is None or test is None:
        return equals
    for name, other in result.baselines.items():
        pairs = (("accuracy", other.accuracy, test.accuracy), ("macro-F1", other.macro_f1, test.macro_f1))
        better = [f"{score} {there:.4f} against {here:.4f}" for score, there, here in pairs if there >= here]
        equals += [(name, better)] if better else []
    return equals


def _trained_on(sweep: SweepRecord, trial: TrialRecord) -> Mapping[str, Any]:
    """The machine on which the exported evaluation was trained: of a cluster the trial's own, not the driver's."""
    machine, ran = _mapping(sweep.plan, "machine"), trial.best_ran_on
    if ran is None:
        return machine
    own = {name: value for name, value in ran.machine.items() if value}
    return own if sweep.config.resources.address is not None else {**machine, **own, **_gpus(machine)}


def _gpus(machine: Mapping[str, Any]) -> dict[str, Any]:
    """All GPUs of the one machine, on which the trial used one."""
    return {"gpus": machine["gpus"]} if machine.get("gpus") else {}


def _device(sweep: SweepRecord, trial: TrialRecord) -> str | None:
    """Device and precision of the trial; the plan's where the trial has not recorded them."""
    if trial.best_ran_on is not None:
        return trial.best_ran_on.device_text
    device = sweep.plan.get("device")
    precision = sweep.plan.get("precision", "precision not recorded")
    return f"{device}, {precision}" if isinstance(device, str) else None


def _mapping(entries: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A part of the plan, or nothing: an older version's plan lacks it."""
    part = entries.get(name)
    return part if isinstance(part, Mapping) else {}

"""What a sweep does after its trials, and about how long each step takes: for displays that tell the time left."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lorasweep.training.data.dataset import Dataset
from lorasweep.training.data.encoded import EncodedDataset
from lorasweep.tuning.record.results import SweepResult
from lorasweep.tuning.sweep.plan.plan import SweepPlan
from lorasweep.tuning.sweep.winner.references import beside_trials

# How the text of each step's phase begins, see `SweepListener.phase`.
FINALISTS = "training the finalists on all rows"
CONFIRMING = "confirming the best"
SCORING = "scoring"
# A second part of that step, where another trial has won.
START = f"{SCORING} the known-good start"
LINEAR_MODEL = "training a linear model for comparison"
UNTUNED = "training the untuned settings for comparison"
LATENCY = "timing one text with each base model"
UNMERGED = "training the winner's settings on the unmerged labels"
EXPORTING = "exporting the best adapters"
PUBLISHING = "publishing to MLflow"
REGISTERING = "registering the winner"

# Training a row is about three times the work of predicting it.
TRAINED = 3


@dataclass(frozen=True)
class Step:
    """One step after the search's trials.

    Attributes:
        text: how the text of its phase begins.
        rungs: its work, in rungs of one search trial, which are shorter than others in a search on a part.
        seconds: what it takes besides, as measured on two cores with a small base model.
        beside: it begins beside the last trials, on cores that are free by then; see `References`.
        trials: it trains finalists, whose records tell how far it is.
    """

    text: str
    rungs: float = 0.0
    seconds: float = 0.0
    beside: bool = False
    trials: bool = False


def steps_after_trials(plan: SweepPlan, earlier: SweepResult | None = None) -> list[Step]:
    """The steps in their order.

    Args:
        earlier: the result before the sweep was extended, whose references are not trained again.
    """
    config, dataset, rungs = plan.config, plan.dataset, plan.budget.rungs
    train = len(dataset.train)
    epochs = config.training.epochs / rungs
    rung = _rung_work(plan.part or dataset, epochs)
    # Of a trial on all rows, in rungs of a search trial.
    full = rungs * rung_on_all_rows(plan)
    # Alone on a machine without GPUs, a step has the cores of all trials, which small batches only use in part.
    faster = 1.0
    if config.resources.address is None and not plan.resources.gpus_per_trial:
        faster = math.sqrt(plan.resources.concurrency)
    training = full / faster
    beside = beside_trials(plan.resources)
    steps = []
    if plan.finalists:
        steps.append(
            Step(FINALISTS, math.ceil(plan.finalists / plan.resources.concurrency) * full, 8, trials=True)
        )
    count, seeds = config.choice.confirmed
    if count:
        steps.append(Step(CONFIRMING, math.ceil(count * seeds / plan.resources.concurrency) * full))
    steps.append(Step(SCORING, len(dataset.test) / rung / faster, 2))
    if config.choice.baselines and not (earlier and earlier.baselines):
        steps.append(Step(LINEAR_MODEL, seconds=2 + train / 1000, beside=beside))
    if config.compare_untuned and not (earlier and earlier.untuned):
        # Where trials choose the base model, it waits for the winner's.
        steps.append(Step(UNTUNED, full, beside=beside and len(plan.bases) < 2))
    if len(plan.bases) > 1:
        steps.append(Step(LATENCY, seconds=2 * len(plan.bases)))
    if dataset.original_names:
        steps.append(Step(UNMERGED, training))
    steps += [Step(EXPORTING, seconds=1.5 * config.keep), Step(PUBLISHING, seconds=4)]
    if config.registry.enabled:
        steps.append(Step(REGISTERING, seconds=2))
    return steps


def rung_on_all_rows(plan: SweepPlan) -> float:
    """The work of a finalist's rung, in rungs of a search trial; 1 where the search has all rows."""
    epochs = plan.config.training.epochs / plan.budget.rungs
    whole, rung = (_rung_work(data, epochs) for data in (plan.dataset, plan.part or plan.dataset))
    return whole / rung


def _rung_work(data: Dataset | EncodedDataset, epochs: float) -> float:
    """The work of training so many epochs and evaluating, in rows that are predicted."""
    return TRAINED * len(data.train) * epochs + len(data.validation)

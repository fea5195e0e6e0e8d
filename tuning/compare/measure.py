"""One row of a comparison: settings trained with a budget, and everything that they cost and bring."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from torch import nn

from lorasweep.training.data.encoding import EncodedDataset, EncodedTexts
from lorasweep.training.loop.fine_tune import fine_tune
from lorasweep.training.loop.state import Evaluation, TrainingState
from lorasweep.training.model.base_model import LoadedBase, load_base
from lorasweep.training.model.classifier import (
    build_classifier,
    load_weights,
    save_weights,
    trainable_parameters,
)
from lorasweep.training.model.hub import BaseModel
from lorasweep.training.model.precision import AmpPolicy, cast_frozen_linears
from lorasweep.training.scores.scores import predict_logits
from lorasweep.training.settings import Hyperparameters, TrainingSettings, higher_is_better
from lorasweep.tuning.compare.profile import (
    Latency,
    OperatorUse,
    PeakMemory,
    measure_latency,
    profile_step,
    stored_bytes,
)

BATCHES = (1, 32)


@dataclass(frozen=True)
class LatencyOf:
    """A latency, and of what.

    Attributes:
        form: `adapter` beside the base model, `merged` into it, or `whole` where there is none.
        precision: `fp32`, or the AMP type.
    """

    form: str
    precision: str
    latency: Latency


@dataclass(frozen=True)
class Measured:
    """What one row's training gave.

    Attributes:
        logits: of the test rows, by the weights of the best evaluation; float32, shape (rows, classes).
        validation_score: of that evaluation, by the settings' metric.
        samples_per_second: training rows a second, median over the stretches between evaluations, the first
            one (warm-up) left out where there are others.
        epoch_seconds: training rows divided by that; evaluations are left out.
        seconds: of the whole training, evaluations included.
        peak_bytes: memory that training added, the model's own included.
        stored_bytes: of the weights that have to be kept.
    """

    logits: np.ndarray
    validation_score: float
    epoch_seconds: float
    samples_per_second: float
    seconds: float
    trainable_parameters: int
    stored_bytes: int
    peak_bytes: int
    latencies: tuple[LatencyOf, ...]
    operators: tuple[OperatorUse, ...]


def measure(
    base: BaseModel,
    data: EncodedDataset,
    hyperparameters: Hyperparameters,
    settings: TrainingSettings,
    amp: AmpPolicy,
    fast: AmpPolicy,
    tell: Callable[[Evaluation], None] = lambda evaluation: None,
) -> Measured:
    """Train settings to the end of their budget and measure the result; nothing else should run meanwhile.

    Args:
        settings: the budget; its precision does not count.
        amp: precision of the training and of the test.
        fast: the precision in which latency is measured beside fp32.
        tell: called at each evaluation.

    Raises:
        TrainingError: a loss that is not finite, or memory that does not suffice.
        ModelError: the base model cannot be loaded, or the target modules match nothing in it.
    """
    memory = PeakMemory(amp.device)
    loaded = load_base(base, data.label_names, settings.seed, amp.device)
    state = TrainingState.start(
        build_classifier(loaded, hyperparameters, settings.seed, amp), hyperparameters, amp
    )
    higher = higher_is_better(settings.metric)
    rates: list[float] = []
    best: float | None = None
    with tempfile.TemporaryDirectory(prefix="lorasweep-") as temporary:
        weights = Path(temporary)
        for evaluation in fine_tune(state, data, hyperparameters, settings):
            tell(evaluation)
            rates.append(evaluation.samples_per_second)
            score = evaluation.scores.by(settings.metric)
            if best is None or (score >= best if higher else score <= best):
                best = score
                save_weights(state.model, weights)
        peak, seconds = memory.read(), state.seconds
        load_weights(state.model, weights)
        logits = predict_logits(state.model, data.test, amp)
        stored, trained = stored_bytes(state.model), trainable_parameters(state.model)
        # The same rows a step for every row of a comparison, whatever batches it was trained in.
        operators = profile_step(state.model, data.train, amp, BATCHES[-1])
        del state
        latencies = _latencies(loaded, hyperparameters, settings.seed, weights, data.test, fast)
    speed = median(rates[1:] or rates)
    return Measured(
        logits=logits,
        validation_score=best if best is not None else float("nan"),
        epoch_seconds=len(data.train) / speed,
        samples_per_second=speed,
        seconds=seconds,
        trainable_parameters=trained,
        stored_bytes=stored,
        peak_bytes=peak,
        latencies=tuple(latencies),
        operators=tuple(operators),
    )


def _latencies(
    loaded: LoadedBase,
    hyperparameters: Hyperparameters,
    seed: int,
    weights: Path,
    texts: EncodedTexts,
    fast: AmpPolicy,
) -> list[LatencyOf]:
    """Each form in which the result can be used, in fp32 and in the AMP type, a text alone and a batch."""
    plain = AmpPolicy("fp32", fast.device)
    found = []
    for amp in dict.fromkeys((plain, fast)):
        for form, model in _forms(loaded, hyperparameters, seed, weights, amp):
            for batch in BATCHES:
                found.append(LatencyOf(form, amp.name, measure_latency(model, texts, amp, batch)))
    return found


def _forms(
    loaded: LoadedBase, hyperparameters: Hyperparameters, seed: int, weights: Path, amp: AmpPolicy
) -> list[tuple[str, nn.Module]]:
    def trained(precision: AmpPolicy) -> nn.Module:
        model = build_classifier(loaded, hyperparameters, seed, precision)
        load_weights(model, weights)
        return model.requires_grad_(False)

    if hyperparameters.method == "full":
        return [("whole", _in_type(trained(amp), amp))]
    # Merged in fp32, whatever it then runs in.
    merged = copy.deepcopy(trained(AmpPolicy("fp32", amp.device))).merge_and_unload()  # type: ignore[operator]
    return [("adapter", trained(amp)), ("merged", _in_type(merged, amp))]


def _in_type(model: nn.Module, amp: AmpPolicy) -> nn.Module:
    cast_frozen_linears(model, amp.dtype)
    return model

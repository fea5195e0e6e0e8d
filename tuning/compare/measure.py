"""One row of a comparison: hyperparameters trained to the end of the budget, and the result measured."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from lorasweep.training import devices
from lorasweep.training.data.encoded import EncodedDataset, EncodedTexts
from lorasweep.training.loop.best import Best
from lorasweep.training.loop.fine_tune import fine_tune
from lorasweep.training.loop.state import Evaluation, TrainingState
from lorasweep.training.model.base_model import CPU, LoadedBase, load_base
from lorasweep.training.model.classifier import (
    build_classifier,
    load_weights,
    merge_adapter,
    save_weights,
    trainable_parameters,
)
from lorasweep.training.model.hub import BaseModel
from lorasweep.training.model.precision import AmpPolicy, cast_frozen_linears
from lorasweep.training.scores.scorer import Scorer
from lorasweep.training.scores.scores import predict_logits
from lorasweep.training.settings import Hyperparameters, Quantize, TrainingSettings
from lorasweep.tuning.compare.profile import (
    OtherPrograms,
    PeakMemory,
    measure_latency,
    profile_step,
    stored_bytes,
)
from lorasweep.tuning.compare.record import Costs, Latency

BATCHES = (1, 32)
Figure = TypeVar("Figure")


def measure(
    base: BaseModel,
    data: EncodedDataset,
    hyperparameters: Hyperparameters,
    training_settings: TrainingSettings,
    scorer: Scorer,
    amp: AmpPolicy,
    fast: AmpPolicy,
    listen: Callable[[Evaluation], None] = lambda evaluation: None,
) -> tuple[np.ndarray, Costs]:
    """Train to the end of the budget and measure the result; nothing else should run meanwhile.

    Args:
        training_settings: the budget; their precision is ignored.
        scorer: scores the validation rows, and chooses thresholds of several labels a text by its rule.
        amp: precision of training and test.
        fast: precision in which latency is measured beside fp32.
        listen: called at each evaluation.

    Returns:
        Logits of the test rows, by the weights of the best evaluation (float32, shape (rows, classes)), and what
        training and model cost.

    Raises:
        TrainingError: the loss is not finite, or memory does not suffice.
        ModelError: the base model cannot be loaded, or no module matches the target modules.
    """
    seed, memory = training_settings.seed, PeakMemory(amp.device)
    quantize = storage_of(hyperparameters, training_settings)
    loaded = load_base(base, data.label_names, seed, amp.device if quantize else CPU, quantize, amp.dtype)
    checkpointing = training_settings.gradient_checkpointing
    model = build_classifier(loaded, hyperparameters, seed, amp, checkpointing=checkpointing)
    state = TrainingState.start(model, hyperparameters, amp)
    rates: list[float] = []
    thresholds: tuple[float, ...] = ()
    best = Best(training_settings.metric)
    with tempfile.TemporaryDirectory(prefix="lorasweep-") as temporary:
        weights = Path(temporary)
        for evaluation in fine_tune(state, data, hyperparameters, training_settings, scorer=scorer):
            listen(evaluation)
            rates.append(evaluation.samples_per_second)
            if best.update(evaluation.scores.by(training_settings.metric), evaluation.rung):
                save_weights(state.model, weights)
                thresholds = scorer.choose(evaluation.logits, data.validation.labels)
        peak, seconds = memory.read(), state.seconds
        load_weights(state.model, weights)
        logits = predict_logits(state.model, data.test, amp)
        size, trained = stored_bytes(weights), trainable_parameters(state.model)
        # The same batch size for every row of a comparison, whatever it was trained with.
        operators = _if_it_fits(amp.device, profile_step, state.model, data.train, amp, BATCHES[-1])
        del state, model
        others = OtherPrograms()
        latencies = _latencies(loaded, hyperparameters, seed, weights, data.test, fast)
        others_share = others.share()
    speed = median(rates[1:] or rates)
    return logits, Costs(
        precision=amp.name,
        validation_score=best.score,
        epoch_seconds=len(data.train) / speed,
        samples_per_second=speed,
        seconds=seconds,
        trainable_parameters=trained,
        stored_bytes=size,
        peak_bytes=peak,
        latencies=tuple(latencies),
        others_share=others_share,
        operators=tuple(operators or ()),
        thresholds=thresholds,
    )


def storage_of(hyperparameters: Hyperparameters, training_settings: TrainingSettings) -> Quantize | None:
    """How a row's base model is stored: full fine-tuning trains its weights, so they are as they came."""
    return None if hyperparameters.method == "full" else training_settings.quantize


def _latencies(
    loaded: LoadedBase,
    hyperparameters: Hyperparameters,
    seed: int,
    weights: Path,
    texts: EncodedTexts,
    fast: AmpPolicy,
) -> list[Latency]:
    """Of each form of the result, in fp32 and in the AMP type, for one text and for a batch."""
    device = fast.device
    found = [
        _if_it_fits(device, measure_latency, model, texts, amp, batch, form)
        for amp in dict.fromkeys((AmpPolicy("fp32", device), fast))
        for form, model in _if_it_fits(device, _forms, loaded, hyperparameters, seed, weights, amp) or ()
        for batch in BATCHES
    ]
    return [latency for latency in found if latency is not None]


def _forms(
    loaded: LoadedBase, hyperparameters: Hyperparameters, seed: int, weights: Path, amp: AmpPolicy
) -> list[tuple[str, nn.Module]]:
    def trained(precision: AmpPolicy) -> nn.Module:
        model = build_classifier(loaded, hyperparameters, seed, precision)
        load_weights(model, weights)
        return model.requires_grad_(False)

    if hyperparameters.method == "full":
        return [("whole", _in_type(trained(amp), amp))]
    if loaded.quantize is not None:
        return [("adapter", trained(amp))]  # merged, it would be another model: see the export
    # Merged in fp32, whatever precision it then runs in.
    merged = merge_adapter(copy.deepcopy(trained(AmpPolicy("fp32", amp.device))))
    return [("adapter", trained(amp)), ("merged", _in_type(merged, amp))]


def _in_type(model: nn.Module, amp: AmpPolicy) -> nn.Module:
    cast_frozen_linears(model, amp.dtype)
    return model


def _if_it_fits(device: torch.device, measured: Callable[..., Figure], *arguments: object) -> Figure | None:
    """A figure; None where memory runs out, as in a batch that the training itself had to divide.

    What was trained counts without it.
    """
    try:
        return measured(*arguments)
    except (RuntimeError, MemoryError) as error:
        if not devices.is_out_of_memory(error):
            raise
    devices.empty_cache(device)
    return None

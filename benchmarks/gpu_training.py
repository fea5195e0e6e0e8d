"""The steps that are measured: a trial's own, eager or captured as a CUDA graph, and plain PEFT with autocast.

The one place of the GPU's checks that knows how lorasweep builds and trains a trial.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from gpu_bases import load, load_plainly
from torch import nn

from lorasweep.training import devices
from lorasweep.training.data.encoded import EncodedDataset, EncodedTexts
from lorasweep.training.loop.fine_tune import fine_tune
from lorasweep.training.loop.graph import graphs_for
from lorasweep.training.loop.state import Evaluation, TrainingState
from lorasweep.training.loop.steps import make_steps
from lorasweep.training.model.classifier import build_classifier
from lorasweep.training.model.fitting import device_texts
from lorasweep.training.model.precision import AmpPolicy
from lorasweep.training.model.target_modules import target_pattern
from lorasweep.training.settings import Hyperparameters, TrainingSettings

RATE = 1e-3
HYPERPARAMETERS = Hyperparameters(rank=16, alpha=32, target_modules="all-linear", learning_rate=RATE)
SETTINGS = TrainingSettings()

# Row numbers of a batch → its mean loss, on the device, shape ().
Step = Callable[[np.ndarray], torch.Tensor]
EAGER, CAPTURED, PLAIN = "eager", "captured", "plain PEFT"


def begin(device: torch.device, share: float = 1.0) -> None:
    """What a trial's process does before it uses a device.

    Args:
        share: of the device's memory that it may use.
    """
    devices.begin(device, share)


def can_capture(device: torch.device) -> bool:
    """Whether a step can be captured here at all."""
    return graphs_for(device) is not None


@dataclass
class Trial:
    """A trial's state and its step."""

    state: TrainingState
    step: Step


def start_trial(
    folder: Path,
    texts: EncodedTexts,
    amp: AmpPolicy,
    *,
    captured: bool = False,
    hyperparameters: Hyperparameters = HYPERPARAMETERS,
    settings: TrainingSettings = SETTINGS,
    seed: int = 0,
) -> Trial:
    """A trial on a base model's folder, as a sweep starts it; `begin` comes before."""
    model = build_classifier(load(folder), hyperparameters, seed, amp)
    state = TrainingState.start(model, hyperparameters, amp)
    on_device = device_texts(model, texts, amp.device)
    graphs = graphs_for if captured else _no_graphs
    steps = make_steps(state, on_device, hyperparameters, settings, graphs=graphs)
    return Trial(state, partial(steps, rate=RATE))


def _no_graphs(device: torch.device) -> None:
    """All steps are to be eager."""


def gradients(
    model: nn.Module, amp: AmpPolicy, texts: EncodedTexts, rows: np.ndarray
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and the gradient of the mean loss by all that is trained, end to end; float64, on the CPU."""
    # A scaler would lower its own scale until nothing overflows; nothing does at this one.
    scale = 1024.0 if amp.grad_scaler().is_enabled() else 1.0
    batch = {name: tensor.to(amp.device) for name, tensor in padded(texts, rows).items()}
    labels = batch.pop("labels")
    with amp.autocast():
        logits = model(**batch).logits
    # The adapter's type is fp32, or fp64 for the reference.
    loss = nn.functional.cross_entropy(logits.to(trained(model)[0].dtype), labels)
    (scale * loss).backward()  # type: ignore[no-untyped-call]
    found = [p.grad.reshape(-1).double() for p in trained(model) if p.grad is not None]
    return logits.detach().double().cpu(), torch.cat(found).cpu() / scale


def copy_trained(values: list[torch.Tensor], state: TrainingState) -> None:
    """Give a trial other values of all that it trains, in the order of its parameters."""
    with torch.no_grad():
        for parameter, value in zip(trained(state.model), values, strict=True):
            parameter.copy_(value)
    state.trained.refresh_shadow()


def trained(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that are trained."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def trained_values(model: nn.Module) -> torch.Tensor:
    """A copy of all that is trained, end to end; float64, on the CPU."""
    return torch.cat([parameter.detach().reshape(-1).double().cpu() for parameter in trained(model)])


def plain_model(folder: Path, model_type: str, device: torch.device) -> nn.Module:
    """An adapter of PEFT's own on a base model in fp32, with the base's own dropout."""
    from peft import LoraConfig, TaskType, get_peft_model

    config = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=HYPERPARAMETERS.rank,
        lora_alpha=cast(int, HYPERPARAMETERS.alpha),
        target_modules=target_pattern(model_type, HYPERPARAMETERS.target_modules),
    )
    return cast(nn.Module, get_peft_model(cast(Any, load_plainly(folder, device)), config)).train()


def plain_step(model: nn.Module, texts: EncodedTexts, amp: AmpPolicy) -> Step:
    """A step as notebooks write it: autocast, clipping, AdamW, each batch copied to the device."""
    parameters = trained(model)
    optimizer = torch.optim.AdamW(parameters, lr=RATE)
    scaler = amp.grad_scaler()

    def step(rows: np.ndarray) -> torch.Tensor:
        batch = {name: tensor.to(amp.device) for name, tensor in padded(texts, rows).items()}
        with amp.autocast():
            loss: torch.Tensor = model(**batch).loss
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(parameters, HYPERPARAMETERS.max_grad_norm)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        return loss.detach()

    return step


def padded(texts: EncodedTexts, rows: np.ndarray) -> dict[str, torch.Tensor]:
    """Rows as a data collator returns them: padded to the longest, with their labels, on the CPU."""
    starts, ends = texts.offsets[rows], texts.offsets[rows + 1]
    shape = (len(rows), int((ends - starts).max()))
    ids, mask = np.full(shape, texts.pad_id), np.zeros(shape, np.int64)
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        ids[number, : end - start] = texts.input_ids[start:end]
        mask[number, : end - start] = 1
    batch = {"input_ids": ids, "attention_mask": mask, "labels": texts.labels[rows]}
    return {name: torch.from_numpy(array) for name, array in batch.items()}


def whole_trial(
    folder: Path, data: EncodedDataset, amp: AmpPolicy
) -> tuple[list[Evaluation], tuple[str, ...]]:
    """Two epochs as a sweep trains them: the evaluations, and the lines for the trial's record."""
    settings = SETTINGS.model_copy(update={"epochs": 2, "evaluations_per_epoch": 1})
    trial = start_trial(folder, data.train, amp, settings=settings)
    evaluations = list(fine_tune(trial.state, data, HYPERPARAMETERS, settings))
    return evaluations, trial.state.notes

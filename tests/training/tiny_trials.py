"""Small data and trials on the tiny checkpoints, for the tests of the training floor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_bases import SPECIAL_TOKENS, WORDS
from torch import nn

from lorasweep.training.data.encoded import EncodedDataset, EncodedTexts
from lorasweep.training.errors import ModelError
from lorasweep.training.loop.state import TrainingState
from lorasweep.training.model.base_model import LoadedBase, load_base, resolve_base_model
from lorasweep.training.model.classifier import build_classifier
from lorasweep.training.model.precision import AmpPolicy, resolve_precision
from lorasweep.training.settings import Hyperparameters, Precision, TrainingSettings

CPU = torch.device("cpu")
FP32 = AmpPolicy("fp32", CPU)
LABELS = ("politics", "sports", "science")
CLS, SEP, FIRST_WORD = 2, 3, len(SPECIAL_TOKENS)
LAST_WORD = FIRST_WORD + len(WORDS)


def texts(rows: int, seed: int = 0, longest: int = 16, typed: bool = True) -> EncodedTexts:
    """Random token ids; a word at the second place tells the label, so that there is something to learn."""
    random = np.random.default_rng(seed)
    # The classes are unequal, so that class weights matter.
    labels = random.choice(len(LABELS), size=rows, p=[0.6, 0.3, 0.1])
    labels[: len(LABELS)] = range(len(LABELS))
    lengths = random.integers(4, longest + 1, size=rows)
    ids = [
        np.array(
            [
                CLS,
                FIRST_WORD + label,
                *random.integers(FIRST_WORD + len(LABELS), LAST_WORD, size=length - 3),
                SEP,
            ]
        )
        for label, length in zip(labels, lengths, strict=True)
    ]
    return EncodedTexts(
        input_ids=np.concatenate(ids).astype(np.int32),
        type_ids=np.zeros(lengths.sum(), np.uint8) if typed else None,
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        labels=labels.astype(np.int64),
        pad_id=0,
    )


def dataset(rows: int = 44, typed: bool = True) -> EncodedDataset:
    return EncodedDataset(
        texts(rows, 0, typed=typed), texts(20, 1, typed=typed), texts(12, 2, typed=typed), LABELS
    )


def hyperparameters(**changes: Any) -> Hyperparameters:
    return Hyperparameters(**({"rank": 4, "alpha": 8, "batch_size": 8, "learning_rate": 5e-3} | changes))


def settings(**changes: Any) -> TrainingSettings:
    return TrainingSettings(**({"epochs": 2, "evaluations_per_epoch": 2, "precision": "fp32"} | changes))


def loaded(folder: Path, labels: tuple[str, ...] = LABELS, seed: int = 0) -> LoadedBase:
    return load_base(resolve_base_model(str(folder)), labels, seed, CPU)


def start(
    base: LoadedBase, chosen: Hyperparameters, precision: Precision = "fp32", seed: int = 0
) -> TrainingState:
    amp = resolve_precision(precision, CPU)
    return TrainingState.start(build_classifier(base, chosen, seed, amp), chosen, amp)


def copies(module: nn.Module) -> dict[str, torch.Tensor]:
    """Every parameter's value now, by name."""
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def trained(module: nn.Module) -> dict[str, torch.Tensor]:
    """The value now of every parameter that is trained, by name."""
    return {name: p.detach().clone() for name, p in module.named_parameters() if p.requires_grad}


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    """Equal names, types and bits."""
    return left.keys() == right.keys() and all(
        left[name].dtype == right[name].dtype and torch.equal(left[name], right[name]) for name in left
    )


class RecordingAdamW(torch.optim.AdamW):
    """A trial's AdamW that notes the rate and each parameter's gradient in each of its steps."""

    def __init__(self, state: TrainingState) -> None:
        super().__init__(state.optimizer.param_groups, fused=True)
        self.state.update(state.optimizer.state)
        self.trained = state.trained
        self.rates: list[float] = []
        self.gradients: list[list[torch.Tensor]] = []

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.rates.append(self.param_groups[0]["lr"])
        self.gradients.append([part.clone() for part in self.trained.views(self.trained.gradients)])
        super().step(closure)


def recording(state: TrainingState) -> RecordingAdamW:
    optimizer = RecordingAdamW(state)
    state.optimizer = optimizer
    return optimizer


def allow_meta(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let models run on the meta device: torch knows no autocast there, and raises even for the question.

    Whatever has to wait for a device raises there, so that waits can be found without a GPU.
    """
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda _: False)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())


def refusal(name: object) -> str:
    """The one line with which a base model is refused, resolved or loaded."""
    with pytest.raises(ModelError) as caught:
        loaded(Path(str(name)))
    assert "\n" not in str(caught.value)
    assert str(name) in str(caught.value)
    return str(caught.value)


def run_apart(program: str, **environment: str) -> dict[str, object]:
    """What a program prints as JSON in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return result

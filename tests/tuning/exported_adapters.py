"""Adapter folders on the tiny checkpoints, exported as a sweep's winner is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny_bases import WORDS

from lorasweep.training.inference.folder import quiet_loading
from lorasweep.training.model.base_model import load_base, resolve_base_model
from lorasweep.training.model.classifier import build_classifier, save_weights
from lorasweep.training.model.precision import AmpPolicy
from lorasweep.training.settings import Hyperparameters, Long, Method, Quantize
from lorasweep.tuning.adapters.export.weights import export_weights

LABELS = ("business", "film & TV", "score")
COLUMNS = ("headline", "summary")
RANDOM = np.random.default_rng(3)
# More rows than a batch holds, of many lengths, and some longer than the model reads.
TEXT = [" ".join(RANDOM.choice(WORDS, size=1 + number % 17)) for number in range(300)]
PAIR = ["" if number % 5 == 0 else " ".join(RANDOM.choice(WORDS, size=number % 7)) for number in range(300)]


def export_adapter(
    base_folder: Path | str,
    out: Path,
    columns: tuple[str, ...] = COLUMNS,
    method: Method = "lora",
    seed: int = 1,
    target_modules: str = "query-value",
    long: Long = "cut",
    quantize: Quantize | None = None,
    **more: Any,
) -> Path:
    """An exported folder whose weights are all far from where they began; `more` are hyperparameters."""
    base, amp = resolve_base_model(str(base_folder)), AmpPolicy("fp32", torch.device("cpu"))
    with quiet_loading():
        loaded = load_base(base, LABELS, 3, amp.device, quantize)
    model = build_classifier(
        loaded, Hyperparameters(method=method, rank=4, target_modules=target_modules, **more), 5, amp
    )
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=random) * 0.2)
    weights = out.with_name(f"{out.name}-weights")
    save_weights(model, weights)
    options: dict[str, Any] = {
        "max_length": 12,
        "text_columns": columns,
        "card": "a card",
        "long": long,
        "quantize": quantize,
    }
    export_weights(weights, base, LABELS, out, method=method, **options)
    return out

"""The classification head of a transformers model: which of its modules, by their shapes and not by their names.

`classifier` in BERT, `classification_head` in BART and T5, `score` in Llama, `sequence_summary` in XLM and
Flaubert, `sequence_summary` with `logits_proj` in XLNet: what they have in common is that they stand beside the
encoder and that some of their tensors have a row for each label.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import nn


def outside_encoder(model: nn.Module) -> list[str]:
    """Names of the modules with parameters that stand beside the encoder."""
    prefix = getattr(model, "base_model_prefix", "")
    if not hasattr(model, prefix):
        return []
    return [
        name
        for name, module in model.named_children()
        if name != prefix and any(True for _ in module.parameters())
    ]


def label_modules(model: Any) -> list[str]:
    """Names of the modules whose shapes depend on the number of labels: whole modules beside the encoder, and
    inside it those that hold such a tensor themselves.

    Args:
        model: a transformers model for sequence classification.
    """
    from transformers import AutoModelForSequenceClassification

    config = copy.deepcopy(model.config)
    config.num_labels += 1
    with torch.device("meta"):
        other = AutoModelForSequenceClassification.from_config(config)
    shapes = {name: parameter.shape for name, parameter in other.named_parameters()}
    shaped = [name for name, parameter in model.named_parameters() if parameter.shape != shapes[name]]
    beside = set(outside_encoder(model))
    return list(
        dict.fromkeys(
            first if (first := name.partition(".")[0]) in beside else name.rpartition(".")[0]
            for name in shaped
        )
    )


def absent_modules(model: nn.Module, absent_keys: set[str]) -> list[str]:
    """Names of the largest modules that a checkpoint lacks altogether.

    Args:
        absent_keys: names of the parameters that it lacks.
    """
    absent_modules: list[str] = []

    def visit(module: nn.Module, prefix: str) -> None:
        names = {f"{prefix}{name}" for name, _ in module.named_parameters()}
        own = {f"{prefix}{name}" for name, _ in module.named_parameters(recurse=False)}
        absent = names & absent_keys
        # Single parameters of a module cannot be trained alone, so the whole module is.
        if prefix and absent and (absent == names or absent & own):
            absent_modules.append(prefix.removesuffix("."))
        elif absent:
            for name, child in module.named_children():
                visit(child, f"{prefix}{name}.")

    visit(model, "")
    return absent_modules


def make_anew(model: Any, modules: list[str]) -> None:
    """Give modules the random weights of a new model, in place."""
    from transformers import AutoModelForSequenceClassification

    fresh = AutoModelForSequenceClassification.from_config(model.config)
    for name in modules:
        model.get_submodule(name).load_state_dict(fresh.get_submodule(name).state_dict())


@torch.no_grad()
def start_at_rates(model: Any, labels: np.ndarray, weights: torch.Tensor | None = None) -> bool:
    """Set the head's bias to the log odds of each label, in place; whether there is such a bias.

    Of several labels a text most are rare. From a bias of 0 a short training does little but learn how rare; from here
    on it learns which texts have them. With weights the odds are those that the weighted loss asks for.

    Args:
        labels: of the training rows; uint8, shape (rows, labels).
        weights: of rows with the label; float32, shape (labels,).
    """
    having = labels.sum(axis=0, dtype=np.int64) + 0.5
    odds = having / (len(labels) + 1 - having)
    if weights is not None:
        odds = odds * weights.cpu().numpy()
    modules = dict(model.named_modules())
    for name, bias in reversed(list(model.named_parameters())):
        place, _, kind = name.rpartition(".")
        weight = getattr(modules[place], "weight", None)
        if kind != "bias" or not bias.requires_grad or not isinstance(weight, torch.Tensor):
            continue
        if len(bias) == len(odds) == len(weight) and weight.dim() == 2:
            bias.copy_(torch.from_numpy(np.log(odds)))
            return True
    return False

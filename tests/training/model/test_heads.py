"""Classification heads of every architecture: found, made anew for other labels, trained."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_bases import OTHERS, make_tiny_base
from tiny_trials import FP32, LABELS, copies, hyperparameters, loaded, texts, trained
from torch import nn

from lorasweep.training.errors import ModelError
from lorasweep.training.model.classifier import build_classifier
from lorasweep.training.scores.scores import predict_logits

# Modules beside the encoder, all of which a bare encoder lacks.
HEADS = {
    "bart": ("classification_head",),
    "xlnet": ("sequence_summary", "logits_proj"),
    "flaubert": ("sequence_summary",),
    "xlm": ("sequence_summary",),
    "funnel": ("classifier",),
    "fnet": ("classifier",),
    "eurobert": ("dense", "classifier"),
    "stablelm": ("score",),
    "longformer": ("classifier",),
    "nystromformer": ("classifier",),
    # With presets.
    "t5": ("classification_head",),
    "albert": ("classifier",),
    "xlm-roberta": ("classifier",),
    "llama": ("score",),
    "distilbert": ("pre_classifier", "classifier"),
    "deberta-v2": ("pooler", "classifier"),
}


def build(base: Path) -> tuple[nn.Module, tuple[str, ...]]:
    """A classifier with an adapter on the last linear layer of the encoder, and what is trained beside that."""
    start = loaded(base)
    prefix = f"{start.model.base_model_prefix}."
    linear = [name for name, module in start.model.named_modules() if type(module) is nn.Linear]
    last = [name for name in linear if name.startswith(prefix)][-1]
    pattern = last.replace(".", "[.]")
    return build_classifier(start, hyperparameters(target_modules=pattern), 0, FP32), start.missing


def trained_modules(model: nn.Module) -> set[str]:
    return {
        name.removeprefix("base_model.model.").partition(".modules_to_save.")[0]
        for name in trained(model)
        if "lora_" not in name
    }


@pytest.mark.parametrize("family", HEADS)
def test_of_an_encoder_alone_is_trained(tiny_base: Callable[[str], Path], family: str) -> None:
    model, missing = build(tiny_base(family))
    assert missing == HEADS[family]
    assert trained_modules(model) == set(HEADS[family])
    assert predict_logits(model, texts(5, typed=False), FP32).shape == (5, 3)


@pytest.mark.parametrize("labels", [len(LABELS), len(LABELS) + 2])
@pytest.mark.parametrize("family", HEADS)
def test_of_other_labels_is_trained_whole(tmp_path: Path, family: str, labels: int) -> None:
    """Also where it has the right shape: what it knows are other labels. Its layers for labels are made anew."""
    folder = make_tiny_base(family, tmp_path / "foreign", labels=labels)
    model, missing = build(folder)
    assert missing == HEADS[family]
    assert trained_modules(model) == set(HEADS[family])
    foreign = load_file(folder / "model.safetensors")
    last = HEADS[family][-1]
    new = copies(model.get_submodule(f"base_model.model.{last}.modules_to_save.default"))  # type: ignore[arg-type]
    weights = {name: tensor for name, tensor in new.items() if name.endswith("weight")}
    assert weights
    assert not any(torch.equal(tensor, foreign[f"{last}.{name}"]) for name, tensor in weights.items())


def test_every_other_architecture_is_tested() -> None:
    assert set(HEADS) >= set(OTHERS)


def test_a_model_of_which_only_the_adapter_would_be_trained_is_refused(
    tiny_base: Callable[[str], Path],
) -> None:
    base = replace(loaded(tiny_base("bart")), missing=())
    with pytest.raises(ModelError, match="no classification head is trained") as caught:
        build_classifier(base, hyperparameters(target_modules=r"model[.].*[.]fc1"), 0, FP32)
    assert "\n" not in str(caught.value)

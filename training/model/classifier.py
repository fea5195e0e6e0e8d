"""A trial's classifier: an adapter on a shared base model, or a copy of it that is trained whole."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from lorasweep.training.errors import ModelError, first_line
from lorasweep.training.model.base_model import LoadedBase
from lorasweep.training.model.faster.attention import speed_up_attention
from lorasweep.training.model.faster.first_token import read_first_token_only
from lorasweep.training.model.faster.mask import make_masks_without_waiting
from lorasweep.training.model.hub import ADAPTER_WEIGHTS, FULL_WEIGHTS
from lorasweep.training.model.initial import begin_from_base, from_plain_form, plain_form
from lorasweep.training.model.precision import AmpPolicy
from lorasweep.training.model.quantized import count, shared_parts
from lorasweep.training.model.target_modules import (
    check_patterns,
    fitting,
    is_conv1d,
    resolve_target_modules,
    target_pattern,
)
from lorasweep.training.patterns import parse_pattern, rank_pattern
from lorasweep.training.settings import Hyperparameters

# Attributes in which some models keep a dropout rate outside an nn.Dropout module.
DROPOUT_ATTRIBUTES = ("attention_dropout", "activation_dropout", "dropout", "dropout_prob")


def build_classifier(
    loaded: LoadedBase,
    hyperparameters: Hyperparameters,
    seed: int,
    amp: AmpPolicy,
    *,
    checkpointing: bool = False,
) -> nn.Module:
    """A model ready to train: frozen base, fresh adapter, trainable head.

    The frozen tensors are shared with `loaded`, whose model does not change, so many classifiers can use one base
    model in memory. With the method `full` the whole model is copied.

    Args:
        seed: of the adapter's matrices; the head comes with the loaded base.
        amp: has the device of the classifier, which need not be that of `loaded` unless it is quantised.
        checkpointing: compute each layer again in the backward pass, in place of keeping what it needs.

    Raises:
        ModelError: the target modules or a pattern match nothing in this model, the rank is too high for PiSSA or
            OLoRA, or it has no head to train.
    """
    torch.manual_seed(seed)
    full = hyperparameters.method == "full"
    if full and loaded.quantize is not None:
        raise ModelError(
            f"method full: trains all weights, and those of {loaded.base.name} are stored in {loaded.quantize} and "
            "frozen; leave --quantize out, or the method full out of the space"
        )
    if full:
        loaded.frozen.drop()  # it needs all the memory there is, and nothing of this
    model = _copy(loaded.model, amp.device) if full else _share(loaded.model)
    speed_up_attention(model, amp)
    if amp.device.type != "cpu":
        make_masks_without_waiting(model)
    read_first_token_only(model)
    if not full or hyperparameters.base_dropout is not None:
        # Dropout in frozen layers costs more than it brings: the adapter has its own.
        _set_dropout(model, hyperparameters.base_dropout or 0.0)
    if full:
        if checkpointing:
            checkpoint_layers(model)
        return model.train()

    from peft import LoraConfig, TaskType, get_peft_model

    from lorasweep.training.model.faster.lora_linear import speed_up_lora

    model_type, target_modules = loaded.base.model_type, hyperparameters.target_modules
    targets = resolve_target_modules(loaded.model, model_type, target_modules, hyperparameters.layers)
    check_patterns(loaded.model, hyperparameters)
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=hyperparameters.rank,
        lora_alpha=cast(int, hyperparameters.alpha),
        lora_dropout=hyperparameters.dropout,
        target_modules=target_pattern(model_type, target_modules, loaded.model, hyperparameters.layers),
        modules_to_save=list(loaded.missing),
        rank_pattern=fitting(rank_pattern(hyperparameters.rank_pattern), targets),
        alpha_pattern=fitting(parse_pattern(hyperparameters.alpha_pattern), targets),
        # PEFT's name for transposed weights.
        fan_in_fan_out=any(is_conv1d(loaded.model.get_submodule(name)) for name in targets),
        use_rslora=hyperparameters.method == "rslora",
        use_dora=hyperparameters.method == "dora",
        base_model_name_or_path=loaded.base.location,
        revision=loaded.base.revision,
    )
    classifier = cast(nn.Module, get_peft_model(model, config))
    if checkpointing:
        checkpoint_layers(model)  # not before: PEFT would ask for gradients of the inputs, too
    # DoRA takes norms of the frozen weights, in fp32.
    loaded.frozen.put_into(classifier, amp.device, None if hyperparameters.method == "dora" else amp.dtype)
    if loaded.quantize is None:
        classifier.to(amp.device)  # the adapter, and buffers; quantised, all is there already
    if hyperparameters.init != "default":
        begin_from_base(classifier, loaded, hyperparameters.init)
    if not any(p.requires_grad and "lora_" not in name for name, p in classifier.named_parameters()):
        raise ModelError(
            f"base model {loaded.base.name}: no classification head is trained beside the adapter; name another model"
        )
    speed_up_lora(classifier)
    return classifier.train()


def trainable_parameters(model: nn.Module) -> int:
    """Number of parameters that are trained: adapter and head."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def model_parameters(model: nn.Module) -> int:
    """Number of all parameters of a model, with its adapter: what the whole classifier has to be stored with."""
    kept = (p for name, p in model.named_parameters() if ".original_module." not in name)
    return sum(count(p) for p in kept)


def checkpoint_layers(model: nn.Module) -> None:
    """Let a transformers model compute each layer again in the backward pass, in place.

    Raises:
        ModelError: its code has no such way.
    """
    if not getattr(model, "supports_gradient_checkpointing", False):
        raise ModelError(
            f"--gradient-checkpointing: the code of {type(model).__name__} has no checkpoints; leave it out"
        )
    # Not the older, reentrant way, which needs inputs that have gradients.
    enable: Any = model.gradient_checkpointing_enable
    enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    # Told of an adapter, transformers asks for gradients of the inputs, which that older way needs. With them every
    # layer below the first adapted one would be computed again and gone through for nothing.
    disable: Any = model.disable_input_require_grads
    disable()


def save_weights(model: nn.Module, folder: Path) -> None:
    """Write what was trained: a PEFT adapter folder, or for a full model its weights and configuration."""
    from peft import PeftModel, get_peft_model_state_dict

    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(model, PeftModel):
        # PEFT's save_pretrained would ask the hub about the vocabulary and write an empty model card.
        weights = get_peft_model_state_dict(model, save_embedding_layers=False)
        weights, config = plain_form(model, weights, copy.copy(model.peft_config["default"]))
        _save(weights, folder / ADAPTER_WEIGHTS)
        config.inference_mode = True
        config.save_pretrained(str(folder))
    else:
        _save(model.state_dict(), folder / FULL_WEIGHTS)
        model.config.save_pretrained(str(folder))  # type: ignore[union-attr,operator]


def load_weights(model: nn.Module, folder: Path) -> None:
    """Put back what `save_weights` wrote, into a model built with the same hyperparameters.

    Raises:
        ModelError: the folder's weights are missing, broken or of other hyperparameters.
    """
    from peft import PeftModel

    try:
        if isinstance(model, PeftModel):
            set_adapter_weights(model, from_plain_form(model, load_file(folder / ADAPTER_WEIGHTS)))
        else:
            model.load_state_dict(load_file(folder / FULL_WEIGHTS))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ModelError(f"{folder}: its weights cannot be read ({first_line(error)})") from error
    except ValueError as error:
        raise ModelError(f"{folder}: holds weights of other hyperparameters ({error})") from error


def set_adapter_weights(model: nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Put an adapter's weights into a PEFT model.

    Raises:
        ValueError: tensors are missing, of which PEFT itself only warns, or there are too many.
        RuntimeError: a tensor has another shape.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    expected = get_peft_model_state_dict(model, save_embedding_layers=False)
    odd = sorted(expected.keys() ^ weights.keys())
    if odd:
        side = "lack" if odd[0] in expected else "hold, unlike the configuration,"
        raise ValueError(f"the weights {side} {odd[0]} ({len(odd)} such tensors)")
    set_peft_model_state_dict(model, weights)


def merge_adapter(model: nn.Module) -> nn.Module:
    """A whole model in evaluation mode: the adapter's update is added to the base model's weights.

    In fp32 the sum is exact to a rounding; merge in that type, whatever the model then runs in. The PEFT model is
    consumed. A model without an adapter is returned itself.
    """
    from peft import PeftModel

    return (model.merge_and_unload() if isinstance(model, PeftModel) else model).eval()


def _save(weights: dict[str, torch.Tensor], path: Path) -> None:
    # Cloned, because safetensors refuses tensors that share memory (tied weights).
    save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}, path)


def _copy(model: nn.Module, device: torch.device) -> nn.Module:
    """A copy on the device, all of it trained; each tensor is copied once, straight to there."""
    copied = {id(p): nn.Parameter(p.detach().to(device, copy=True)) for p in model.parameters()}
    return copy.deepcopy(model, copied).to(device)  # buffers, too


def _share(model: nn.Module) -> nn.Module:
    """A copy of the modules that shares the original's parameters, frozen."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    shared: list[object] = [*model.parameters(), *shared_parts(model)]
    return copy.deepcopy(model, {id(part): part for part in shared})


def _set_dropout(model: nn.Module, rate: float) -> None:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = rate
        for name in DROPOUT_ATTRIBUTES:
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, rate)

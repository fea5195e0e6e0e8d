"""Base models whose linear weights are stored in 4 or 8 bits, through bitsandbytes.

The frozen weights are quantised once, when a worker loads the base model; adapter and head stay in fp32 (QLoRA,
Dettmers et al., 2023, arXiv 2305.14314; LLM.int8(), 2022, arXiv 2208.07339).
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any, get_args

import torch
from torch import nn

from lorasweep.training.errors import ModelError, SettingsError, first_line, missing_extra
from lorasweep.training.settings import Quantize

PACKAGE, EXTRA = "bitsandbytes", "quantized"
# Seconds that a process may take to try the kernels of a GPU: it imports torch and makes a context there.
TRY_SECONDS = 180
# Where int8 products meet a column of outliers, all rows of a batch are computed in another way: the same row's logits
# differ from batch to batch by as much as a half-precision type's. Shares of the largest logit.
INT8_TOLERANCE = 0.1


class Quantization(dict[str, Any]):
    """Arguments of transformers' `BitsAndBytesConfig`, which is how they are shown."""

    def __repr__(self) -> str:
        return f"BitsAndBytesConfig({', '.join(f'{key}={value!r}' for key, value in self.items())})"

    def config(self, compute: torch.dtype | None = None) -> Any:
        """The `BitsAndBytesConfig`.

        Args:
            compute: type of the products of 4-bit weights, instead of fp32.
        """
        from transformers import BitsAndBytesConfig

        other = {"bnb_4bit_compute_dtype": compute} if compute and "bnb_4bit_compute_dtype" in self else {}
        return BitsAndBytesConfig(**self | other)


def quantization(kind: Quantize, model: nn.Module) -> Quantization:
    """What tells transformers to quantise a base model as trials do.

    Args:
        model: the sequence classifier, with or without weights: its head, and what a checkpoint may lack and is
            then trained, stay as they are.
    """
    from lorasweep.training.model.heads import outside_encoder

    encoder = getattr(model, "base_model_prefix", "")
    kept = outside_encoder(model) + [name for name, _ in model.named_modules() if name == f"{encoder}.pooler"]
    skipped = {"llm_int8_skip_modules": kept}
    if kind == "int8":
        return Quantization({"load_in_8bit": True} | skipped)
    return Quantization(
        {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": kind,
            "bnb_4bit_use_double_quant": True,
            "bnb_4bit_compute_dtype": "float32",
        }
        | skipped
    )


def quantize_of(entries: Mapping[str, Any], where: object) -> Quantize | None:
    """How the base model of an exported adapter is quantised, by lorasweep's own entry in its config.json.

    Raises:
        ModelError: it is a word that this version does not know.
    """
    kind = entries.get("quantize")
    if kind is None:
        return None
    known: tuple[Quantize, ...] = get_args(Quantize)
    for name in known:
        if kind == name:
            return name
    raise ModelError(f"{where}: quantize {kind!r:.40} is not known; it is one of {', '.join(known)}")


def check_package(kind: Quantize) -> None:
    """Raise `SettingsError` where bitsandbytes is not installed."""
    if importlib.util.find_spec(PACKAGE) is None:
        raise SettingsError(
            f"--quantize {kind}: needs a package that is not installed ({PACKAGE}); run: {missing_extra(EXTRA)}"
        )


def check_kernels(kind: Quantize, device: str, *, apart: bool = False) -> None:
    """Try a step of a tiny layer on a kind of device.

    Args:
        device: as torch names it.
        apart: in a process that ends afterwards, as CUDA keeps memory of a GPU for one that has used it.

    Raises:
        SettingsError: bitsandbytes is missing, or has no kernel for this device.
    """
    check_package(kind)
    problem = _try_apart(kind, device) if apart else _problem(kind, device)
    if problem:
        raise SettingsError(
            f"--quantize {kind}: {PACKAGE} cannot run it on this {'GPU' if device == 'cuda' else 'CPU'} ({problem}); "
            "leave --quantize out, or use another device"
        )


def _problem(kind: Quantize, device: str) -> str:
    try:
        try_kernels(kind, device)
    except Exception as error:  # the package's own code, which raises whatever it likes
        return first_line(error)
    return ""


def _try_apart(kind: Quantize, device: str) -> str:
    code = f"from {__name__} import try_kernels; try_kernels({kind!r}, {device!r})"
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=TRY_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"no answer in {TRY_SECONDS} s"
    lines = done.stderr.strip().splitlines()
    return "" if done.returncode == 0 else (lines[-1][:160] if lines else f"exit code {done.returncode}")


def try_kernels(kind: Quantize, device: str) -> None:
    """Quantise a tiny layer on a device, and run it forward and backward. Raises whatever bitsandbytes raises."""
    import bitsandbytes as bnb

    layer: Any
    if kind == "int8":
        layer = bnb.nn.Linear8bitLt(64, 64, has_fp16_weights=False, threshold=6.0)
    else:
        layer = bnb.nn.Linear4bit(64, 64, compute_dtype=torch.float32, quant_type=kind)
    layer = layer.to(device)
    rows = torch.ones(4, 64, device=device, requires_grad=True)
    layer(rows).sum().backward()
    layer.eval()(rows.detach())
    if rows.grad is None or not bool(torch.isfinite(rows.grad).all()):
        raise RuntimeError("its gradients are not finite")


def prepare(model: Any) -> Any:
    """A quantised model, just loaded, made ready for adapters: frozen, and the same in training and evaluation.

    By PEFT's own preparation. Then two things that bitsandbytes does at a layer's first use are settled, since many
    trials share the weights.
    """
    from peft import prepare_model_for_kbit_training

    model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    exact_kernels(model)
    for module in quantized_layers(model):
        if hasattr(module, "init_8bit_state") and getattr(module.weight, "CB", None) is not None:
            # Else the first copy that runs takes the scales away from the weight, and the others find none.
            module.init_8bit_state()
    return model


def exact_kernels(model: nn.Module) -> None:
    """Keep 4-bit layers on a CPU from their inference kernel in bf16.

    Where the processor has AVX-512 BF16, a layer packs its weights anew at the first evaluation (bitsandbytes 0.50):
    from then on its products are in bf16, have no gradient, and training goes on without saying so.
    """
    for module in quantized_layers(model):
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def quantized_layers(model: nn.Module) -> Iterator[Any]:
    """The layers of bitsandbytes in a model, none where it has not been loaded."""
    # Found by what they hold, so that nothing is imported for models without them.
    for module in model.modules():
        if type(getattr(module, "weight", None)).__name__ in ("Params4bit", "Int8Params"):
            yield module


def shared_parts(model: nn.Module) -> Iterator[object]:
    """What copies of a quantised model share beside the parameters: scales, and 8-bit weights under another name."""
    for module in quantized_layers(model):
        state = getattr(module, "state", None)
        parts = [
            getattr(module, "quant_state", None),
            getattr(state, "CB", None),
            getattr(state, "SCB", None),
        ]
        yield from (part for part in parts if part is not None)


def count(parameter: torch.Tensor) -> int:
    """Numbers that a parameter stands for; 4-bit weights are stored two in a byte."""
    state = getattr(parameter, "quant_state", None)
    return int(state.shape.numel()) if state is not None else parameter.numel()


def dequantize(model: nn.Module) -> nn.Module:
    """Replace the quantised layers by plain ones in fp32 with the values that they stand for, in place.

    transformers' `dequantize` has no way back to GPT-2's transposed layers.
    """
    from peft.utils.integrations import dequantize_bnb_weight
    from transformers.pytorch_utils import Conv1D

    names = {id(module): name for name, module in model.named_modules()}
    for module in list(quantized_layers(model)):
        state = getattr(module, "state", None)
        weight = dequantize_bnb_weight(module.weight, state).detach().to(torch.float32)
        plain: Any
        if issubclass(getattr(module, "source_cls", nn.Linear), Conv1D):
            plain = Conv1D(module.out_features, module.in_features)
            weight = weight.t().contiguous()
        else:
            with torch.device("meta"):
                plain = nn.Linear(module.in_features, module.out_features, bias=module.bias is not None)
        plain.weight = nn.Parameter(weight, requires_grad=False)
        if module.bias is not None:
            plain.bias = nn.Parameter(module.bias.detach().to(torch.float32), requires_grad=False)
        model.set_submodule(names[id(module)], plain)
    _forget(model)
    return model


def _forget(model: Any) -> None:
    """Take away what says that a model is quantised, also from the configuration that is saved with it."""
    for name in ("is_loaded_in_4bit", "is_loaded_in_8bit", "is_quantized"):
        if getattr(model, name, False):
            setattr(model, name, False)
    for holder, name in (
        (model, "hf_quantizer"),
        (model, "quantization_method"),
        (model.config, "quantization_config"),
    ):
        if hasattr(holder, name):
            delattr(holder, name)

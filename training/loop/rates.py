"""How the learning rates of a trial's parameters differ from the trial's own."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from lorasweep.training.settings import Hyperparameters


def rate_ratios(parameters: Mapping[str, nn.Parameter], hyperparameters: Hyperparameters) -> list[float]:
    """Each parameter's learning rate over the trial's, which is that of the matrices A.

    The matrices B, and with them DoRA's magnitudes, have the ratio of LoRA+ (Hayou et al., "LoRA+", 2024), as in PEFT's
    `create_loraplus_optimizer`; what is trained whole, the head above all, has its own. In full fine-tuning all is
    trained whole, at one rate.

    Args:
        parameters: name → trained parameter.
    """
    if hyperparameters.method == "full":
        return [1.0] * len(parameters)

    def ratio(name: str, parameter: nn.Parameter) -> float:
        if "lora_" not in name:
            return hyperparameters.head_rate_ratio
        return hyperparameters.lora_plus_ratio if "lora_B" in name or parameter.dim() < 2 else 1.0

    return [ratio(name, parameter) for name, parameter in parameters.items()]

"""Which rows a comparison has: full fine-tuning and untuned LoRA as baselines, and the winner of a sweep."""

from __future__ import annotations

from typing import Any

from lorasweep.training.model.target_modules import PRESETS
from lorasweep.training.settings import UNTUNED, Hyperparameters
from lorasweep.tuning.compare.record import CompareSettings, RowPlan

FULL_FP32, FULL_AMP, LORA_FP32, LORA_AMP = "full-fp32", "full-amp", "lora-fp32", "lora-amp"
LORA_RATE, TUNED, UNMERGED = "lora-rate", "tuned", "tuned-unmerged"


def row_plans(
    settings: CompareSettings,
    best: Hyperparameters,
    full_rate: float | None = None,
    lora_rate: float | None = None,
    unmerged_classes: int = 0,
) -> list[RowPlan]:
    """The rows in the order in which they are trained and shown.

    Args:
        best: the winner's hyperparameters.
        full_rate, lora_rate: tuned learning rates of the baselines, if they were tuned.
        unmerged_classes: classes before labels were merged, 0 if they were not.
    """

    def row(id: str, name: str, hyperparameters: Hyperparameters, about: str, **more: Any) -> RowPlan:
        more = {"precision": "auto"} | more
        # Rows of another winner's base model are other rows.
        hyperparameters = hyperparameters.model_copy(update={"base_model": best.base_model})
        return RowPlan(id=id, name=name, hyperparameters=hyperparameters, about=about, **more)

    rate = full_rate or settings.full_rate
    full = Hyperparameters(method="full", learning_rate=rate, batch_size=settings.batch_size)
    full_about = f"learning rate {rate:.1e}, {'tuned' if full_rate else 'not tuned'}"
    lora = untuned_for(best).model_copy(
        update={"learning_rate": settings.lora_rate, "batch_size": settings.batch_size}
    )
    shape = f"rank {lora.rank}, {lora.target_modules}"
    lora_about = f"{shape}, learning rate {lora.learning_rate:.1e}, not tuned"
    rows = [
        row(FULL_FP32, "full fine-tuning", full, full_about, precision="fp32"),
        row(FULL_AMP, "full fine-tuning + AMP", full, full_about),
        row(LORA_FP32, "LoRA", lora, lora_about, precision="fp32"),
        row(LORA_AMP, "LoRA + AMP", lora, lora_about),
    ]
    if lora_rate is not None:
        tuned = lora.model_copy(update={"learning_rate": lora_rate})
        about = f"{shape}, learning rate {lora_rate:.1e}, only the rate tuned"
        rows.append(row(LORA_RATE, "LoRA + AMP, rate tuned", tuned, about))
    name = "tuned full + AMP" if best.method == "full" else "tuned LoRA + AMP"
    rows.append(row(TUNED, name, best, f"the winner of sweep {settings.sweep}"))
    if unmerged_classes:
        about = f"the winner's hyperparameters on the {unmerged_classes} classes before merging labels"
        rows.append(row(UNMERGED, f"{name}, {unmerged_classes} classes", best, about, unmerged=True))
    return rows


def untuned_for(winner: Hyperparameters) -> Hyperparameters:
    """Hyperparameters of untuned LoRA.

    They take the winner's target modules where these are a pattern: then the model type may have no presets.
    """
    if winner.method == "full" or winner.target_modules in PRESETS:
        return UNTUNED
    return UNTUNED.model_copy(update={"target_modules": winner.target_modules})

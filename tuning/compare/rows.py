"""Which rows a comparison has: what the study compared, and what tuning makes of it."""

from __future__ import annotations

from lorasweep.training.settings import UNTUNED, Hyperparameters
from lorasweep.tuning.compare.record import CompareSettings, RowPlan

FULL_FP32, FULL_AMP, LORA_FP32, LORA_AMP = "full-fp32", "full-amp", "lora-fp32", "lora-amp"
LORA_RATE, TUNED, UNMERGED = "lora-rate", "tuned", "tuned-unmerged"


def row_plans(
    settings: CompareSettings,
    best: Hyperparameters,
    untuned: Hyperparameters = UNTUNED,
    full_rate: float | None = None,
    lora_rate: float | None = None,
    unmerged_classes: int = 0,
) -> list[RowPlan]:
    """The rows in the order in which they are trained and shown.

    Args:
        best: the winner's hyperparameters.
        untuned: rank, alpha and target modules of the LoRA rows that are not tuned.
        full_rate, lora_rate: what a search of the rate alone has found, where there was one.
        unmerged_classes: classes before labels were merged, or 0 where they were not.
    """
    stated = f"rate {settings.full_rate:.1e} as given" if full_rate is None else f"rate {full_rate:.1e} found"
    full = Hyperparameters(
        method="full", learning_rate=full_rate or settings.full_rate, batch_size=settings.batch_size
    )
    plain = untuned.model_copy(
        update={"learning_rate": settings.lora_rate, "batch_size": settings.batch_size}
    )
    about = f"rank {plain.rank}, {plain.target_modules}, rate {plain.learning_rate:.1e}: nobody has searched"
    rows = [
        RowPlan(id=FULL_FP32, name="full fine-tuning", settings=full, precision="fp32", about=stated),
        RowPlan(id=FULL_AMP, name="full fine-tuning + AMP", settings=full, precision="auto", about=stated),
        RowPlan(id=LORA_FP32, name="LoRA", settings=plain, precision="fp32", about=about),
        RowPlan(id=LORA_AMP, name="LoRA + AMP", settings=plain, precision="auto", about=about),
    ]
    if lora_rate is not None:
        found = plain.model_copy(update={"learning_rate": lora_rate})
        what = (
            f"rank {plain.rank}, {plain.target_modules}, rate {lora_rate:.1e} found: only the rate is tuned"
        )
        rows.append(
            RowPlan(id=LORA_RATE, name="LoRA + AMP, rate tuned", settings=found, precision="auto", about=what)
        )
    name = "tuned full + AMP" if best.method == "full" else "tuned LoRA + AMP"
    about = f"the winner of sweep {settings.sweep}"
    rows.append(RowPlan(id=TUNED, name=name, settings=best, precision="auto", about=about))
    if unmerged_classes:
        about = f"the same settings, trained on the {unmerged_classes} classes before labels were merged"
        name = f"{name}, {unmerged_classes} classes"
        rows.append(
            RowPlan(id=UNMERGED, name=name, settings=best, precision="auto", about=about, unmerged=True)
        )
    return rows

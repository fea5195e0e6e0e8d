"""Rows of a comparison as they are on record, made up."""

from __future__ import annotations

from typing import Any

from lorasweep.training.settings import Hyperparameters, TrainingSettings
from lorasweep.tuning.compare.record import ComparedRow, CompareSettings, Latency, OperatorUse
from lorasweep.tuning.compare.rows import row_plans
from lorasweep.tuning.record.results import TestScores

WINNER = Hyperparameters(rank=16, alpha=32.0, target_modules="all-linear", learning_rate=2e-3, batch_size=16)
SETTINGS = CompareSettings(
    name="demo", sweep="demo-sweep", base_model="minilm", training=TrainingSettings(epochs=2)
)
MACHINE = {"cpu": "A Processor", "cores": 2, "gpus": [], "python": "3.11.7", "packages": {"torch": "2.13.0"}}


def compared(number: int, plan: Any, accuracy: float) -> ComparedRow:
    """A row whose figures follow from its number."""
    forms = ["whole"] if plan.hyperparameters.method == "full" else ["adapter", "merged"]
    return ComparedRow(
        plan=plan,
        precision="fp32" if plan.precision == "fp32" else "bf16",
        test=TestScores(accuracy=accuracy, macro_f1=accuracy - 0.1, loss=2 - accuracy),
        interval={"accuracy": (accuracy - 0.02, accuracy + 0.02)},
        validation_score=accuracy,
        train_rows=1000,
        epoch_seconds=100.0 / (1 + number),
        samples_per_second=10.0 * (1 + number),
        trainable_parameters=22_000_000 if forms == ["whole"] else 76_423,
        stored_bytes=90_000_000 if forms == ["whole"] else 310_000,
        peak_bytes=500_000_000,
        latencies=tuple(
            Latency(form=form, precision=name, batch=batch, median=10.0 * batch / (1 + number), p95=99.0)
            for form in forms
            for name in ("fp32", "bf16")
            for batch in (1, 32)
        ),
        operators=tuple(
            OperatorUse(name=name, milliseconds=50.0, megabytes=100.0 / (1 + number))
            for name in ("linear (addmm, mm)", "gelu", "layer norm", "dropout", "other")
        ),
        machine=MACHINE,
        started=1_700_000_000.0 + number,
        ended=1_700_000_001.0 + number,
    )


def rows(**more: Any) -> list[ComparedRow]:
    """Every kind of row."""
    plans = row_plans(SETTINGS, WINNER, **more)
    return [compared(number, plan, 0.4 + number / 20) for number, plan in enumerate(plans)]


def failed(row: ComparedRow, error: str) -> ComparedRow:
    """The same row as one that broke."""
    return ComparedRow(plan=row.plan, started=row.started, ended=row.ended, error=error)

"""A comparison beside the HuffPost study that lorasweep began with: BERT-base on 41 classes of news, on a GPU.

    python benchmarks/huffpost_study.py mlruns/comparisons/NAME

Prints the table "Beside the study" of `results/compared-*.md` for a comparison that `lorasweep compare` has made.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from common import table

from lorasweep.tuning.compare.record import ComparedRow, ComparisonFolder
from lorasweep.tuning.compare.rows import FULL_FP32, LORA_AMP, TUNED
from lorasweep.tuning.record.words import parameters_text

FIGURES: dict[str, Callable[[ComparedRow], str]] = {
    "test accuracy": lambda row: f"{row.test.accuracy:.2%}" if row.test else "-",
    "test loss": lambda row: f"{row.test.loss:.3f}" if row.test else "-",
    "an epoch": lambda row: f"{row.epoch_seconds:.0f} s",
    "trained parameters": lambda row: parameters_text(row.trainable_parameters),
    "stored": lambda row: f"{row.stored_bytes / 1e6:.2f} MB",
}
STUDY_FULL = ("71.25 %", "0.1288", "~1,600 s", "110 M", "419.03 MB")
STUDY_LORA = ("61.78 %", "1.4186", "~430 s", "344.1 K", "1.25 MB")


def latency(row: ComparedRow) -> float:
    """Milliseconds for one text: a whole model in fp32, an adapter merged and in the precision of its training."""
    whole = row.plan.hyperparameters.method == "full"
    wanted = (1, "whole", "fp32") if whole else (1, "merged", row.precision)
    return next((e.median for e in row.latencies if (e.batch, e.form, e.precision) == wanted), 0.0)


def key_memory(row: ComparedRow) -> float:
    """Megabytes that a training step allocates in linear layers and GELU."""
    return sum(use.megabytes for use in row.operators if use.name in ("linear (addmm, mm)", "gelu"))


RATIOS: dict[str, tuple[str, Callable[[ComparedRow], float]]] = {
    "latency of a text, ratio": ("0.68", latency),
    "addmm and gelu, MB, ratio": ("about 0.5", key_memory),
    "an epoch, ratio": ("0.27", lambda row: row.epoch_seconds),
}


def study_rows(rows: Mapping[str, ComparedRow]) -> list[list[str]]:
    """Lines of the table: what, the study, untuned here, tuned here.

    Args:
        rows: a comparison's rows by their ids.
    """
    done = {name: row for name, row in rows.items() if row.error is None}
    full, lora, tuned = done.get(FULL_FP32), done.get(LORA_AMP), done.get(TUNED)
    lines = []
    for (what, figure), theirs in zip(FIGURES.items(), STUDY_FULL, strict=True):
        lines.append([f"{what}, full", theirs, figure(full) if full else "-", ""])
    for (what, figure), theirs in zip(FIGURES.items(), STUDY_LORA, strict=True):
        here = [figure(row) if row else "-" for row in (lora, tuned)]
        lines.append([f"{what}, LoRA + AMP", theirs, *here])
    for what, (theirs, value) in RATIOS.items():
        lines.append([what, theirs, *_ratios(full, (lora, tuned), value)])
    return lines


def _ratios(
    base: ComparedRow | None, rows: Sequence[ComparedRow | None], of: Callable[[ComparedRow], float]
) -> list[str]:
    below = of(base) if base else 0.0
    values = [of(row) if row else 0.0 for row in rows]
    return [f"{value / below:.2f}" if value and below else "-" for value in values]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="folder of the comparison")
    path = parser.parse_args().folder.resolve()
    rows = ComparisonFolder(path.parent.parent, path.name).rows()
    if not rows:
        parser.error(f"{path}: holds no rows of a comparison; make one with lorasweep compare")
    print(table(["", "the study", "here", "tuned"], study_rows(rows)))
    print("\nRatios are to full fine-tuning in fp32; latency is the adapter's once it is merged.")


if __name__ == "__main__":
    main()

"""What became of each validation row at an evaluation: by it, trials are compared in pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load, save

from lorasweep.training.scores.outcomes import Outcomes
from lorasweep.training.scores.set_thresholds import thresholds_by

# Its name in checkpoints of older versions; now a checkpoint has the outcomes beside its logits.
OUTCOMES_FILE = "outcomes.safetensors"
# Parts that outcomes of older versions, or of another number of classes, do not have.
MADE_OF = ("ranks", "margins")


def outcome_bytes(outcomes: Outcomes, rung: int, logits: np.ndarray | None = None) -> bytes:
    """The content of a file, 16 bytes a row, or of several labels a text 4 bytes and 6 for each label.

    Args:
        rung: of the evaluation.
        logits: of the first rows, kept beside them.
    """
    tensors = {"labels": outcomes.labels, "predicted": outcomes.predicted, "losses": outcomes.losses}
    tensors |= {name: value for name in MADE_OF if (value := getattr(outcomes, name)) is not None}
    if logits is not None:
        tensors["logits"] = logits
    about = {"rung": rung, "of_rows": outcomes.of_rows, "positive": outcomes.positive}
    return bytes(save(tensors, {name: str(value) for name, value in about.items()}))


def has_outcomes(content: bytes) -> bool:
    """Whether a file of a checkpoint has them."""
    return "losses" in load(content)


def read_outcomes(path: Path, rung: int | None, label_names: tuple[str, ...] = ()) -> Outcomes | None:
    """The outcomes at an evaluation; None where the file is missing, broken, or another evaluation's.

    Sweeps of older versions have no such files.

    Args:
        label_names: of the classes, for metrics that name one.
    """
    try:
        with safe_open(path, "numpy") as file:
            about = file.metadata() or {}
            if about.get("rung") != str(rung):
                return None
            labels, predicted, losses = (file.get_tensor(name) for name in ("labels", "predicted", "losses"))
            more = {name: file.get_tensor(name) for name in MADE_OF if name in file.keys()}  # noqa: SIM118
        outcomes = Outcomes(
            labels,
            predicted,
            losses,
            int(about["of_rows"]),
            **more,
            positive=int(about.get("positive", 1)),
            label_names=label_names,
        )
    except Exception:  # safetensors has its own errors for missing and broken files
        return None
    lengths = {len(values) for values in (labels, predicted, losses, *more.values())}
    whole = len(lengths) == 1 and labels.shape == predicted.shape and 0 < len(labels) <= outcomes.of_rows
    return outcomes if whole and np.isfinite(losses).all() else None


def checkpoint_thresholds(content: bytes, rule: str | None) -> np.ndarray:
    """The thresholds of several labels a text, chosen on the validation rows that an evaluation was judged by.

    Args:
        content: of a checkpoint's file of outcomes.
        rule: see `set_thresholds.thresholds_by`.

    Returns:
        float64, shape (labels,).
    """
    tensors = load(content)
    return thresholds_by(rule, tensors["margins"], tensors["labels"])

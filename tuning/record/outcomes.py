"""What became of each validation row at an evaluation: by it, trials are compared in pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load, save

from lorasweep.training.scores.noise import Outcomes

# Its name in checkpoints of older versions; now a checkpoint has the outcomes beside its logits.
OUTCOMES_FILE = "outcomes.safetensors"


def outcome_bytes(outcomes: Outcomes, rung: int, logits: np.ndarray | None = None) -> bytes:
    """The content of a file, 12 bytes a row.

    Args:
        rung: of the evaluation.
        logits: of the first rows, kept beside them.
    """
    tensors = {"labels": outcomes.labels, "predicted": outcomes.predicted, "losses": outcomes.losses}
    if logits is not None:
        tensors["logits"] = logits
    return bytes(save(tensors, {"rung": str(rung), "of_rows": str(outcomes.of_rows)}))


def has_outcomes(content: bytes) -> bool:
    """Whether a file of a checkpoint has them."""
    return "losses" in load(content)


def read_outcomes(path: Path, rung: int | None) -> Outcomes | None:
    """The outcomes at an evaluation; None where the file is missing, broken, or another evaluation's.

    Sweeps of older versions have no such files.
    """
    try:
        with safe_open(path, "numpy") as file:
            about = file.metadata() or {}
            if about.get("rung") != str(rung):
                return None
            labels, predicted, losses = (file.get_tensor(name) for name in ("labels", "predicted", "losses"))
        outcomes = Outcomes(labels, predicted, losses, int(about["of_rows"]))
    except Exception:  # safetensors has its own errors for missing and broken files
        return None
    whole = labels.shape == predicted.shape == losses.shape and 0 < len(labels) <= outcomes.of_rows
    return outcomes if whole and np.isfinite(losses).all() else None

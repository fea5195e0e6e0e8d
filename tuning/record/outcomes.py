"""What became of each validation row at a trial's best evaluation: files by which trials are compared in pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

from lorasweep.training.scores.noise import Outcomes

# Its name in a checkpoint; in the sweep's folder it has the trial's.
OUTCOMES_FILE = "outcomes.safetensors"


def outcome_bytes(outcomes: Outcomes, rung: int) -> bytes:
    """The content of a file, 12 bytes a row.

    Args:
        rung: of the evaluation.
    """
    tensors = {"labels": outcomes.labels, "predicted": outcomes.predicted, "losses": outcomes.losses}
    return bytes(save(tensors, {"rung": str(rung), "of_rows": str(outcomes.of_rows)}))


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

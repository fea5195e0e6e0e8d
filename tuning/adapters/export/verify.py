"""An exported folder, loaded back as a stranger would, compared with the trial that it comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError

from lorasweep.training.data.encoding import encode_texts
from lorasweep.training.data.load import Texts
from lorasweep.training.errors import ExportError, SettingsError, first_line
from lorasweep.training.inference.folder import quiet_loading
from lorasweep.training.model.precision import AmpPolicy, resolve_precision
from lorasweep.training.scores.scores import predict_logits
from lorasweep.training.settings import Precision
from lorasweep.tuning.adapters.export.weights import load_plainly

# Largest difference of a logit that counts as none. In fp32 only the order of additions differs, and the
# adapter's own matrices when they are merged; measured differences lie below 1e-5 on one kind of device.
FP32_TOLERANCE = 1e-3
# Shares of the largest logit. With bf16's 8 bits of mantissa a logit of a 6-layer model is off by half a
# hundredth of it (measured), deeper models by more; merged weights are rounded after the sum, not before it.
HALF_TOLERANCE = 0.05
OTHER_HALF_TOLERANCE = 0.1

HINT = "Has the base model changed since the sweep?"


def comparison(
    trained_in: Precision, trained_on: str, expected: np.ndarray, merged: bool
) -> tuple[AmpPolicy, float]:
    """The precision in which a folder is compared with its trial, and the difference that is allowed.

    Args:
        trained_in: the trial's precision, resolved.
        trained_on: type of the trial's device.
        expected: the trial's logits.
        merged: whether the adapter was merged.
    """
    device = torch.device("cuda" if trained_on == "cuda" and torch.cuda.is_available() else "cpu")
    try:
        amp = resolve_precision(trained_in, device)
    except SettingsError:  # fp16 away from the GPU
        amp = AmpPolicy("fp32", device)
    if not amp.in_hardware:
        amp = AmpPolicy("fp32", device)  # emulated it takes minutes
    largest = float(np.abs(expected).max())
    if trained_in == "fp32":
        return amp, FP32_TOLERANCE * max(1.0, largest)
    return amp, largest * (OTHER_HALF_TOLERANCE if merged or amp.name != trained_in else HALF_TOLERANCE)


def verify_export(
    folder: Path,
    rows: Texts,
    expected: np.ndarray,
    amp: AmpPolicy,
    tolerance: float,
    arguments: dict[str, Any] | None = None,
) -> float:
    """Load a folder with plain PEFT or transformers and compare its predictions with the trial's own.

    Args:
        expected: the trial's logits of `rows`; float32, shape (rows, classes).
        tolerance: largest difference of a logit. Another label is an error too, unless the trial's two
            highest logits lie within it.
        arguments: of `load_arguments`, for the base model of an adapter.

    Returns:
        The largest absolute difference of a logit.

    Raises:
        ExportError: the folder predicts otherwise.
    """
    try:
        with quiet_loading():
            model, tokenizer = load_plainly(folder, arguments or {})
    except (OSError, KeyError, ValueError, RuntimeError, SafetensorError) as error:
        raise ExportError(
            f"the exported folder cannot be loaded back ({first_line(error)}); nothing was exported. {HINT}"
        ) from error
    encoded = encode_texts(tokenizer, rows.text, rows.pair, None, tokenizer.model_max_length)
    logits = predict_logits(model.to(amp.device), encoded, amp)
    if logits.shape != expected.shape:
        raise ExportError(
            f"the exported folder, loaded back, gives logits of shape {logits.shape}, and the trial's have "
            f"{expected.shape}; nothing was exported"
        )
    differences = np.abs(logits - expected).max(axis=1)
    worst = int(differences.argmax())  # a NaN counts as the largest
    top = np.sort(expected, axis=1)[:, -2:]
    relabelled = (logits.argmax(axis=1) != expected.argmax(axis=1)) & (top[:, 1] - top[:, 0] > tolerance)
    if not differences[worst] <= tolerance or relabelled.any():
        raise ExportError(
            f"the exported folder, loaded back, does not predict what the trial did: logits differ by up to "
            f"{differences[worst]:.3g} (validation row {worst + 1}; {tolerance:.3g} is allowed), "
            f"{int(relabelled.sum())} of {len(expected)} rows get another label; nothing was exported. {HINT}"
        )
    return float(differences[worst])

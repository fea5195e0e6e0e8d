"""An exported folder, loaded back as a stranger would, compared with the model that it was made from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from lorasweep.training.data.dataset import Texts
from lorasweep.training.data.encoding import encode_texts
from lorasweep.training.devices import begin, choose_device, release
from lorasweep.training.errors import ExportError, SettingsError, first_line
from lorasweep.training.inference.folder import quiet_loading, read_folder
from lorasweep.training.model.hub import BaseModel
from lorasweep.training.model.precision import AmpPolicy, resolve_precision
from lorasweep.training.model.quantized import exact_kernels
from lorasweep.training.scores.scores import predict_logits
from lorasweep.training.settings import Precision
from lorasweep.tuning.adapters.export.weights import load_plainly

# Shares of the largest logit, the largest difference that counts as none. In fp32 only the order of additions
# differs: below 1e-5 for trained models, up to 2.5e-4 for tiny random ones, whose errors grow with the logits.
FP32_TOLERANCE = 1e-3
# With bf16's 8 bits of mantissa a logit of a 6-layer model is off by half a hundredth (measured), deeper models
# by more; and by more again where the two sides run in different types.
HALF_TOLERANCE = 0.05
OTHER_HALF_TOLERANCE = 0.1
# GPUs multiply fp32 in TF32, whose mantissa has 10 bits: bf16's errors, divided by 8 and rounded up.
TF32_TOLERANCE = 0.01
# Where large adapters meet small logits, half precision's error is a larger share of these. The loaded model then shows
# its own: the largest distance of its logits from those in fp32. The trial's had an error of that size, too.
ROUNDING = 3.0

HINT = "Has the base model changed since the sweep?"


def fp32_tolerance(expected: np.ndarray) -> float:
    """The difference of a logit in fp32 that counts as none, beside these logits."""
    return FP32_TOLERANCE * max(1.0, float(np.abs(expected).max()))


def comparison(trained_in: Precision, trained_on: str, expected: np.ndarray) -> tuple[AmpPolicy, float]:
    """The precision in which a folder is compared with its trial, and the difference that is allowed.

    Args:
        trained_in: the trial's precision, resolved.
        trained_on: type of the trial's device, which may have been another machine's.
        expected: the trial's logits.
    """
    device = choose_device("auto" if trained_on == "cuda" else "cpu")
    begin(device)
    largest = float(np.abs(expected).max())
    try:
        amp = resolve_precision(trained_in, device)
    except SettingsError:  # fp16 away from the GPU
        amp = AmpPolicy("fp32", device)
    if not amp.in_hardware:
        amp = AmpPolicy("fp32", device)  # emulated it takes minutes
    if trained_in == "fp32":
        exact = fp32_tolerance(expected)
        return amp, max(exact, TF32_TOLERANCE * largest) if trained_on == "cuda" else exact
    same = amp.name == trained_in and device.type == trained_on
    return amp, (HALF_TOLERANCE if same else OTHER_HALF_TOLERANCE) * largest


def verify_export(
    folder: Path,
    rows: Texts,
    expected: np.ndarray,
    amp: AmpPolicy,
    tolerance: float,
    arguments: dict[str, Any] | None = None,
    base: BaseModel | None = None,
) -> float:
    """Load a folder with plain PEFT or transformers and compare its predictions with those expected.

    Args:
        expected: logits of `rows`; float32, shape (rows, classes).
        tolerance: as in `largest_difference`; in half precision at least three times the folder's own rounding error.
        arguments: of `load_arguments`, for the base model of an adapter.
        base: that base model on this machine; found by the adapter's own words if None.

    Returns:
        The largest absolute difference of a logit.

    Raises:
        ExportError: the folder cannot be loaded, or predicts otherwise.
    """
    try:
        with quiet_loading():
            model, tokenizer = load_plainly(folder, arguments or {}, base)
    except (OSError, KeyError, ValueError, RuntimeError, SafetensorError) as error:
        raise ExportError(
            f"the exported folder cannot be loaded back ({first_line(error)}); nothing was exported. {HINT}"
        ) from error
    exact_kernels(model)
    encoded = encode_texts(
        tokenizer, rows.text, rows.pair, None, tokenizer.model_max_length, read_folder(folder).long
    )
    logits = predict_logits(model.to(amp.device), encoded, amp)
    if amp.name != "fp32" and logits.shape == expected.shape and np.abs(logits - expected).max() > tolerance:
        exact = predict_logits(model, encoded, AmpPolicy("fp32", amp.device))
        tolerance = max(tolerance, ROUNDING * float(np.abs(logits - exact).max()))
    del model
    release(amp.device)
    problem = "the exported folder, loaded back, does not predict what the trial did"
    return largest_difference(expected, logits, tolerance, problem, HINT)


def largest_difference(
    expected: np.ndarray, actual: np.ndarray, tolerance: float, problem: str, advice: str
) -> float:
    """The largest absolute difference of a logit between two models on the same rows.

    Args:
        expected: float32, shape (rows, classes).
        actual: those of the exported model, of the same shape.
        tolerance: largest difference that is allowed. Another label is an error too, unless the two highest
            expected logits lie within it.
        problem, advice: beginning and end of the error's message.

    Raises:
        ExportError: the two differ.
    """
    if actual.shape != expected.shape:
        raise ExportError(
            f"{problem}: its logits have shape {actual.shape} instead of {expected.shape}; "
            f"nothing was exported. {advice}"
        )
    differences = np.abs(actual - expected).max(axis=1)
    worst = int(differences.argmax())  # a NaN counts as the largest
    top = np.sort(expected, axis=1)[:, -2:]
    relabelled = (actual.argmax(axis=1) != expected.argmax(axis=1)) & (top[:, -1] - top[:, 0] > tolerance)
    if not differences[worst] <= tolerance or relabelled.any():
        raise ExportError(
            f"{problem}: logits differ by up to {differences[worst]:.3g} (row {worst + 1}; {tolerance:.3g} is "
            f"allowed), {int(relabelled.sum())} of {len(expected)} rows get another label; "
            f"nothing was exported. {advice}"
        )
    return float(differences[worst])

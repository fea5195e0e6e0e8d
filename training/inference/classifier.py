"""A classifier loaded from an exported folder, and its predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from lorasweep.training.data.columns import first_of_two
from lorasweep.training.data.encoding import encode_texts
from lorasweep.training.devices import begin, named_device
from lorasweep.training.errors import ModelError, first_line
from lorasweep.training.files.cells import mended
from lorasweep.training.inference.folder import (
    ADAPTER_CONFIG,
    ExportedFolder,
    quiet_loading,
    read_folder,
    read_json,
)
from lorasweep.training.model.base_model import CPU, LoadedBase, load_base, load_tokenizer, resolve_base_model
from lorasweep.training.model.classifier import set_adapter_weights
from lorasweep.training.model.hub import ADAPTER_WEIGHTS, BaseModel, check_attention
from lorasweep.training.model.precision import resolve_precision
from lorasweep.training.model.quantized import dequantize
from lorasweep.training.scores.outcomes import log_softmax
from lorasweep.training.scores.scores import predict_logits
from lorasweep.training.scores.set_thresholds import ONE_HALF, predict_sets
from lorasweep.training.scores.thresholds import decide
from lorasweep.training.settings import Long, Precision, Quantize


@dataclass(frozen=True)
class Classifier:
    """A model ready to predict.

    Attributes:
        model: a PEFT or transformers model in fp32 and evaluation mode.
        tokenizer: from the same folder.
        label_names: in the order of the logits.
        max_length: tokens that are read at once.
        text_columns: columns it was trained on, two for pairs; empty if unknown.
        long: how it reads longer texts, as it was trained.
        positive: the positive one of two labels; the second if None.
        thresholds: label → probability from which on it is predicted; empty for the most probable label, or one half
            where a text may have several.
        multi_label: whether a text may have several labels, or none.
        label_separator: what separated the labels in a field of the training data; empty if nothing did.
        quantize: how the base model's weights are stored; None where they are as they came.
    """

    model: nn.Module
    tokenizer: Any
    label_names: tuple[str, ...]
    max_length: int
    text_columns: tuple[str, ...] = ()
    long: Long = "cut"
    positive: str | None = None
    thresholds: dict[str, float] = field(default_factory=dict)
    multi_label: bool = False
    label_separator: str = ""
    quantize: Quantize | None = None

    def predicted_sets(self, logits: np.ndarray) -> np.ndarray:
        """1 where a text gets a label: uint8, of the shape of the logits, (rows, labels)."""
        cuts = np.array([self.thresholds.get(name, ONE_HALF) for name in self.label_names])
        return predict_sets(logits, cuts)

    def decide(self, probabilities: np.ndarray) -> np.ndarray:
        """The predicted label of each row, by the thresholds if there are any.

        Args:
            probabilities: float, shape (rows, classes).

        Returns:
            Numbers of labels; int64, shape (rows,).
        """
        return decide(probabilities, self.label_names, self.thresholds)

    @property
    def cut(self) -> tuple[int, float] | None:
        """Of two labels: the number of the one that has a threshold, and that; None without one."""
        numbers = [(self.label_names.index(label), value) for label, value in self.thresholds.items()]
        return numbers[0] if numbers and len(self.label_names) == 2 and not self.multi_label else None

    @property
    def device(self) -> torch.device:
        """The model's device."""
        return next(self.model.parameters()).device


def load_classifier(folder: Path, device: str = "auto", *, dequantized: bool = False) -> Classifier:
    """Load an adapter (with its base model) or a whole transformers model from a folder.

    Only safetensors are read, and no code from the folder is run. A base model that was quantised in training is so
    here, too.

    Args:
        device: as torch names it; `auto` is the GPU with the most free memory if there is one.
        dequantized: give a quantised base model the fp32 weights that its quantised ones stand for.

    Raises:
        SettingsError: there is no such device, or bitsandbytes is missing for a quantised base model.
        ModelError: no such folder, no adapter or model in it, no label names, weights that are missing, broken or
            do not fit the configuration, an adapter of another kind, or a missing base model.
    """
    exported = read_folder(folder)
    place = named_device(device)
    begin(place)
    with quiet_loading():
        tokenizer = load_tokenizer(BaseModel(str(folder), str(folder), None, ""))
        kept = exported.quantize is not None and not dequantized
        # Quantised weights are made where they are used.
        model = (
            _load_adapter(exported, place if kept else CPU, dequantized)
            if exported.is_adapter
            else _load_model(folder)
        )
    return Classifier(
        model=(model if kept else model.to(place)).eval(),
        tokenizer=tokenizer,
        label_names=exported.label_names,
        max_length=exported.max_length(tokenizer.model_max_length),
        text_columns=exported.text_columns,
        long=exported.long,
        positive=exported.positive,
        thresholds=exported.thresholds,
        multi_label=exported.multi_label,
        label_separator=exported.label_separator,
        quantize=exported.quantize if kept else None,
    )


def predict(
    classifier: Classifier,
    text: Sequence[str],
    pair: Sequence[str] | None = None,
    precision: Precision = "fp32",
) -> np.ndarray:
    """Logits of every row; float32, shape (rows, classes).

    For a classifier that was trained on pairs, a missing second text is empty, as in training.

    Raises:
        ModelError: two texts per row for a classifier of one.
    """
    if len(text) == 0:
        return np.zeros((0, len(classifier.label_names)), dtype=np.float32)
    if pair is not None and len(classifier.text_columns) == 1:
        raise ModelError(
            f"this classifier reads one text a row ({classifier.text_columns[0]!r}), and two were "
            "given; name one column"
        )
    if pair is None and len(classifier.text_columns) == 2:
        pair = [""] * len(text)
    firsts = [_clean(line) for line in text]
    seconds = None if pair is None else [_clean(line) for line in pair]
    if seconds is not None:
        firsts, seconds = first_of_two(firsts, seconds)
    encoded = encode_texts(
        classifier.tokenizer,
        firsts,
        seconds,
        None,
        classifier.max_length,
        classifier.long,
    )
    return predict_logits(classifier.model, encoded, resolve_precision(precision, classifier.device))


def probabilities(logits: np.ndarray, multi_label: bool = False) -> np.ndarray:
    """Softmax along the last axis, in float64; of several labels a text each label's own probability."""
    if multi_label:
        # The logistic function, which tanh keeps from overflowing.
        return np.asarray((1 + np.tanh(logits.astype(np.float64) / 2)) / 2)
    return np.asarray(np.exp(log_softmax(logits)))


def _load_adapter(exported: ExportedFolder, device: torch.device, dequantized: bool) -> nn.Module:
    from peft import PeftConfig, get_peft_model

    folder = exported.path
    entries = read_json(folder / ADAPTER_CONFIG)
    kind, task = entries.get("peft_type"), entries.get("task_type")
    if kind != "LORA" or task != "SEQ_CLS":
        raise ModelError(
            f"{folder}: an adapter of another kind (peft_type {kind}, task_type {task}); "
            "lorasweep loads LORA adapters for SEQ_CLS"
        )
    try:
        config = PeftConfig.from_pretrained(str(folder))
        weights = load_file(folder / ADAPTER_WEIGHTS)
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise ModelError(f"{folder}: a broken adapter ({first_line(error)}); export it again") from error
    if not isinstance(config.base_model_name_or_path, str | None):
        raise ModelError(
            f"{folder}: {ADAPTER_CONFIG} does not name its base model as a text; export it again"
        )
    base = _load_base(exported, config.base_model_name_or_path, config.revision, device)
    if dequantized and base.quantize is not None:
        dequantize(base.model)
    config.inference_mode = True
    try:
        model = get_peft_model(base.model, config)
        set_adapter_weights(model, weights)
    except (ValueError, RuntimeError) as error:
        raise ModelError(
            f"{folder}: the adapter does not fit its base model {base.base.name} ({first_line(error)}); "
            "export it again"
        ) from error
    return model  # type: ignore[no-any-return]


def _load_base(
    exported: ExportedFolder, name: str | None, revision: str | None, device: torch.device
) -> LoadedBase:
    """The adapter's base model; if its folder is gone, the same weights under their other names."""
    first_error: ModelError | None = None
    for candidate in dict.fromkeys(entry for entry in (name, *exported.base_names) if entry):
        try:
            base = resolve_base_model(candidate)
            if candidate == name and base.hub_id == name:
                base = replace(base, revision=revision)
            return load_base(base, exported.label_names, seed=0, device=device, quantize=exported.quantize)
        except ModelError as error:
            first_error = first_error or error
    if first_error is None:
        raise ModelError(
            f"{exported.path}: {ADAPTER_CONFIG} names no base model (base_model_name_or_path); export it again"
        )
    raise ModelError(f"{exported.path}: its base model cannot be loaded: {first_error}") from first_error


def _load_model(folder: Path) -> nn.Module:
    from transformers import AutoConfig, AutoModelForSequenceClassification

    try:
        # Otherwise transformers asks the user whether to run code from the folder.
        own: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        check_attention(AutoConfig.from_pretrained(folder, **own), str(folder))
        model, info = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **own
        )
    except (OSError, ValueError, RuntimeError, KeyError, ImportError, SafetensorError) as error:
        raise ModelError(
            f"{folder}: no classifier can be loaded from it ({first_line(error)}); export it again"
        ) from error
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise ModelError(
            f"{folder}: its weights lack {missing[0]} ({len(missing)} such tensors): not a "
            "trained classifier; name a folder that lorasweep export has written"
        )
    return model  # type: ignore[no-any-return]


def _clean(text: str) -> str:
    # Like the training rows: stripped, and without lone surrogates, which a terminal may pass on.
    return str(mended(text)).strip()

"""The files of an exported folder, checked and read before any model is loaded."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from logging import ERROR, getLogger
from pathlib import Path
from typing import Any, get_args

from pydantic import TypeAdapter

from lorasweep.training.errors import ModelError, first_line
from lorasweep.training.model.hub import (
    ADAPTER_WEIGHTS,
    FULL_WEIGHTS,
    WEIGHTS_INDEX,
    check_shards,
    other_weights,
)
from lorasweep.training.model.quantized import quantize_of
from lorasweep.training.settings import Long, Quantize

ADAPTER_CONFIG = "adapter_config.json"
MODEL_CONFIG = "config.json"
# An export for other runtimes, which lorasweep does not run.
ONNX_FILE = "model.onnx"
# transformers' name for several labels a text, in config.json.
SEVERAL_LABELS = "multi_label_classification"
# Our entry in config.json; transformers preserves unknown ones.
OWN_ENTRY = "lorasweep"
# Without any of them transformers silently makes a tokenizer with no vocabulary.
VOCABULARY_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")
# A tokenizer with a limit above this has none.
NO_LIMIT = 10**6
# Maximum length where neither tokenizer nor configuration gives one.
DEFAULT_MAX_LENGTH = 512


@dataclass(frozen=True)
class ExportedFolder:
    """A complete folder of an adapter or a whole model.

    Attributes:
        is_adapter: an adapter, which needs its base model; otherwise a whole model.
        label_names: in the order of the logits.
        config: the contents of config.json.
        text_columns: columns it was trained on, two for pairs; empty if unknown.
        base_names: other names of the base model, noted by the export.
        long: how texts longer than the maximum length are read.
        positive: the positive one of two labels; the second if None.
        thresholds: label → probability from which on it is predicted; empty for the most probable label, or one half
            where a text may have several.
        multi_label: whether a text may have several labels, or none.
        label_separator: what separated the labels in a field of the training data; empty if nothing did.
        quantize: how the base model was stored when the adapter was trained; None where it was as it came.
    """

    path: Path
    is_adapter: bool
    label_names: tuple[str, ...]
    config: dict[str, Any]
    text_columns: tuple[str, ...] = ()
    base_names: tuple[str, ...] = ()
    long: Long = "cut"
    positive: str | None = None
    thresholds: dict[str, float] = field(default_factory=dict)
    multi_label: bool = False
    label_separator: str = ""
    quantize: Quantize | None = None

    def max_length(self, tokenizer_limit: int) -> int:
        """Tokens per text: the tokenizer's limit, or as many as the model has positions."""
        if tokenizer_limit < NO_LIMIT:
            return int(tokenizer_limit)
        positions = self.config.get("max_position_embeddings")
        # RoBERTa and similar models reserve two positions.
        return positions - 2 if isinstance(positions, int) and positions > 2 else DEFAULT_MAX_LENGTH


def read_folder(path: Path) -> ExportedFolder:
    """Check an exported folder's files and read its configuration.

    Raises:
        ModelError: no such folder, neither an adapter nor a model, an ONNX model, or no label names, safetensors or
            tokenizer.
    """
    if not path.is_dir():
        problem = "is a file, not a folder" if path.exists() else "no such folder"
        raise ModelError(f"{path}: {problem}; name one that lorasweep export has written")
    is_adapter = (path / ADAPTER_CONFIG).is_file()
    if not is_adapter and not (path / MODEL_CONFIG).is_file():
        raise ModelError(
            f"{path}: neither an adapter nor a model folder (no {ADAPTER_CONFIG}, no {MODEL_CONFIG}); "
            "name one that lorasweep export has written"
        )
    config = read_json(path / MODEL_CONFIG) if (path / MODEL_CONFIG).is_file() else {}
    label_names = _label_names(path, config)
    _check_weights(path, (ADAPTER_WEIGHTS,) if is_adapter else (FULL_WEIGHTS, WEIGHTS_INDEX))
    check_shards(path / WEIGHTS_INDEX)
    if not any(file for name in VOCABULARY_FILES for file in path.glob(name)):
        raise ModelError(f"{path}: no tokenizer ({VOCABULARY_FILES[0]}); export it again")
    own = config.get(OWN_ENTRY)
    own = own if isinstance(own, dict) else {}
    names = (own.get("base_model"), own.get("base_hub_id"))
    long = own.get("long", "cut")
    if long not in get_args(Long):
        raise ModelError(
            f"{path}: its {MODEL_CONFIG} says that long texts are read by {long!r:.40}, which this version does not "
            "know; update lorasweep"
        )
    return ExportedFolder(
        path=path,
        is_adapter=is_adapter,
        label_names=label_names,
        config=config,
        text_columns=tuple(map(str, own.get("text_columns") or ())),
        base_names=tuple(name for name in names if isinstance(name, str)),
        long=long,
        positive=positive if (positive := own.get("positive")) in label_names else None,
        thresholds=_thresholds(path, own.get("thresholds"), label_names),
        multi_label=config.get("problem_type") == SEVERAL_LABELS,
        label_separator=str(own.get("label_separator") or ""),
        quantize=quantize_of(own, path / MODEL_CONFIG),
    )


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises `ModelError` if there is none."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{path}: cannot be read as JSON ({first_line(error)}); export the folder again"
        ) from error
    if not isinstance(entries, dict):
        raise ModelError(f"{path}: does not hold a JSON object; export the folder again")
    return entries


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Silence progress and advice of transformers and PEFT, but no errors.

    transformers reports at length that a base model lacks the head, which the adapter brings.
    """
    from transformers.utils import logging

    verbosity, progress = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    # It reports a faster kernel that it has not found, and each cast to fp16.
    quantizing = getLogger("bitsandbytes")
    before = quantizing.level
    quantizing.setLevel(ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        quantizing.setLevel(before)
        logging.set_verbosity(verbosity)
        if progress:
            logging.enable_progress_bar()


def _label_names(folder: Path, config: dict[str, Any]) -> tuple[str, ...]:
    try:
        names = TypeAdapter(dict[int, str]).validate_python(config.get("id2label"))
    except ValueError:
        names = {}
    if not names or sorted(names) != list(range(len(names))):
        raise ModelError(
            f"{folder}: no label names (id2label) in its {MODEL_CONFIG}; "
            "name a folder that lorasweep export has written"
        )
    return tuple(names[index] for index in range(len(names)))


def _thresholds(folder: Path, entries: object, label_names: tuple[str, ...]) -> dict[str, float]:
    try:
        found = TypeAdapter(dict[str, float]).validate_python(entries or {})
    except ValueError:
        found = {"": math.nan}
    for label, value in found.items():
        if label not in label_names or not 0 <= value <= 1:
            raise ModelError(
                f"{folder}: thresholds in its {MODEL_CONFIG} are {entries!r:.80}, and a probability for each of some "
                "labels is expected; export it again"
            )
    return found


def _check_weights(folder: Path, names: tuple[str, ...]) -> None:
    if any((folder / name).is_file() for name in names):
        return
    if (folder / ONNX_FILE).is_file():
        raise ModelError(
            f"{folder}: an ONNX model, which lorasweep does not run (its README.md shows how to); name an export "
            "of --format adapter or merged"
        )
    raise ModelError(
        f"{folder}: no weights in {names[0]} ({other_weights(folder)}); save them as safetensors"
    )

"""A trial's weights as a folder for plain PEFT or transformers, and that folder loaded as anybody would."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from lorasweep.training.errors import ExportError, first_line
from lorasweep.training.inference.folder import (
    ADAPTER_CONFIG,
    MODEL_CONFIG,
    OWN_ENTRY,
    SEVERAL_LABELS,
    quiet_loading,
    read_json,
)
from lorasweep.training.model.base_model import empty_model, label_config, load_tokenizer
from lorasweep.training.model.hub import ADAPTER_WEIGHTS, FULL_WEIGHTS, BaseModel, load_pretrained
from lorasweep.training.model.quantized import Quantization, quantization
from lorasweep.training.settings import Long, Method, Quantize
from lorasweep.tuning.adapters.card.converted import CARD_FILE


def export_weights(
    weights: Path,
    base: BaseModel,
    label_names: tuple[str, ...],
    out: Path,
    *,
    method: Method,
    card: str,
    max_length: int,
    text_columns: tuple[str, ...] = (),
    long: Long = "cut",
    positive: str | None = None,
    thresholds: Mapping[str, float] | None = None,
    label_separator: str | None = None,
    quantize: Quantize | None = None,
) -> None:
    """Write an adapter, or the whole model after full fine-tuning, with all that loading it needs.

    The folder is not verified: `verify_export` does that.

    Args:
        weights: a checkpoint's `weights` folder.
        out: the folder to write into; made if there is none.
        card: text of README.md.
        max_length: tokens of a text that are read.
        text_columns: columns that it was trained on, two for pairs.
        long: how longer texts are read.
        positive: the positive one of two labels; the second if None.
        thresholds: label → probability from which on it is predicted; the most probable label is if None.
        label_separator: where a text may have several labels, what separates them in a field of the data, empty if
            nothing does; None for one label a text.
        quantize: how the base model was stored.

    Raises:
        ModelError: the base model cannot be loaded.
        ExportError: the weights cannot be read.
    """
    out.mkdir(parents=True, exist_ok=True)
    full = method == "full"
    trained = weights / (FULL_WEIGHTS if full else ADAPTER_WEIGHTS)
    if not trained.is_file():
        raise ExportError(f"{trained}: is missing from the trial's checkpoint; export another --trial")
    try:
        with quiet_loading():
            with safe_open(trained, framework="pt"):
                pass  # a broken header shows here, before anything is copied
            config = _write_full(weights, out) if full else _write_adapter(weights, base, label_names, out)
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise ExportError(
            f"{weights}: the trial's weights cannot be exported ({first_line(error)}); export another --trial"
        ) from error
    own = reading_entries(text_columns, max_length, long)
    own |= judged_entries(positive, thresholds)
    if base.hub_id is not None:
        # Where the first of these names leads nowhere, the other leads to the same weights.
        own |= {"base_model": base.name, "base_hub_id": base.hub_id}
    if quantize is not None:
        # The second is for who loads the folder without lorasweep.
        own |= {"quantize": quantize, "quantization": dict(quantization(quantize, empty_model(base)))}
    if label_separator is not None:
        own["label_separator"] = label_separator
    write_parts(out, load_tokenizer(base), config, label_names, own, label_separator is not None)
    (out / CARD_FILE).write_text(card, encoding="utf-8")


def reading_entries(text_columns: Sequence[str], max_length: int, long: Long) -> dict[str, Any]:
    """lorasweep's own entries in config.json that say how texts are read."""
    entries: dict[str, Any] = {"text_columns": list(text_columns), "max_length": max_length}
    return entries if long == "cut" else entries | {"long": long}


def judged_entries(positive: str | None, thresholds: Mapping[str, float] | None) -> dict[str, Any]:
    """What config.json says of the positive label and of thresholds; nothing where there are none."""
    entries = {"positive": positive, "thresholds": dict(thresholds or {})}
    return {name: value for name, value in entries.items() if value}


def write_parts(
    out: Path,
    tokenizer: Any,
    config: Any,
    label_names: tuple[str, ...],
    own: dict[str, Any],
    multi_label: bool = False,
) -> None:
    """Write tokenizer and config.json.

    Args:
        config: the model's, of transformers.
        own: lorasweep's own entry; its `max_length` becomes the tokenizer's limit, so that a plain
            `truncation=True` cuts as the trial did.
        multi_label: a text may have several labels; transformers' own pipelines then give each its own probability.
    """
    tokenizer.model_max_length = own["max_length"]
    with quiet_loading():
        tokenizer.save_pretrained(out)
        config.save_pretrained(out)
    names = label_config(label_names)
    entries = read_json(out / MODEL_CONFIG) | {
        "id2label": names["id2label"],
        "label2id": names["label2id"],
        OWN_ENTRY: own,
    }
    # That of the base model says nothing of these labels.
    entries.pop("problem_type", None)
    if multi_label:
        entries["problem_type"] = SEVERAL_LABELS
    (out / MODEL_CONFIG).write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")


def load_arguments(
    base: BaseModel, label_names: tuple[str, ...], quantize: Quantize | None = None
) -> dict[str, Any]:
    """What `AutoPeftModelForSequenceClassification.from_pretrained` needs for this base beside the labels.

    transformers loads a checkpoint in its own type, and in half precision a model predicts otherwise than the trial
    did. A checkpoint that was a classifier of other labels has a head of another size. A decoder has to know what
    padding is. An adapter that was trained on quantised weights fits these alone.

    Args:
        quantize: how the base model was stored.
    """
    from transformers import AutoConfig

    config = load_pretrained(AutoConfig, base)
    other_head = str((config.architectures or [""])[0]).endswith("ForSequenceClassification")
    sizes = {"ignore_mismatched_sizes": True} if other_head and config.num_labels != len(label_names) else {}
    stored = {} if quantize is None else {"quantization_config": quantization(quantize, empty_model(base))}
    return {"dtype": "float32"} | sizes | base.config_entries | stored


def load_plainly(
    folder: Path, arguments: dict[str, Any], base: BaseModel | None = None
) -> tuple[nn.Module, Any]:
    """Model and tokenizer by the lines that the model card shows, in evaluation mode.

    lorasweep's own loader is not used: this is what a stranger gets from the folder.

    Args:
        base: where an adapter's base model is on this machine, if its name on the hub leads elsewhere.
    """
    if base is not None and base.location != base.hub_id and (folder / ADAPTER_CONFIG).is_file():
        with tempfile.TemporaryDirectory(prefix="lorasweep-") as temporary:
            copy = Path(temporary)
            for path in folder.iterdir():
                (copy / path.name).symlink_to(path.resolve())  # weights may be large
            adapter = read_json(folder / ADAPTER_CONFIG) | {"base_model_name_or_path": base.location}
            (copy / ADAPTER_CONFIG).unlink()
            (copy / ADAPTER_CONFIG).write_text(json.dumps(adapter), encoding="utf-8")
            return load_plainly(copy, arguments)

    from peft import AutoPeftModelForSequenceClassification
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    if (folder / ADAPTER_CONFIG).is_file():
        config = AutoConfig.from_pretrained(folder)
        stored = arguments.get("quantization_config")
        if isinstance(stored, Quantization):
            arguments = arguments | {"quantization_config": stored.config()}
        model = AutoPeftModelForSequenceClassification.from_pretrained(
            folder, id2label=config.id2label, label2id=config.label2id, **arguments
        )
    else:
        model = AutoModelForSequenceClassification.from_pretrained(folder)
    return model.eval(), AutoTokenizer.from_pretrained(folder)


def _write_adapter(weights: Path, base: BaseModel, label_names: tuple[str, ...], out: Path) -> Any:
    from transformers import AutoConfig

    shutil.copyfile(weights / ADAPTER_WEIGHTS, out / ADAPTER_WEIGHTS)
    adapter = read_json(weights / ADAPTER_CONFIG)
    adapter |= {
        # A folder of this machine may carry a model of the hub, and only its name there says anything to others.
        "base_model_name_or_path": base.hub_id or base.location,
        "revision": base.revision,
        # PEFT adds the head's usual names each time it makes a model from the configuration.
        "modules_to_save": list(dict.fromkeys(adapter.get("modules_to_save") or ())),
        "inference_mode": True,
    }
    (out / ADAPTER_CONFIG).write_text(json.dumps(adapter, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return load_pretrained(AutoConfig, base, **label_config(label_names), **base.config_entries)


def _write_full(weights: Path, out: Path) -> Any:
    from transformers import AutoModelForSequenceClassification

    model, info = AutoModelForSequenceClassification.from_pretrained(
        weights,
        dtype=torch.float32,
        use_safetensors=True,
        output_loading_info=True,
        local_files_only=True,
        trust_remote_code=False,
    )
    if info["missing_keys"]:
        raise KeyError(f"{min(info['missing_keys'])} is missing")
    model.save_pretrained(out)
    return model.config

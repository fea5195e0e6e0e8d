"""A trial's weights as a folder for plain PEFT or transformers, and that folder loaded as anybody would."""

from __future__ import annotations

import json
import shutil
import tempfile
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
    quiet_loading,
    read_json,
)
from lorasweep.training.model.base_model import label_config, load_tokenizer
from lorasweep.training.model.classifier import ADAPTER_WEIGHTS, FULL_WEIGHTS
from lorasweep.training.model.hub import BaseModel, load_pretrained
from lorasweep.training.settings import Method

CARD_FILE = "README.md"


def export_weights(
    weights: Path,
    base: BaseModel,
    label_names: tuple[str, ...],
    out: Path,
    *,
    merged: bool,
    method: Method,
    card: str,
    max_length: int,
    text_columns: tuple[str, ...] = (),
) -> None:
    """Write what a trial has trained, with all that loading it needs: configuration, tokenizer, card.

    Args:
        weights: a checkpoint's `weights` folder.
        out: a folder to write into, made if there is none. Not verified: `verify_export` does that.
        merged: the adapter's update added to the base model's weights: a whole model.
        card: text of README.md.

    Raises:
        ModelError: the base model cannot be loaded.
        ExportError: the weights cannot be read.
    """
    out.mkdir(parents=True, exist_ok=True)
    own: dict[str, Any] = {"text_columns": list(text_columns), "max_length": max_length}
    if base.hub_id is not None:
        # The adapter may name a folder of this machine; elsewhere these names lead to the same weights.
        own |= {"base_model": base.name, "base_hub_id": base.hub_id}
    trained = weights / (FULL_WEIGHTS if method == "full" else ADAPTER_WEIGHTS)
    if not trained.is_file():
        raise ExportError(f"{trained}: is missing from the trial's checkpoint; export another --trial")
    with quiet_loading():
        try:
            with safe_open(trained, framework="pt"):
                pass  # a broken header shows here, before anything is copied
            if method == "full":
                _write_full(weights, out)
            elif merged:
                _write_merged(weights, base, label_names, out)
            else:
                _write_adapter(weights, base, label_names, out)
        except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
            raise ExportError(
                f"{weights}: the trial's weights cannot be exported ({first_line(error)}); "
                "export another --trial"
            ) from error
        tokenizer = load_tokenizer(base)
        tokenizer.model_max_length = max_length
        tokenizer.save_pretrained(out)
    config = read_json(out / MODEL_CONFIG)
    names = label_config(label_names)
    config |= {"id2label": names["id2label"], "label2id": names["label2id"], OWN_ENTRY: own}
    (out / MODEL_CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (out / CARD_FILE).write_text(card, encoding="utf-8")


def load_arguments(base: BaseModel, label_names: tuple[str, ...]) -> dict[str, Any]:
    """What `AutoPeftModelForSequenceClassification.from_pretrained` needs for this base beside the labels.

    Nothing for most. transformers loads a checkpoint in its own type, and a half-precision model predicts
    otherwise than the trial did; and a checkpoint that was a classifier of other labels brings a head of
    another size.
    """
    from transformers import AutoConfig

    config = load_pretrained(AutoConfig, base)
    arguments: dict[str, Any] = {}
    if not _stored_in_fp32(base, config.dtype):
        arguments["dtype"] = "float32"
    architecture = (config.architectures or [""])[0]
    if architecture.endswith("ForSequenceClassification") and config.num_labels != len(label_names):
        arguments["ignore_mismatched_sizes"] = True
    return arguments


def load_plainly(folder: Path, arguments: dict[str, Any]) -> tuple[nn.Module, Any]:
    """Model and tokenizer by the lines that the model card shows, in evaluation mode.

    Nothing of lorasweep's own loader is used: this is what a stranger gets from the folder.
    """
    from peft import AutoPeftModelForSequenceClassification
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    if (folder / ADAPTER_CONFIG).is_file():
        config = AutoConfig.from_pretrained(folder)
        model = AutoPeftModelForSequenceClassification.from_pretrained(
            folder, id2label=config.id2label, label2id=config.label2id, **arguments
        )
    else:
        model = AutoModelForSequenceClassification.from_pretrained(folder)
    return model.eval(), AutoTokenizer.from_pretrained(folder)


def _write_adapter(weights: Path, base: BaseModel, label_names: tuple[str, ...], out: Path) -> None:
    from transformers import AutoConfig

    config = load_pretrained(AutoConfig, base, **label_config(label_names))
    config.save_pretrained(out)
    shutil.copyfile(weights / ADAPTER_WEIGHTS, out / ADAPTER_WEIGHTS)
    adapter = read_json(weights / ADAPTER_CONFIG)
    adapter |= {
        "base_model_name_or_path": base.location,
        "revision": base.revision,
        # PEFT adds the head's usual names each time it makes a model from the configuration.
        "modules_to_save": list(dict.fromkeys(adapter.get("modules_to_save") or ())),
        "inference_mode": True,
    }
    (out / ADAPTER_CONFIG).write_text(json.dumps(adapter, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _write_merged(weights: Path, base: BaseModel, label_names: tuple[str, ...], out: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="lorasweep-") as temporary:
        adapter = Path(temporary)
        _write_adapter(weights, base, label_names, adapter)
        load_tokenizer(base).save_pretrained(adapter)
        model, _ = load_plainly(adapter, load_arguments(base, label_names))
    merged = model.merge_and_unload()  # type: ignore[operator]
    merged.save_pretrained(out)


def _write_full(weights: Path, out: Path) -> None:
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


def _stored_in_fp32(base: BaseModel, dtype: torch.dtype | None) -> bool:
    from transformers.utils import cached_file

    if dtype is not None:
        return dtype == torch.float32
    path = cached_file(
        base.location,
        FULL_WEIGHTS,
        revision=base.revision,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    if path is None:
        return False  # several files; naming the type does no harm
    with safe_open(path, framework="pt") as file:
        return {file.get_slice(name).get_dtype() for name in file.keys()} <= {"F32", "I64"}  # noqa: SIM118

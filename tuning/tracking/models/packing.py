"""An exported folder as a model that MLflow serves, without pickles and without lorasweep."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import tempfile
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from lorasweep.training.errors import ExportError, ModelError
from lorasweep.training.inference.classifier import load_classifier, predict, probabilities
from lorasweep.training.inference.folder import (
    ADAPTER_CONFIG,
    MODEL_CONFIG,
    ExportedFolder,
    quiet_loading,
    read_folder,
    read_json,
)
from lorasweep.training.model.base_model import MINILM_PACKAGE, resolve_base_model
from lorasweep.training.model.hub import FULL_WEIGHTS
from lorasweep.training.settings import MINILM
from lorasweep.tuning.tracking.store import load_mlflow, quiet

CODE = Path(__file__).with_name("serving.py")
PACKAGES = ("mlflow", "torch", "transformers", "peft", "safetensors", "pandas", "numpy")
# What an adapter folder is made of. Pickles and programs are left behind.
SUFFIXES = (".json", ".safetensors", ".txt", ".model", ".md")
EXAMPLE = "Markets rally as inflation cools"
# Largest difference of a probability that passes. The served model has its adapter merged, which rounds in another
# way; measured differences lie below 1e-4.
SAME = 1e-3
# In int8 a row's outliers are found beside the other rows of its batch, and batches differ.
SAME_INT8 = 0.05
# What a quantised base model needs beside.
QUANTIZED_PACKAGES = ("bitsandbytes", "accelerate")


def pack(adapter: Path, out: Path, *, self_contained: bool = False) -> None:
    """Write an exported folder as a model that MLflow serves, and check that it predicts what the folder does.

    Args:
        out: must not exist.
        self_contained: include the base model.

    Raises:
        ModelError: the adapter or its base model cannot be loaded.
        ExportError: the two do not predict the same.
    """
    exported = read_folder(adapter)
    classifier = load_classifier(adapter, device="cpu")
    base = _base_folder(exported) if exported.is_adapter else None
    columns = list(exported.text_columns or ("text",))
    load_mlflow()
    with quiet():
        import mlflow
        import pandas as pd

    with quiet(), quiet_loading(), tempfile.TemporaryDirectory(prefix="lorasweep-") as temporary:
        parts = {"adapter": copy_folder(adapter, Path(temporary) / "adapter")}
        if base is not None and self_contained:
            parts["base"] = _copy_base(base, Path(temporary) / "base")
        mlflow.pyfunc.save_model(
            str(out),
            python_model=str(CODE),
            artifacts={name: str(path) for name, path in parts.items()},
            model_config={"device": "auto", "base_sha256": sha256(base / FULL_WEIGHTS) if base else None},
            signature=_signature(classifier.multi_label),
            input_example=pd.DataFrame([[EXAMPLE] * len(columns)], columns=columns),
            pip_requirements=_requirements(
                packaged=MINILM in exported.base_names and not self_contained,
                quantized=exported.quantize is not None,
            ),
        )
        served = mlflow.pyfunc.load_model(str(out), suppress_warnings=True, model_config={"device": "cpu"})
        texts = [EXAMPLE, *classifier.label_names]
        rows = pd.DataFrame([[text, EXAMPLE][: len(columns)] for text in texts], columns=columns)
        given = served.predict(rows, params={"probabilities": True}).iloc[:, 2:].to_numpy()
    logits = predict(classifier, texts, [EXAMPLE] * len(texts) if len(columns) == 2 else None)
    difference = np.abs(given - probabilities(logits, classifier.multi_label)).max()
    if not difference <= (SAME_INT8 if exported.quantize == "int8" else SAME):
        raise ExportError(
            f"{adapter}: packed for MLflow it predicts something else (probabilities differ by up to "
            f"{difference:.3g}); nothing was registered"
        )


def _signature(several: bool = False) -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import Array

    # No inputs: MLflow's check of named columns refuses a list of texts, and its check of unnamed ones silently
    # drops every column but the first. The model itself checks both forms.
    kinds = (DataType.string, DataType.double)
    label, score = (Array(kind) if several else kind for kind in kinds)
    return ModelSignature(
        outputs=Schema([ColSpec(label, "label"), ColSpec(score, "score")]),
        params=ParamSchema([ParamSpec("probabilities", DataType.boolean, False)]),
    )


def _requirements(packaged: bool, quantized: bool) -> list[str]:
    packages = [*PACKAGES, *(QUANTIZED_PACKAGES if quantized else ())]
    if packaged and importlib.util.find_spec(MINILM_PACKAGE):
        packages.append(MINILM_PACKAGE.replace("_", "-"))
    # Without a local version such as +cpu, which the package index does not have.
    return [f"{package}=={version(package).partition('+')[0]}" for package in packages]


def _base_folder(exported: ExportedFolder) -> Path:
    """The folder of an adapter's base model. It has been loaded, so a hub's files are in the cache."""
    from huggingface_hub import snapshot_download

    entries = read_json(exported.path / ADAPTER_CONFIG)
    first = entries.get("base_model_name_or_path")
    names = list(dict.fromkeys(name for name in (first, *exported.base_names) if name))
    for name in names:
        with suppress(ModelError, OSError):
            base = resolve_base_model(name)
            if base.location != base.hub_id:
                return Path(base.location)
            revision = (entries.get("revision") if name == first else None) or base.revision
            return Path(snapshot_download(name, revision=revision, local_files_only=True))
    raise ModelError(f"{exported.path}: its base model cannot be found ({', '.join(names)}); export it again")


def _copy_base(base: Path, out: Path) -> Path:
    """Copy configuration and weights; the hub's cache holds links, which are followed."""
    out.mkdir()
    for path in (base / MODEL_CONFIG, *base.glob("*.safetensors*")):
        shutil.copyfile(path, out / path.name)
    return out


def copy_folder(adapter: Path, out: Path) -> Path:
    """Copy an adapter folder's own files; links and folders in it are left out."""
    out.mkdir(exist_ok=True)
    for path in adapter.iterdir():
        if path.is_file() and not path.is_symlink() and path.suffix in SUFFIXES:
            shutil.copyfile(path, out / path.name)
    return out


def sha256(path: Path) -> str | None:
    """A file's SHA-256 in hexadecimal, or None if there is no such file."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

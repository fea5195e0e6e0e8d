"""Adapters that were trained on quantised base models: loaded back, merged, served."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from exported_adapters import LABELS, PAIR, TEXT, export_adapter

from lorasweep.training.errors import SettingsError
from lorasweep.training.inference.classifier import load_classifier, predict
from lorasweep.training.inference.folder import quiet_loading
from lorasweep.training.model import quantized
from lorasweep.training.model.base_model import resolve_base_model
from lorasweep.training.model.quantized import exact_kernels
from lorasweep.training.settings import Quantize
from lorasweep.tuning.adapters.card.loading import loading_lines
from lorasweep.tuning.adapters.export.merged import write_merged
from lorasweep.tuning.adapters.export.weights import load_arguments, load_plainly
from lorasweep.tuning.tracking.models.packing import pack

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="needs the extra `quantized`"
)
KINDS = pytest.mark.parametrize("kind", ["nf4", "int8"])
ROWS = TEXT[:20], PAIR[:20]


@KINDS
def test_loaded_back_by_the_cards_lines_it_predicts_the_same(
    kind: Quantize, tiny_base: Callable[[str], Path], tmp_path: Path
) -> None:
    out = export_adapter(tiny_base("bert"), tmp_path / "adapter", quantize=kind)
    assert json.loads((out / "config.json").read_text())["lorasweep"]["quantize"] == kind
    classifier = load_classifier(out, "cpu")
    assert classifier.quantize == kind
    expected = predict(classifier, *ROWS)
    arguments = load_arguments(resolve_base_model(str(tiny_base("bert"))), LABELS, kind)
    lines = loading_lines("adapter", True, arguments)
    assert "from transformers import AutoConfig, AutoTokenizer, BitsAndBytesConfig" in lines
    assert (
        f"quantization_config=BitsAndBytesConfig(load_in_{'8bit' if kind == 'int8' else '4bit'}=True" in lines
    )
    with quiet_loading():
        model, tokenizer = load_plainly(out, arguments)
        exact_kernels(model)
        rows = tokenizer(*ROWS, truncation=True, padding=True, return_tensors="pt")
        with torch.inference_mode():
            found = model(**rows).logits.numpy()
    largest = float(np.abs(expected).max())
    np.testing.assert_allclose(found, expected, atol=(1e-5 if kind == "nf4" else 0.1) * largest)


@KINDS
def test_merged_it_is_de_quantised_and_says_so(
    kind: Quantize, tiny_base: Callable[[str], Path], tmp_path: Path
) -> None:
    out = export_adapter(tiny_base("bert"), tmp_path / "adapter", quantize=kind)
    (tmp_path / "merged").mkdir()
    told = write_merged(out, tmp_path / "merged", "merged")
    assert f"its base model is de-quantised from {kind}" in told
    assert f"de-quantised from {kind}" in (tmp_path / "merged" / "README.md").read_text()
    assert "quantization_config" not in json.loads((tmp_path / "merged" / "config.json").read_text())
    merged, adapter = (load_classifier(folder, "cpu") for folder in (tmp_path / "merged", out))
    assert merged.quantize is None
    expected = predict(adapter, *ROWS)
    found = predict(merged, *ROWS)
    if kind == "nf4":
        np.testing.assert_allclose(found, expected, atol=1e-4 * float(np.abs(expected).max()))
    else:  # which quantises the inputs of its layers, too
        assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.98


def test_packed_for_mlflow_it_is_quantised_there_and_asks_for_the_package(
    tiny_base: Callable[[str], Path], tmp_path: Path
) -> None:
    """`pack` compares what it serves with the adapter."""
    out = export_adapter(tiny_base("bert"), tmp_path / "adapter", quantize="nf4")
    pack(out, tmp_path / "packed", self_contained=True)
    assert "bitsandbytes==" in (tmp_path / "packed" / "requirements.txt").read_text()


def test_without_bitsandbytes_the_extra_is_named(
    tiny_base: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = export_adapter(tiny_base("bert"), tmp_path / "adapter", quantize="nf4")
    monkeypatch.setattr(quantized, "PACKAGE", "no_such_package")
    with pytest.raises(
        SettingsError, match=r"--quantize nf4: needs .* run: pip install -e '\.\[quantized\]'"
    ):
        load_classifier(out, "cpu")

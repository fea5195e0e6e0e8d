"""Folders that plain PEFT and transformers have written, loaded and used for predictions."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from fake_cuda import FakeCuda
from peft import LoraConfig, TaskType, get_peft_model
from torch import nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from lorasweep.training.errors import ModelError, SettingsError
from lorasweep.training.inference.classifier import load_classifier, predict, probabilities

LABELS = ("business", "arts & <film>", "health")
TEXTS = ["markets rally as inflation cools and shares rise", "film", "new vaccine trial", "city album star"]
PAIRS = ["bank shares rise", "", "doctors study the new vaccine in the city", "award"]


@pytest.fixture(scope="module")
def folders(tiny_base: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An adapter folder and a whole model's, saved by the libraries themselves; every weight matters."""
    root = tmp_path_factory.mktemp("folders")
    labels = {"id2label": dict(enumerate(LABELS)), "label2id": {name: i for i, name in enumerate(LABELS)}}
    torch.manual_seed(3)
    model = AutoModelForSequenceClassification.from_pretrained(tiny_base("bert"), **labels)
    adapter = get_peft_model(
        model,
        LoraConfig(
            TaskType.SEQ_CLS,
            target_modules=r".*\.(query|value)",
            r=4,
            modules_to_save=["bert.pooler", "classifier"],
        ),
    )
    with torch.no_grad():
        for parameter in adapter.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    adapter.save_pretrained(root / "adapter")
    merged = adapter.eval().merge_and_unload()
    merged.save_pretrained(root / "model")
    tokenizer = AutoTokenizer.from_pretrained(tiny_base("bert"), model_max_length=12)
    for name in ("adapter", "model"):
        merged.config.save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    return {"adapter": root / "adapter", "model": root / "model"}


@pytest.fixture
def copy(folders: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    return lambda name: Path(shutil.copytree(folders[name], tmp_path / name))


def edit(path: Path, **entries: Any) -> None:
    config = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in (config | entries).items() if v is not None}))


def by_transformers(folder: Path, text: list[str], pair: list[str] | None) -> np.ndarray:
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(text, pair, truncation=True, padding=True, return_tensors="pt")
    with torch.no_grad():
        return np.asarray(model(**inputs).logits)


@pytest.mark.parametrize("kind", ["adapter", "model"])
def test_predictions_are_those_of_plain_transformers(folders: dict[str, Path], kind: str) -> None:
    expected = by_transformers(folders["model"], TEXTS, PAIRS)
    assert np.ptp(expected, axis=0).min() > 0.1  # the rows do differ, so an order that is lost would show
    classifier = load_classifier(folders[kind], device="cpu")
    assert classifier.label_names == LABELS
    assert classifier.max_length == 12
    logits = predict(classifier, TEXTS, PAIRS)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    expected = by_transformers(folders["model"], TEXTS, None)
    np.testing.assert_allclose(predict(classifier, TEXTS), expected, atol=1e-4)


def test_probabilities(folders: dict[str, Path]) -> None:
    logits = np.array([[0.0, 2.0, 1.0], [1000.0, 0.0, -1000.0]], dtype=np.float32)
    np.testing.assert_allclose(probabilities(logits).sum(axis=1), 1)
    assert probabilities(logits)[0].max() == pytest.approx(np.exp(2) / (1 + np.exp(1) + np.exp(2)))
    assert probabilities(logits)[1, 0] == 1.0
    assert predict(load_classifier(folders["model"]), []).shape == (0, len(LABELS))


def test_a_lone_text_is_a_pair_with_an_empty_second(copy: Callable[[str], Path]) -> None:
    folder = copy("model")
    edit(folder / "config.json", lorasweep={"text_columns": ["headline", "description"]})
    classifier = load_classifier(folder, device="cpu")
    assert classifier.text_columns == ("headline", "description")
    paired = predict(classifier, TEXTS, [""] * len(TEXTS))
    np.testing.assert_array_equal(predict(classifier, TEXTS), paired)
    assert np.abs(by_transformers(folder, TEXTS, None) - paired).max() > 0.01


def test_a_second_text_alone_is_read_as_the_first(copy: Callable[[str], Path]) -> None:
    """As in training, and whatever holds the texts."""
    folder = copy("adapter")
    edit(folder / "config.json", lorasweep={"text_columns": ["title", "text"]})
    classifier = load_classifier(folder, "cpu")
    blank = pd.Series(["", *TEXTS[1:]])
    expected = predict(classifier, [PAIRS[0], *TEXTS[1:]], ["", *PAIRS[1:]])
    np.testing.assert_array_equal(predict(classifier, blank, np.array(PAIRS)), expected)


def test_a_pair_for_a_classifier_of_one_text(copy: Callable[[str], Path]) -> None:
    folder = copy("model")
    edit(folder / "config.json", lorasweep={"text_columns": ["headline"]})
    with pytest.raises(ModelError, match=r"reads one text a row \('headline'\)"):
        predict(load_classifier(folder), TEXTS, PAIRS)


def test_a_text_that_is_no_unicode(folders: dict[str, Path]) -> None:
    classifier = load_classifier(folders["model"], device="cpu")
    np.testing.assert_array_equal(
        predict(classifier, ["film \udcff star\n"]), predict(classifier, ["film \ufffd star"])
    )


def test_a_moved_base_model_is_found_by_its_other_name(
    copy: Callable[[str], Path], tiny_base: Callable[[str], Path]
) -> None:
    folder = copy("adapter")
    before = predict(load_classifier(folder), TEXTS)
    edit(folder / "adapter_config.json", base_model_name_or_path="/gone/base")
    edit(folder / "config.json", lorasweep={"base_model": str(tiny_base("bert"))})
    np.testing.assert_array_equal(predict(load_classifier(folder), TEXTS), before)


def _no_label_names(folder: Path) -> None:
    edit(folder / "config.json", id2label=None)


def _gap_in_labels(folder: Path) -> None:
    edit(folder / "config.json", id2label={"0": "a", "2": "b"})


def _pickled(folder: Path) -> None:
    for path in folder.glob("*.safetensors"):
        path.rename(path.with_suffix(".bin"))


def _no_weights(folder: Path) -> None:
    for path in folder.glob("*.safetensors"):
        path.unlink()


def _broken_weights(folder: Path) -> None:
    for path in folder.glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:200])


def _broken_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def _no_tokenizer(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()


@pytest.mark.parametrize("kind", ["adapter", "model"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_no_label_names, "no label names .id2label."),
        (_gap_in_labels, "no label names .id2label."),
        (_pickled, r"only (adapter_)?model.bin, a pickle"),
        (_no_weights, "no weights in (adapter_)?model.safetensors"),
        (_broken_weights, "export it again"),
        (_broken_config, "config.json: cannot be read as JSON"),
        (_no_tokenizer, "no tokenizer"),
    ],
)
def test_a_damaged_folder_is_refused_in_one_line(
    copy: Callable[[str], Path], kind: str, damage: Callable[[Path], None], message: str
) -> None:
    folder = copy(kind)
    damage(folder)
    with pytest.raises(ModelError, match=message) as caught:
        load_classifier(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"task_type": "CAUSAL_LM"}, "another kind .peft_type LORA, task_type CAUSAL_LM."),
        ({"peft_type": "IA3"}, "another kind .peft_type IA3"),
        ({"r": 8}, "does not fit its base model"),
        ({"target_modules": r".*\.query"}, "weights hold, unlike the configuration,"),
        ({"target_modules": r".*\.(query|key|value)"}, "the weights lack .*key"),
        ({"target_modules": r"nothing"}, "does not fit its base model"),
        ({"modules_to_save": ["classifier"]}, "weights hold, unlike the configuration, .*pooler"),
        ({"base_model_name_or_path": "/gone/base"}, "its base model cannot be loaded: base model /gone/base"),
        (
            {"base_model_name_or_path": "nobody/has-this-model"},
            "nobody/has-this-model: neither in the local cache",
        ),
        ({"base_model_name_or_path": None}, "names no base model"),
    ],
)
def test_a_foreign_or_broken_adapter_is_refused(
    copy: Callable[[str], Path], entries: dict[str, Any], message: str
) -> None:
    folder = copy("adapter")
    edit(folder / "adapter_config.json", **entries)
    with pytest.raises(ModelError, match=message) as caught:
        load_classifier(folder)
    assert "\n" not in str(caught.value)


def test_an_encoder_is_no_classifier(copy: Callable[[str], Path], tiny_base: Callable[[str], Path]) -> None:
    folder = copy("model")
    shutil.copyfile(tiny_base("bert") / "model.safetensors", folder / "model.safetensors")
    with pytest.raises(ModelError, match="not a trained classifier"):
        load_classifier(folder)


def test_a_place_that_is_no_exported_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such folder"):
        load_classifier(tmp_path / "gone")
    with pytest.raises(ModelError, match="neither an adapter nor a model folder"):
        load_classifier(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match="is a file, not a folder"):
        load_classifier(tmp_path / "file")


def test_a_gpu_is_set_up_before_the_model_goes_there(
    folders: dict[str, Path], gpus: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus.add().add()
    places: list[tuple[torch.device, bool]] = []

    def put(module: nn.Module, device: torch.device) -> nn.Module:
        places.append((device, torch.backends.cuda.cudnn_sdp_enabled()))
        return module

    torch.backends.cuda.enable_cudnn_sdp(True)
    monkeypatch.setattr(nn.Module, "to", put)
    load_classifier(folders["model"], "cuda:1")
    assert places[-1] == (torch.device("cuda", 1), False)
    with pytest.raises(SettingsError, match="device cuda:2"):
        load_classifier(folders["model"], "cuda:2")

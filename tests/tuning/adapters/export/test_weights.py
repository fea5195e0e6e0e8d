"""What is exported predicts what was trained: each family, each method, as an adapter and merged."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_bases import FAMILIES, make_tiny_base
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

from lorasweep.training.data.dataset import Texts
from lorasweep.training.data.encoding import encode_texts
from lorasweep.training.errors import ExportError
from lorasweep.training.inference.classifier import load_classifier, predict
from lorasweep.training.inference.folder import quiet_loading
from lorasweep.training.model.base_model import load_base, load_tokenizer, resolve_base_model
from lorasweep.training.model.classifier import build_classifier, save_weights
from lorasweep.training.model.hub import BaseModel
from lorasweep.training.model.precision import AmpPolicy
from lorasweep.training.scores.scores import predict_logits
from lorasweep.training.settings import Hyperparameters, Method
from lorasweep.tuning.adapters.export.merged import write_merged
from lorasweep.tuning.adapters.export.verify import verify_export
from lorasweep.tuning.adapters.export.weights import export_weights, load_arguments, load_plainly

LABELS = ("business", "film & TV", "health")
FP32 = AmpPolicy("fp32", torch.device("cpu"))
TEXTS = Texts(
    ["markets rally as inflation cools", "film star wins award", "new vaccine", "team wins game season"],
    ["bank shares rise", "", "doctors study the vaccine trial in the city", "court"],
    np.zeros(4, dtype=np.int64),
)
MAX_LENGTH = 12  # less than the longest row


@dataclass(frozen=True)
class Trained:
    base: BaseModel
    weights: Path
    logits: np.ndarray
    method: Method

    def export(self, out: Path, merged: bool = False) -> Path:
        if merged:
            out.mkdir()
            write_merged(self.export(out.with_name(f"{out.name}-adapter")), out, out.name, TEXTS)
            return out
        export_weights(
            self.weights,
            self.base,
            LABELS,
            out,
            method=self.method,
            card="a card",
            max_length=MAX_LENGTH,
            text_columns=("title", "body"),
        )
        return out


def train(
    base_folder: Path, method: Method, weights: Path, target_modules: str = "query-value", **more: Any
) -> Trained:
    """A trial's weights, all of them moved far from where they began, and its own logits."""
    base = resolve_base_model(str(base_folder))
    with quiet_loading():
        loaded = load_base(base, LABELS, 3, FP32.device)
    model = build_classifier(
        loaded, Hyperparameters(method=method, rank=4, target_modules=target_modules, **more), 5, FP32
    )
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=random) * 0.2)
    save_weights(model, weights)
    encoded = encode_texts(load_tokenizer(base), TEXTS.text, TEXTS.pair, None, MAX_LENGTH)
    assert encoded.truncated
    logits = predict_logits(model, encoded, FP32)
    assert np.ptp(logits, axis=0).max() > 0.1  # the rows must matter, or any model would pass
    return Trained(base, weights, logits, method)


@pytest.mark.parametrize("method", ["lora", "rslora", "dora", "full"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_reloaded_folder_predicts_the_same(
    tiny_base: Callable[[str], Path], tmp_path: Path, family: str, method: Method
) -> None:
    trained = train(tiny_base(family), method, tmp_path / "weights")
    for merged in (False, True):
        out = trained.export(tmp_path / f"merged-{merged}", merged)
        torch.manual_seed(99)  # what is missing from the folder comes out otherwise
        assert verify_export(out, TEXTS, trained.logits, FP32, 1e-3) < 1e-3
        classifier = load_classifier(out, device="cpu")
        assert (classifier.label_names, classifier.max_length) == (LABELS, MAX_LENGTH)
        assert classifier.text_columns == ("title", "body")
        np.testing.assert_allclose(predict(classifier, TEXTS.text, TEXTS.pair), trained.logits, atol=1e-3)
        adapter = method != "full" and not merged
        assert (out / "adapter_config.json").exists() == adapter
        assert (out / "model.safetensors").exists() != adapter
        assert AutoConfig.from_pretrained(out).id2label == dict(enumerate(LABELS))


@pytest.mark.parametrize("init", ["pissa", "olora"])
@pytest.mark.parametrize(("family", "method"), [("bert", "lora"), ("deberta-v2", "dora"), ("gpt2", "rslora")])
def test_an_adapter_that_began_from_the_base_predicts_the_same(
    tiny_base: Callable[[str], Path], tmp_path: Path, family: str, method: Method, init: str
) -> None:
    """As a plain adapter on the unchanged base, with ranks and alphas by pattern, and merged."""
    patterns = {"rank_pattern": ".*0.*=3", "alpha_pattern": ".*1.*=5"}
    trained = train(tiny_base(family), method, tmp_path / "weights", init=init, **patterns)
    for merged in (False, True):
        out = trained.export(tmp_path / f"merged-{merged}", merged)
        assert verify_export(out, TEXTS, trained.logits, FP32, 1e-3) < 1e-3
        classifier = load_classifier(out, device="cpu")
        np.testing.assert_allclose(predict(classifier, TEXTS.text, TEXTS.pair), trained.logits, atol=1e-3)


def test_an_adapter_folder_names_its_base_and_holds_no_more(
    tiny_base: Callable[[str], Path], tmp_path: Path
) -> None:
    out = train(tiny_base("deberta"), "lora", tmp_path / "weights").export(tmp_path / "out")
    assert {path.name for path in out.iterdir()} == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    adapter = json.loads((out / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == str(tiny_base("deberta"))
    assert adapter["modules_to_save"] == [
        "pooler",
        "classifier",
        "score",
    ]  # the last by PEFT, for other models
    assert adapter["task_type"] == "SEQ_CLS"


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("pooler", "does not predict what"),
        ("classifier", "cannot be loaded back"),
        ("lora_B", "does not predict what"),
    ],
)
def test_weights_that_were_forgotten_are_noticed(
    tiny_base: Callable[[str], Path], tmp_path: Path, part: str, message: str
) -> None:
    trained = train(tiny_base("deberta-v2"), "lora", tmp_path / "weights")
    out = trained.export(tmp_path / "out")
    weights = load_file(out / "adapter_model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if part not in name}
    assert 0 < len(kept) < len(weights)
    save_file(kept, out / "adapter_model.safetensors")
    config = json.loads((out / "adapter_config.json").read_text())
    config["modules_to_save"].remove(part) if part in config["modules_to_save"] else None
    (out / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ExportError, match=message) as caught:
        verify_export(out, TEXTS, trained.logits, FP32, 1e-3)
    assert "\n" not in str(caught.value)


def test_a_half_precision_classifier_as_base_model(tiny_base: Callable[[str], Path], tmp_path: Path) -> None:
    """The lines that load it must ask for fp32, and for a head of the new labels."""
    base = tmp_path / "base"
    config = AutoConfig.from_pretrained(tiny_base("bert"), num_labels=5)
    model = AutoModelForSequenceClassification.from_config(config)
    model.bert.load_state_dict(AutoModel.from_pretrained(tiny_base("bert")).state_dict())
    model.to(torch.float16).save_pretrained(base)
    load_tokenizer(resolve_base_model(str(tiny_base("bert")))).save_pretrained(base)

    trained = train(base, "lora", tmp_path / "weights")
    arguments = load_arguments(trained.base, LABELS)
    assert arguments == {"dtype": "float32", "ignore_mismatched_sizes": True}
    for merged in (False, True):
        out = trained.export(tmp_path / f"merged-{merged}", merged)
        assert verify_export(out, TEXTS, trained.logits, FP32, 1e-3, arguments) < 1e-3
        np.testing.assert_allclose(
            predict(load_classifier(out, "cpu"), TEXTS.text, TEXTS.pair), trained.logits, atol=1e-3
        )


@pytest.mark.parametrize(
    ("family", "labels", "target_modules"),
    [
        ("bart", 3, r"model[.].*[.](q_proj|fc1)"),
        ("bart", 5, r"model[.].*[.](q_proj|fc1)"),
        ("bart", None, r"model[.].*[.](q_proj|fc1)"),
        ("xlnet", 3, r"transformer[.].*[.]layer_1"),
        ("flaubert", 5, r"transformer[.].*[.]q_lin"),
        ("eurobert", None, r"model[.].*[.]q_proj"),
        ("llama", None, r"model[.].*[.]q_proj"),
    ],
)
def test_heads_of_other_names_come_with_the_folder(
    tmp_path: Path, family: str, labels: int | None, target_modules: str
) -> None:
    """Of an encoder, and of a classifier of other labels; the decoder's configuration knows no padding."""
    folder = make_tiny_base(family, tmp_path / "base", labels=labels)
    if family == "llama":
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"pad_token_id": None}))
    trained = train(folder, "lora", tmp_path / "weights", target_modules)
    arguments = load_arguments(trained.base, LABELS)
    assert (arguments.get("pad_token_id") == 0) == (family == "llama")
    for merged in (False, True):
        out = trained.export(tmp_path / f"merged-{merged}", merged)
        torch.manual_seed(99)
        assert verify_export(out, TEXTS, trained.logits, FP32, 1e-3, arguments) < 1e-3
        classifier = load_classifier(out, device="cpu")
        np.testing.assert_allclose(predict(classifier, TEXTS.text, TEXTS.pair), trained.logits, atol=1e-3)


@pytest.mark.parametrize("family", ["qwen3", "gpt2"])
def test_a_decoder_that_knew_no_padding(tmp_path: Path, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody's batch of rows of mixed lengths gets the trial's logits: the folder says what pads, and where."""
    monkeypatch.setattr(sys.modules[__name__], "MAX_LENGTH", 9)  # its tokenizer adds no tokens
    folder = make_tiny_base(family, tmp_path / "base", bare=True)
    trained = train(folder, "lora", tmp_path / "weights", "all-linear")
    arguments = load_arguments(trained.base, LABELS)
    assert arguments == {"dtype": "float32", "pad_token_id": 3}
    for merged in (False, True):
        out = trained.export(tmp_path / f"merged-{merged}", merged)
        assert AutoConfig.from_pretrained(out).pad_token_id == 3
        with quiet_loading():
            model, tokenizer = load_plainly(out, arguments)
        rows = tokenizer(TEXTS.text, TEXTS.pair, truncation=True, padding=True, return_tensors="pt")
        assert rows["attention_mask"][:, 0].all()
        assert not rows["attention_mask"].all()
        with torch.inference_mode():
            np.testing.assert_allclose(model(**rows).logits.numpy(), trained.logits, atol=1e-3)
        classifier = load_classifier(out, device="cpu")
        np.testing.assert_allclose(predict(classifier, TEXTS.text, TEXTS.pair), trained.logits, atol=1e-3)
    adapter = json.loads((tmp_path / "merged-False" / "adapter_config.json").read_text())
    assert "score" in adapter["modules_to_save"]
    assert adapter["fan_in_fan_out"] == (family == "gpt2")


@pytest.mark.parametrize("method", ["lora", "full"])
def test_weights_that_are_missing_or_broken(
    tiny_base: Callable[[str], Path], tmp_path: Path, method: Method
) -> None:
    trained = train(tiny_base("bert"), method, tmp_path / "weights")
    (path,) = trained.weights.glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ExportError, match="cannot be exported"):
        trained.export(tmp_path / "out")
    path.unlink()
    with pytest.raises(ExportError, match="is missing from the trial's checkpoint"):
        trained.export(tmp_path / "out")

"""An ONNX model predicts what the exported folder does, for every family; and is written only when it does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exported_adapters import LABELS, PAIR, TEXT, export_adapter
from tiny_bases import FAMILIES
from torch import nn

from lorasweep.training.errors import ExportError, ModelError
from lorasweep.training.inference.classifier import load_classifier, predict
from lorasweep.tuning.adapters.export import formats, onnx_model
from lorasweep.tuning.adapters.export.onnx_check import compare
from lorasweep.tuning.adapters.export.onnx_model import OnnxReport, write_onnx

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

Export = Callable[[str], tuple[Path, Path, OnnxReport]]
# Some read two texts, some one.
ONE_TEXT = ("distilbert", "modernbert", "electra")
# An export of one takes seconds, so of families built alike one is enough at first.
SLOW = ("llama", "opt", "gpt_neox", "t5")


@pytest.fixture(scope="module")
def exported(tiny_base: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Export:
    """`exported(family)`: an adapter folder, the ONNX folder made from it, and the report; made once."""
    made: dict[str, tuple[Path, Path, OnnxReport]] = {}

    def export(family: str) -> tuple[Path, Path, OnnxReport]:
        if family not in made:
            root = tmp_path_factory.mktemp(family)
            columns = ("headline",) if family in ONE_TEXT else ("headline", "summary")
            adapter = export_adapter(tiny_base(family), root / "adapter", columns)
            (root / "best [1]").mkdir()
            made[family] = adapter, root / "best [1]", write_onnx(adapter, root / "best [1]", "best [1]")
        return made[family]

    return export


@pytest.fixture
def adapter(tiny_base: Callable[[str], Path], tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return export_adapter(tiny_base("bert"), tmp_path / "adapter")


def run(folder: Path, texts: list[str], pairs: list[str] | None) -> np.ndarray:
    """As anybody would, with ONNX Runtime and the folder's tokenizer alone."""
    from transformers import AutoTokenizer

    session = onnxruntime.InferenceSession(folder / "model.onnx")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = tokenizer(texts, pairs, truncation=True, padding=True, return_tensors="np")
    return np.asarray(session.run(None, {entry.name: rows[entry.name] for entry in session.get_inputs()})[0])


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in FAMILIES]
)
def test_every_family_predicts_the_same_in_batches_of_any_size(exported: Export, family: str) -> None:
    folder, out, report = exported(family)
    assert report.agreement.rows > 60
    assert report.agreement.smallest[0] == 1
    assert report.agreement.largest == (16, 12)
    pairs = None if family in ONE_TEXT else PAIR
    expected = predict(load_classifier(folder, "cpu"), TEXT, pairs)
    assert np.ptp(expected, axis=0).max() > 0.1  # rows matter, or any model would pass
    # Processors add in different orders, and the error of a random network grows with its logits.
    bound = 1e-3 * max(1.0, float(np.abs(expected).max()))
    assert 0 < report.agreement.max_difference < bound
    for start, stop in ((0, 1), (16, 17), (3, 10), (0, 300)):
        found = run(out, TEXT[start:stop], pairs and pairs[start:stop])
        np.testing.assert_allclose(found, expected[start:stop], rtol=0, atol=bound)
        assert (found.argmax(axis=1) == expected[start:stop].argmax(axis=1)).all()


def test_an_adapter_that_began_from_the_base_predicts_the_same(
    tiny_base: Callable[[str], Path], tmp_path: Path
) -> None:
    out = tmp_path / "onnx"
    out.mkdir()
    adapter = export_adapter(tiny_base("bert"), tmp_path / "adapter", init="pissa", alpha_pattern="value=2")
    write_onnx(adapter, out, "onnx")
    expected = predict(load_classifier(adapter, "cpu"), TEXT[:20], PAIR[:20])
    bound = 1e-3 * max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(run(out, TEXT[:20], PAIR[:20]), expected, rtol=0, atol=bound)


def test_what_is_in_the_folder(exported: Export) -> None:
    _, out, report = exported("bert")
    assert {path.name for path in out.iterdir()} == {
        "README.md",
        "config.json",
        "model.onnx",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert report.inputs == ("input_ids", "attention_mask", "token_type_ids")
    assert report.size == (out / "model.onnx").stat().st_size
    assert exported("roberta")[2].inputs == report.inputs[:2]
    session = onnxruntime.InferenceSession(out / "model.onnx")
    assert [entry.shape for entry in session.get_inputs()] == [["batch", "length"]] * 3
    assert [(entry.name, entry.shape) for entry in session.get_outputs()] == [("logits", ["batch", 3])]
    config = json.loads((out / "config.json").read_text())
    assert list(config["id2label"].values()) == list(LABELS)
    assert config["lorasweep"] == {"text_columns": ["headline", "summary"], "max_length": 12}


@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_the_cards_lines_run(
    exported: Export, family: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out, report = exported(family)
    card = (out / "README.md").read_text()
    code = card.split("```python\n")[1].split("```")[0]
    assert len(code.split("\n\n")[1].splitlines()) == 6  # after the imports
    assert "lorasweep" not in code
    assert f"{report.agreement.max_difference:.2g}" in card
    monkeypatch.chdir(out.parent)
    exec(code, {})
    texts = ["your headline"], (None if family in ONE_TEXT else ["your summary"])
    best = predict(load_classifier(folder, "cpu"), *texts).argmax(axis=1)
    assert capsys.readouterr().out.strip() == str([LABELS[best[0]]])


def test_lorasweep_itself_refuses_the_folder(exported: Export) -> None:
    _, out, _ = exported("bert")
    with pytest.raises(ModelError, match=r"an ONNX model, which lorasweep does not run .*--format") as caught:
        load_classifier(out)
    assert "\n" not in str(caught.value)


def refused(folder: Path, message: str) -> None:
    with pytest.raises(ExportError, match=message) as caught:
        write_onnx(folder, folder.parent / "out", "out")
    assert "\n" not in str(caught.value)


class Otherwise(nn.Module):
    """Computes something else than the model it is made of."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.model(*inputs) + 0.01


def test_a_model_that_predicts_otherwise_is_refused(adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = onnx_model._Logits
    monkeypatch.setattr(onnx_model, "_Logits", lambda *arguments: Otherwise(plain(*arguments)))
    refused(adapter, r"does not predict what PyTorch does.* by up to 0\.01")


def test_a_model_whose_code_cannot_be_traced(adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Untraceable(nn.Module):
        def forward(self, ids: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
            return ids * 2.0 if ids.sum().item() > 3 else ids * 3.0

    monkeypatch.setattr(onnx_model, "_Logits", lambda *arguments: Untraceable())
    refused(adapter, r"models of type bert cannot be exported to ONNX \(.+\); use --format merged")


def test_the_other_attention_is_tried_and_large_weights_lie_beside(
    adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export, calls = torch.onnx.export, []

    def fails_once(model: nn.Module, *arguments: Any, **options: Any) -> Any:
        calls.append(model.model.config._attn_implementation)
        if len(calls) == 1:
            raise RuntimeError("no such operator")
        return export(model, *arguments, **options)

    monkeypatch.setattr(torch.onnx, "export", fails_once)
    monkeypatch.setattr(onnx_model, "LARGE_BYTES", 1000)
    out = adapter.parent / "out"
    report = write_onnx(adapter, out, "out")
    assert calls == ["sdpa", "eager"]
    assert report.attention == "eager"
    assert report.size == sum((out / name).stat().st_size for name in ("model.onnx", "model.onnx.data"))
    expected = predict(load_classifier(adapter, "cpu"), TEXT, PAIR)
    np.testing.assert_allclose(run(out, TEXT, PAIR), expected, atol=1e-3)


def test_the_packages_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(ExportError, match=r"not installed \(onnxscript\); run: pip install -e '\.\[onnx\]'"):
        formats.check_format("onnx")


def test_what_counts_as_the_same() -> None:
    """Differences up to a thousandth of the largest logit, or of 1 where all are smaller."""
    batch = {"input_ids": torch.zeros(2, 5, dtype=torch.int64)}
    ours = np.array([[0.5, 1.0], [0.9, 0.5]], dtype=np.float32)
    assert compare([batch], [ours], [ours + 5e-4]).max_difference == pytest.approx(5e-4, rel=0.01)
    tie = np.array([[0.9, 0.9002], [0.9, 0.5]], dtype=np.float32)
    compare([batch], [tie], [tie + np.array([4e-4, 0], dtype=np.float32)])
    assert compare([batch], [10 * ours], [10 * ours + 5e-3]).max_difference == pytest.approx(5e-3, rel=0.01)
    broken = ours.copy()
    broken[1, 0] = np.nan
    for theirs in (ours + 2e-3, broken, ours[:1], ours[:, :1]):
        with pytest.raises(ExportError, match="does not predict what PyTorch does"):
            compare([batch], [ours], [theirs])
    with pytest.raises(ExportError, match="does not predict what PyTorch does"):
        compare([batch], [10 * ours], [10 * ours + 2e-2])
    turned = np.array([[0.9, 0.9015], [0.9, 0.5]], dtype=np.float32)
    with pytest.raises(ExportError, match="1 of 2 rows get another label"):
        compare([batch], [turned], [turned + np.array([[9e-4, -9e-4], [0, 0]], dtype=np.float32)])

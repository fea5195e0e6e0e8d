"""An adapter folder made into a whole model: it predicts the same, and the card says how to load what it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from exported_adapters import LABELS, PAIR, TEXT, export_adapter

from lorasweep.training.errors import ExportError
from lorasweep.training.inference.classifier import load_classifier, predict
from lorasweep.training.settings import Method
from lorasweep.tuning.adapters.card.converted import converted_card
from lorasweep.tuning.adapters.export import merged
from lorasweep.tuning.adapters.export.merged import write_merged

CARD = """\
---
base_model: some/base
license: mit
tags:
- text-classification
- lorasweep
- lora
---

# news: {% topic %} \\<b\\>

A LoRA adapter.

**A demonstration, not a tool.**

## Load it

```python
from peft import something
```

## Data

- rows: 7

### More

## Scores

| a | b |
"""


@pytest.mark.parametrize(("method", "columns"), [("lora", ("title",)), ("dora", ("a", "b")), ("full", ())])
def test_a_whole_model_predicts_the_same(
    tiny_base: Callable[[str], Path], tmp_path: Path, method: Method, columns: tuple[str, ...]
) -> None:
    adapter = export_adapter(tiny_base("deberta-v2"), tmp_path / "adapter", columns, method)
    (adapter / "README.md").write_text(CARD)
    out = tmp_path / "best"
    out.mkdir()
    assert "loaded back" in write_merged(adapter, out, "best")
    before, after = (load_classifier(folder, "cpu") for folder in (adapter, out))
    assert (out / "model.safetensors").is_file()
    assert not (out / "adapter_config.json").exists()
    assert (after.label_names, after.max_length, after.text_columns) == (LABELS, 12, columns)
    pair = PAIR if len(columns) == 2 else None
    expected = predict(before, TEXT, pair)
    assert np.ptp(expected, axis=0).max() > 0.1
    np.testing.assert_allclose(predict(after, TEXT, pair), expected, atol=1e-3)


def test_its_cards_lines_run(
    tiny_base: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    adapter = export_adapter(tiny_base("bert"), tmp_path / "adapter", ("a", "b"))
    (tmp_path / "best").mkdir()
    write_merged(adapter, tmp_path / "best", "best")
    code = (tmp_path / "best" / "README.md").read_text().split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    best = predict(load_classifier(adapter, "cpu"), ["your a"], ["your b"]).argmax(axis=1)
    assert capsys.readouterr().out.strip() == str([LABELS[best[0]]])


def test_a_model_that_predicts_otherwise_is_refused(
    tiny_base: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = export_adapter(tiny_base("bert"), tmp_path / "adapter")
    (tmp_path / "best").mkdir()
    # The update left out of the weights.
    monkeypatch.setattr(merged, "merge_adapter", lambda model: model.unload())
    with pytest.raises(ExportError, match="does not predict what"):
        write_merged(adapter, tmp_path / "best", "best")


def test_the_card_keeps_what_still_holds(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(CARD)
    card = converted_card(tmp_path, "best", "onnx", "It is one.", "run()")
    _, metadata, body = card.split("---\n", 2)
    assert yaml.safe_load(metadata) == {
        "base_model": "some/base",
        "license": "mit",
        "library_name": "onnx",
        "pipeline_tag": "text-classification",
        "tags": ["text-classification", "lorasweep", "lora", "onnx"],
    }
    assert body.startswith("\n# news: {% topic %} \\<b\\>\n\nIt is one. It was found by")
    assert "## Run it\n\n```python\nrun()\n```\n" in body
    assert "peft" not in body
    assert "A LoRA adapter" not in body
    assert "\n\n**A demonstration, not a tool.**\n\n## Run it" in body
    assert body.endswith(CARD[CARD.index("## Data") :])


@pytest.mark.parametrize("text", [None, "", "no entries", "---\n: [\n---\n# x\n"])
def test_a_card_of_somebodys_own_or_none(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "README.md").write_text(text)
    card = converted_card(tmp_path, "best [1]", "transformers", "It is one.", "run()")
    assert yaml.safe_load(card.split("---\n")[1])["library_name"] == "transformers"
    assert "run()" in card

"""An adapter of the base model that comes as a package names it as the hub does, and finds it wherever it is."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from exported_adapters import PAIR, TEXT, export_adapter

from lorasweep.training.data.dataset import Texts
from lorasweep.training.errors import ExportError, ModelError
from lorasweep.training.inference.classifier import load_classifier, predict
from lorasweep.training.model import base_model
from lorasweep.training.model.base_model import MINILM_HUB_ID, MINILM_PACKAGE, resolve_base_model
from lorasweep.training.model.precision import resolve_precision
from lorasweep.tuning.adapters.card.loading import loading_lines
from lorasweep.tuning.adapters.export.merged import write_merged
from lorasweep.tuning.adapters.export.verify import verify_export
from lorasweep.tuning.adapters.export.weights import load_arguments

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ROWS = Texts(TEXT[:20], PAIR[:20], np.zeros(20, np.int64))


@pytest.fixture
def move(
    tiny_base: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Path]:
    """`move(name)` takes the package, a tiny model in place of MiniLM's, to another folder of packages."""
    place = tmp_path / "venv"
    package = place / MINILM_PACKAGE
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    shutil.copytree(tiny_base("bert"), package / "model")
    digest = hashlib.sha256((package / "model" / "model.safetensors").read_bytes()).hexdigest()
    monkeypatch.setattr(base_model, "MINILM_SHA256", digest)
    monkeypatch.setattr(sys, "path", [str(place), *sys.path])
    # Another test may have imported it, and would be told where it was then.
    monkeypatch.delitem(sys.modules, MINILM_PACKAGE, raising=False)

    def move(name: str) -> Path:
        nonlocal place
        place = Path(shutil.move(place, tmp_path / name))
        monkeypatch.setattr(sys, "path", [str(place), *sys.path[1:]])
        importlib.invalidate_caches()
        return place / MINILM_PACKAGE / "model"

    return move


def test_its_folder_names_nothing_of_this_machine(move: Callable[[str], Path], tmp_path: Path) -> None:
    adapter = export_adapter("minilm", tmp_path / "best")
    entries = json.loads((adapter / "adapter_config.json").read_text())
    assert (entries["base_model_name_or_path"], entries["revision"]) == (MINILM_HUB_ID, None)
    texts = [path.read_text() for path in adapter.iterdir() if path.suffix in (".json", ".md")]
    assert not any(str(tmp_path) in text or "site-packages" in text for text in texts)


@pytest.mark.parametrize("name", ["minilm", MINILM_HUB_ID])
def test_it_predicts_the_same_after_the_package_has_moved(
    move: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    """Offline: the tests never reach a hub. Without the package it is refused in one line."""
    adapter = export_adapter(name, tmp_path / "best")
    before = predict(load_classifier(adapter, "cpu"), ROWS.text, ROWS.pair)
    moved = move("elsewhere")
    assert resolve_base_model(MINILM_HUB_ID).location == str(moved)
    np.testing.assert_array_equal(predict(load_classifier(adapter, "cpu"), ROWS.text, ROWS.pair), before)
    merged = tmp_path / "merged"
    merged.mkdir()
    write_merged(adapter, merged, "merged", ROWS)
    shutil.rmtree(moved.parent)
    importlib.invalidate_caches()
    np.testing.assert_allclose(
        predict(load_classifier(merged, "cpu"), ROWS.text, ROWS.pair), before, atol=1e-3
    )


def test_an_export_is_verified_with_the_packages_weights(move: Callable[[str], Path], tmp_path: Path) -> None:
    adapter = export_adapter("minilm", tmp_path / "best")
    base = resolve_base_model("minilm")
    classifier = load_classifier(adapter, "cpu")
    logits = predict(classifier, ROWS.text, ROWS.pair)
    amp = resolve_precision("fp32", classifier.device)
    assert (
        verify_export(adapter, ROWS, logits, amp, 1e-3, load_arguments(base, classifier.label_names), base)
        < 1e-3
    )
    assert (
        json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"] == MINILM_HUB_ID
    )
    with pytest.raises(ExportError):  # not by its own name, which leads to the hub
        verify_export(adapter, ROWS, logits, amp, 1e-3)


def test_the_cards_lines_load_it_where_there_is_no_such_package(
    move: Callable[[str], Path], tmp_path: Path
) -> None:
    """With plain PEFT, in a process of its own, from the hub's cache."""
    adapter = export_adapter("minilm", tmp_path / "best")
    classifier = load_classifier(adapter, "cpu")
    expected = predict(classifier, ROWS.text, ROWS.pair)
    lines = loading_lines("best", True, load_arguments(resolve_base_model("minilm"), classifier.label_names))
    repository = tmp_path / "cache" / f"models--{MINILM_HUB_ID.replace('/', '--')}"
    shutil.copytree(move("gone"), repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    shutil.rmtree(tmp_path / "gone")
    script = f"""
import json
{lines}
rows = json.loads({json.dumps([ROWS.text, ROWS.pair])!r})
inputs = tokenizer(*rows, truncation=True, padding=True, return_tensors="pt")
print(json.dumps(model.eval()(**inputs).logits.tolist()))
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"HF_HUB_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(json.loads(done.stdout.splitlines()[-1]), expected, atol=1e-3)


def test_without_package_and_cache_it_is_refused_in_one_line(
    move: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = export_adapter("minilm", tmp_path / "best")
    shutil.rmtree(move("gone").parent)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="its base model cannot be loaded") as caught:
        load_classifier(adapter, "cpu")
    assert "\n" not in str(caught.value)

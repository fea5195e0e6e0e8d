"""What MLflow holds, taken along in each format; other tests of its addresses are in `test_registry`."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from exported_adapters import PAIR, TEXT, export_adapter

from lorasweep.training.errors import ExportError
from lorasweep.training.inference.classifier import load_classifier, predict
from lorasweep.tuning.adapters import ExportFormat
from lorasweep.tuning.adapters.export import formats
from lorasweep.tuning.tracking.models.fetch import fetch_as
from lorasweep.tuning.tracking.store import connect, prepare_store


@pytest.fixture(scope="module")
def stored(
    tiny_base: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str, str]:
    """An adapter folder, and a store with a run that has it: the store's address and the run's."""
    root = tmp_path_factory.mktemp("stored")
    adapter = export_adapter(tiny_base("bert"), root / "adapter")
    uri = f"sqlite:///{root / 'mlruns' / 'mlflow.db'}"
    prepare_store(uri, root / "mlruns")
    client = connect(uri)
    experiment = client.create_experiment("fetch", artifact_location=str(root / "mlruns" / "artifacts"))
    run = client.create_run(experiment).info.run_id
    client.log_artifacts(run, str(adapter), "adapter")
    return adapter, uri, f"runs:/{run}"


@pytest.mark.parametrize("form", ["adapter", "merged"])
def test_a_run_in_another_format_predicts_the_same(
    stored: tuple[Path, str, str], tmp_path: Path, form: ExportFormat
) -> None:
    adapter, uri, run = stored
    told = fetch_as(form, run, uri, tmp_path / "best")
    assert run in told
    assert ("whole model" in told) == (form == "merged")
    assert (tmp_path / "best" / "adapter_config.json").is_file() == (form == "adapter")
    expected = predict(load_classifier(adapter, "cpu"), TEXT, PAIR)
    np.testing.assert_allclose(
        predict(load_classifier(tmp_path / "best", "cpu"), TEXT, PAIR), expected, atol=1e-3
    )
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


def test_a_run_as_an_onnx_model(stored: tuple[Path, str, str], tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from transformers import AutoTokenizer

    adapter, uri, run = stored
    assert "as an ONNX model" in fetch_as("onnx", run, uri, tmp_path / "best")
    session = onnxruntime.InferenceSession(tmp_path / "best" / "model.onnx")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "best")
    rows = tokenizer(TEXT, PAIR, truncation=True, padding=True, return_tensors="np")
    (logits,) = session.run(None, {entry.name: rows[entry.name] for entry in session.get_inputs()})
    np.testing.assert_allclose(logits, predict(load_classifier(adapter, "cpu"), TEXT, PAIR), atol=1e-3)
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


def test_nothing_appears_when_it_fails(
    stored: tuple[Path, str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, uri, run = stored
    (tmp_path / "best").mkdir()
    for form in ("merged", "onnx"):
        with pytest.raises(ExportError, match="exists already"):
            fetch_as(form, run, uri, tmp_path / "best")
    shutil.rmtree(tmp_path / "best")
    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    with pytest.raises(ExportError, match=r"pip install -e '\.\[onnx\]'"):
        fetch_as("onnx", run, uri, tmp_path / "best")
    assert list(tmp_path.iterdir()) == []

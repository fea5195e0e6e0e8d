"""A folder of a trial on long texts reads them as the trial did, in every format, and its card shows how."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from exported_adapters import export_adapter
from safetensors.numpy import load_file
from small_sweep import SETTINGS, finished_sweep

from lorasweep.training.data.dataset import Dataset
from lorasweep.training.errors import ModelError
from lorasweep.training.inference.classifier import load_classifier, predict
from lorasweep.training.settings import Long
from lorasweep.tuning.adapters.export.formats import ExportFormat
from lorasweep.tuning.adapters.export.sweep import export_sweep
from lorasweep.tuning.record.folder import SweepFolder

LONGER = "film star award album markets bank shares rally vaccine doctors study trial team"


@pytest.fixture(scope="module", params=["head-tail", "chunks"])
def finished(
    request: pytest.FixtureRequest, tiny_base: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> SweepFolder:
    """Trained on pairs of about ten tokens, of which the model reads eight at once."""
    training = SETTINGS.model_copy(update={"max_length": 8, "long": request.param})
    return finished_sweep(tmp_path_factory.mktemp("sweep"), tiny_base("bert"), training=training)


@pytest.mark.parametrize("form", ["adapter", "merged", "onnx"])
def test_the_folder_and_its_cards_lines_predict_what_the_trial_did(
    finished: SweepFolder,
    tmp_path: Path,
    form: ExportFormat,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if form == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    out, rows = tmp_path / "best", Dataset.load(finished.data).validation
    long = finished.config().training.long
    assert export_sweep(finished, out, form=form).max_difference <= 1e-3
    entries = json.loads((out / "config.json").read_text())["lorasweep"]
    assert (entries["long"], entries["max_length"]) == (long, 8)
    if form == "onnx":
        export_sweep(finished, tmp_path / "adapter")
    classifier = load_classifier(tmp_path / "adapter" if form == "onnx" else out, device="cpu")
    own = load_file(finished.ray / "t000" / "checkpoint" / "probe.safetensors")["logits"]
    np.testing.assert_allclose(predict(classifier, rows.text, rows.pair), own, atol=1e-3)

    card = (out / "README.md").read_text()
    code = "\n".join(re.findall(r"```python\n(.*?)\n```", card, flags=re.S))
    assert "lorasweep" not in code
    assert ("are read in chunks" in card, "the end is read" in card) == (
        long == "chunks",
        long == "head-tail",
    )
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(code.replace('"your body"', f'"{LONGER}"'), names)
    expected = predict(classifier, ["your head_line"], [LONGER])
    logits = names["logits"]
    found = np.asarray(
        logits.detach() if hasattr(logits, "detach") else logits
    )  # PyTorch's, or ONNX Runtime's
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert classifier.label_names[int(expected.argmax())] in capsys.readouterr().out


@pytest.mark.parametrize("long", ["head-tail", "chunks"])
@pytest.mark.parametrize("family", ["llama", "modernbert"])
def test_logits_are_those_of_the_windows(
    tiny_base: Callable[[str], Path], tmp_path: Path, family: str, long: Long
) -> None:
    """One text: the mean of texts that are its parts, or one text without its middle."""
    classifier = load_classifier(
        export_adapter(tiny_base(family), tmp_path / "best", ("text",), long=long), "cpu"
    )
    words = LONGER.split()
    assert len(words) == 13  # room for ten beside two special tokens
    parts = [words[:7], words[7:]] if long == "chunks" else [words[:3] + words[-7:]]
    expected = predict(classifier, [" ".join(part) for part in parts]).mean(axis=0)
    np.testing.assert_allclose(predict(classifier, ["film", LONGER])[1], expected, atol=1e-5)


def test_a_way_of_a_later_version_is_refused(tiny_base: Callable[[str], Path], tmp_path: Path) -> None:
    out = export_adapter(tiny_base("bert"), tmp_path / "best", long="chunks")
    config = json.loads((out / "config.json").read_text())
    config["lorasweep"]["long"] = "summary"
    (out / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="read by 'summary', which this version does not know") as caught:
        load_classifier(out, "cpu")
    assert "\n" not in str(caught.value)

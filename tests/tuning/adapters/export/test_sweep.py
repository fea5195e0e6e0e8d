"""A small finished sweep, exported: the folder, its card, the comparison, and what is refused."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file, save_file
from small_sweep import LABELS, SETTINGS, copy_sweep, finished_sweep
from tiny_bases import make_tiny_base
from transformers import AutoTokenizer

from lorasweep.training.data.dataset import Dataset
from lorasweep.training.data.part import part_of
from lorasweep.training.errors import ExportError, ModelError, SettingsError
from lorasweep.training.inference.classifier import load_classifier, predict
from lorasweep.training.settings import Metric
from lorasweep.tuning.adapters.export.formats import FORMATS, ExportFormat
from lorasweep.tuning.adapters.export.sweep import export_sweep
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.ran_on import RanOn


@pytest.fixture(scope="module")
def finished(tiny_base: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> SweepFolder:
    """A sweep of two trained trials and one that failed; t000 has won."""
    return finished_sweep(tmp_path_factory.mktemp("sweep"), tiny_base("deberta-v2"))


@pytest.fixture
def sweep(finished: SweepFolder, tmp_path: Path) -> SweepFolder:
    """A copy to damage; its records still name the checkpoints of the first."""
    return copy_sweep(finished, tmp_path / "copy" / "mlruns")


def own_logits(folder: SweepFolder, trial: str) -> np.ndarray:
    return load_file(folder.ray / trial / "checkpoint" / "probe.safetensors")["logits"]


@pytest.mark.parametrize(
    ("trial", "form", "adapter"),
    [(None, "adapter", True), (None, "merged", False), ("t001", "adapter", False)],
)
def test_the_folder_predicts_what_the_trial_did(
    finished: SweepFolder, tmp_path: Path, trial: str | None, form: ExportFormat, adapter: bool
) -> None:
    out = tmp_path / "new" / "best"
    report = export_sweep(finished, out, trial=trial, form=form)
    rows = Dataset.load(finished.data).validation
    expected = own_logits(finished, trial or "t000")
    assert (report.trial, report.is_adapter, report.rows) == (trial or "t000", adapter, len(rows))
    assert report.max_difference <= 1e-3
    assert "best" in report.text()
    classifier = load_classifier(out, device="cpu")
    np.testing.assert_allclose(predict(classifier, rows.text, rows.pair), expected, atol=1e-3)
    assert sorted(path.name for path in out.parent.iterdir()) == ["best"]  # nothing temporary stays
    assert out.stat().st_mode & 0o777 == 0o777 & ~current_umask()


@pytest.mark.parametrize("trial", [None, "t001"])
def test_an_onnx_model_predicts_what_the_trial_did(
    finished: SweepFolder, tmp_path: Path, trial: str | None
) -> None:
    """By its own tokenizer and ONNX Runtime; its card tells what the adapter's does, but not how to load that."""
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    out = tmp_path / "new" / "best"
    report = export_sweep(finished, out, trial=trial, form="onnx")
    rows = Dataset.load(finished.data).validation
    assert f"on {len(rows) + 5} rows" in report.text()  # five more of extreme lengths
    assert f"trial {trial or 't000'} as an ONNX model" in report.text()
    session = onnxruntime.InferenceSession(out / "model.onnx")
    tokenizer = AutoTokenizer.from_pretrained(out)
    texts = tokenizer(rows.text, rows.pair, truncation=True, padding=True, return_tensors="np")
    (logits,) = session.run(None, {entry.name: texts[entry.name] for entry in session.get_inputs()})
    np.testing.assert_allclose(logits, own_logits(finished, trial or "t000"), atol=1e-3)
    assert sorted(path.name for path in out.parent.iterdir()) == ["best"]

    export_sweep(finished, tmp_path / "adapter", trial=trial)
    card, other = ((folder / "README.md").read_text() for folder in (out, tmp_path / "adapter"))
    sections, others = (re.findall(r"^## .*", text, re.MULTILINE) for text in (card, other))
    assert [name.replace("## Run it", "## Load it") for name in sections] == others
    assert "from_pretrained" in card
    assert not re.search("peft|torch|AutoModel", card.split("## Base model")[0])
    assert card.split("## Base model")[1] == other.split("## Base model")[1]
    entries = yaml.safe_load(card.split("---\n")[1])
    expected = yaml.safe_load(other.split("---\n")[1])
    assert entries == expected | {"library_name": "onnx", "tags": [*expected["tags"], "onnx"]}


def test_a_decoder_and_what_it_pads_with(tmp_path: Path) -> None:
    """The card's lines tell the base model's configuration, which does not know it."""
    base = make_tiny_base("gpt2", tmp_path / "gpt2", bare=True)
    folder = finished_sweep(tmp_path, base)
    for trial, form in (("t000", "adapter"), ("t001", "adapter"), ("t000", "merged")):
        out = tmp_path / f"{trial}-{form}"
        assert export_sweep(folder, out, trial=trial, form=form).max_difference <= 1e-3
        assert json.loads((out / "config.json").read_text())["pad_token_id"] == 3
        assert json.loads((out / "tokenizer_config.json").read_text())["pad_token"] == "[SEP]"
        lines = (out / "README.md").read_text().split("```python")[1]
        assert ("pad_token_id=3" in lines) == ((trial, form) == ("t000", "adapter"))


def current_umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def test_the_cards_lines_load_it_without_lorasweep(finished: SweepFolder, tmp_path: Path) -> None:
    """In a process of its own, with plain PEFT; also with the number of labels alone."""
    export_sweep(finished, tmp_path / "best-adapter")
    card = (tmp_path / "best-adapter" / "README.md").read_text()
    lines, example = re.findall(r"```python\n(.*?)\n```", card, flags=re.S)
    assert len(lines.splitlines()) == 5
    assert example.startswith('inputs = tokenizer("your head_line", "your body", ')
    rows = Dataset.load(finished.data).validation
    script = f"""
import json, sys
{lines}
{example}
import torch
def logits(model):
    inputs = tokenizer(*rows, truncation=True, padding=True, return_tensors="pt")
    with torch.no_grad():
        return model.eval()(**inputs).logits.tolist()
rows = json.loads(sys.stdin.read())
other = AutoPeftModelForSequenceClassification.from_pretrained("best-adapter", num_labels=3)
found = [logits(model), logits(other)]
assert not {{"lorasweep", "ray"}} & set(sys.modules)
print(json.dumps([found, list(model.config.id2label.values()), tokenizer.model_max_length]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=json.dumps([rows.text, rows.pair]),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "adapter keys" not in done.stderr
    answer, last = done.stdout.splitlines()[-2:]
    found, names, max_length = json.loads(last)
    assert answer in LABELS
    assert tuple(names) == LABELS
    assert max_length == SETTINGS.max_length
    for logits in found:
        np.testing.assert_allclose(logits, own_logits(finished, "t000"), atol=1e-3)


def test_the_winners_own_folder_is_enough(sweep: SweepFolder, tmp_path: Path) -> None:
    shutil.move(sweep.ray / "t000" / "checkpoint", sweep.winner)
    assert export_sweep(sweep, tmp_path / "out").trial == "t000"


def test_a_checkpoint_on_shared_storage_is_fetched(sweep: SweepFolder, tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    shutil.move(sweep.ray, storage)
    config = sweep.config()
    resources = config.resources.model_copy(update={"storage": storage.as_uri()})
    (sweep.path / "config.yaml").write_text(config.model_copy(update={"resources": resources}).to_yaml())
    for trial in sweep.trials()[:2]:
        path = str(storage / trial.id / "checkpoint")
        sweep.write_trial(trial.model_copy(update={"checkpoint": path}))
    assert export_sweep(sweep, tmp_path / "out").max_difference <= 1e-3


def test_a_folder_that_predicts_otherwise_is_not_exported(sweep: SweepFolder, tmp_path: Path) -> None:
    path = sweep.ray / "t000" / "checkpoint" / "probe.safetensors"
    logits = load_file(path)["logits"]
    logits[7, 1] += 0.01
    save_file({"logits": logits}, path)
    with pytest.raises(ExportError, match=r"differ by up to 0.01 \(row 8;") as caught:
        export_sweep(sweep, tmp_path / "deep" / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "deep").exists()


def test_a_base_model_that_has_changed_is_noticed(
    sweep: SweepFolder, tmp_path: Path, tiny_base: Callable[[str], Path]
) -> None:
    config = sweep.config()
    for name, message in (
        (tiny_base("bert"), "cannot be loaded back|does not predict"),
        (tmp_path / "gone", "gone"),
    ):
        (sweep.path / "config.yaml").write_text(config.model_copy(update={"base_model": str(name)}).to_yaml())
        with pytest.raises((ExportError, ModelError), match=message):
            export_sweep(sweep, tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_a_place_that_is_taken_or_not_writable(finished: SweepFolder, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "folder", "link"):
        with pytest.raises(ExportError, match="exists already"):
            export_sweep(finished, tmp_path / name)
    with pytest.raises(ExportError, match="cannot be written"):
        export_sweep(finished, tmp_path / "file" / "below")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder", "link"]


def test_trials_that_cannot_be_exported(sweep: SweepFolder, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(SettingsError, match="has no trial 't9'; there are: t000, t001, t002"):
        export_sweep(sweep, out, trial="t9")
    with pytest.raises(ExportError, match=r"t002 \(failed\) has no checkpoint .*: t00"):
        export_sweep(sweep, out, trial="t002")
    shutil.rmtree(sweep.ray / "t001")
    with pytest.raises(ExportError, match="checkpoint of trial t001 is gone"):
        export_sweep(sweep, out, trial="t001")
    (sweep.ray / "t000" / "checkpoint" / "probe.safetensors").unlink()
    with pytest.raises(ExportError, match="own predictions cannot be read"):
        export_sweep(sweep, out)
    (sweep.path / "result.json").unlink()
    with pytest.raises(ExportError, match=r"has no winner \(it is interrupted\)"):
        export_sweep(sweep, out)
    assert not out.exists()


@pytest.mark.parametrize(("metric", "order"), [("accuracy", "t001, t000"), ("loss", "t000, t001")])
def test_the_best_trials_are_named_first(
    sweep: SweepFolder, tmp_path: Path, metric: Metric, order: str
) -> None:
    config = sweep.config()
    training = config.training.model_copy(update={"metric": metric})
    sweep.write_config(config.model_copy(update={"training": training}))
    for trial, score in zip(sweep.trials()[:2], (0.5, 0.75), strict=True):
        sweep.write_trial(trial.model_copy(update={"score": score}))
    with pytest.raises(ExportError, match=f"trials that have one, the best first: {order}$"):
        export_sweep(sweep, tmp_path / "out", trial="t002")


def test_what_the_trial_ran_in_goes_before_what_was_planned(sweep: SweepFolder, tmp_path: Path) -> None:
    """Trials of bf16, and a plan from before one asked a worker: of a driver without a GPU, in fp32."""
    checkpoint = sweep.ray / "t001" / "checkpoint"
    sweep.write_trial(sweep.trials()[1].model_copy(update={"checkpoint": str(checkpoint)}))
    probe = checkpoint / "probe.safetensors"
    logits = load_file(probe)["logits"]
    save_file({"logits": logits + 0.02 * np.abs(logits).max()}, probe)
    with pytest.raises(ExportError, match="does not predict what the trial did"):
        export_sweep(sweep, tmp_path / "before", trial="t001")
    (checkpoint / "best.json").write_text('{"precision": "bf16", "device": "cuda"}')
    assert export_sweep(sweep, tmp_path / "after", trial="t001").rows == len(logits)
    # A checkpoint that does not say it: the trial's record does, of its best evaluation.
    (checkpoint / "best.json").unlink()
    record = sweep.trials()[1]
    moved = {"best_ran_on": RanOn(device="cuda", precision="bf16"), "ran_on": RanOn(precision="fp32")}
    sweep.write_trial(record.model_copy(update=moved))
    assert export_sweep(sweep, tmp_path / "recorded", trial="t001").rows == len(logits)


def test_the_table_of_formats_is_whole_and_light() -> None:
    """The command line reads it before it knows whether anything is exported."""
    assert set(FORMATS) == set(get_args(ExportFormat))
    code = "import sys, lorasweep.tuning.adapters; print({'torch', 'transformers', 'ray'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_trial_of_a_search_on_a_part_is_compared_on_its_own_rows(
    sweep: SweepFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the part come from all over the validation split; a finalist's are its first ones."""
    monkeypatch.setattr("lorasweep.training.data.part.ENOUGH_VALIDATION_ROWS", 3)
    config = sweep.config()
    search = config.search.model_copy(update={"proxy": 0.4})
    sweep.write_config(config.model_copy(update={"search": search}))
    data, logits = Dataset.load(sweep.data), own_logits(sweep, "t000")
    part = part_of(data.train.labels, data.validation.labels, 0.4, 0)
    assert len(part.validation) < len(logits) == len(data.validation)
    shutil.rmtree(sweep.winner, ignore_errors=True)
    save_file({"logits": logits[part.validation]}, sweep.ray / "t000" / "checkpoint" / "probe.safetensors")
    report = export_sweep(sweep, tmp_path / "part", trial="t000")
    assert (report.rows, report.max_difference < 1e-3) == (len(part.validation), True)

    last = sweep.trials()[0].model_copy(update={"id": "t000-full", "finalist_of": "t000"})
    sweep.write_trial(last)
    with pytest.raises(ExportError, match="predict"):
        export_sweep(sweep, tmp_path / "wrong", trial="t000-full")
    save_file({"logits": logits}, sweep.ray / "t000" / "checkpoint" / "probe.safetensors")
    assert export_sweep(sweep, tmp_path / "full", trial="t000-full").rows == len(logits)
    with pytest.raises(ExportError, match="predict"):
        export_sweep(sweep, tmp_path / "wrong", trial="t000")

"""Base models that trials choose among, from the plan to what follows the trials."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from tiny_bases import make_tiny_base
from whole_sweeps import RUN, check_study, lorasweep, write_rows

from lorasweep.search_spaces.space import SearchSpace
from lorasweep.training.errors import LorasweepError, ModelError, SettingsError
from lorasweep.training.inference.classifier import load_classifier, predict
from lorasweep.training.inference.folder import quiet_loading
from lorasweep.training.settings import Hyperparameters
from lorasweep.tuning.adapters.export.weights import load_plainly
from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.sweep import SweepRecord
from lorasweep.tuning.sweep.plan.plan import SweepPlan, trial_setup, untuned_settings
from lorasweep.tuning.sweep.plan.planning import plan_sweep
from lorasweep.tuning.terminal.plan import plan_text

SPACE = """
base_model: {choice: [base, rob]}
rank: {choice: [2, 4]}
learning_rate: {loguniform: [5e-3, 5e-2]}
batch_size: 8
starts:
  - {rank: 2, learning_rate: 0.02}
  - {rank: 4, learning_rate: 0.01, base_model: rob}
"""


@pytest.fixture
def place(tiny_base: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with texts and two base models whose tokenizers differ in their types."""
    write_rows(tmp_path / "rows.csv")
    shutil.copytree(tiny_base("bert"), tmp_path / "base")
    shutil.copytree(tiny_base("roberta"), tmp_path / "rob")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def plan(choices: list[str], space: dict[str, Any] | None = None, **training: Any) -> SweepPlan:
    entries = {"name": "demo", "data": {"path": "rows.csv"}, "training": training}
    searched = {"base_model": {"choice": choices}, "rank": {"choice": [2, 4]}} | (space or {})
    return plan_sweep(SweepConfig.model_validate(entries), space=SearchSpace.from_dict(searched))


def test_every_base_model_is_planned_as_the_sweeps_own(place: Path) -> None:
    """The first stands for the default that nobody asked for; rows are encoded for each."""
    found = plan(["base", "rob"])
    base, rob = str(place / "base"), str(place / "rob")
    assert (found.config.base_model, found.base.location, list(found.bases)) == (base, base, [base, rob])
    assert found.encoded.train.type_ids is not None
    other = found.encoded.for_base(rob)
    assert (other.train.type_ids, found.encoded.for_base(base)) == (None, found.encoded)
    assert other.train.labels.tolist() == found.encoded.train.labels.tolist()
    setup = trial_setup(found, found.resources)
    assert setup.base_of(Hyperparameters(base_model=rob)).location == rob
    assert setup.base_of(Hyperparameters()).location == base
    with pytest.raises(
        ModelError, match=r"elsewhere is none of those that the plan has found in the space \(/"
    ):
        setup.base_of(Hyperparameters(base_model="elsewhere"))
    assert untuned_settings(found, rob).base_model == rob
    summary = json.loads(json.dumps(found.summary()))["bases"]
    assert {name: entry["model_type"] for name, entry in summary.items()} == {base: "bert", rob: "roberta"}
    assert min(entry["parameters"] for entry in summary.values()) > 10_000


def test_bases_that_read_alike_share_their_tokens_and_the_shortest_limit_counts(place: Path) -> None:
    make_tiny_base("bert", place / "short", max_position_embeddings=24)
    found = plan(["base", "short"])
    assert found.encoded.by_base == {}
    assert found.config.training.max_length == 24


@pytest.mark.parametrize(
    ("choices", "space", "training", "message"),
    [
        (["base", "gone"], {}, {}, r"base model gone: neither in the local cache|base model gone: "),
        (["base", "short"], {}, {"max_length": 32}, r"--max-length 32: base model .*/short reads at most 24"),
        (
            ["base", "bart"],
            {"target_modules": "query-value"},
            {},
            r"base_model .*/bart: target_modules: query-value is not known for models of type 'bart'.*; or leave this "
            "base model out of the choice",
        ),
        (["base", "broken"], {}, {}, r"base model .*/broken: no weights in model.safetensors"),
    ],
)
def test_a_base_model_that_does_not_fit_is_refused(
    place: Path, choices: list[str], space: dict[str, Any], training: dict[str, Any], message: str
) -> None:
    match choices[1]:
        case "short":
            make_tiny_base("bert", place / "short", max_position_embeddings=24)
        case "bart":
            make_tiny_base("bart", place / "bart")
        case "broken":
            shutil.copytree(place / "base", place / "broken")
            (place / "broken" / "model.safetensors").unlink()
    with pytest.raises(LorasweepError, match=message) as refused:
        plan(choices, space, **training)
    assert "\n" not in str(refused.value)


def test_a_quantised_base_model_is_never_trained_whole(place: Path) -> None:
    pytest.importorskip("bitsandbytes")
    message = r"--quantize nf4: the base model is frozen, and the space has the method full, .*; leave one of them out"
    with pytest.raises(SettingsError, match=message):
        plan(["base", "rob"], {"method": {"choice": ["lora", "full"]}}, quantize="nf4")
    found = plan(["base", "rob"], quantize="nf4", gradient_checkpointing=True)
    setup = trial_setup(found, found.resources)
    assert (setup.training_settings.quantize, setup.training_settings.gradient_checkpointing) == ("nf4", True)
    whole = plan(["base", "rob"])
    assert found.base_parameters == whole.base_parameters, "however they are stored"
    console = Console(width=300, record=True, file=io.StringIO())
    console.print(plan_text(found))
    shown = console.export_text()
    assert "one of base (bert), rob (roberta); " in shown
    assert "stored in nf4, layers computed twice" in shown


def test_layers_that_cannot_be_computed_again_are_refused(place: Path) -> None:
    make_tiny_base("funnel", place / "funnel")
    space = {"target_modules": ".*[.]attention[.]q_head"}
    with pytest.raises(
        ModelError, match=r"--gradient-checkpointing: the code of Funnel.* has no checkpoints"
    ):
        plan(["funnel", "base"], space, gradient_checkpointing=True)


@pytest.mark.slow
def test_a_sweep_over_two_base_models(tmp_path: Path) -> None:
    """Each trial trains, and each that is exported names and needs, the base model that it chose."""
    write_rows(tmp_path / "rows.csv")
    for name, family in (("base", "bert"), ("rob", "roberta")):
        make_tiny_base(family, tmp_path / name)
    (tmp_path / "space.yaml").write_text(SPACE)
    sweep = [option for option in RUN if option not in ("--base-model", "./base")]
    more = ["--space", "space.yaml", "--trials", "3", "--epochs", "2", "--no-baselines", "--compare-untuned"]
    out, _ = lorasweep(tmp_path, *sweep, "--name", "demo", *more)
    folder = SweepFolder(tmp_path / "mlruns", "demo")
    records, (base, rob) = folder.trials(), (str(tmp_path / name) for name in ("base", "rob"))
    assert [record.error for record in records] == [None] * 3
    check_study(folder, records)
    assert [record.hyperparameters.base_model for record in records[:2]] == [base, rob], (
        "a start's, or the sweep's"
    )
    assert all((record.parameters or 0) > (record.trainable_parameters or 0) for record in records)
    assert re.search(r"^base  best .* rows/s  ms/text *$", out, re.M)
    result = SweepRecord(folder).result
    assert result is not None
    assert result.latency_ms.keys() == {base, rob}
    assert all(milliseconds > 0 for milliseconds in result.latency_ms.values())
    assert result.winner is not None
    assert result.untuned is not None
    won = result.winner.hyperparameters.base_model
    assert result.untuned.hyperparameters.base_model == won

    texts = ["markets rally", "film star wins award album"]
    for trial, where in (("t000", base), ("t001", rob)):
        lorasweep(tmp_path, "export", "demo", "--trial", trial, "--out", trial)
        assert (
            json.loads((tmp_path / trial / "adapter_config.json").read_text())["base_model_name_or_path"]
            == where
        )
        with quiet_loading():
            model, tokenizer = load_plainly(tmp_path / trial, {"dtype": "float32"})
        rows = tokenizer(texts, truncation=True, padding=True, return_tensors="pt")
        expected = predict(load_classifier(tmp_path / trial, "cpu"), texts)
        np.testing.assert_allclose(model(**rows).logits.detach().numpy(), expected, atol=1e-4)
    out, _ = lorasweep(tmp_path, "predict", "--adapter", "t001", *texts)
    assert len(out.splitlines()) == 3

    (tmp_path / "elsewhere").mkdir()
    resumed = ["resume", "demo", "--mlruns", str(folder.mlruns), "--confirm", "2x1"]
    lorasweep(tmp_path / "elsewhere", *resumed)
    after = SweepRecord(folder).result
    assert after is not None
    assert len(after.confirmed) == 2

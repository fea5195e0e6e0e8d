"""What a plan checks before the first trial, and what it keeps for later ones."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from whole_sweeps import write_rows

from lorasweep.training.errors import LorasweepError
from lorasweep.training.model.base_model import load_tokenizer, resolve_base_model
from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.sweep.plan import plan_sweep


@pytest.fixture
def place(tiny_base: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with texts and a base model that a test may change."""
    write_rows(tmp_path / "rows.csv")
    shutil.copytree(tiny_base("bert"), tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config(**training: int) -> SweepConfig:
    """As it is asked for: of the training, nothing else is given."""
    return SweepConfig.model_validate(
        {"name": "demo", "data": {"path": "rows.csv"}, "base_model": "base", "training": training}
    )


def test_a_base_model_named_from_here_is_found_from_elsewhere(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_sweep(config())
    assert plan.config.base_model == str(place / "base")
    (place / "elsewhere").mkdir()
    monkeypatch.chdir(place / "elsewhere")
    again = plan_sweep(plan.config, plan.dataset, plan.space)
    assert (again.config, again.base.location) == (plan.config, plan.base.location)


def test_the_default_length_is_what_the_model_can_read(place: Path) -> None:
    """Nobody has asked for 128 tokens; who asks for them of a model with 64 positions is refused."""
    assert SweepConfig(name="demo").training.max_length == 128
    plan = plan_sweep(config(epochs=2))
    assert (plan.config.training.max_length, plan.config.training.epochs) == (64, 2)


def not_numbers(base: Path) -> None:
    weights = load_file(base / "model.safetensors")
    weights["encoder.layer.0.output.dense.bias"][0] = float("nan")
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})


def more_tokens(base: Path) -> None:
    tokenizer = load_tokenizer(resolve_base_model(str(base)))
    tokenizer.add_tokens(["[NEW]"])
    tokenizer.save_pretrained(base)


def a_pickle(base: Path) -> None:
    (base / "model.safetensors").rename(base / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("damage", "max_length", "message"),
    [
        (
            lambda base: None,
            65,
            r"^--max-length 65: base model .*/base reads at most 64 tokens; use 64 or less",
        ),
        (a_pickle, 64, "only pytorch_model.bin, a pickle"),
        (more_tokens, 64, r"its tokenizer's tokens go up to number \d+ \('\[NEW\]'\)"),
        (not_numbers, 64, "logits of the longest row"),
    ],
)
def test_a_base_model_that_would_fail_in_a_trial_is_refused(
    place: Path, damage: Callable[[Path], None], max_length: int, message: str
) -> None:
    damage(place / "base")
    with pytest.raises(LorasweepError, match=message) as caught:
        plan_sweep(config(max_length=max_length))
    assert "\n" not in str(caught.value)

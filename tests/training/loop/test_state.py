"""A checkpoint: what stands in it, what comes back, what is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_trials import LABELS, dataset, hyperparameters, loaded, same, settings, start, trained

from lorasweep.training.errors import ModelError
from lorasweep.training.loop.fine_tune import fine_tune
from lorasweep.training.loop.state import (
    OPTIMIZER_FILE,
    STATE_FILE,
    WEIGHTS_FOLDER,
    Evaluation,
    TrainingState,
)
from lorasweep.training.model.base_model import LoadedBase
from lorasweep.training.scores.scores import Scores
from lorasweep.training.settings import Hyperparameters


@pytest.fixture(scope="module")
def bert(tiny_base: Callable[[str], Path]) -> LoadedBase:
    return loaded(tiny_base("bert"))


def run_to_first_rung(bert: LoadedBase, chosen: Hyperparameters) -> TrainingState:
    state = start(bert, chosen)
    next(fine_tune(state, dataset(), chosen, settings()))
    return state


def moments(state: TrainingState) -> dict[str, torch.Tensor]:
    return state.trained.optimizer_tensors()


@pytest.mark.parametrize("method", ["lora", "dora", "full"])
def test_everything_comes_back(bert: LoadedBase, tmp_path: Path, method: str) -> None:
    chosen = hyperparameters(method=method, dropout=0.2)
    state = run_to_first_rung(bert, chosen)
    state.micro_batch_size = 4
    state.save(tmp_path)
    random = torch.get_rng_state()
    again = start(bert, chosen)
    assert not torch.equal(torch.get_rng_state(), random)
    again.load(tmp_path)
    assert torch.equal(torch.get_rng_state(), random)
    assert same(trained(again.model), trained(state.model))
    assert len(moments(state)) == 3 * len(trained(state.model))
    assert same(moments(again), moments(state))
    for name in ("step", "rung", "seconds", "train_loss", "micro_batch_size"):
        assert getattr(again, name) == getattr(state, name), name
    assert again.step == 3


def test_nothing_in_a_checkpoint_is_pickled(bert: LoadedBase, tmp_path: Path) -> None:
    run_to_first_rung(bert, hyperparameters()).save(tmp_path)
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert files == [
        OPTIMIZER_FILE,
        STATE_FILE,
        f"{WEIGHTS_FOLDER}/adapter_config.json",
        f"{WEIGHTS_FOLDER}/adapter_model.safetensors",
    ]
    assert json.loads((tmp_path / STATE_FILE).read_text())["step"] == 3
    assert "random.cpu" in load_file(tmp_path / OPTIMIZER_FILE)


def test_saving_changes_nothing(bert: LoadedBase, tmp_path: Path) -> None:
    state = run_to_first_rung(bert, hyperparameters())
    before, random = trained(state.model), torch.get_rng_state()
    state.save(tmp_path)
    assert same(before, trained(state.model))
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize("file", [STATE_FILE, OPTIMIZER_FILE, f"{WEIGHTS_FOLDER}/adapter_model.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "cut off", "empty"])
def test_half_a_checkpoint_is_refused(bert: LoadedBase, tmp_path: Path, file: str, damage: str) -> None:
    state = run_to_first_rung(bert, hyperparameters())
    state.save(tmp_path)
    path = tmp_path / file
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(content[: len(content) // 2] if damage == "cut off" else b"")
    with pytest.raises(ModelError) as caught:
        state.load(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_foreign_json_file_is_refused(bert: LoadedBase, tmp_path: Path) -> None:
    state = run_to_first_rung(bert, hyperparameters())
    state.save(tmp_path)
    for content in ("{}", "[]", '{"step": 3}'):
        (tmp_path / STATE_FILE).write_text(content)
        with pytest.raises(ModelError, match="not a complete checkpoint"):
            state.load(tmp_path)


@pytest.mark.parametrize("method", ["lora", "dora", "full"])
def test_weight_decay_pulls_matrices_only(bert: LoadedBase, method: str) -> None:
    state = start(bert, hyperparameters(method=method, weight_decay=0.5, learning_rate=0.1))
    before = trained(state.model)
    state.apply_gradients(1.0, 0.1)
    assert {tensor.dim() for tensor in before.values()} == {1, 2}
    for name, after in trained(state.model).items():
        share = 1 - 0.1 * 0.5 if after.dim() == 2 else 1.0
        torch.testing.assert_close(after, before[name] * share, msg=name)


def test_an_evaluation_as_plain_numbers() -> None:
    scores = Scores(accuracy=0.5, macro_f1=0.4, loss=1.5)
    evaluation = Evaluation(2, 6, 1.0, 1e-3, 0.9, scores, 12.5, 300.0, np.zeros((4, len(LABELS)), np.float32))
    entries = evaluation.to_dict()
    assert json.loads(json.dumps(entries)) == {
        "rung": 2,
        "step": 6,
        "epoch": 1.0,
        "learning_rate": 1e-3,
        "train_loss": 0.9,
        "seconds": 12.5,
        "samples_per_second": 300.0,
        "accuracy": 0.5,
        "macro_f1": 0.4,
        "loss": 1.5,
    }

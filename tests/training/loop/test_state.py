"""A checkpoint: what stands in it, what comes back, what is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_trials import (
    FP32,
    LABELS,
    dataset,
    hyperparameters,
    loaded,
    same,
    settings,
    start,
    trained,
)
from torch import nn

from lorasweep.training import devices
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
from lorasweep.training.model.classifier import build_classifier, save_weights
from lorasweep.training.scores.scorer import Scores
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


def write_as_before(folder: Path, model: nn.Module, optimizer: torch.optim.AdamW) -> None:
    """A checkpoint as it was written when AdamW had each tensor by itself, and there were no notes."""
    save_weights(model, folder / WEIGHTS_FOLDER)
    tensors = {"random.cpu": torch.get_rng_state()}
    for number, entry in optimizer.state_dict()["state"].items():
        for name, value in entry.items():
            tensors[f"adamw.{number}.{name}"] = value.detach().cpu().contiguous()
    save_file(tensors, folder / OPTIMIZER_FILE)
    scalars = {
        "step": 2,
        "rung": 1,
        "seconds": 1.5,
        "train_loss": 0.9,
        "micro_batch_size": None,
        "scaler": {},
    }
    (folder / STATE_FILE).write_text(json.dumps(scalars))


@pytest.mark.parametrize("method", ["lora", "dora", "full"])
def test_a_checkpoint_from_before_goes_on_as_it_was(bert: LoadedBase, tmp_path: Path, method: str) -> None:
    chosen = hyperparameters(method=method, learning_rate=1e-2)
    plain = build_classifier(bert, chosen, 0, FP32)
    parameters = [p for p in plain.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": chosen.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-2, fused=True)

    def give_gradients(model: nn.Module, seed: int) -> None:
        torch.manual_seed(seed)
        for parameter in model.parameters():
            if parameter.requires_grad:
                gradient = torch.randn(parameter.shape) * 0.01
                if parameter.grad is None:
                    parameter.grad = gradient
                else:
                    parameter.grad.copy_(gradient)

    for step in range(2):
        give_gradients(plain, step)
        optimizer.step()
    write_as_before(tmp_path, plain, optimizer)
    state = start(bert, chosen, seed=1)
    state.load(tmp_path)
    assert (state.step, state.rung, state.notes) == (2, 1, ())
    assert same(trained(state.model), trained(plain))
    for model in (plain, state.model):
        give_gradients(model, 2)
    optimizer.step()
    state.apply_gradients(1e9, 1e-2)
    for name, weight in trained(plain).items():
        torch.testing.assert_close(trained(state.model)[name], weight, rtol=1e-6, atol=1e-7, msg=name)


def test_moments_of_other_shapes_are_refused(bert: LoadedBase, tmp_path: Path) -> None:
    state = run_to_first_rung(bert, hyperparameters())
    state.save(tmp_path)
    tensors = load_file(tmp_path / OPTIMIZER_FILE)
    tensors["adamw.0.exp_avg"] = tensors["adamw.0.exp_avg"][:1].clone()
    save_file(tensors, tmp_path / OPTIMIZER_FILE)
    with pytest.raises(ModelError, match=r"not a complete checkpoint \(adamw\.0\.exp_avg has shape"):
        state.load(tmp_path)


def test_each_note_is_kept_once(bert: LoadedBase, tmp_path: Path) -> None:
    state = start(bert, hyperparameters())
    for line in ("memory ran out", "steps are not captured", "memory ran out"):
        state.add_note(line)
    assert state.notes == ("memory ran out", "steps are not captured")
    state.save(tmp_path)
    again = start(bert, hyperparameters())
    again.add_note("steps are not captured")
    again.load(tmp_path)
    assert again.notes == ("steps are not captured", "memory ran out")


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
    scores = Scores(accuracy=0.5, macro_f1=0.4, loss=1.5, more={"mcc": 0.3})
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
        "more": {"mcc": 0.3},
    }


def test_a_gpus_random_state_is_kept_where_there_is_one(
    bert: LoadedBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put: list[torch.Tensor | None] = []
    monkeypatch.setattr(devices, "set_random_state", lambda device, random: put.append(random))
    state = run_to_first_rung(bert, hyperparameters())
    (tmp_path / "cpu").mkdir()
    state.save(tmp_path / "cpu")
    state.load(tmp_path / "cpu")
    monkeypatch.setattr(devices, "random_state", lambda device: torch.tensor([7], dtype=torch.uint8))
    (tmp_path / "gpu").mkdir()
    state.save(tmp_path / "gpu")
    state.load(tmp_path / "gpu")
    assert put[0] is None
    assert put[1] is not None
    assert put[1].tolist() == [7]

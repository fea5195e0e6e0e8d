"""The winner's test predictions, where a storage or the memory is not there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_trials import CPU, dataset, hyperparameters, settings
from transformers import BertForSequenceClassification

from lorasweep.training.errors import TrainingError
from lorasweep.training.loop.state import WEIGHTS_FOLDER
from lorasweep.training.model.base_model import resolve_base_model
from lorasweep.training.model.classifier import save_weights
from lorasweep.tuning.sweep.winner.after_trials import CheckpointError, predict_test, predict_validation
from lorasweep.tuning.trials import node_watch, trial
from lorasweep.tuning.trials.checkpoints import open_checkpoint
from lorasweep.tuning.trials.faults import NodeError
from lorasweep.tuning.trials.trial import TrialSetup, start_state


def test_a_winner_is_not_passed_over_for_a_storage_that_is_away(
    tiny_base: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is waited for. A checkpoint that is gone from a storage that is there is lost."""
    slept: list[float] = []
    monkeypatch.setattr(node_watch.time, "sleep", slept.append)
    setup = TrialSetup(
        resolve_base_model(str(tiny_base("bert"))), settings(), 1, 0, storage=str(tmp_path / "s")
    )
    checkpoint = str(tmp_path / "s" / "checkpoint")
    with pytest.raises(NodeError, match=r"the storage .* is away"):
        predict_test(hyperparameters(), checkpoint, dataset(), setup)
    assert slept == list(node_watch.PAUSES)
    (tmp_path / "s").mkdir()
    with pytest.raises(CheckpointError):
        predict_test(hyperparameters(), checkpoint, dataset(), setup)
    state = start_state(dataset(), setup, hyperparameters(), CPU)
    waits = iter([lambda: None, lambda: save_weights(state.model, Path(checkpoint) / WEIGHTS_FOLDER)])
    monkeypatch.setattr(node_watch.time, "sleep", lambda seconds: next(waits)())

    def unreachable_at_first(path: str, storage: str | None) -> object:
        if not Path(checkpoint).exists():
            raise ConnectionError("no route")
        return open_checkpoint(path, storage)

    monkeypatch.setattr("lorasweep.tuning.sweep.winner.after_trials.open_checkpoint", unreachable_at_first)
    logits, _ = predict_test(hyperparameters(), checkpoint, dataset(), setup)
    assert len(logits) == len(dataset().test)


def test_rows_are_read_with_the_tokens_of_the_trials_own_base_model(
    tiny_base: Callable[[str], Path], tmp_path: Path
) -> None:
    """Of the validation rows, too, from which a threshold comes."""
    base = resolve_base_model(str(tiny_base("bert")))
    setup = TrialSetup(base, settings(), threads=1, gpu_share=0, bases={"other": base})
    own, chosen = dataset(), hyperparameters(base_model="other")
    tokens = dataset(60)
    other = replace(own, validation=tokens.test.take(np.arange(5)), test=tokens.validation.take(np.arange(7)))
    data = replace(own, by_base={"other": other})
    save_weights(start_state(own, setup, chosen, CPU).model, tmp_path / WEIGHTS_FOLDER)
    test, _ = predict_test(chosen, str(tmp_path), data, setup)
    assert (len(predict_validation(chosen, str(tmp_path), data, setup)), len(test)) == (5, 7)


@pytest.mark.parametrize("place", ["load_base", "build_classifier", "TrainingState.start", "forward"])
def test_memory_that_runs_out_while_the_winner_is_scored_is_one_line(
    tiny_base: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def full(*arguments: Any, **inputs: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")

    setup = TrialSetup(resolve_base_model(str(tiny_base("bert"))), settings(), threads=1, gpu_share=0)
    chosen, data = hyperparameters(), dataset()
    save_weights(start_state(data, setup, chosen, CPU).model, tmp_path / WEIGHTS_FOLDER)
    logits, _ = predict_test(chosen, str(tmp_path), data, setup)
    assert logits.shape == (len(data.test), 3)
    trial.loaded_base.cache_clear()
    if place == "forward":
        monkeypatch.setattr(BertForSequenceClassification, "forward", full)
    else:
        monkeypatch.setattr(f"lorasweep.tuning.trials.trial.{place}", full)
    with pytest.raises(TrainingError, match=r"^out of memory .*(lower|fewer)") as caught:
        predict_test(chosen, str(tmp_path), data, setup)
    assert "\n" not in str(caught.value)

"""Labels merged by a map: the sweep's end scores the winner's settings on the unmerged ones too."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from whole_sweeps import RUN, lorasweep

from lorasweep.training.data.dataset import Dataset
from lorasweep.training.settings import Hyperparameters
from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.results import SweepResult, TestScores, UnmergedReference
from lorasweep.tuning.sweep.winner.winner import unmerged_reference
from lorasweep.tuning.tracking.entries import result_metrics

SCORES = TestScores(accuracy=0.5, macro_f1=0.4, loss=1.0)
KNOWN = UnmergedReference(
    hyperparameters=Hyperparameters(rank=8),
    classes=3,
    score=0.5,
    test=SCORES,
    merged=SCORES.model_copy(update={"accuracy": 0.25}),
    seconds=1.0,
)


def ask(
    folder: SweepFolder, hyperparameters: Hyperparameters, names: tuple[str, ...]
) -> UnmergedReference | None:
    """What is known without training: the rest of the plan is left out, so training would raise."""
    plan: Any = SimpleNamespace(dataset=SimpleNamespace(original_names=names))
    nothing: Any = None
    return unmerged_reference(plan, folder, hyperparameters, nothing, nothing, lambda text: None)


def test_what_was_trained_is_not_trained_again(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path, "merged")
    folder.create(SweepConfig(name="merged"))
    assert ask(folder, Hyperparameters(rank=8), ()) is None
    folder.write_unmerged(KNOWN)
    assert ask(folder, Hyperparameters(rank=8), ("a", "b")) == KNOWN
    with pytest.raises(AttributeError):
        ask(folder, Hyperparameters(rank=4), ("a", "b"))


def test_mlflow_gets_both_scores() -> None:
    result = SweepResult(state="finished", metric="accuracy", unmerged=KNOWN)
    numbers = result_metrics(result, [])
    assert numbers == {
        "system/seconds": 0.0,
        "unmerged/score": 0.5,
        "unmerged/test_accuracy": 0.5,
        "unmerged/test_macro_f1": 0.4,
        "unmerged/test_loss": 1.0,
        "merged_after/test_accuracy": 0.25,
        "merged_after/test_macro_f1": 0.4,
        "merged_after/test_loss": 1.0,
    }


@pytest.mark.slow
def test_a_sweep_on_merged_labels(place: Path) -> None:
    """Trained on two classes, compared on three; an extended sweep keeps what it knows of the same winner."""
    (place / "map.yaml").write_text("fun and money: [film, money]\n")
    arguments = [*RUN, "--merge-labels", "map.yaml", "--name", "merged", "--epochs", "1", "--no-register"]
    out, err = lorasweep(place, *arguments, "--trials", "2")
    assert err == ""
    assert "labels merged by map.yaml: 3 classes become 2" in out
    assert max(map(len, out[out.index("\ntest split ") :].splitlines())) <= 80
    folder = SweepFolder(place / "mlruns", "merged")
    data, result = Dataset.load(folder.data), folder.result()
    assert data.label_names == ("fun and money", "health")
    assert result is not None
    assert result.winner is not None
    found = result.unmerged
    assert found is not None
    assert found == folder.unmerged()
    assert (found.classes, found.hyperparameters) == (3, result.winner.hyperparameters)
    # A right answer of three stays right when they become two.
    assert found.merged.accuracy >= found.test.accuracy
    assert found.merged.loss <= found.test.loss
    shown = json.loads(lorasweep(place, "status", "merged", "--json")[0])
    assert shown["unmerged"] == found.model_dump()

    # Marked, so that a second training would be seen.
    folder.write_unmerged(found.model_copy(update={"seconds": -1.0}))
    lorasweep(place, *RUN, "--name", "merged", "--merge-labels", "map.yaml", "--epochs", "1", "--no-register",
              "--trials", "3", "--extend")  # fmt: skip
    again = folder.result()
    assert again is not None
    assert again.winner is not None
    assert again.unmerged is not None
    assert (again.unmerged.seconds == -1.0) == (again.winner.hyperparameters == result.winner.hyperparameters)

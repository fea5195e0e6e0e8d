"""Sweeps whose trials cost nothing: what is left is the driver's own work, for `scale.py`.

Everything is real but the training: Ray, Optuna's study, ASHA, the records, MLflow on SQLite, the winner's look at
the test split, the export, the report. A worker trains once, for an instant; each trial reports that evaluation and
that checkpoint again, with scores of its own, so that ASHA has something to stop.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ray import tune
from scale_costs import Costs, drive
from scale_process import let_workers_import

from lorasweep.training.data.encoded import EncodedDataset
from lorasweep.training.loop.best import Best
from lorasweep.training.loop.fine_tune import fine_tune
from lorasweep.training.model.classifier import trainable_parameters
from lorasweep.training.scores.outcomes import row_outcomes
from lorasweep.training.settings import DataSettings, Hyperparameters
from lorasweep.tuning.quiet import quiet_libraries
from lorasweep.tuning.record.config import ChoiceSettings, ResourceSettings, SearchSettings, SweepConfig
from lorasweep.tuning.record.reported import BEST_RUNG, OBJECTIVE, RUNG, SCORE
from lorasweep.tuning.trials.checkpoints import write_checkpoint
from lorasweep.tuning.trials.trial import TrialSetup, start_state

# As many searched settings as the shipped spaces have, none of which changes what the one checkpoint predicts.
SPACE = """
about: settings that do not change what a trained adapter predicts
start: {learning_rate: 2e-3, weight_decay: 0.01, warmup: 0.06, batch_size: 32}
rank: 4
target_modules: query-value
learning_rate: {loguniform: [2e-4, 6e-3]}
weight_decay: {loguniform: [1e-3, 1e-1]}
warmup: {uniform: [0.0, 0.2]}
batch_size: {choice: [16, 32, 64]}
"""
ROWS = 256
# The worker's one training: the entries of its evaluation, and the folder of its checkpoint.
_trained: list[tuple[dict[str, Any], str, int]] = []


def costless_trial(config: dict[str, Any], data: EncodedDataset, setup: TrialSetup) -> None:
    """Stands in for `lorasweep.tuning.trials.trial.run_trial`: the same reports, with no training behind them."""
    began = time.perf_counter()
    if not _trained:
        _trained.append(_train_once(config, data, setup))
    entries, checkpoint, parameters = _trained[0]
    quality = np.random.default_rng(int(config["number"])).random()
    for rung in range(1, setup.training_settings.rungs + 1):
        score = quality * (1 - 0.5**rung)
        epoch = rung / setup.training_settings.evaluations_per_epoch
        seconds = time.perf_counter() - began
        evaluation = entries | {"rung": rung, "epoch": epoch, "seconds": seconds, "accuracy": score}
        tune.report(
            {
                SCORE: score,
                OBJECTIVE: score,
                RUNG: rung,
                BEST_RUNG: rung,
                "evaluation": evaluation,
                "trainable_parameters": parameters,
                "notes": [],
            },
            checkpoint=tune.Checkpoint.from_directory(checkpoint),
        )


def _train_once(
    config: dict[str, Any], data: EncodedDataset, setup: TrialSetup
) -> tuple[dict[str, Any], str, int]:
    quiet_libraries()
    torch.set_num_threads(setup.threads)
    hyperparameters = Hyperparameters(**config["hyperparameters"])
    state = start_state(data, setup, hyperparameters, torch.device("cpu"))
    evaluation = next(iter(fine_tune(state, data, hyperparameters, setup.training_settings)))
    folder = tempfile.mkdtemp(prefix="lorasweep-")
    best = Best("accuracy", evaluation.scores.accuracy, evaluation.rung)
    outcomes = row_outcomes(evaluation.logits, data.validation.labels)
    write_checkpoint(state, evaluation, outcomes, best, best, Path(folder))
    return evaluation.to_dict(), folder, trainable_parameters(state.model)


def costless_sweep(trials: int, at_once: int | None = None, to_the_end: bool = True) -> Costs:
    """Drive a sweep of costless trials; call it in a process of its own.

    Args:
        at_once: trials at once, each on a core that Ray only counts; if None, what this machine's cores allow.
        to_the_end: choose a winner, export it and draw the report, as a real sweep does.
    """
    quiet_libraries()
    let_workers_import()
    costs = Costs()
    with tempfile.TemporaryDirectory(prefix="lorasweep-") as temporary:
        space = Path(temporary) / "space.yaml"
        space.write_text(SPACE)
        config = SweepConfig(
            name="costless",
            data=DataSettings(max_train_rows=ROWS, max_validation_rows=ROWS),
            search=SearchSettings(space=str(space), trials=trials),
            choice=ChoiceSettings(baselines=False),
            resources=ResourceSettings(concurrency=at_once, cpus_per_trial=1, gpus_per_trial=0),
        )
        drive(config, costless_trial, Path(temporary), costs, to_the_end=to_the_end)
    return costs

"""How long each base model that trials chose among takes for one text, to weigh its score against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lorasweep.training.data.encoded import EncodedDataset
from lorasweep.training.inference.latency import prediction_times
from lorasweep.training.settings import Hyperparameters
from lorasweep.tuning.record.bases import best_of_base
from lorasweep.tuning.record.trial_records import TrialRecord
from lorasweep.tuning.sweep.plan.plan import SweepPlan
from lorasweep.tuning.trials.trial import TrialSetup, prepare_worker, start_state


def best_of_bases(plan: SweepPlan, trials: Sequence[TrialRecord]) -> dict[str, Hyperparameters]:
    """Base model → hyperparameters of its best trial; without those of which no trial has a score."""
    config = plan.config
    best = {
        name: best_of_base(name, trials, config.base_model, config.training.metric) for name in plan.bases
    }
    return {name: trial.hyperparameters for name, trial in best.items() if trial is not None}


def text_milliseconds(
    hyperparameters: Mapping[str, Hyperparameters], data: EncodedDataset, setup: TrialSetup
) -> dict[str, float]:
    """Base model → median time to predict one test text, with the adapter beside the base model, as it was trained.

    The adapters are new ones: what their weights are changes no time. Nothing else should run meanwhile.

    Raises:
        NodeError: a base model cannot be read here.
        TrainingError: memory is too small for one.
    """
    device = prepare_worker(setup)
    found = {}
    for name, chosen in hyperparameters.items():
        own = data.for_base(chosen.base_model)
        state = start_state(own, setup, chosen, device)
        found[name] = float(np.median(prediction_times(state.model, own.test, state.amp, batch=1)))
        del state  # else its memory is missing while the next one is made
    return found

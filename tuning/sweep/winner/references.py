"""What the winner is compared with. It needs no trial, so it is trained beside the last ones, on free cores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from lorasweep.training.settings import Hyperparameters
from lorasweep.tuning.record.results import SweepResult
from lorasweep.tuning.sweep.plan.plan import SweepPlan, alone, trial_setup, untuned_settings
from lorasweep.tuning.sweep.winner.after_trials import (
    BaselineSets,
    TestedClassifier,
    test_baselines,
    train_reference,
)
from lorasweep.tuning.trials.remote import RemoteCall, run_alone
from lorasweep.tuning.trials.shares import Resources


def beside_trials(resources: Resources) -> bool:
    """Whether references are trained beside the last trials.

    On two cores a worker's imports take more time than that saves, see `benchmarks/results/fixed_cost.md`.
    """
    return resources.concurrency > 1 and resources.cpus >= 4


class References:
    """The untuned settings and the models without a neural network, as far as they are wanted and not on record.

    Args:
        data: Ray's reference to the encoded data set.
        earlier: the result of a sweep that goes on, whose references stay.
    """

    def __init__(self, plan: SweepPlan, data: object, earlier: SweepResult | None = None) -> None:
        self._plan = plan
        self._data = data
        self._calls: dict[str, RemoteCall] = {}
        self.want_untuned = plan.config.compare_untuned and (earlier is None or earlier.untuned is None)
        self.want_baselines = plan.config.choice.baselines and (earlier is None or not earlier.baselines)

    def begin(self) -> None:
        """Queue the trainings behind the trials. The last trial has started, so no other one needs the cores.

        Where trials run one at a time nothing is free before the end; then they are trained when they are asked for.
        """
        resources = self._plan.resources
        if not beside_trials(resources) or self._calls:
            return
        # The longer one first. Where trials choose the base model, the untuned settings wait for the winner's.
        if self.want_untuned and len(self._plan.bases) < 2:
            self._calls["untuned"] = RemoteCall(resources, train_reference, *self._untuned(resources))
        if self.want_baselines:
            self._calls["baselines"] = RemoteCall(self._one_core(), test_baselines, *self._linear())

    @property
    def resources(self) -> Resources:
        """What whoever scores the winner may use: a trial's share, while the references have theirs."""
        return self._plan.resources if self._calls else alone(self._plan)

    def untuned(self, *told: Callable[[int], None], base_model: str | None = None) -> TestedClassifier:
        """The untuned settings, trained with the full budget.

        Args:
            base_model: that of the winner, where the space chooses it.
            told: called with each rung, if the training runs in this process.
        """
        resources = alone(self._plan)
        arguments = self._untuned(resources, base_model)
        trained = self._result("untuned", resources, train_reference, *arguments, *told)
        assert isinstance(trained, TestedClassifier)
        return trained

    def baselines(self) -> dict[str, np.ndarray | BaselineSets]:
        """Name → log probabilities of the test rows."""
        return dict(self._result("baselines", self._one_core(), test_baselines, *self._linear()))

    def _linear(self) -> tuple[Any, ...]:
        return self._plan.dataset, self._plan.config.choice.threshold

    def _untuned(
        self, resources: Resources, base_model: str | None = None
    ) -> tuple[Hyperparameters, object, Any]:
        return untuned_settings(self._plan, base_model), self._data, trial_setup(self._plan, resources)

    def _result(self, name: str, resources: Resources, function: Any, *arguments: Any) -> Any:
        call = self._calls.pop(name, None)
        if call is not None:
            return call.result()
        return run_alone(self._plan.config.resources.address, resources, function, *arguments)

    def _one_core(self) -> Resources:
        return replace(self._plan.resources, cpus_per_trial=1, gpus_per_trial=0)

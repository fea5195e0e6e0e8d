"""Sweeps replayed on recorded learning curves, for `search.py`: the shipped searcher and ASHA, simulated workers."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import optuna
from ray.tune.schedulers import TrialScheduler
from surrogate import RUNGS, Curve, Surrogate

from lorasweep.search_spaces.space import SearchSpace
from lorasweep.training.settings import Metric, higher_is_better
from lorasweep.tuning.record.config import SearchSettings
from lorasweep.tuning.record.reported import ERROR, OBJECTIVE, RUNG, SCORE
from lorasweep.tuning.search.searcher import TruthfulOptunaSearch
from lorasweep.tuning.search.stopping import make_scheduler, plan_budget
from lorasweep.tuning.search.study import START, make_sampler

WORKERS = 2
METRIC = "accuracy"


@dataclass(frozen=True)
class Strategy:
    """A way to search.

    Attributes:
        stopped_by: the validation score that ASHA compares.
        guided_by: the validation score that the sampler learns from.
        rungs: evaluations of a full trial.
        starts: number of known settings that are tried first; the first is never stopped if `protected`.
        kept: whether the start that the space always had is the first of them; else the portfolio's own first is.
        hyperband: stop by Optuna's Hyperband pruner, in place of ASHA.
    """

    name: str
    search: SearchSettings = field(default_factory=SearchSettings)
    stopped_by: Metric = "loss"
    guided_by: Metric = "loss"
    rungs: int = RUNGS
    starts: int = 1
    kept: bool = True
    protected: bool = True
    hyperband: bool = False

    def sized(self, cost: float) -> SearchSettings:
        """Its settings with as many trials as are expected to cost this many full ones, as one would plan it."""
        many = self.search.model_copy(update={"trials": 1000})
        each = plan_budget(many, epochs=1, rungs=self.rungs).epochs_expected / many.trials
        return self.search.model_copy(update={"trials": round(cost / each)})


class Outcome(NamedTuple):
    """What the best trial so far is worth after each evaluation's share of a full trial's cost.

    Attributes:
        validation: its score on the rows by which it was chosen; shape (cost × RUNGS,).
        held_out: its score on other rows; same shape.
    """

    validation: np.ndarray
    held_out: np.ndarray


@dataclass
class Trial:
    """A running trial, with the attributes that Ray's schedulers ask of one."""

    trial_id: str
    curve: Curve
    rung: int = 0
    best: dict[str, float] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)

    def advance(self, every: int) -> int | None:
        """Train to the next rung; the number of its evaluation, None if the trial diverged before it."""
        self.rung += 1
        last = self.rung * every - 1
        if last >= len(self.curve):
            return None
        for metric, scores in self.curve.validation.items():
            better = min if metric == "loss" else max
            self.best[metric] = better(self.best.get(metric, scores[last]), scores[last])
        return last


class Judge:
    """Decides by ASHA or by Optuna's pruner whether a trial stops, and tells the sampler what it has seen."""

    def __init__(
        self, strategy: Strategy, space: SearchSpace, starts: Sequence[Any], cost: int, seed: int
    ) -> None:
        settings = strategy.sized(cost)
        self.strategy = strategy
        self.scheduler = make_scheduler(settings, strategy.stopped_by, strategy.rungs)
        self.searcher = TruthfulOptunaSearch(
            rungs=strategy.rungs,
            search_space=space,
            metric=OBJECTIVE,
            mode="max" if higher_is_better(strategy.guided_by) else "min",
            sampler=make_sampler(settings, seed, WORKERS, len(starts)),
            storage=optuna.storages.InMemoryStorage(),
        )
        self.study: optuna.Study = self.searcher._ot_study
        for place, start in enumerate(starts, 1):
            self.study.enqueue_trial(dict(start), user_attrs={START: place})
        if strategy.hyperband:
            factor = strategy.search.reduction_factor
            self.study.pruner = optuna.pruners.HyperbandPruner(1, strategy.rungs, factor)

    def begin(self, number: int, surrogate: Surrogate) -> Trial:
        """The next trial that the sampler proposes."""
        proposal = self.searcher.suggest(str(number))
        assert isinstance(proposal, dict)
        place = proposal["start"] if self.strategy.protected else None
        trial = Trial(str(number), surrogate.curve(proposal["hyperparameters"]), config={"start": place})
        self.scheduler.on_trial_add(None, trial)
        return trial

    def fails(self, trial: Trial) -> None:
        """Report that the trial diverged."""
        self.scheduler.on_trial_complete(None, trial, {})
        self.searcher.on_trial_complete(trial.trial_id, {ERROR: "loss is not finite", RUNG: 0})

    def ends(self, trial: Trial) -> bool:
        """Report the trial's last rung; whether the trial ends with it."""
        seen, told = (
            {RUNG: trial.rung, OBJECTIVE: trial.best[objective], SCORE: trial.best[METRIC]}
            for objective in (self.strategy.stopped_by, self.strategy.guided_by)
        )
        self.searcher.on_trial_result(trial.trial_id, told)
        if self.strategy.hyperband:
            stop = self.searcher._ot_trials[trial.trial_id].should_prune()
        else:
            stop = self.scheduler.on_trial_result(None, trial, seen) == TrialScheduler.STOP
        if stop or trial.rung == self.strategy.rungs:
            self.scheduler.on_trial_complete(None, trial, seen)
            self.searcher.on_trial_complete(trial.trial_id, told)
            return True
        return False


def replay(
    strategy: Strategy,
    space: SearchSpace,
    starts: Sequence[Mapping[str, Any]],
    surrogate: Surrogate,
    cost: int,
    seed: int,
) -> Outcome:
    """Search until the cost is spent, over all workers. A diverged trial pays for the rung in which it failed."""
    judge = Judge(strategy, space, starts[: strategy.starts], cost, seed)
    every = RUNGS // strategy.rungs
    running: list[tuple[float, int, Trial]] = []
    validation, held_out = np.zeros(cost * RUNGS + 1), np.zeros(cost * RUNGS + 1)
    now, begun = 0.0, 0
    for spent in range(every, len(validation), every):
        while len(running) < WORKERS:
            trial = judge.begin(begun, surrogate)
            heapq.heappush(running, (now + seconds(trial, every), begun, trial))
            begun += 1
        now, order, trial = heapq.heappop(running)
        # What is paid for is there when its rung is over.
        validation[spent - every + 1 : spent + 1] = validation[spent - every]
        held_out[spent - every + 1 : spent + 1] = held_out[spent - every]
        evaluation = trial.advance(every)
        if evaluation is None:
            judge.fails(trial)
            continue
        if trial.curve.validation[METRIC][evaluation] > validation[spent]:
            validation[spent] = trial.curve.validation[METRIC][evaluation]
            held_out[spent] = trial.curve.held_out[METRIC][evaluation]
        if not judge.ends(trial):
            heapq.heappush(running, (now + seconds(trial, every), order, trial))
    return Outcome(validation[1:], held_out[1:])


def seconds(trial: Trial, every: int) -> float:
    """How long the trial's next rung takes; one in which it diverges, as long as its mean rung."""
    steps = trial.curve.seconds
    ahead = steps[trial.rung * every : (trial.rung + 1) * every]
    return sum(ahead) if len(ahead) == every else every * float(np.mean(steps or (0.0,)))

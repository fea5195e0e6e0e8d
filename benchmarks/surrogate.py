"""Sweeps replayed on recorded learning curves: settings are answered by the nearest recorded ones."""

from __future__ import annotations

import heapq
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from ray.tune.schedulers import TrialScheduler
from scipy.stats import spearmanr

from lorasweep.search_spaces.space import SearchSpace
from lorasweep.tuning.record.config import SearchSettings
from lorasweep.tuning.record.reported import ERROR, RUNG, SCORE
from lorasweep.tuning.search.searcher import TruthfulOptunaSearch
from lorasweep.tuning.search.stopping import make_scheduler, plan_budget
from lorasweep.tuning.search.study import SeededTPESampler, make_sampler

RUNGS = 6

# Distances are in doublings of the learning rate: what one doubling of each setting is worth. Set from what is
# known of LoRA beforehand, not fitted: some 70 curves are too few to fit five weights and test them too.
WEIGHTS = {
    # The one setting that moves LoRA from chance to its best and back.
    "learning_rate": 1.0,
    # Multiplies the adapters' update as the rate does, but not the head's, which is trained from nothing.
    "scale": 0.5,
    # Half of it is twice the steps in the same epochs, worth between half a doubling of the rate and one.
    "batch_size": 0.5,
    # With alpha / rank held still, the best rate hardly depends on the rank, and little else does.
    "rank": 0.25,
}
# Other modules change how many matrices move; with the rate tuned, the sets differ by a point or two.
OTHER_MODULES = 0.75


@dataclass(frozen=True)
class Curve:
    """One recorded trial: the validation accuracy at each rung, and how long each rung took in seconds.

    Fewer than `RUNGS` of them where its loss was not finite any more.
    """

    settings: Mapping[str, Any]
    scores: tuple[float, ...]
    seconds: tuple[float, ...]

    @property
    def best(self) -> float:
        """What the trial is worth when it is not stopped."""
        return max(self.scores, default=0.0)


@dataclass(frozen=True)
class Errors:
    """How well a curve's best accuracy is predicted by its nearest neighbour, the curve itself left out.

    `nearest` and `mean` are mean absolute errors in accuracy: of the neighbour, and of all others' mean.
    """

    nearest: float
    mean: float
    rank_correlation: float


class Surrogate:
    """Answers settings with a real curve. The same settings get the same curve: nothing is drawn or mixed."""

    def __init__(self, curves: Sequence[Curve]) -> None:
        self.curves = list(curves)
        self._places = np.array([place(curve.settings) for curve in curves])
        self._modules = np.array([str(curve.settings["target_modules"]) for curve in curves])

    def curve(self, settings: Mapping[str, Any]) -> Curve:
        """The curve of the nearest recorded settings; of equally near ones the first recorded."""
        return self.curves[int(np.argmin(self._squares(settings)))]

    def leave_one_out(self) -> Errors:
        """Each curve predicted by the others."""
        best = np.array([curve.best for curve in self.curves])
        predicted = np.empty_like(best)
        for number, curve in enumerate(self.curves):
            squares = self._squares(curve.settings)
            squares[number] = np.inf
            predicted[number] = best[np.argmin(squares)]
        others = (best.sum() - best) / (len(best) - 1)
        return Errors(
            nearest=float(np.abs(predicted - best).mean()),
            mean=float(np.abs(others - best).mean()),
            rank_correlation=float(spearmanr(predicted, best).statistic),
        )

    def _squares(self, settings: Mapping[str, Any]) -> np.ndarray:
        squares: np.ndarray = np.square(self._places - place(settings)).sum(axis=1)
        squares += OTHER_MODULES**2 * (self._modules != settings["target_modules"])
        return squares


def place(settings: Mapping[str, Any]) -> np.ndarray:
    """Where settings lie, weighted so that Euclid's distance is the surrogate's; target modules are apart."""
    values = {
        "learning_rate": settings["learning_rate"],
        "scale": settings["alpha"] / settings["rank"],
        "batch_size": settings["batch_size"],
        "rank": settings["rank"],
    }
    return np.array([weight * np.log2(values[name]) for name, weight in WEIGHTS.items()])


def load_curves(path: Path) -> list[Curve]:
    """What `record_curves.py` has recorded so far."""
    curves = []
    for line in path.read_text().splitlines():
        entry = json.loads(line)
        evaluations = entry["evaluations"]
        ends = [evaluation["seconds"] for evaluation in evaluations]
        curves.append(
            Curve(
                settings=entry["settings"],
                scores=tuple(evaluation["accuracy"] for evaluation in evaluations),
                seconds=tuple(float(step) for step in np.diff(ends, prepend=0.0)),
            )
        )
    return curves


@dataclass(frozen=True)
class Contender:
    """A way to search. `startup` is the number of random trials before TPE; None is the shipped rule."""

    name: str
    search: SearchSettings = field(default_factory=SearchSettings)
    concurrency: int = 2
    startup: int | None = None

    def sized(self, cost: float) -> Contender:
        """With as many trials as are expected to cost this many full ones, as someone would plan it."""
        many = self.search.model_copy(update={"trials": 1000})
        each = plan_budget(many, epochs=1, rungs=RUNGS).epochs_expected / many.trials
        return replace(self, search=many.model_copy(update={"trials": round(cost / each)}))

    def sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        """The shipped sampler, or TPE with another start-up."""
        if self.startup is not None:
            return SeededTPESampler(seed, self.startup)
        return make_sampler(self.search, seed, self.concurrency)


@dataclass
class Trial:
    """A running trial, with the attributes that Ray's schedulers ask of one."""

    trial_id: str
    curve: Curve
    rung: int = 0
    score: float = 0.0
    config: dict[str, Any] = field(default_factory=dict)


def replay(
    contender: Contender, space: SearchSpace, surrogate: Surrogate, cost: int, seed: int
) -> np.ndarray:
    """The best accuracy after each rung that the sweep trains, over all workers; shape (cost × RUNGS,).

    The sweep goes on until the cost is spent. A diverged trial pays for the rung in which it failed.
    """
    searcher = TruthfulOptunaSearch(
        rungs=RUNGS,
        search_space=space,
        metric=SCORE,
        mode="max",
        points_to_evaluate=space.start_points() or None,
        sampler=contender.sampler(seed),
        storage=optuna.storages.InMemoryStorage(),
    )
    scheduler = make_scheduler(contender.search, "accuracy", RUNGS)
    running: list[tuple[float, int, Trial]] = []
    best = np.zeros(cost * RUNGS + 1)
    now, begun = 0.0, 0
    for spent in range(1, len(best)):
        while len(running) < contender.concurrency:
            name, begun = str(begun), begun + 1
            proposal = searcher.suggest(name)
            assert proposal is not None
            trial = Trial(name, surrogate.curve(proposal["hyperparameters"]))
            scheduler.on_trial_add(None, trial)
            heapq.heappush(running, (now + seconds(trial), begun, trial))
        now, order, trial = heapq.heappop(running)
        best[spent] = best[spent - 1]
        trial.rung += 1
        if trial.rung > len(trial.curve.scores):
            scheduler.on_trial_complete(None, trial, {})
            searcher.on_trial_complete(trial.trial_id, {ERROR: "loss is not finite", RUNG: 0})
            continue
        trial.score = max(trial.score, trial.curve.scores[trial.rung - 1])
        best[spent] = max(best[spent], trial.score)
        result = {RUNG: trial.rung, SCORE: trial.score}
        stop = scheduler.on_trial_result(None, trial, result) == TrialScheduler.STOP
        if stop or trial.rung == RUNGS:
            scheduler.on_trial_complete(None, trial, result)
            searcher.on_trial_complete(trial.trial_id, result)
        else:
            searcher.on_trial_result(trial.trial_id, result)
            heapq.heappush(running, (now + seconds(trial), order, trial))
    return best[1:]


def seconds(trial: Trial) -> float:
    """How long the trial's next rung takes; one in which it diverges, as long as its mean rung."""
    steps = trial.curve.seconds
    return steps[trial.rung] if trial.rung < len(steps) else float(np.mean(steps or (0.0,)))

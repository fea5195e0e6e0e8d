"""Optuna as Ray Tune's searcher, told the truth about how each trial ended."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import optuna
from optuna.trial import TrialState
from ray.tune.search.optuna import OptunaSearch

from search_spaces.space import Space
from training.evaluate import higher_is_better
from training.settings import Metric
from tuning.config import SearchSettings

SCORE = "score"
RUNG = "rung"
ERROR = "error"
BEST_RUNG = "best_rung"

OUTCOMES: dict[TrialState, Literal["completed", "stopped", "failed"]] = {
    TrialState.COMPLETE: "completed",
    TrialState.PRUNED: "stopped",
    TrialState.FAIL: "failed",
}


@dataclass(frozen=True)
class Unfinished:
    """A trial that an earlier run of the sweep left running: proposed again, to go on where it stood."""

    number: int
    hyperparameters: dict[str, Any]
    checkpoint: str | None
    scores: tuple[float, ...]


class TruthfulOptunaSearch(OptunaSearch):
    """Ray's `OptunaSearch` with three differences.

    Ray tells Optuna that a trial stopped by ASHA is complete, and leaves out its last value. Here every
    rung is an intermediate value, and a trial stopped early is PRUNED. So the study, its importances and
    its plots tell what happened.

    Steps are rungs. A trial gets a number, Optuna's own, under which all records know it. Trials that an
    earlier run of the sweep left unfinished are handed out first.
    """

    def __init__(
        self,
        *,
        search_space: Space,
        rungs: int,
        unfinished: Sequence[Unfinished] = (),
        **arguments: Any,
    ) -> None:
        super().__init__(space=search_space.suggest, **arguments)
        self._search_space = search_space
        self._rungs = rungs
        self._unfinished = list(unfinished)
        self._reported: dict[str, int] = {}
        self._scores: dict[str, float] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """Settings of the next trial: an unfinished one's, or what Optuna proposes."""
        if self._unfinished:
            trial = self._unfinished.pop(0)
            self._ot_trials[trial_id] = self._attach(trial.number)
            self._reported[trial_id] = len(trial.scores)
            if trial.scores:
                self._scores[trial_id] = trial.scores[-1]
            return {
                "number": trial.number,
                "hyperparameters": trial.hyperparameters,
                "checkpoint": trial.checkpoint,
                "scores": list(trial.scores),
            }
        values = super().suggest(trial_id)
        if values is None:
            return None
        return {
            "number": self._ot_trials[trial_id].number,
            "hyperparameters": self._search_space.hyperparameters(values).model_dump(),
        }

    def _attach(self, number: int) -> optuna.Trial:
        storage_id = self._ot_study._storage.get_trial_id_from_study_id_trial_number(
            self._ot_study._study_id, number
        )
        return optuna.Trial(self._ot_study, storage_id)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Report one rung, once."""
        if ERROR in result:
            return
        rung = int(result[RUNG])
        if trial_id not in self._completed_trials and rung > self._reported.get(trial_id, 0):
            self._reported[trial_id] = rung
            self._scores[trial_id] = float(result[SCORE])
            self._ot_trials[trial_id].report(float(result[SCORE]), rung)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell how the trial ended: COMPLETE with its best score, PRUNED, or FAIL."""
        if trial_id in self._completed_trials:
            return
        trial = self._ot_trials[trial_id]
        result = result or {}
        if SCORE in result:
            self.on_trial_result(trial_id, result)
        rung = self._reported.get(trial_id, 0)
        if error or ERROR in result or not rung:
            self._ot_study.tell(trial, state=TrialState.FAIL)
        elif rung >= self._rungs:
            # Also of a trial that was interrupted after its last rung: it goes on with no result more.
            self._ot_study.tell(trial, self._scores[trial_id])
        else:
            self._ot_study.tell(trial, state=TrialState.PRUNED)
        self._completed_trials.add(trial_id)


def startup_trials(trials: int, concurrency: int) -> int:
    """Random trials before TPE proposes: a quarter of the sweep, at most 10, and those that start at once.

    With fewer than run at once, TPE would propose before it has seen a result.
    """
    return max(min(10, trials // 4), concurrency, 2)


def make_sampler(settings: SearchSettings, seed: int, concurrency: int) -> optuna.samplers.BaseSampler:
    """Optuna's TPE, or plain random sampling."""
    if settings.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(
        seed=seed, n_startup_trials=startup_trials(settings.trials, concurrency)
    )


def make_searcher(
    space: Space,
    settings: SearchSettings,
    metric: Metric,
    *,
    rungs: int,
    seed: int,
    concurrency: int,
    study_name: str,
    study_url: str,
    unfinished: Sequence[Unfinished] = (),
    ended: Collection[int] = (),
) -> TruthfulOptunaSearch:
    """The searcher of a sweep; its study lies in `study_url`, new or as it was left.

    Args:
        unfinished: trials of an earlier run that are to go on.
        ended: numbers of the trials that have ended.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.RDBStorage(study_url)
    begun = any(study.study_name == study_name for study in optuna.get_all_study_summaries(storage))
    if begun:
        study = optuna.load_study(study_name=study_name, storage=storage)
        _propose_again(study, {trial.number for trial in unfinished}, ended)
    start = {} if begun else space.start_point()
    return TruthfulOptunaSearch(
        rungs=rungs,
        unfinished=unfinished,
        search_space=space,
        metric=SCORE,
        mode="max" if higher_is_better(metric) else "min",
        points_to_evaluate=[start] if start else None,
        sampler=make_sampler(settings, seed, concurrency),
        study_name=study_name,
        storage=storage,
    )


def study_outcomes(study_name: str, study_url: str) -> dict[int, Literal["completed", "stopped", "failed"]]:
    """How the trials ended that Optuna was told of, by number."""
    storage = optuna.storages.RDBStorage(study_url)
    if all(study.study_name != study_name for study in optuna.get_all_study_summaries(storage)):
        return {}
    trials = optuna.load_study(study_name=study_name, storage=storage).get_trials(deepcopy=False)
    return {trial.number: OUTCOMES[trial.state] for trial in trials if trial.state in OUTCOMES}


def _propose_again(study: optuna.Study, unfinished: Collection[int], ended: Collection[int]) -> None:
    """End proposals that never became a trial's record, and put their settings in front of the queue."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if trial.number in unfinished:
            continue
        study.tell(trial.number, state=TrialState.FAIL)
        # A trial that reports its own failure is recorded a moment before Optuna hears of it.
        if trial.params and trial.number not in ended:
            study.enqueue_trial(trial.params)

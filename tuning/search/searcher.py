"""Ray Tune's Optuna searcher, with a study that records how each trial really ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from optuna.trial import TrialState
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from lorasweep.search_spaces.space import Space
from lorasweep.training.settings import Metric, higher_is_better
from lorasweep.tuning.record.config import SearchSettings
from lorasweep.tuning.record.reported import ERROR, RUNG, SCORE, is_disk_full
from lorasweep.tuning.search.study import Unfinished, attach, make_sampler, open_study, own_number


class TruthfulOptunaSearch(OptunaSearch):
    """Ray's `OptunaSearch` with four differences.

    - Every rung is an intermediate value, and a trial that was stopped early is PRUNED. Ray reports such a trial as
      complete and drops its last value; the study's importances and plots would then mislead.
    - Steps are rungs, and a trial has its number in the sweep.
    - Trials that an earlier run of the sweep left unfinished, or that are tried again, come first.
    - No trial is proposed once none may start any more, see `tuning/search/limits.py`.
    """

    def __init__(
        self,
        *,
        search_space: Space,
        rungs: int,
        unfinished: Sequence[Unfinished] = (),
        may_start: Callable[[], bool] = lambda: True,
        **arguments: Any,
    ) -> None:
        super().__init__(space=search_space.suggest, **arguments)
        self._search_space = search_space
        self._rungs = rungs
        self._unfinished = list(unfinished)
        self._may_start = may_start
        self._reported: dict[str, int] = {}
        self._scores: dict[str, float] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Ray's configuration of the next trial: an unfinished one's, or what Optuna proposes.

        `FINISHED` if no more trials may start.
        """
        if self._unfinished:
            trial = self._unfinished.pop(0)
            self._ot_trials[trial_id] = attach(self._ot_study, trial.number)
            self._reported[trial_id] = len(trial.scores)
            if trial.scores:
                self._scores[trial_id] = trial.scores[-1]
            return {
                "number": trial.number,
                "hyperparameters": trial.hyperparameters.model_dump(),
                "checkpoint": trial.checkpoint,
                "scores": list(trial.scores),
                "evaluations": [evaluation.model_dump() for evaluation in trial.evaluations],
            }
        if not self._may_start():
            return str(Searcher.FINISHED)
        values = super().suggest(trial_id)
        if values is None:
            return None
        return {
            "number": own_number(self._ot_study, self._ot_trials[trial_id].number),
            "hyperparameters": self._search_space.hyperparameters(values).model_dump(),
        }

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
        """Record the end in the study: COMPLETE with the best score, PRUNED, or FAIL."""
        if trial_id in self._completed_trials:
            return
        trial = self._ot_trials[trial_id]
        result = result or {}
        if is_disk_full(str(result.get(ERROR, ""))):
            return  # the sweep stops; resumed, it continues the trial
        if SCORE in result:
            self.on_trial_result(trial_id, result)
        rung = self._reported.get(trial_id, 0)
        if error or ERROR in result or not rung:
            self._ot_study.tell(trial, state=TrialState.FAIL)
        elif rung >= self._rungs:
            # A trial that was interrupted after its last rung gets here without another result.
            self._ot_study.tell(trial, self._scores[trial_id])
        else:
            self._ot_study.tell(trial, state=TrialState.PRUNED)
        self._completed_trials.add(trial_id)


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
    may_start: Callable[[], bool] = lambda: True,
) -> TruthfulOptunaSearch:
    """The searcher of a sweep, on its existing study.

    Args:
        unfinished: trials of an earlier run to continue.
        may_start: whether one more trial may start; asked before each proposal.
    """
    study = open_study(study_url, study_name)
    return TruthfulOptunaSearch(
        rungs=rungs,
        unfinished=unfinished,
        may_start=may_start,
        search_space=space,
        metric=SCORE,
        mode="max" if higher_is_better(metric) else "min",
        sampler=make_sampler(settings, seed, concurrency),
        study_name=study_name,
        storage=study._storage,
    )

"""Ray Tune's Optuna searcher, with a study that records how each trial really ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from optuna.trial import TrialState
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from lorasweep.search_spaces.space import Space
from lorasweep.training.loop.early_end import ends_early
from lorasweep.training.settings import Metric, higher_is_better
from lorasweep.tuning.record.config import SearchSettings
from lorasweep.tuning.record.reported import AVOID, ERROR, OBJECTIVE, RUNG, SCORE, is_disk_full
from lorasweep.tuning.search.study import (
    Unfinished,
    attach,
    make_sampler,
    note_score,
    open_study,
    own_number,
    start_of,
    starts_of,
)

# The validation loss in a result: Ray hands searchers flat ones.
LOSS = "evaluation/loss"


class TruthfulOptunaSearch(OptunaSearch):
    """Ray's `OptunaSearch`, told the running best of the objective, with five differences.

    - Every rung is an intermediate value, and a trial that was stopped early is PRUNED. Ray reports such a trial as
      complete and drops its last value; the study's importances and plots would then mislead. A trial that ended
      because its validation loss no longer fell is COMPLETE: it has reached what it can.
    - Steps are rungs, and a trial has its number in the sweep.
    - The starts, which come first, know their place; a trial's best by the metric is noted beside its value.
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
        avoided: Callable[[], Sequence[str]] = tuple,
        early_end: int | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__(space=search_space.suggest, **arguments)
        self._search_space = search_space
        self._rungs = rungs
        self._unfinished = list(unfinished)
        self._may_start = may_start
        self._avoided = avoided
        self._early_end = early_end
        self._losses: dict[str, list[float | None]] = {}
        self._reported: dict[str, int] = {}
        self._values: dict[str, float] = {}
        self._scores: dict[str, float] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Ray's configuration of the next trial: an unfinished one's, or what Optuna proposes.

        `FINISHED` if no more trials may start.
        """
        if self._unfinished:
            trial = self._unfinished.pop(0)
            self._ot_trials[trial_id] = attach(self._ot_study, trial.number)
            self._reported[trial_id] = len(trial.scores)
            self._losses[trial_id] = [evaluation.loss for evaluation in trial.evaluations]
            if trial.scores:
                self._values[trial_id] = trial.scores[-1]
            if trial.evaluations and trial.evaluations[-1].score is not None:
                self._scores[trial_id] = trial.evaluations[-1].score
            return {
                "number": trial.number,
                "start": trial.start,
                "hyperparameters": trial.hyperparameters.model_dump(),
                "checkpoint": trial.checkpoint,
                "scores": list(trial.scores),
                "evaluations": [evaluation.model_dump() for evaluation in trial.evaluations],
                **self._placed(),
            }
        if not self._may_start():
            return str(Searcher.FINISHED)
        values = super().suggest(trial_id)
        if values is None:
            return None
        proposed = self._ot_trials[trial_id]
        return {
            "number": own_number(self._ot_study, proposed.number),
            "start": start_of(proposed),
            "hyperparameters": self._search_space.hyperparameters(values).model_dump(),
            **self._placed(),
        }

    def _placed(self) -> dict[str, list[str]]:
        """Where a new trial is not to start, if anywhere."""
        avoided = list(self._avoided())
        return {AVOID: avoided} if avoided else {}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Report one rung, once."""
        if ERROR in result:
            return
        rung = int(result[RUNG])
        if trial_id not in self._completed_trials and rung > self._reported.get(trial_id, 0):
            self._reported[trial_id] = rung
            self._values[trial_id] = float(result[OBJECTIVE])
            self._scores[trial_id] = float(result[SCORE])
            self._losses.setdefault(trial_id, []).append(result.get(LOSS))
            self._ot_trials[trial_id].report(self._values[trial_id], rung)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Record the end in the study: COMPLETE with the best value, PRUNED, or FAIL."""
        if trial_id in self._completed_trials:
            return
        trial = self._ot_trials[trial_id]
        result = result or {}
        if is_disk_full(str(result.get(ERROR, ""))):
            return  # the sweep stops; resumed, it continues the trial
        if OBJECTIVE in result:
            self.on_trial_result(trial_id, result)
        note_score(self._ot_study, trial, self._scores.get(trial_id))
        rung = self._reported.get(trial_id, 0)
        if error or ERROR in result or not rung:
            self._ot_study.tell(trial, state=TrialState.FAIL)
        elif rung >= self._rungs or ends_early(self._losses.get(trial_id, ()), self._early_end):
            # A trial that was interrupted after its last rung gets here without another result.
            self._ot_study.tell(trial, self._values[trial_id])
        else:
            self._ot_study.tell(trial, state=TrialState.PRUNED)
        self._completed_trials.add(trial_id)


def make_searcher(
    space: Space,
    settings: SearchSettings,
    objective: Metric,
    *,
    rungs: int,
    seed: int,
    concurrency: int,
    study_name: str,
    study_url: str,
    unfinished: Sequence[Unfinished] = (),
    may_start: Callable[[], bool] = lambda: True,
    avoided: Callable[[], Sequence[str]] = tuple,
    early_end: int | None = None,
) -> TruthfulOptunaSearch:
    """The searcher of a sweep, on its existing study.

    Args:
        objective: what the study optimises.
        unfinished: trials of an earlier run to continue.
        may_start: whether one more trial may start; asked before each proposal.
        avoided: Ray's ids of the nodes on which a new trial is not to start.
        early_end: evaluations without a lower validation loss after which a trial ends; None for no such end.
    """
    study = open_study(study_url, study_name)
    return TruthfulOptunaSearch(
        rungs=rungs,
        unfinished=unfinished,
        may_start=may_start,
        avoided=avoided,
        early_end=early_end,
        search_space=space,
        metric=OBJECTIVE,
        mode="max" if higher_is_better(objective) else "min",
        sampler=make_sampler(settings, seed, concurrency, starts_of(study)),
        study_name=study_name,
        storage=study._storage,
    )

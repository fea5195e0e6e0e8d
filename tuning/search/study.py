"""A sweep's Optuna study on disk, its samplers, and its reconciliation with the trials' records."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import optuna
from optuna.samplers._lazy_random_state import LazyRandomState
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.engine import make_url

from lorasweep.search_spaces.space import Space
from lorasweep.training.errors import SettingsError
from lorasweep.training.settings import Hyperparameters, Metric, higher_is_better
from lorasweep.tuning.record.config import SearchSettings
from lorasweep.tuning.record.results import EvaluationRecord, TrialRecord, now, trial_id

# Number of trials from a warm start. They come first in the study; the sweep's own count from 0 after them.
WARM = "lorasweep.warm_start"
# Number of the sweep's trial that a trial of the study tries again.
AGAIN = "lorasweep.again"
STATES = {"completed": TrialState.COMPLETE, "stopped": TrialState.PRUNED, "failed": TrialState.FAIL}
ENDS = {state: name for name, state in STATES.items()}


@dataclass(frozen=True)
class Unfinished:
    """A trial that an earlier run of the sweep left running; it continues from its checkpoint.

    Attributes:
        evaluations: those on record. The last one may be repeated if its checkpoint was not written; the record
            counts.
    """

    number: int
    hyperparameters: Hyperparameters
    checkpoint: str | None = None
    evaluations: tuple[EvaluationRecord, ...] = ()

    @property
    def scores(self) -> tuple[float, ...]:
        """The running best at each recorded rung."""
        return tuple(evaluation.score for evaluation in self.evaluations if evaluation.score is not None)


def create_study(
    url: str, name: str, metric: Metric, start: Mapping[str, Any], earlier: Sequence[FrozenTrial] = ()
) -> None:
    """Make a sweep's study.

    Args:
        start: hyperparameters of the first trial; the sampler proposes them if empty.
        earlier: trials of another sweep for the sampler to learn from.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.RDBStorage(url)
    direction = "maximize" if higher_is_better(metric) else "minimize"
    study = optuna.create_study(storage=storage, study_name=name, direction=direction)
    study.add_trials(earlier)
    study.set_user_attr(WARM, len(earlier))
    if start:
        study.enqueue_trial(dict(start))
    storage.engine.dispose()


def open_study(url: str, name: str, sampler: optuna.samplers.BaseSampler | None = None) -> Study:
    """Open a sweep's study.

    Raises:
        SettingsError: the file is missing, or holds no study of this name.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        return optuna.load_study(study_name=name, storage=optuna.storages.RDBStorage(url), sampler=sampler)
    except KeyError:
        raise SettingsError(
            f"sweep {name}: {make_url(url).database} holds no study of this name; restore the file"
        ) from None


def first_number(study: Study) -> int:
    """Optuna's number of the sweep's first own trial."""
    return int(study.user_attrs.get(WARM, 0))


def own_trials(study: Study) -> dict[int, FrozenTrial]:
    """Number → the study's trial of it, without those of a warm start.

    Optuna does not re-open a trial that failed. One that is tried again keeps its number in the sweep, and its last
    try is one more trial of the study.
    """
    trials = study.get_trials(deepcopy=False)[first_number(study) :]
    tries = {int(trial.user_attrs[AGAIN]): trial for trial in trials if AGAIN in trial.user_attrs}
    return dict(enumerate(trial for trial in trials if AGAIN not in trial.user_attrs)) | tries


def own_number(study: Study, number: int) -> int:
    """The sweep's number of a new proposal, from Optuna's."""
    first = first_number(study)
    earlier = study.get_trials(deepcopy=False)[first:number]
    return number - first - sum(AGAIN in trial.user_attrs for trial in earlier)


def attach(study: Study, number: int) -> optuna.Trial:
    """The sweep's own trial of this number, to continue it."""
    return optuna.Trial(study, own_trials(study)[number]._trial_id)


def try_again(study: Study, space: Space, record: TrialRecord) -> tuple[TrialRecord, Unfinished]:
    """Let a trial that failed go on: from its last checkpoint, with the evaluations that it has.

    Returns:
        Its new record, which keeps the failure among its notes; and the trial to continue.
    """
    failed = own_trials(study)[record.number]
    study.add_trial(
        optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=failed.params,
            distributions=failed.distributions,
            intermediate_values=failed.intermediate_values,
            user_attrs={AGAIN: record.number},
        )
    )
    hyperparameters = record.hyperparameters
    if not record.searched:  # the driver died before it had recorded them
        hyperparameters = space.hyperparameters(space.suggest(attach(study, record.number)))
    update: dict[str, Any] = {
        "state": "running",
        "hyperparameters": hyperparameters,
        "error": None,
        "ended": None,
        "notes": tuple(dict.fromkeys((*record.notes, f"tried again after it failed: {record.error}"))),
    }
    again = Unfinished(record.number, hyperparameters, record.last_checkpoint, record.evaluations)
    return record.model_copy(update=update), again


def reconcile(
    study: Study, space: Space, records: Sequence[TrialRecord]
) -> tuple[list[TrialRecord], list[Unfinished]]:
    """Bring study and records in line after the driver died, at whatever moment.

    Ray reports a trial's end to the searcher just before the recorder, and a failure just after it. So copy each
    event that only one side saw, and skip those that both saw. A proposal that never became a record keeps its
    number and its hyperparameters.

    Returns:
        All records by number, some of them changed or new; and the trials to continue.
    """
    by_number = {record.number: record for record in records}
    unfinished: list[Unfinished] = []
    for number, frozen in own_trials(study).items():
        record = by_number.get(number)
        if frozen.state == TrialState.WAITING:
            continue
        if frozen.state in ENDS:
            if record is None:
                record = TrialRecord(
                    id=trial_id(number),
                    number=number,
                    started=frozen.datetime_start.timestamp() if frozen.datetime_start else now(),
                    error="the driver died as it failed",
                )
            if record.state == "running":
                ended = {"state": ENDS[frozen.state], "ended": now()}
                by_number[number] = record.model_copy(update=ended)
        elif record is None:
            # Optuna returns the values that the trial was given before.
            values = space.suggest(attach(study, number))
            unfinished.append(Unfinished(number, space.hyperparameters(values)))
        elif record.state == "running":
            # The driver may have died between the recorder's and Optuna's copy of an evaluation.
            _report(attach(study, number), frozen, record)
            unfinished.append(
                Unfinished(number, record.hyperparameters, record.last_checkpoint, record.evaluations)
            )
        else:
            _finish(study, number, frozen, record)
    return [by_number[number] for number in sorted(by_number)], unfinished


def _finish(study: Study, number: int, frozen: FrozenTrial, record: TrialRecord) -> None:
    trial = attach(study, number)
    _report(trial, frozen, record)
    value = record.score if record.state == "completed" else None
    study.tell(trial, value, state=STATES[record.state])


def _report(trial: Trial, frozen: FrozenTrial, record: TrialRecord) -> None:
    for evaluation in record.evaluations:
        if evaluation.score is not None and evaluation.rung not in frozen.intermediate_values:
            trial.report(evaluation.score, evaluation.rung)


def startup_trials(trials: int, concurrency: int) -> int:
    """Random trials before TPE proposes: a quarter of the sweep, at most 10, at least those that start at once.

    With fewer, TPE would propose before it has seen a result.
    """
    return max(min(10, trials // 4), concurrency, 2)


def make_sampler(settings: SearchSettings, seed: int, concurrency: int) -> optuna.samplers.BaseSampler:
    """The sampler that a sweep's settings name; its proposals do not depend on earlier processes."""
    return SAMPLERS[settings.sampler].make(seed, startup_trials(settings.trials, concurrency))


def _reseed(state: LazyRandomState, seed: int, number: int) -> None:
    state.rng.seed([seed, number])


class SeededRandomSampler(optuna.samplers.RandomSampler):
    """Random sampling whose draws depend only on seed and trial number.

    Optuna's sampler draws from one stream, which a resumed sweep would restart: it would propose the first random
    trials again.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(seed=seed)
        self._seed = seed

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Seed this trial's draws."""
        _reseed(self._rng, self._seed, trial.number)


class SeededTPESampler(optuna.samplers.TPESampler):
    """TPE whose draws depend only on seed, trial number and study; see `SeededRandomSampler`."""

    def __init__(self, seed: int, startup: int) -> None:
        super().__init__(seed=seed, n_startup_trials=startup)
        self._seed = seed

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Seed this trial's draws."""
        _reseed(self._rng, self._seed, trial.number)
        _reseed(self._random_sampler._rng, self._seed, trial.number)
        super().before_trial(study, trial)


class Sampler(NamedTuple):
    """A way to propose hyperparameters.

    Attributes:
        label: its name in texts.
        make: the sampler, of a seed and the number of random trials before it learns.
    """

    label: str
    make: Callable[[int, int], optuna.samplers.BaseSampler]


# To add a sampler, add an entry here and its name to `SearchSettings.sampler`.
SAMPLERS = {
    "tpe": Sampler("TPE", SeededTPESampler),
    "random": Sampler("random search", lambda seed, startup: SeededRandomSampler(seed)),
}

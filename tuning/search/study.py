"""A sweep's study on disk: made once, opened by Optuna's own tools, kept in line with the trials' records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.samplers._lazy_random_state import LazyRandomState
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from lorasweep.search_spaces.space import Space
from lorasweep.training.errors import SettingsError
from lorasweep.training.settings import Hyperparameters, Metric, higher_is_better
from lorasweep.tuning.record.config import SearchSettings
from lorasweep.tuning.record.folder import TrialRecord, now, trial_id
from lorasweep.tuning.record.results import EvaluationRecord

# Trials of an older sweep that stand in front of this one's own, which count from 0 after them.
WARM = "lorasweep.warm_start"
STATES = {"completed": TrialState.COMPLETE, "stopped": TrialState.PRUNED, "failed": TrialState.FAIL}
ENDS = {state: name for name, state in STATES.items()}


@dataclass(frozen=True)
class Unfinished:
    """A trial that an earlier run of the sweep left running: handed out again, to go on where it stood.

    Attributes:
        evaluations: those on record. One whose checkpoint was not written yet is reached again, and stands.
    """

    number: int
    hyperparameters: Hyperparameters
    checkpoint: str | None = None
    evaluations: tuple[EvaluationRecord, ...] = ()

    @property
    def scores(self) -> tuple[float, ...]:
        """The running best at each rung on record."""
        return tuple(evaluation.score for evaluation in self.evaluations if evaluation.score is not None)


def create_study(
    url: str, name: str, metric: Metric, start: Mapping[str, Any], earlier: Sequence[FrozenTrial] = ()
) -> None:
    """Make a sweep's study; its first proposal is `start`, where there is one.

    Args:
        earlier: trials of an older sweep that the sampler is to learn from.
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
    """A sweep's study as it stands.

    Raises:
        SettingsError: the file is gone, or holds no study of this name.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        return optuna.load_study(study_name=name, storage=optuna.storages.RDBStorage(url), sampler=sampler)
    except KeyError:
        raise SettingsError(
            f"sweep {name}: {url.removeprefix('sqlite:///')} holds no study of this name; restore the file"
        ) from None


def first_number(study: Study) -> int:
    """Optuna's number of the sweep's own first trial."""
    return int(study.user_attrs.get(WARM, 0))


def attach(study: Study, number: int) -> optuna.Trial:
    """The trial of this number, of the sweep's own, to go on with."""
    storage = study._storage
    found = storage.get_trial_id_from_study_id_trial_number(study._study_id, number + first_number(study))
    return optuna.Trial(study, found)


def reconcile(
    study: Study, space: Space, records: Sequence[TrialRecord]
) -> tuple[list[TrialRecord], list[Unfinished]]:
    """Bring study and records in line after a driver died, in whatever moment.

    Ray tells the searcher of a trial's end a moment before the recorder, and a trial of its own failure a
    moment after it. So what only one of them knows is told to the other, and nothing is told twice. A
    proposal that never became a record keeps its number and its settings.

    Returns:
        All records, some of them changed or new, by number; and the trials that are to go on.
    """
    known = {record.number: record for record in records}
    unfinished: list[Unfinished] = []
    first = first_number(study)
    for frozen in study.get_trials(deepcopy=False)[first:]:
        number = frozen.number - first
        record = known.get(number)
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
                known[number] = record.model_copy(update=ended)
        elif record is None:
            # The sampler proposes what it had proposed: what a trial was given before stays its own.
            values = space.suggest(attach(study, number))
            unfinished.append(Unfinished(number, space.hyperparameters(values)))
        elif record.state == "running":
            # It may have died between the record of an evaluation and Optuna's.
            _report(attach(study, number), frozen, record)
            unfinished.append(
                Unfinished(number, record.hyperparameters, record.last_checkpoint, record.evaluations)
            )
        else:
            _tell(study, number, frozen, record)
    return [known[number] for number in sorted(known)], unfinished


def _tell(study: Study, number: int, frozen: FrozenTrial, record: TrialRecord) -> None:
    trial = attach(study, number)
    _report(trial, frozen, record)
    value = record.score if record.state == "completed" else None
    study.tell(trial, value, state=STATES[record.state])


def _report(trial: Trial, frozen: FrozenTrial, record: TrialRecord) -> None:
    for evaluation in record.evaluations:
        if evaluation.score is not None and evaluation.rung not in frozen.intermediate_values:
            trial.report(evaluation.score, evaluation.rung)


def startup_trials(trials: int, concurrency: int) -> int:
    """Random trials before TPE proposes: a quarter of the sweep, at most 10, and those that start at once.

    With fewer than run at once, TPE would propose before it has seen a result.
    """
    return max(min(10, trials // 4), concurrency, 2)


def make_sampler(settings: SearchSettings, seed: int, concurrency: int) -> optuna.samplers.BaseSampler:
    """Optuna's TPE, or plain random sampling; what a trial is proposed depends on no earlier process."""
    if settings.sampler == "random":
        return SeededRandomSampler(seed)
    return SeededTPESampler(seed, startup_trials(settings.trials, concurrency))


def _reseed(state: LazyRandomState, seed: int, number: int) -> None:
    state.rng.seed([seed, number])


class SeededRandomSampler(optuna.samplers.RandomSampler):
    """Random sampling whose draws depend on seed and trial number alone.

    Optuna's own goes through one stream of random numbers, which a resumed sweep would begin anew: it would
    propose its first random trials a second time.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(seed=seed)
        self._seed = seed

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Start this trial's own stream."""
        _reseed(self._rng, self._seed, trial.number)


class SeededTPESampler(optuna.samplers.TPESampler):
    """TPE whose draws depend on seed, trial number and the study alone, as `SeededRandomSampler`'s do."""

    def __init__(self, seed: int, startup: int) -> None:
        super().__init__(seed=seed, n_startup_trials=startup)
        self._seed = seed

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Start this trial's own streams."""
        _reseed(self._rng, self._seed, trial.number)
        _reseed(self._random_sampler._rng, self._seed, trial.number)
        super().before_trial(study, trial)

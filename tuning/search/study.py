"""A sweep's Optuna study on disk, its samplers, and its reconciliation with the trials' records."""

from __future__ import annotations

import warnings
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
from lorasweep.training.loop.early_end import ends_early
from lorasweep.training.metrics import metric_words
from lorasweep.training.settings import Hyperparameters, Metric, TrainingSettings, higher_is_better
from lorasweep.tuning.record.config import SearchSettings
from lorasweep.tuning.record.trial_records import EvaluationRecord, TrialRecord, judged, now, trial_id

# Number of trials from a warm start. They come first in the study; the sweep's own count from 0 after them.
WARM = "lorasweep.warm_start"
# Number of the sweep's trial that a trial of the study tries again.
AGAIN = "lorasweep.again"
# A trial's place among the starts, the known-good settings that are tried first: 1, 2, ...
START = "lorasweep.start"
# What the study optimises, and what the winner is chosen by. Each trial also has its best value of the latter, under
# the metric's own name.
OBJECTIVE, METRIC = "lorasweep.objective", "lorasweep.metric"
STATES = {"completed": TrialState.COMPLETE, "stopped": TrialState.PRUNED, "failed": TrialState.FAIL}
ENDS = {state: name for name, state in STATES.items()}


@dataclass(frozen=True)
class Unfinished:
    """A trial that an earlier run of the sweep left running; it continues from its checkpoint.

    Attributes:
        evaluations: those on record. The last one may be repeated if its checkpoint was not written; the record
            counts.
        start: its place among the starts, from 1; None for a proposed trial.
    """

    number: int
    hyperparameters: Hyperparameters
    checkpoint: str | None = None
    evaluations: tuple[EvaluationRecord, ...] = ()
    start: int | None = None

    @property
    def scores(self) -> tuple[float, ...]:
        """The running best of the objective at each recorded rung."""
        return judged(self.evaluations)


def create_study(
    url: str,
    name: str,
    objective: Metric,
    starts: Sequence[Mapping[str, Any]] = (),
    earlier: Sequence[FrozenTrial] = (),
    *,
    metric: Metric | None = None,
) -> None:
    """Make a sweep's study.

    Args:
        objective: what it optimises.
        starts: hyperparameters of the first trials, the known-good start first. A sweep of fewer trials runs the
            first of them, and the others if it is extended.
        earlier: trials of another sweep for the sampler to learn from.
        metric: what the winner is chosen by; the objective if None.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.RDBStorage(url)
    direction = "maximize" if higher_is_better(objective) else "minimize"
    study = optuna.create_study(storage=storage, study_name=name, direction=direction)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names([f"validation {metric_words(objective)}"])
    study.set_user_attr(OBJECTIVE, objective)
    study.set_user_attr(METRIC, metric or objective)
    study.add_trials(earlier)
    study.set_user_attr(WARM, len(earlier))
    for place, start in enumerate(starts, 1):
        study.enqueue_trial(dict(start), user_attrs={START: place})
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


def start_of(trial: FrozenTrial | Trial) -> int | None:
    """A trial's place among the starts, from 1; None for a proposed one."""
    place: int | None = trial.user_attrs.get(START)
    return place


def starts_of(study: Study) -> int:
    """How many starts a study's sweep has, tried or waiting."""
    return sum(start_of(trial) is not None for trial in own_trials(study).values())


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
    place = start_of(failed)
    study.add_trial(
        optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=failed.params,
            distributions=failed.distributions,
            intermediate_values=failed.intermediate_values,
            user_attrs={AGAIN: record.number} | ({} if place is None else {START: place}),
        )
    )
    hyperparameters = record.hyperparameters
    if not record.searched:  # the driver died before it had recorded them
        hyperparameters = space.hyperparameters(space.suggest(attach(study, record.number)))
    again = Unfinished(record.number, hyperparameters, record.last_checkpoint, record.evaluations, place)
    return record.tried_again().model_copy(update={"hyperparameters": hyperparameters}), again


def reconcile(
    study: Study, space: Space, records: Sequence[TrialRecord], training: TrainingSettings | None = None
) -> tuple[list[TrialRecord], list[Unfinished]]:
    """Bring study and records in line after the driver died, at whatever moment.

    Ray reports a trial's end to the searcher just before the recorder, and a failure just after it. So copy each
    event that only one side saw, and skip those that both saw. A proposal that never became a record keeps its
    number and its hyperparameters.

    Args:
        training: tells whether a trial has ended because it no longer learnt; nobody asks if None.

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
                    start=start_of(frozen),
                    started=frozen.datetime_start.timestamp() if frozen.datetime_start else now(),
                    error="the driver died as it failed",
                )
            if record.state == "running":
                ended: dict[str, Any] = {"state": ENDS[frozen.state], "ended": now()}
                if training is not None and frozen.state == TrialState.COMPLETE:
                    early = record.reached < training.rungs and ends_early(record.losses, training.early_end)
                    ended["stopped_by"] = "early_end" if early else None
                by_number[number] = record.model_copy(update=ended)
        elif record is None:
            # Optuna returns the values that the trial was given before.
            values = space.suggest(attach(study, number))
            unfinished.append(Unfinished(number, space.hyperparameters(values), start=start_of(frozen)))
        elif record.state == "running":
            # The driver may have died between the recorder's and Optuna's copy of an evaluation.
            _report(attach(study, number), frozen, record)
            unfinished.append(
                Unfinished(
                    number,
                    record.hyperparameters,
                    record.last_checkpoint,
                    record.evaluations,
                    start_of(frozen),
                )
            )
        else:
            _finish(study, number, frozen, record)
    return [by_number[number] for number in sorted(by_number)], unfinished


def _finish(study: Study, number: int, frozen: FrozenTrial, record: TrialRecord) -> None:
    trial = attach(study, number)
    _report(trial, frozen, record)
    value = record.judged[-1] if record.state == "completed" else None
    note_score(study, trial, record.score)
    study.tell(trial, value, state=STATES[record.state])


def note_score(study: Study, trial: Trial, score: float | None) -> None:
    """Note a trial's best score by the metric, where the study does not optimise that."""
    attributes = study.user_attrs
    if score is not None and attributes.get(METRIC) != attributes.get(OBJECTIVE):
        trial.set_user_attr(attributes[METRIC], score)


def _report(trial: Trial, frozen: FrozenTrial, record: TrialRecord) -> None:
    for evaluation in record.evaluations:
        if evaluation.judged is not None and evaluation.rung not in frozen.intermediate_values:
            trial.report(evaluation.judged, evaluation.rung)


def startup_trials(trials: int, concurrency: int, starts: int = 1) -> int:
    """Trials before TPE proposes: a quarter of the sweep, at most 10, at least those that start at once.

    With fewer, TPE would propose before it has seen a result. The starts are among them, and at least one random
    trial: starts lie close together, so TPE also needs to see something else.
    """
    return max(min(10, trials // 4), concurrency, starts + 1, 2)


def make_sampler(
    settings: SearchSettings, seed: int, concurrency: int, starts: int = 1
) -> optuna.samplers.BaseSampler:
    """The sampler that a sweep's settings name; its proposals do not depend on earlier processes."""
    return SAMPLERS[settings.sampler].make(seed, startup_trials(settings.trials, concurrency, starts))


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

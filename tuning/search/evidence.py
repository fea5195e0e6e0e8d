"""What a sweep's trials say of its search space: which settings mattered, which were dead, which edge was touched.

Everything compares the good trials, a quarter of those with a score, with all of them. Each claim is a test: were the
hyperparameter without influence, the good trials would be drawn from all by chance, and what is claimed would be seen
at most once in twenty times. Scores may therefore be noisy; noise hides influence, and invents none.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import optuna
from optuna.trial import TrialState, create_trial

from lorasweep.search_spaces.domains import Choice, Domain, IntRange, Range, Value
from lorasweep.search_spaces.fields import adapter_settings
from lorasweep.search_spaces.space import SearchSpace
from lorasweep.training.settings import Metric, higher_is_better
from lorasweep.tuning.record.trial_records import TrialRecord, rank_trials

# With fewer scores than these, an importance is noise.
IMPORTANCE_TRIALS = 4
# Below these, no domain is judged: three good trials of seven are next to each other one time in seven.
EVIDENCE_TRIALS = 8
# How often a hyperparameter without influence may be taken for one with.
CHANCE = 0.05
# Of a range in its own scale: what counts as an end, how much is added past one, and what always stays of it.
ZONE, WIDER, LEAST = 0.15, 0.25, 0.25
# A share of all importance that is as good as none, and the trials that it takes to say so. In simulated sweeps in
# which the rate alone mattered, half of the other settings had less from 30 trials on; a rate never had.
TINY, TINY_TRIALS = 0.02, 30


@dataclass(frozen=True)
class Finding:
    """What the good trials say of one searched hyperparameter.

    Attributes:
        trials, good: how many trials drew it, and how many of them are good.
        span: of a range, the part that holds the good trials with some room around them, (low, high) in [0, 1] of
            its own scale; None where they lie all over it, or too few trials say so.
        low, high: the lowest and the highest value of a good trial; None of a choice.
        below, above: trials outside these two.
        dead: of a choice, values that no good trial has, nor one within noise of the best → how many trials had them.
        touched: the ends that the best trial and other good ones lie at: `low`, `high`, both or none.
        share: of all importance; None where nobody can tell.
    """

    name: str
    domain: Domain
    trials: int
    good: int
    span: tuple[float, float] | None = None
    low: float | None = None
    high: float | None = None
    below: int = 0
    above: int = 0
    dead: Mapping[Value, int] = field(default_factory=dict)
    touched: tuple[str, ...] = ()
    share: float | None = None

    @property
    def without_influence(self) -> bool:
        """Whether enough trials say that it hardly matters."""
        return self.share is not None and self.share < TINY and self.trials >= TINY_TRIALS


class Evidence:
    """A sweep's trials as evidence on its space.

    Trials on all rows, of a search on a part of them, are left out: their scores are higher for their rows.
    """

    def __init__(self, space: SearchSpace, trials: Sequence[TrialRecord], metric: Metric) -> None:
        self.space, self.metric = space, metric
        self.ranked = rank_trials((t for t in trials if _usable(t, space)), metric)
        self.good = self.ranked[: max(3, math.ceil(len(self.ranked) / 4))]

    @property
    def enough(self) -> bool:
        """Whether there are trials enough to judge a domain."""
        return len(self.ranked) >= EVIDENCE_TRIALS

    @property
    def noise(self) -> float:
        """The standard error of the best trial's score; 0 where an older version has recorded none."""
        return self.ranked[0].standard_error or 0.0

    def _within_noise(self, trial: TrialRecord) -> bool:
        return abs((trial.score or 0.0) - (self.ranked[0].score or 0.0)) <= self.noise

    @cached_property
    def study(self) -> optuna.Study:
        """All trials with a score, as complete ones of a study in memory, the first trial first."""
        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            study = optuna.create_study(direction="maximize" if higher_is_better(self.metric) else "minimize")
        finally:
            optuna.logging.set_verbosity(verbosity)
        kinds = self.space.distributions()
        for trial in sorted(self.ranked, key=lambda trial: trial.number):
            values = drawn_values(trial, self.space)
            distributions = {name: kinds[name] for name in values}
            study.add_trial(
                create_trial(
                    state=TrialState.COMPLETE, value=trial.score, params=values, distributions=distributions
                )
            )
        return study

    @cached_property
    def importances(self) -> dict[str, float]:
        """Hyperparameter → share of what sets the best trials apart, as `setting_importances` says."""
        return setting_importances(self.study)

    @cached_property
    def findings(self) -> dict[str, Finding]:
        """One for each searched hyperparameter; nothing is claimed where there is not `enough`."""
        return {name: self._finding(name, domain) for name, domain in self.space.searched.items()}

    def _finding(self, name: str, domain: Domain) -> Finding:
        drawn = [(t, drawn_values(t, self.space)) for t in self.ranked]
        values = [own[name] for _, own in drawn if name in own]
        best = {trial.id for trial in self.good}
        good = [own[name] for trial, own in drawn if trial.id in best and name in own]
        share = self.importances.get(name)
        plain = Finding(name, domain, len(values), len(good), share=share)
        if not self.enough or len(good) < 3:
            return plain
        if not isinstance(domain, Range | IntRange):
            counts = {
                value: values.count(value) for value in getattr(domain, "values", ()) if value not in good
            }
            dead = {
                value: count
                for value, count in counts.items()
                if none_by_chance(len(values), len(good), count) <= CHANCE
                and not any(own.get(name) == value and self._within_noise(trial) for trial, own in drawn)
            }
            return replace(plain, dead=dead, touched=_touched_ends(domain, values, good))
        low, high = min(good), max(good)
        below, above = sum(value < low for value in values), sum(value > high for value in values)
        near = window_by_chance(len(values), len(good), len(values) - below - above) <= CHANCE
        span = _span(place(domain, low), place(domain, high), len(good)) if near else None
        # Good trials that all lie together, with none beyond them, lie at the end.
        beside = {"low": near and not below, "high": near and not above}
        touched = _touched_ends(domain, values, good, [end for end, there in beside.items() if there])
        return replace(plain, span=span, low=low, high=high, below=below, above=above, touched=touched)


def _usable(trial: TrialRecord, space: SearchSpace) -> bool:
    """Whether a trial has a finite score and lies in the space, on the rows that the search used."""
    if trial.score is None or not math.isfinite(trial.score) or trial.finalist_of is not None:
        return False
    return all(value in space.searched[name] for name, value in drawn_values(trial, space).items())


def drawn_values(trial: TrialRecord, space: SearchSpace) -> dict[str, Any]:
    """A trial's values of the searched names, without those that full fine-tuning has no use for."""
    unused = adapter_settings() if trial.hyperparameters.method == "full" else ()
    return {name: getattr(trial.hyperparameters, name) for name in space.searched if name not in unused}


def setting_importances(study: optuna.Study) -> dict[str, float]:
    """How much each setting decided which trials are among the best, the largest first; together they are 1.

    Optuna's PED-ANOVA (Watanabe et al., arXiv 2304.10255) over all trials with a score. It only asks which trials are
    among the best, and ASHA stops a trial for not being there, so that the smaller budget of the stopped ones does
    little harm. The best are a tenth of the trials, but at least 5, and at most a third.

    Empty with fewer than `IMPORTANCE_TRIALS` scores, or when all are equal.

    Args:
        study: whose trials with a score are all COMPLETE.
    """
    scores = [t.value for t in study.get_trials(deepcopy=False) if t.state == TrialState.COMPLETE]
    if len(scores) < IMPORTANCE_TRIALS or len(set(scores)) < 2:
        return {}
    best = min(1 / 3, max(0.1, 5 / len(scores)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=best)
        return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))


def place(domain: Range | IntRange, value: float) -> float:
    """Where a value lies in a range, in its own scale: 0 at its low end, 1 at its high end."""
    if domain.log:
        return math.log(value / domain.low) / math.log(domain.high / domain.low)
    return (value - domain.low) / (domain.high - domain.low)


def value_at(domain: Range | IntRange, where: float) -> float:
    """The value at a place of a range, or past its ends; the inverse of `place`."""
    if domain.log:
        return float(domain.low * (domain.high / domain.low) ** where)
    return domain.low + where * (domain.high - domain.low)


def _span(low: float, high: float, good: int) -> tuple[float, float]:
    """The part of a range in which good values lie, from the lowest and highest seen.

    Of g values drawn uniformly, the outermost lie inside the true ends by 1 / (g - 1) of their distance on average.
    """
    room = max((high - low) / (good - 1), (LEAST - (high - low)) / 2)
    return max(0.0, low - room), min(1.0, high + room)


def domain_ends(domain: Domain) -> tuple[float, float] | None:
    """The lowest and the highest number of a domain; None of a choice that is not among numbers."""
    if isinstance(domain, Range | IntRange):
        return domain.low, domain.high
    values = domain.values if isinstance(domain, Choice) else ()
    numbers = [value for value in values if isinstance(value, int | float)]
    return (min(numbers), max(numbers)) if numbers and len(numbers) == len(values) else None


def _touched_ends(
    domain: Domain, values: Sequence[Any], good: Sequence[Any], beside: Sequence[str] = ()
) -> tuple[str, ...]:
    """The ends at which the best trial lies, and more good ones than chance would bring there.

    Args:
        beside: ends of which that much is known already.
    """
    ends = domain_ends(domain)
    if ends is None:
        return ()

    def at(value: Any, end: str) -> bool:
        if isinstance(domain, Range | IntRange):
            where = place(domain, value)
            return where <= ZONE if end == "low" else where >= 1 - ZONE
        return bool(value == ends[end == "high"])

    def many(end: str) -> bool:
        some, among = sum(at(value, end) for value in values), sum(at(value, end) for value in good)
        return more_by_chance(len(values), len(good), some, among) <= CHANCE

    return tuple(end for end in ("low", "high") if at(good[0], end) and (end in beside or many(end)))


def none_by_chance(trials: int, good: int, some: int) -> float:
    """Probability that none of `some` trials is good, with `good` ones drawn from all by chance."""
    return math.comb(trials - some, good) / math.comb(trials, good)


def more_by_chance(trials: int, good: int, some: int, among: int) -> float:
    """Probability that `among` or more of `some` trials are good."""
    ways = sum(
        math.comb(some, n) * math.comb(trials - some, good - n) for n in range(among, min(some, good) + 1)
    )
    return ways / math.comb(trials, good)


def window_by_chance(trials: int, good: int, width: int) -> float:
    """Probability that all good trials are among `width` neighbours in the order of a hyperparameter; good >= 2."""
    ways = sum((trials - span + 1) * math.comb(span - 2, good - 2) for span in range(good, width + 1))
    return ways / math.comb(trials, good)

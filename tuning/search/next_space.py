"""A ready space for the next search, made from what a sweep's trials say of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lorasweep.search_spaces.domains import Choice, Domain, IntRange, Range, Value, show
from lorasweep.search_spaces.fields import bounds, check_value
from lorasweep.search_spaces.space import SearchSpace, without_use
from lorasweep.training.errors import SettingsError
from lorasweep.training.metrics import metric_words
from lorasweep.tuning.record.sweep import SweepRecord
from lorasweep.tuning.record.trial_records import TrialRecord, rank_trials
from lorasweep.tuning.record.words import score_text
from lorasweep.tuning.search.evidence import EVIDENCE_TRIALS, WIDER, Evidence, Finding, domain_ends, value_at

# Known-good settings that the next search tries first.
STARTS = 3
# A range that would lose less than this part of itself stays as it is.
WORTH_IT = 0.1


class NextSpace(NamedTuple):
    """A space for the next search.

    Attributes:
        reasons: hyperparameter → why its domain is what it is; `starts` → whose settings they are.
        head: what the whole rests on.
        changed: hyperparameters whose domain differs from before.
    """

    space: SearchSpace
    reasons: dict[str, str]
    head: str
    changed: list[str]

    def to_yaml(self) -> str:
        """A file for `--space`, which says for each line why."""
        return self.space.to_yaml({"": self.head, **self.reasons})


def next_space_after(sweep: SweepRecord) -> NextSpace:
    """The space for the search after this sweep, from its records alone.

    Raises:
        SettingsError: it searched a Python function, or none of its trials has a score.
    """
    if not (sweep.folder.path / "space.yaml").is_file():
        raise SettingsError(
            f"sweep {sweep.name}: searched a Python function, and a next space is made only from one in YAML; "
            "change the function instead"
        )
    space = sweep.space
    assert isinstance(space, SearchSpace)
    if not sweep.ranked():
        raise SettingsError(
            f"sweep {sweep.name}: no trial has a score yet; go on with it: {sweep.folder.command('resume')}"
        )
    return next_space(sweep.name, Evidence(space, sweep.trials, sweep.metric), sweep.trials)


def next_space(name: str, evidence: Evidence, trials: Sequence[TrialRecord]) -> NextSpace:
    """The space for the search after the sweep `name`, from what its trials say.

    Ranges are narrowed to where the good trials lie, and widened past an end that the best touched. Choices that no
    good trial has are left out, and a hyperparameter without influence keeps the best trial's value. All of that only
    where chance would hardly show as much. The best trials' settings become the starts.
    """
    space = evidence.space
    best = _best_settings(space, trials, evidence)
    parameters: dict[str, Domain | Value] = dict(space.parameters)
    reasons = dict.fromkeys(space.constants, "constant, as before")
    for searched, finding in evidence.findings.items():
        kept = [values[searched] for _, values in best]
        parameters[searched], reasons[searched] = _judged(finding, kept)
    for useless in without_use(parameters):
        del parameters[useless], reasons[useless]  # what it goes with has just gone
    if not any(isinstance(domain, Domain) for domain in parameters.values()):
        # A space must search something: what mattered most stays.
        judged = [searched for searched in space.searched if searched in parameters]
        most = max(judged, key=lambda searched: evidence.importances.get(searched, 0.0))
        parameters[most], reasons[most] = space.searched[most], "as before: something has to be searched"
    if not evidence.enough:
        reasons |= dict.fromkeys(space.searched, "as before")
    left = [searched for searched in space.searched if isinstance(parameters.get(searched), Domain)]
    starts: dict[str, dict[str, Value]] = {}
    for trial, values in best:
        start = {searched: values[searched] for searched in left}
        if _alike(start, space) not in [_alike(other, space) for other in starts.values()]:
            starts[f"{trial.id} {score_text(trial.score, evidence.metric)}"] = start
    reasons["starts"] = f"the best trials of {name}, tried first: {', '.join(starts)}"
    changed = [searched for searched, domain in space.searched.items() if parameters.get(searched) != domain]
    about = f"the next search after sweep {name}, from what its trials show"
    following = SearchSpace(f"after-{name}", parameters, tuple(starts.values()), about)
    return NextSpace(following, reasons, _head(name, evidence, changed), changed)


def _best_settings(
    space: SearchSpace, trials: Sequence[TrialRecord], evidence: Evidence
) -> list[tuple[TrialRecord, dict[str, Value]]]:
    """The best trials with their searched values, as the space writes them: 32 where a record holds 32.0.

    Those on all rows come first, if the search used a part of them.
    """
    finalists = rank_trials((trial for trial in trials if trial.finalist_of is not None), evidence.metric)
    distinct: list[tuple[TrialRecord, dict[str, Value]]] = []
    for trial in [*finalists, *(evidence.good if evidence.enough else evidence.ranked)]:
        values = {name: getattr(trial.hyperparameters, name) for name in space.searched}
        if not all(values[name] in domain for name, domain in space.searched.items()):
            continue
        for name, domain in space.searched.items():
            if isinstance(domain, Choice):
                values[name] = domain.values[domain.values.index(values[name])]
        if _alike(values, space) not in [_alike(others, space) for _, others in distinct]:
            distinct.append((trial, values))
    return distinct[:STARTS]


def _alike(settings: Mapping[str, Any], space: SearchSpace) -> dict[str, Value]:
    """Settings by which one that is nearly the same is known: a rate of 2e-3 and one of 2.07e-3 teach little apart."""
    return {
        name: float(f"{value:.0e}") if isinstance(space.parameters[name], Range) else value
        for name, value in settings.items()
    }


def _head(name: str, evidence: Evidence, changed: Sequence[str]) -> str:
    count, best = len(evidence.ranked), evidence.ranked[:1]
    trials = f"{count} trial{'s' if count != 1 else ''} with a score"
    if best:
        metric, score = metric_words(evidence.metric), score_text(best[0].score, evidence.metric)
        trials += f", the best validation {metric} {score} ({best[0].id})"
    head = f"The next search after sweep {name}: {trials}."
    if not evidence.enough:
        return (
            f"{head}\nToo few to judge a range ({EVIDENCE_TRIALS} are needed): the space is as before, "
            "with new starts."
        )
    head += f"\nGood trials are the best {len(evidence.good)}."
    if not changed:
        return f"{head} They speak against nothing in the space: it is as before, with new starts."
    return f"{head} Chance would show what each change rests on less than once in twenty times."


def _judged(finding: Finding, kept: Sequence[Any]) -> tuple[Domain | Value, str]:
    """A hyperparameter's next domain, or its constant value, and why; `kept` are the starts' values, the best first."""
    if finding.without_influence and not finding.touched:
        share = f"{100 * (finding.share or 0.0):.0f} %"
        why = f"{share} of what sets the best trials apart, by {finding.trials} trials"
        return kept[0], f"constant, at the best trial's value: {why}"
    if isinstance(finding.domain, Choice):
        domain, why = _judged_choice(finding.name, finding.domain, finding, kept)
    elif isinstance(finding.domain, Range | IntRange):
        domain, why = _judged_range(finding.domain, finding, kept)
    else:
        domain, why = finding.domain, ""
    return domain, why or "as before: nothing here sets the good trials apart"


def _judged_choice(
    name: str, choice: Choice, finding: Finding, kept: Sequence[Any]
) -> tuple[Domain | Value, str]:
    dead = {value: count for value, count in finding.dead.items() if value not in kept}
    left = [value for value in choice.values if value not in dead]
    reasons = []
    if dead:
        without = ", ".join(f"{show(value)} ({count} trials)" for value, count in dead.items())
        reasons.append(f"no good trial had {without}")
    for end in finding.touched:
        further = _further(name, choice, end)
        if further is not None:
            left = [further, *left] if end == "low" else [*left, further]
            reasons.append(
                f"{show(further)} is new: the best had {show((domain_ends(choice) or ())[end == 'high'])}, the {end}est"
            )
    return (Choice(tuple(left)) if len(left) > 1 else left[0]), "; ".join(reasons)


def _further(name: str, choice: Choice, end: str) -> int | float | None:
    """The next number past an end, in the same proportion as the last two; None where there is none or no such."""
    numbers: list[Any] = sorted(choice.values, reverse=end == "low")
    last, before = numbers[-1], numbers[-2]
    value = last * last / before if before else 2.0 * last
    number = float(f"{value:.4g}")
    if all(isinstance(value, int) for value in numbers):
        number = math.floor(number) if end == "low" else math.ceil(number)
    try:
        check_value(name, number)
    except SettingsError:
        return None
    return number if number != last else None


def _judged_range(domain: Range | IntRange, finding: Finding, kept: Sequence[Any]) -> tuple[Domain, str]:
    low, high = finding.span or (0.0, 1.0)
    reasons = []
    if high - low <= 1 - WORTH_IT:
        good = f"the good trials lie at {_short(finding.low)} ... {_short(finding.high)}"
        others = finding.below + finding.above
        reasons.append(f"narrowed from {domain}: {good}, {others} trials outside")
    else:
        low, high = 0.0, 1.0
    ends: list[Any] = [domain.low, domain.high]
    if low > 0:
        ends[0] = max(min(_rounded(value_at(domain, low), math.floor), *kept), domain.low)
    if high < 1:
        ends[1] = min(max(_rounded(value_at(domain, high), math.ceil), *kept), domain.high)
    for end in finding.touched:
        old = domain.low if end == "low" else domain.high
        further = _past(finding.name, domain, end)
        if further != old:
            ends[end == "high"] = further
            reasons.append(f"widened past {show(old)}: the best lie at this end")
    return _fitted(finding.name, domain, *ends), "; ".join(reasons)


def _past(name: str, domain: Range | IntRange, end: str) -> float:
    """How far a range goes past one of its ends, within what the hyperparameter takes."""
    old, wished = (
        (domain.low, value_at(domain, -WIDER)) if end == "low" else (domain.high, value_at(domain, 1 + WIDER))
    )
    lowest, highest = bounds(name)
    value = min(max(_rounded(wished, math.floor if end == "low" else math.ceil), lowest), highest)
    try:
        check_value(name, round(value) if isinstance(domain, IntRange) else float(value))
    except SettingsError:  # a limit that is not allowed itself, as dropout 1
        value = (old + value) / 2
    return value


def _fitted(name: str, domain: Range | IntRange, low: float, high: float) -> Range | IntRange:
    """A domain of the same kind from low to high; of whole numbers on the same steps, as far as allowed."""
    if isinstance(domain, Range):
        return Range(float(low), float(high), log=domain.log)
    first, last = math.floor((low - domain.low) / domain.step), math.ceil((high - domain.low) / domain.step)
    lowest, highest = bounds(name)
    first += domain.low + first * domain.step < lowest
    last -= domain.low + last * domain.step > highest
    return IntRange(
        domain.low + first * domain.step, domain.low + last * domain.step, domain.log, domain.step
    )


def _rounded(value: float, way: Any) -> float:
    """Two significant digits, rounded down or up."""
    if not value:
        return 0.0
    scale = 10.0 ** (math.floor(math.log10(abs(value))) - 1)
    return float(f"{way(round(value / scale, 6)) * scale:.3g}")


def _short(value: Any) -> str:
    return show(float(f"{value:.2g}") if isinstance(value, float) else value)

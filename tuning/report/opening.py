"""What a report says first: which settings mattered, what of the space is dead or too narrow, and what to do next."""

from __future__ import annotations

import shlex
from typing import NamedTuple

import optuna
from markupsafe import Markup

from lorasweep.search_spaces.domains import show
from lorasweep.training.metrics import Metric, higher_is_better
from lorasweep.tuning.record.trial_records import TrialRecord
from lorasweep.tuning.record.words import SHORT_NAMES, amount_text, setting_text
from lorasweep.tuning.report.plots.data import is_number
from lorasweep.tuning.report.reading import ReportData
from lorasweep.tuning.report.rows import HINT_TRIALS, mattered
from lorasweep.tuning.search.evidence import EVIDENCE_TRIALS, Evidence, Finding, domain_ends
from lorasweep.tuning.search.next_space import WORTH_IT
from lorasweep.tuning.search.outlook import OUTLOOK_TRIALS, regret_bound


class Opening(NamedTuple):
    """The first lines of a report.

    Attributes:
        sentences: on the settings, on the space, and on more trials; escaped. None before a trial has a score.
        command: what makes the next space; empty where nothing can.
    """

    sentences: list[Markup]
    command: str


def open_report(data: ReportData) -> Opening:
    """The first lines of a sweep's report."""
    scored = [trial for trial in data.plots.scored if trial.finalist_of is None]
    if not scored:
        return Opening([], "")
    metric = data.record.metric
    evidence = Evidence(data.searched, data.record.trials, metric) if data.searched is not None else None
    study = evidence.study if evidence is not None else data.plots.study
    sentences = [_settings(data), _space(evidence), _outlook(scored, metric, study)]
    # Without the folder of the sweep: a page may be shown to others, and a path is of one machine.
    command = f"lorasweep spaces --next {shlex.quote(data.record.name)} > next.yaml"
    return Opening(sentences, command if evidence is not None else "")


def _settings(data: ReportData) -> Markup:
    """Which settings mattered."""
    count, shares = len(data.plots.scored), mattered(data.plots)
    if not shares:
        return Markup("Which settings mattered cannot be said from {}.").format(_trials(count))
    (first, share), rest = shares[0], shares[1:]
    text = Markup("<b>{}</b> mattered most ({:.0f} % of what sets the best trials apart)").format(
        first, 100 * share
    )
    if rest:
        others = [Markup("<b>{}</b> ({:.0f} %)").format(name, 100 * share) for name, share in rest]
        text += Markup(", then ") + Markup(" and ").join(others)
    if count < HINT_TRIALS:
        text += Markup("; from {}, this is only a hint").format(_trials(count))
    return text + Markup(".")


def _space(evidence: Evidence | None) -> Markup:
    """Which parts of the space looked dead, and which ends the best trials touched."""
    if evidence is None:
        return Markup("The space is a Python function, so its ranges are not judged.")
    if not evidence.enough:
        few = _trials(len(evidence.ranked))
        return Markup("What of the space is dead cannot be said from {}; it takes {}.").format(
            few, EVIDENCE_TRIALS
        )
    findings = evidence.findings.values()
    dead = [text for finding in findings for text in _dead_parts(finding)]
    ends = [_end(finding, end) for finding in findings for end in finding.touched]
    if not dead and not ends:
        return Markup("No part of the space looked dead, and the best trials touched no end of it.")
    texts = []
    if dead:
        texts.append(
            Markup("none of the {} best trials had {}").format(len(evidence.good), Markup(" or ").join(dead))
        )
    if ends:
        texts.append(Markup("the best lie at {}").format(Markup(" and at ").join(ends)))
    text = Markup("; ").join(texts)
    return text[:1].upper() + text[1:] + Markup(".")


def _dead_parts(finding: Finding) -> list[Markup]:
    name = _name(finding)
    if finding.span is not None and finding.span[1] - finding.span[0] <= 1 - WORTH_IT:
        parts = []
        if finding.span[0] > 0 and finding.below:
            parts.append(("below", finding.low, finding.below))
        if finding.span[1] < 1 and finding.above:
            parts.append(("above", finding.high, finding.above))
        return [
            Markup("<b>{}</b> {} {} ({} others did)").format(name, side, setting_text(value), count)
            for side, value, count in parts
        ]
    return [
        Markup("<b>{}</b> {} ({} others did)").format(name, show(value), count)
        for value, count in finding.dead.items()
    ]


def _end(finding: Finding, end: str) -> Markup:
    low, high = domain_ends(finding.domain) or (None, None)
    value = show(low if end == "low" else high)
    return Markup("the {} end of <b>{}</b> ({})").format(end, _name(finding), value)


def _name(finding: Finding) -> str:
    return SHORT_NAMES.get(finding.name, finding.name.replace("_", " "))


def _outlook(scored: list[TrialRecord], metric: Metric, study: optuna.Study) -> Markup:
    """Whether more trials would pay."""
    bound = regret_bound(study)
    sign = 1 if higher_is_better(metric) else -1
    best = max(scored, key=lambda trial: (sign * (trial.score or 0.0), -trial.number))
    if bound is None:
        after = sum(trial.number > best.number for trial in scored)
        since = (
            f"the {_trials(after, '')} after it brought nothing better" if after else "it was the last one"
        )
        return Markup(
            "Whether more trials would pay cannot be estimated from {} (it takes {}); the best is {}, and {}."
        ).format(_trials(len(scored)), OUTLOOK_TRIALS, best.id, since)
    noise = best.standard_error
    left = amount_text(bound, metric)
    if is_number(noise) and bound <= noise:
        return Markup(
            "More trials in this space would hardly pay: at most about {} are left to find (Optuna’s bound), and a "
            "validation score is known to ± {}."
        ).format(left, amount_text(noise, metric))
    known = f"; a validation score is known to ± {amount_text(noise, metric)}" if is_number(noise) else ""
    return Markup("More trials in this space could still find up to about {} (Optuna’s bound){}.").format(
        left, known
    )


def _trials(count: int, which: str = " with a score") -> str:
    return f"{count} trial{'' if count == 1 else 's'}{which}"

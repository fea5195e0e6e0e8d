"""The rows of a report's tables, in words."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from lorasweep.training.metrics import ALWAYS, Metric, metric_words
from lorasweep.training.settings import Hyperparameters
from lorasweep.tuning.record.bases import BaseSummary, base_summaries
from lorasweep.tuning.record.finalists import finalists
from lorasweep.tuning.record.gains import gain_texts
from lorasweep.tuning.record.ran_on import devices_text
from lorasweep.tuning.record.results import TestScores
from lorasweep.tuning.record.sweep import SweepRecord
from lorasweep.tuning.record.trial_records import TrialRecord
from lorasweep.tuning.record.words import (
    SHORT_NAMES,
    counts_text,
    duration,
    judged_text,
    parameters_text,
    part_text,
    score_text,
    setting_text,
    settings_line,
    shown_metrics,
    state_text,
    threshold_text,
    unmerged_rows,
)
from lorasweep.tuning.report.plots.data import ADAPTER_SETTINGS, PlotData, is_number
from lorasweep.tuning.report.reading import Tested
from lorasweep.tuning.search.stopping import RULES, stopping_rule

# Pairs of classes in the table of confusions.
MIXED_UP = 10
# Settings that are named first, and the trials below which that is no more than a hint.
MATTERED, HINT_TRIALS = 3, 20
# Columns of settings in the trials' table.
MOST_COLUMNS = 6

# What a browser or a table would obey or choke on: control characters, overrides of the writing direction.
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def search_rows(sweep: SweepRecord) -> list[tuple[str, str]]:
    """What was searched and how: (name, text), without what an older sweep did not record."""
    plan, training, search = sweep.plan, sweep.config.training, sweep.config.search
    data, base, budget = plan.get("data", {}), plan.get("base_model", {}), plan.get("budget", {})
    spans = [f"{name} {first} to {last}" for name, (first, last) in data.get("dates", {}).items()]
    columns = " + ".join(plan.get("text_columns", []))
    rule = stopping_rule(search)
    early = rule.text(search, budget.get("halving"))
    judged = judged_text(sweep.metric, sweep.objective)
    rows = [
        ("data", data.get("source", "")),
        ("columns", f"{columns} → {plan.get('label_column', '')}" if columns else ""),
        ("rows", ", ".join(f"{name} {count:,}" for name, count in data.get("rows", {}).items())),
        ("classes", str(data.get("classes", ""))),
        ("labels merged by", data.get("merged_by", "")),
        ("split by date", ", ".join(spans)),
        ("split by group", f"each {data['group_column']} in one split" if data.get("groups") else ""),
        ("base model", base.get("hub_id") or Path(sweep.config.base_model).name),
        ("base models", "; ".join(map(_base_text(sweep), base_summaries(sweep)))),
        # A space may be a file of this machine: its name says enough.
        ("search space", Path(search.space).name),
        ("searched on", _on_part(sweep)),
        ("sampler", {"tpe": "TPE (Optuna)", "random": "random"}[search.sampler]),
        ("early stopping", "none" if early == RULES["none"].label else early),
        (
            "objective",
            f"trials are {judged}, the winner is chosen by {metric_words(sweep.metric)}" if judged else "",
        ),
        (
            "budget",
            f"{_size(sweep)}, each {training.epochs} epochs and {training.rungs} evaluations (rungs)",
        ),
        ("trials", counts_text(sweep.trials, rule.label)),
        ("device", _device(sweep)),
        ("concurrent trials", str(plan.get("resources", {}).get("concurrency", ""))),
        ("seed", str(training.seed)),
    ]
    return [(name, text) for name, text in rows if text]


def _size(sweep: SweepRecord) -> str:
    """What the search was given: a number of trials, minutes, or both; and what ended it."""
    search, result = sweep.config.search, sweep.result
    minutes = f"{search.max_minutes:g} minutes" if search.max_minutes is not None else ""
    size = f"trials in {minutes}" if search.open else f"{search.trials} trials"
    if minutes and not search.open:
        size += f" in {minutes} at most"
    if result is not None and result.stopped_by == "patience":
        size += f", until {search.patience} in a row brought nothing"
    return size


def _device(sweep: SweepRecord) -> str:
    """Devices and precisions of the trials; the plan's where none has recorded them."""
    planned = f"{sweep.plan.get('device', '')} {sweep.plan.get('precision', '')}".strip()
    return devices_text(trial.ran_on for trial in sweep.trials) or planned


def _on_part(sweep: SweepRecord) -> str:
    """The part of the rows that was searched on, and what was trained on all of them; empty for a search on all."""
    text = part_text(sweep.plan)
    validation = (sweep.plan.get("part") or {}).get("validation", 0)
    ids = ", ".join(trial.id for trial in finalists(sweep.trials)) or "the best trials, as finalists"
    return f"{text}, with {validation:,} validation rows; on all rows: {ids}" if text else ""


def winner_rows(sweep: SweepRecord) -> list[tuple[str, str, bool]]:
    """The winner's settings: (name, value, whether it was searched)."""
    if sweep.winner is None:
        return []
    hyperparameters = sweep.winner.hyperparameters
    unused = ADAPTER_SETTINGS if hyperparameters.method == "full" else ()
    searched = searched_columns(sweep)
    return [
        (name.replace("_", " "), setting_text(value), name in searched)
        for name, value in hyperparameters.model_dump().items()
        if name not in unused
    ]


def test_rows(sweep: SweepRecord) -> list[dict[str, Any]]:
    """Scores on the test split: the winner first, then what it is compared with."""
    result = sweep.result
    if result is None or result.winner is None:
        return []

    def row(name: str, test: TestScores, settings: str = "", interval: Any = None) -> dict[str, Any]:
        return {"name": name, "test": test, "settings": settings, "interval": interval or {}}

    rows = [row(f"winner {result.winner.id}", result.winner.test, interval=result.winner.interval)]
    if result.start:
        settings = settings_line(result.start.hyperparameters, searched_columns(sweep))
        rows.append(
            row(f"known-good start {result.start.id}", result.start.test, settings, result.start.interval)
        )
    rows += [row(name.strip(), test) for name, test in unmerged_rows(result)]
    if result.untuned:
        settings = settings_line(result.untuned.hyperparameters, searched_columns(sweep))
        rows.append(row("untuned default", result.untuned.test, settings))
    rows += [row(name, test) for name, test in result.baselines.items()]
    return rows + [row(f"{early.id}, the winner of fewer trials", early.test) for early in result.also_tested]


def test_metrics(sweep: SweepRecord) -> list[Metric]:
    """The columns of the table of test scores."""
    return [*ALWAYS, *(shown_metrics(sweep.winner.test.more, sweep.metric) if sweep.winner else [])]


def threshold_line(sweep: SweepRecord) -> str:
    """The winner's threshold and the test scores with it; empty without one."""
    if sweep.winner is None or sweep.winner.thresholds is None:
        return ""
    return threshold_text(sweep.winner.thresholds, sweep.metric)


def added(sweep: SweepRecord) -> list[str]:
    """What the search added to its known-good start, and then to the untuned settings, a sentence each."""
    return gain_texts(sweep.result) if sweep.result else []


def mattered(plots: PlotData) -> list[tuple[Markup, float]]:
    """The settings that mattered most, with their shares. Their names are escaped already: see `plain`."""
    largest = list(plots.importances.items())[:MATTERED]
    return [(Markup(name.strip()), share) for name, share in largest if share >= 0.005]


def _base_text(sweep: SweepRecord) -> Callable[[BaseSummary], str]:
    """A base model's best trial, with its size and speed, in words."""

    def text(base: BaseSummary) -> str:
        size = [f"{parameters_text(base.parameters)} parameters"] if base.parameters else []
        size += [f"{base.merged_mb:,.0f} MB as a whole model"] if base.merged_mb else []
        size += [f"{base.adapter_mb:,.1f} MB as an adapter"] if base.adapter_mb else []
        size += [f"{base.samples_per_second:,.0f} rows/s"] if base.samples_per_second else []
        size += [f"{base.latency_ms:.3g} ms for one text"] if base.latency_ms else []
        score = f"{score_text(base.score, sweep.metric)} ({base.best})" if base.best else "no score"
        return f"{base.label}: {', '.join([score, *size])}"

    return text


def searched_columns(sweep: SweepRecord) -> list[str]:
    """Searched settings that trials have on record, in the space's order."""
    names = dict.fromkeys(name for trial in sweep.trials for name in trial.searched)
    return [name for name in names if name in Hyperparameters.model_fields]


def heads(sweep: SweepRecord) -> list[str]:
    """The table's columns of settings; a single one where they would not fit a printed page."""
    names = [SHORT_NAMES.get(name, name) for name in searched_columns(sweep)]
    return names if len(names) <= MOST_COLUMNS else ["settings"]


def trial_row(sweep: SweepRecord, trial: TrialRecord) -> dict[str, Any]:
    """A trial in the table of all trials; `settings` has a text for each column of `heads`."""
    rule = stopping_rule(sweep.config.search).label
    rows = {True: " on a part of the rows", False: " on all rows"}[sweep.on_part(trial)]
    budget = f"full budget{rows if sweep.config.search.proxy is not None else ''}"
    before = f"{state_text(trial, rule)} after rung {trial.reached}"
    ends = {"stopped": before, "completed": before if trial.stopped_by == "early_end" else budget}
    unused = ADAPTER_SETTINGS if trial.hyperparameters.method == "full" else ()
    columns = searched_columns(sweep)
    used = [name for name in columns if name not in unused]
    values = [setting_text(getattr(trial.hyperparameters, name)) if name in used else "–" for name in columns]
    return {
        "id": trial.id,
        "won": sweep.winner is not None and trial.id == sweep.winner.id,
        "near": sweep.result is not None and trial.id in sweep.result.near,
        "state": trial.state,
        "score": score_text(trial.score if is_number(trial.score) else None, sweep.metric),
        "settings": values if len(values) <= MOST_COLUMNS else [settings_line(trial.hyperparameters, used)],
        "parameters": parameters_text(trial.trainable_parameters),
        "rungs": f"{trial.reached}/{sweep.config.training.rungs}",
        "seconds": duration(trial.seconds),
        "end": "; ".join([trial.error or ends.get(trial.state, trial.state), *trial.notes]),
    }


def mixed_up(tested: Tested) -> list[tuple[str, str, int, float]]:
    """The most frequent confusions of two classes: (true, predicted, rows, share of the true class).

    Of several labels a text: a label that texts have, and one that they get and do not have.
    """
    matrix, names = tested.mixed_up, tested.data.label_names
    totals = tested.data.test.labels.sum(axis=0) if tested.data.multi_label else matrix.sum(axis=1)
    pairs = [(row, column) for row, column in np.argwhere(matrix > 0).tolist() if row != column]
    pairs.sort(key=lambda pair: -matrix[pair])
    return [
        (names[row], names[column], int(matrix[row, column]), float(matrix[row, column] / totals[row]))
        for row, column in pairs[:MIXED_UP]
    ]


def shown_text(value: object) -> object:
    """A value that the template shows, without control characters; it is escaped afterwards."""
    return CONTROL.sub(" ", value) if isinstance(value, str) and not isinstance(value, Markup) else value

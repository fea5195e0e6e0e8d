"""The rows of a report's tables, in words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from lorasweep.tuning.record.folder import TestScores, TrialRecord
from lorasweep.tuning.record.words import (
    SHORT_NAMES,
    counts_text,
    duration,
    parameters_text,
    score_text,
    setting_text,
    settings_line,
    unmerged_rows,
)
from lorasweep.tuning.report.reading import Sweep, Tested
from lorasweep.tuning.report.searched import ADAPTER_SETTINGS, is_number
from lorasweep.tuning.search.stopping import stopping_rule

MIXED_UP = 10
# Columns of settings in the trials' table.
MOST_COLUMNS = 6
# Of a longer text the page shows the beginning; mistakes.csv has the whole of it.
TEXT_LENGTH = 500

CAPTIONS = {
    "learning_curves": "Validation scores of every trial over its training; a cross ends a trial that was "
    "stopped early.",
    "history": "Trials in the order in which they were proposed, and the best score up to each.",
    "importances": "How far each setting decided which trials are among the best (Optuna's PED-ANOVA). Trials "
    "that were stopped early are counted with the best score that they reached: a trial is stopped for not "
    "being among the best, so this does little harm. With fewer than some 20 trials it is a hint, no more.",
    "slices": "Each trial's score against each setting alone; names stand side by side without an order.",
    "parallel_coordinates": "A line for each trial, the darker the better. Lines through the same choice are "
    "spread by their score; a line has a gap where its trial has no use for a setting.",
    "adapter_sizes": "What a larger adapter brings: rank, score, and as area the number of trained parameters.",
    "confusion": "Rows are true classes, columns what the winner took them for, in per cent of the row.",
}

# What a browser or a table would obey or choke on: control characters, overrides of the writing direction.
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def search_rows(sweep: Sweep) -> list[tuple[str, str]]:
    """How the sweep was searched: (what, in words), without what an older sweep did not write down."""
    config, training, search = sweep.config, sweep.config.training, sweep.config.search
    data, base = sweep.plan.get("data", {}), sweep.plan.get("base_model", {})
    budget, resources = sweep.plan.get("budget", {}), sweep.plan.get("resources", {})
    rows = ", ".join(f"{name} {count:,}" for name, count in data.get("rows", {}).items())
    spans = ", ".join(f"{name} {first} to {last}" for name, (first, last) in data.get("dates", {}).items())
    columns = " + ".join(sweep.plan.get("text_columns", []))
    rule = stopping_rule(search)
    asked = f"{search.trials} trials of {training.epochs} epochs, {training.rungs} evaluations (rungs) each"
    found = [
        ("data", data.get("source", "")),
        ("columns", f"{columns} → {sweep.plan.get('label_column', '')}" if columns else ""),
        ("rows", rows),
        ("classes", str(data.get("classes", ""))),
        ("labels merged by", data.get("merged_by", "")),
        ("split by date", spans),
        ("base model", base.get("hub_id") or Path(config.base_model).name),
        # A space may be a file of this machine: its name says enough.
        ("search space", Path(search.space).name),
        ("sampler", {"tpe": "TPE (Optuna)", "random": "random"}[search.sampler]),
        ("early stopping", rule.text(search, budget.get("halving"))),
        ("budget", asked),
        ("trials", counts_text(sweep.trials, rule.label)),
        ("device", f"{sweep.plan.get('device', '')} {sweep.plan.get('precision', '')}".strip()),
        ("at once", str(resources.get("concurrency", ""))),
        ("seed", str(training.seed)),
    ]
    return [(name, text) for name, text in found if text]


def winner_rows(sweep: Sweep) -> list[tuple[str, str, bool]]:
    """The winner's settings: (name, value, whether it was searched)."""
    if sweep.result is None or sweep.result.winner is None:
        return []
    hyperparameters = sweep.result.winner.hyperparameters
    unused = ADAPTER_SETTINGS if hyperparameters.method == "full" else ()
    searched = set(searched_columns(sweep))
    return [
        (name.replace("_", " "), setting_text(value), name in searched)
        for name, value in hyperparameters.model_dump().items()
        if name not in unused
    ]


def test_rows(sweep: Sweep) -> list[dict[str, Any]]:
    """What was scored on the test split: the winner first, then what it is compared with."""
    result = sweep.result
    if result is None or result.winner is None:
        return []

    def row(name: str, test: TestScores, settings: str = "") -> dict[str, Any]:
        return {"name": name, "test": test, "settings": settings}

    rows = [row(f"winner {result.winner.id}", result.winner.test)]
    rows += [row(name.strip(), test) for name, test in unmerged_rows(result)]
    if result.untuned:
        settings = settings_line(result.untuned.hyperparameters, searched_columns(sweep))
        rows.append(row("untuned default", result.untuned.test, settings))
    rows += [row(name, test) for name, test in result.baselines.items()]
    return rows + [
        row(f"{earlier.id}, the winner of fewer trials", earlier.test) for earlier in result.also_tested
    ]


def searched_columns(sweep: Sweep) -> list[str]:
    """Searched settings that trials have on record, in the space's order."""
    return list(dict.fromkeys(name for t in sweep.trials for name in t.searched))


def heads(sweep: Sweep) -> list[str]:
    """The table's columns of settings; one for all of them where they would not fit a printed page."""
    names = [SHORT_NAMES.get(name, name) for name in searched_columns(sweep)]
    return names if len(names) <= MOST_COLUMNS else ["settings"]


def trial_row(sweep: Sweep, trial: TrialRecord) -> dict[str, Any]:
    state: str = trial.state
    if state == "running" and sweep.state != "running":
        state = "interrupted"
    rule = stopping_rule(sweep.config.search).label
    ends = {"stopped": f"stopped by {rule} after rung {trial.reached}", "completed": "full budget"}
    unused = ADAPTER_SETTINGS if trial.hyperparameters.method == "full" else ()
    columns = searched_columns(sweep)
    used = [name for name in columns if name not in unused]
    values = [setting_text(getattr(trial.hyperparameters, name)) if name in used else "–" for name in columns]
    return {
        "id": trial.id,
        "won": trial.id == sweep.winner,
        "state": state,
        "score": score_text(trial.score if is_number(trial.score) else None, sweep.config.training.metric),
        "settings": values if len(values) <= MOST_COLUMNS else [settings_line(trial.hyperparameters, used)],
        "parameters": parameters_text(trial.trainable_parameters),
        "rungs": f"{trial.reached}/{sweep.config.training.rungs}",
        "seconds": duration(trial.seconds),
        "end": "; ".join([trial.error or ends.get(state, state), *trial.notes]),
    }


def mixed_up(tested: Tested) -> list[tuple[str, str, int, float]]:
    """The pairs of classes that share the most mistakes: (true, predicted, rows, share of the true class)."""
    matrix, names = tested.confusion(), tested.data.label_names
    pairs = [(row, column) for row, column in np.argwhere(matrix > 0).tolist() if row != column]
    pairs.sort(key=lambda pair: -matrix[pair])
    return [
        (names[row], names[column], int(matrix[row, column]), float(matrix[row, column] / matrix[row].sum()))
        for row, column in pairs[:MIXED_UP]
    ]


def shortened(mistake: Mapping[str, Any]) -> dict[str, Any]:
    texts = [text for text in (mistake["text"], mistake["pair"]) if isinstance(text, str) and text]
    cut = [text if len(text) <= TEXT_LENGTH else f"{text[:TEXT_LENGTH]}…" for text in texts]
    return {**mistake, "texts": cut}


def shown_text(value: object) -> object:
    """Every value that the template shows, before it is escaped: no control characters."""
    return CONTROL.sub(" ", value) if isinstance(value, str) and not isinstance(value, Markup) else value

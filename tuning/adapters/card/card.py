"""The model card of an exported folder, written from the sweep's own record."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined

from lorasweep.search_spaces.space import SearchSpace
from lorasweep.training.data.load import SAMPLE_SOURCE, Dataset
from lorasweep.training.errors import SettingsError
from lorasweep.training.model.hub import BaseModel
from lorasweep.training.scores.scores import ClassScores
from lorasweep.tuning.adapters.card.limits import not_for
from lorasweep.tuning.adapters.card.metadata import base_licence, card_metadata
from lorasweep.tuning.adapters.card.training import training_rows, versions_line
from lorasweep.tuning.record.folder import SweepFolder, SweepResult, TrialRecord, Winner
from lorasweep.tuning.record.predictions import winner_class_scores
from lorasweep.tuning.record.words import escape, one_line
from lorasweep.tuning.search.stopping import stopping_rule

TEMPLATE = Path(__file__).with_name("model_card.md")


def model_card(
    folder: SweepFolder,
    trial: TrialRecord,
    data: Dataset,
    base: BaseModel,
    loading: str,
    *,
    adapter: bool,
) -> str:
    """The text of README.md: metadata for the hub, how to load it, where it comes from, what it scored.

    Args:
        trial: the exported one.
        loading: Python lines that load the folder.
        adapter: an adapter, not a whole model.
    """
    config, result, plan = folder.config(), folder.result(), folder.plan()
    won = bool(result and result.winner and result.winner.id == trial.id)
    tested = _tested(result, trial)
    test = tested.test if tested else None
    classes = winner_class_scores(folder, data, tested) if won and tested else []
    sample = config.data.path is None and data.source == SAMPLE_SOURCE
    texts = ", ".join(json.dumps(f"your {column}", ensure_ascii=False) for column in data.text_columns)
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        metadata=card_metadata(folder.name, base, trial, data, test, adapter=adapter, sample=sample),
        title=escape(f"{folder.name}: {data.label_column} of {' + '.join(data.text_columns)}"),
        adapter=adapter,
        sample=sample,
        base=escape(_base_name(base)),
        label_count=len(data.label_names),
        loading=loading,
        inputs=one_line(texts),
        limits=not_for(
            data,
            classes,
            result,
            test,
            max_length=config.training.max_length,
            sample=sample,
            escape=escape,
        ),
        base_rows=_base_rows(base),
        data_rows=_data_rows(data, config.training.max_length, sample),
        classes=_class_rows(data, classes),
        scores=_score_rows(trial, tested, result),
        settings=[
            (escape(name), escape(str(value))) for name, value in trial.hyperparameters.model_dump().items()
        ],
        search_rows=_search_rows(folder, trial, won),
        training_rows=[
            (name, escape(text)) for name, text in training_rows(trial, folder.trials(), result, plan)
        ],
        versions=escape(versions_line(plan)),
    )


def _tested(result: SweepResult | None, trial: TrialRecord) -> Winner | None:
    """The trial's look at the test split: the winner's, or that of fewer trials' winner."""
    looks = [*([result.winner] if result.winner else []), *result.also_tested] if result else []
    return next((entry for entry in looks if entry.id == trial.id), None)


def loading_lines(name: str, adapter: bool, arguments: dict[str, Any]) -> str:
    """Python lines that load a folder with plain PEFT or transformers.

    Args:
        name: the folder's.
        arguments: what the base model of an adapter needs beside the labels.
    """
    folder = json.dumps(name, ensure_ascii=False)
    if not adapter:
        return (
            "from transformers import AutoModelForSequenceClassification, AutoTokenizer\n"
            f"model = AutoModelForSequenceClassification.from_pretrained({folder})\n"
            f"tokenizer = AutoTokenizer.from_pretrained({folder})"
        )
    more = "".join(f", {key}={value!r}" for key, value in arguments.items())
    return (
        "from peft import AutoPeftModelForSequenceClassification\n"
        "from transformers import AutoConfig, AutoTokenizer\n"
        f"config = AutoConfig.from_pretrained({folder})\n"
        f"model = AutoPeftModelForSequenceClassification.from_pretrained({folder}, "
        f"id2label=config.id2label, label2id=config.label2id{more})\n"
        f"tokenizer = AutoTokenizer.from_pretrained({folder})"
    )


def _base_name(base: BaseModel) -> str:
    """The hub's name, or the folder's own: the rest of a path says nothing to others."""
    return base.hub_id or Path(base.location).name


def _base_rows(base: BaseModel) -> list[tuple[str, str]]:
    rows = [("name", escape(_base_name(base))), ("type", escape(base.model_type))]
    if base.revision:
        rows.append(("revision", escape(base.revision)))
    if base.hub_id is None:
        rows.append(
            ("loaded from", "a folder of the machine that trained it, whose name on a hub is not known")
        )
    elif base.hub_id != base.location:
        rows.append(("loaded as", f"{escape(base.name)}, from a folder that carries the same weights"))
    return [*rows, ("licence", escape(base_licence(base) or "not known here; see the base model"))]


def _data_rows(data: Dataset, max_length: int, sample: bool) -> list[tuple[str, str]]:
    rows = ", ".join(f"{name} {len(texts):,}" for name, texts in data.splits().items())
    found = [
        ("source", escape(data.source)),
        ("text columns", escape(", ".join(data.text_columns))),
        ("label column", escape(data.label_column)),
        ("rows", rows),
        ("tokens of a text that are read", str(max_length)),
        ("fingerprint", f"sha256 {data.fingerprint}"),
        ("licence", "that of lorasweep" if sample else "not known here; look it up before you pass this on"),
    ]
    if data.dropped:
        dropped = ", ".join(f"{escape(reason)} {rows:,}" for reason, rows in data.dropped.items())
        found.append(("rows left out", dropped))
    if data.dates:
        spans = ", ".join(f"{name} {first} to {last}" for name, (first, last) in data.dates.items())
        found.append(("split by date", spans))
    if data.original_names:
        found.append(
            ("labels merged by", f"{escape(data.merged_by)}, {len(data.original_names)} classes before")
        )
    if data.left_out_classes:
        names = ", ".join(f"{escape(name)} ({rows})" for name, rows in data.left_out_classes.items())
        found.append(("classes left out, with too few rows to train or test on", names))
    return found


def _class_rows(data: Dataset, classes: Sequence[ClassScores]) -> list[list[str]]:
    """Rows of each class in each split; precision, recall and F1 on the test split where they are known."""
    counts = [np.bincount(texts.labels, minlength=len(data.label_names)) for texts in data.splits().values()]
    rows = []
    for number, name in enumerate(data.label_names):
        scores = classes[number] if classes else None
        figures = [f"{value:.2f}" for value in (scores.precision, scores.recall, scores.f1)] if scores else []
        rows.append([escape(name), *(f"{split[number]:,}" for split in counts), *figures])
    return rows


def _score_rows(trial: TrialRecord, tested: Winner | None, result: SweepResult | None) -> list[list[str]]:
    """Rows of the table: validation at the exported evaluation, and the test split where it was looked at."""
    rows = []
    for evaluation in trial.evaluations:
        if evaluation.rung == trial.best_rung:
            rows.append(["this", "validation", *_figures(evaluation.model_dump())])
    if tested:
        rows.append(["this", "test", *_figures(tested.test.model_dump())])
        if tested.interval:
            ends = {name: f"{low:.4f} to {high:.4f}" for name, (low, high) in tested.interval.items()}
            figures = [ends.get(name, "") for name in ("accuracy", "macro_f1", "loss")]
            rows.append(["this, 95 % bootstrap interval", "test", *figures])
    if result and result.untuned:
        rows.append(["untuned settings", "test", *_figures(result.untuned.test.model_dump())])
    for name, test in result.baselines.items() if result else ():
        rows.append([escape(name), "test", *_figures(test.model_dump())])
    return rows


def _figures(scores: dict[str, Any]) -> list[str]:
    return [f"{scores[name]:.4f}" if name in scores else "" for name in ("accuracy", "macro_f1", "loss")]


def _search_rows(folder: SweepFolder, trial: TrialRecord, won: bool) -> list[tuple[str, str]]:
    config = folder.config()
    trials = folder.trials()
    states = Counter(record.state for record in trials)
    counts = ", ".join(
        f"{states[state]} {state}" for state in ("completed", "stopped", "failed") if states[state]
    )
    return [
        ("sweep", escape(folder.name)),
        (
            "trial",
            f"{trial.id}, {'the winner' if won else 'not the winner'}, at evaluation {trial.best_rung}",
        ),
        # A space may be a file of this machine: its name says enough.
        ("search space", escape(Path(config.search.space).name)),
        ("searched", escape(", ".join(trial.searched) or "nothing")),
        *_space_rows(folder, trial.searched),
        ("budget", f"{config.search.trials} trials of at most {config.training.epochs} passes over the rows"),
        ("trials", f"{len(trials)} ({counts})" if counts else str(len(trials))),
        ("sampler", f"{config.search.sampler}, {stopping_rule(config.search).label}"),
        ("chosen by", f"validation {config.training.metric} {_score(trial)}"),
        (
            "trainable parameters",
            f"{trial.trainable_parameters:,}" if trial.trainable_parameters else "not known",
        ),
        ("seed", str(config.training.seed)),
    ]


def _space_rows(folder: SweepFolder, searched: Sequence[str]) -> list[tuple[str, str]]:
    """What each searched setting might have been. A space that is a function is not run for this."""
    path = folder.path / "space.yaml"
    try:
        described = SearchSpace.from_yaml(path.read_text(encoding="utf-8"), path.stem).describe()
    except (OSError, UnicodeDecodeError, SettingsError):
        return []
    return [(f"range of {escape(name)}", escape(text)) for name, text in described if name in searched]


def _score(trial: TrialRecord) -> str:
    return f"{trial.score:.4f}" if trial.score is not None else "not known"

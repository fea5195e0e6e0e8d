"""The model card of an exported folder, written from the sweep's own record."""

from __future__ import annotations

import json
import re
from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from training.base_model import BaseModel
from training.data import Dataset
from tuning.record import SweepFolder, TrialRecord

TEMPLATE = Path(__file__).with_name("model_card.md")
PACKAGES = ("lorasweep", "torch", "transformers", "peft", "optuna", "ray")
# Characters that Markdown, or HTML in it, would read as more than themselves.
SPECIAL = re.compile(r"([\\`*_{}\[\]<>()#+!|~&$])")


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
    config, result = folder.config(), folder.result()
    winner = result.winner if result and result.winner and result.winner.id == trial.id else None
    texts = ", ".join(json.dumps(f"your {column}", ensure_ascii=False) for column in data.text_columns)
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        metadata=_metadata(base, trial, adapter),
        title=escape(f"{folder.name}: {data.label_column} of {' + '.join(data.text_columns)}"),
        adapter=adapter,
        base=escape(base.hub_id or base.name),
        labels=[escape(name) for name in data.label_names],
        loading=loading,
        inputs=_one_line(texts),
        base_rows=_base_rows(base),
        data_rows=_data_rows(data, config.training.max_length),
        scores=_score_rows(trial, winner is not None, folder),
        settings=[(escape(name), escape(str(value))) for name, value in trial.settings.items()],
        search_rows=_search_rows(folder, trial, winner is not None),
        versions=_versions(),
    )


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


def escape(text: str) -> str:
    """A text of somebody's as one line of plain Markdown, whatever characters it has."""
    return SPECIAL.sub(r"\\\1", _one_line(text))


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _metadata(base: BaseModel, trial: TrialRecord, adapter: bool) -> str:
    """The YAML block that model hubs read."""
    from huggingface_hub import ModelCardData

    method = str(trial.settings.get("method", "lora"))
    tags = ["text-classification", "lorasweep"] + ([] if method == "full" else ["lora"])
    entries: dict[str, Any] = {
        "base_model": base.hub_id or base.name,
        "library_name": "peft" if adapter else "transformers",
        "pipeline_tag": "text-classification",
        "tags": tags + ([method] if method not in ("lora", "full") else []),
    }
    licence = _licence(base)
    if licence:
        entries["license"] = licence
    return str(ModelCardData(**entries).to_yaml())


def _licence(base: BaseModel) -> str | None:
    """The base model's licence as its own card states it, where that card is on this machine."""
    from huggingface_hub import ModelCard, try_to_load_from_cache

    path: Any = Path(base.location) / "README.md"
    if base.hub_id == base.location:
        path = try_to_load_from_cache(base.location, "README.md", revision=base.revision)
    if not isinstance(path, str | Path) or not Path(path).is_file():
        return None
    try:
        licence = ModelCard.load(path, ignore_metadata_errors=True).data.get("license")
    except Exception:  # somebody else's card, of any form: no licence is known from it
        return None
    return licence if isinstance(licence, str) else None


def _base_rows(base: BaseModel) -> list[tuple[str, str]]:
    rows = [("name", escape(base.hub_id or base.name)), ("type", escape(base.model_type))]
    if base.revision:
        rows.append(("revision", escape(base.revision)))
    if base.hub_id is None:
        rows.append(("folder", escape(base.location)))
    elif base.hub_id != base.location:
        rows.append(("loaded as", f"{escape(base.name)}, from a folder that carries the same weights"))
    return [*rows, ("licence", escape(_licence(base) or "not known here; see the base model"))]


def _data_rows(data: Dataset, max_length: int) -> list[tuple[str, str]]:
    rows = ", ".join(f"{name} {len(texts):,}" for name, texts in data.splits().items())
    found = [
        ("source", escape(data.source)),
        ("text columns", escape(", ".join(data.text_columns))),
        ("label column", escape(data.label_column)),
        ("rows", rows),
        ("tokens of a text that are read", str(max_length)),
        ("fingerprint", f"sha256 {data.fingerprint}"),
    ]
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


def _score_rows(trial: TrialRecord, won: bool, folder: SweepFolder) -> list[list[str]]:
    """Rows of the table: validation at the exported evaluation, and the test split where it was looked at."""
    rows = []
    for evaluation in trial.evaluations:
        if evaluation.get("rung") == trial.best_rung:
            rows.append(["this", "validation", *_figures(evaluation)])
    result = folder.result()
    if won and result and result.winner:
        rows.append(["this", "test", *_figures(result.winner.test.model_dump())])
        if interval := result.winner.interval:
            ends = {name: f"{low:.4f} to {high:.4f}" for name, (low, high) in interval.items()}
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
        ("budget", f"{config.search.trials} trials of {config.training.epochs} epochs"),
        ("trials", f"{len(trials)} ({counts})" if counts else str(len(trials))),
        ("sampler", f"{config.search.sampler}, {'ASHA' if config.search.asha else 'no early stopping'}"),
        ("chosen by", f"validation {config.training.metric} {_score(trial)}"),
        (
            "trainable parameters",
            f"{trial.trainable_parameters:,}" if trial.trainable_parameters else "not known",
        ),
        ("seed", str(config.training.seed)),
    ]


def _score(trial: TrialRecord) -> str:
    return f"{trial.score:.4f}" if trial.score is not None else "not known"


def _versions() -> list[str]:
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return found

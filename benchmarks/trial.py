"""How fast one trial trains and evaluates, against what a user would write instead, and against the machine.

    python benchmarks/trial.py [--device auto|cpu|cuda] [--base minilm|bert-base] [--short] [--write]

lorasweep, transformers' Trainer at its defaults and at its best, and a notebook's loop that pads to 128 tokens, in
turn in one run (A B C D A B C D ...): real headlines, headlines with descriptions, and random rows of 32 tokens.
Beside them the rate that bare matrix products reach in the same run. Sized for two CPU cores: the short form for two
minutes, the whole one for ten. `--write` makes `results/trial.md`, or `results/trial-BASE-DEVICE.md` for
another base or a GPU. `bert-base` has the size of BERT-base, random weights and MiniLM's vocabulary.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from common import HEADLINES, RECORDS, finish, news_file, processor
from gemm import GemmRate, gemm_rate
from levers import SETTINGS
from rows import TOKENS, fixed_shape, take
from transformers.utils import logging
from trial_contenders import CONTENDERS
from trial_tables import BERT_BASE, FIXED, HEADLINE, PAIR, Plan, Result, aims, intro, section
from trial_task import Contender, Measured, Task, measure

from lorasweep.training.amp_types import bf16_in_hardware
from lorasweep.training.data.encoding import encode_dataset
from lorasweep.training.data.load import load_dataset
from lorasweep.training.model.base_model import (
    LoadedBase,
    label_config,
    load_base,
    load_tokenizer,
    resolve_base_model,
)
from lorasweep.training.model.classifier import build_classifier
from lorasweep.training.model.hub import BaseModel
from lorasweep.training.model.precision import resolve_precision
from lorasweep.training.scores.scores import predict_logits, score
from lorasweep.training.settings import MINILM, DataSettings

LIBRARIES = ("torch", "transformers", "accelerate", "peft")
MAX_LENGTH = 128
WARM_UP_ROWS = 64
SHORT, WHOLE = Plan(2, 448, 96, 128, 32), Plan(4, 1600, 480, 480, 256)


def bert_base(label_names: tuple[str, ...], device: torch.device) -> LoadedBase:
    """A model of BERT-base's size with random weights: its speed is that of any weights."""
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig(**label_config(label_names))  # its defaults are BERT-base's sizes
    base = BaseModel("bert-base", "BERT-base's size, random weights", None, "bert")
    return LoadedBase(base, BertForSequenceClassification(config).to(device), ("classifier",))


def in_turn(texts: str, task: Task, plan: Plan) -> Result:
    """Measure the contenders in turn, after a short round that is left out."""
    few = np.random.default_rng(0).permutation(len(task.data.train))[:WARM_UP_ROWS]
    validation = take(task.data.validation, np.arange(min(WARM_UP_ROWS, len(task.data.validation))))
    warm_up = replace(
        task, data=replace(task.data, train=take(task.data.train, few), validation=validation), padded_rows=32
    )
    fresh = build_classifier(task.loaded, task.hyperparameters, 0, task.amp)
    logits = predict_logits(fresh, task.data.validation, task.amp)
    rounds: dict[type[Contender], list[Measured]] = {contender: [] for contender in CONTENDERS}
    ceilings: list[GemmRate] = []
    for round_ in range(plan.rounds + 1):
        print(f"{texts}: {f'round {round_} of {plan.rounds}' if round_ else 'warm-up'}", file=sys.stderr)
        ceilings.append(gemm_rate(task.amp.device, task.amp.dtype or torch.float32))
        for contender in CONTENDERS:
            rounds[contender].append(measure(contender, task if round_ else warm_up, round_))
    return Result(
        texts=texts,
        task=task,
        loss=score(logits, task.data.validation.labels).loss,
        rounds={contender: values[1:] for contender, values in rounds.items()},
        ceilings=ceilings[1:],
    )


def news(kind: str, plan: Plan, folder: Path | None) -> tuple[DataSettings, str]:
    """Where texts of a kind come from, and that in words."""
    name, columns = (
        (HEADLINES, ("headline",)) if kind == HEADLINE else (RECORDS, ("headline", "short_description"))
    )
    path = news_file(name, folder)
    settings = DataSettings(
        path=str(path) if path else None,
        text=columns,
        label="category",
        split_column="split" if path and kind == HEADLINE else None,
        max_train_rows=plan.train,
        max_validation_rows=plan.validation,
    )
    return settings, f"`{name}`" if path else "the project's own made-up sample"


def workloads(
    base_name: str, device: torch.device, plan: Plan, folder: Path | None
) -> Iterator[tuple[str, str, Task]]:
    """Kind of texts, their source in words, and what to do with them."""
    base = resolve_base_model("minilm")
    tokenizer = load_tokenizer(base)
    amp = resolve_precision("auto", device, base.model_type)

    def load(label_names: tuple[str, ...]) -> LoadedBase:
        return (
            bert_base(label_names, device)
            if base_name == BERT_BASE
            else load_base(base, label_names, 0, device)
        )

    for kind in (HEADLINE, PAIR):
        settings, source = news(kind, plan, folder)
        data = encode_dataset(load_dataset(settings, 0), tokenizer, MAX_LENGTH)
        loaded = load(data.label_names)
        yield kind, source, Task(loaded, tokenizer, data, SETTINGS, amp, MAX_LENGTH, plan.padded)
    data = fixed_shape(plan.fixed, len(data.label_names))
    yield FIXED, "random token ids", Task(loaded, tokenizer, data, SETTINGS, amp, TOKENS)


def main() -> None:
    """Measure, print, and write if wanted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--news", type=Path, help="folder of the real news, if LORASWEEP_NEWS names none")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--base", choices=(MINILM, BERT_BASE), default=MINILM)
    parser.add_argument("--short", action="store_true", help="two rounds of fewer rows")
    parser.add_argument("--write", action="store_true", help="write results/trial.md or trial-BASE-DEVICE.md")
    options = parser.parse_args()
    kind = options.device
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    if kind == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no GPU on this machine; use --device cpu")
    if kind == "cuda" and torch.cuda.device_count() > 1:
        parser.error("Trainer would use every GPU: make one visible, as with CUDA_VISIBLE_DEVICES=0")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    device, plan = torch.device(kind), SHORT if options.short else WHOLE
    if kind == "cuda":
        plan = replace(plan, padded=None)
    else:
        # BERT-base has eight times MiniLM's work; fp32 takes more than twice as long as bf16.
        plan = plan.part((8 if options.base == BERT_BASE else 1) * (1 if bf16_in_hardware(device) else 2))

    measured, sources = [], []
    for texts, source, task in workloads(options.base, device, plan, options.news):
        measured.append(in_turn(texts, task, plan))
        sources.append(f"{texts}: {source}")
    parts = ["# One trial", *intro(options.base, plan, measured, sources)]
    for result in measured:
        parts += [f"## {result.texts[0].upper()}{result.texts[1:]}", *section(result)]
    parts += ["## Aims", *aims(options.base, measured)]
    standard = options.base == MINILM and kind == "cpu"
    flags = f"--device {kind} --base {options.base}{' --short' * options.short} --write"
    finish(
        parts,
        "trial.md" if standard else f"trial-{options.base}-{kind}.md",
        f"python benchmarks/trial.py {flags}",
        LIBRARIES,
        write=options.write,
        hardware=f"{torch.cuda.get_device_name(device)}, {processor()}" if kind == "cuda" else None,
    )


if __name__ == "__main__":
    main()

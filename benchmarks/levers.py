"""What each lever of the training step brings, and that all together cost no accuracy.

    python benchmarks/levers.py [--short] [--write]
    python benchmarks/levers.py --accuracy [--write]

Trains MiniLM with an adapter as a trial does, each time with one lever taken away, in turn in one run (A B C A B
C ...): texts a second on a fixed shape (32 rows of 32 tokens) and on the lengths of real headlines. `--accuracy`
trains with all levers and with none, three seeds each, and compares the accuracy on the test split: about twelve
minutes on two CPU cores. `--write` makes `results/levers.md`, or
`results/levers-accuracy.md`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, median
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from common import HEADLINES, finish, news_file, spread, table
from rows import fixed_shape, take

from lorasweep.training.data.encoded import EncodedDataset, EncodedTexts
from lorasweep.training.data.encoding import encode_dataset
from lorasweep.training.data.load import load_dataset
from lorasweep.training.loop.fine_tune import fine_tune
from lorasweep.training.loop.state import TrainingState
from lorasweep.training.model.base_model import LoadedBase, load_base, load_tokenizer, resolve_base_model
from lorasweep.training.model.classifier import build_classifier
from lorasweep.training.model.precision import resolve_precision
from lorasweep.training.scores.scores import predict_logits, score
from lorasweep.training.settings import DataSettings, Hyperparameters, TrainingSettings

LIBRARIES = ("torch", "transformers", "peft")
SETTINGS = Hyperparameters(rank=16, alpha=32, target_modules="all-linear", learning_rate=2e-3)
PRECISION = resolve_precision("auto", torch.device("cpu"), "bert")


@dataclass(frozen=True)
class Lever:
    """Something that makes a step faster.

    Attributes:
        replaced: function → what stands in for it when the lever is taken away.
        changes: hyperparameters without it.
        random_batches: whether batches hold rows of any length without it.
        amp_only: whether it does nothing in fp32.
    """

    name: str
    replaced: tuple[str, ...] = ()
    changes: tuple[tuple[str, Any], ...] = ()
    random_batches: bool = False
    amp_only: bool = False


LEVERS = (
    Lever(
        "attention as plain products",
        ("lorasweep.training.model.classifier.speed_up_attention",),
        amp_only=True,
    ),
    Lever("last layer for the first token", ("lorasweep.training.model.classifier.read_first_token_only",)),
    Lever("lean LoRA layer", ("lorasweep.training.model.faster.lora_linear.speed_up_lora",)),
    Lever(
        "frozen weights in the AMP type",
        ("lorasweep.training.model.frozen.is_frozen_linear",),
        amp_only=True,
    ),
    Lever("no dropout in frozen layers", changes=(("base_dropout", 0.1),)),
    Lever("batches of equal length", random_batches=True),
)
NONE = Lever(
    "none of them",
    tuple(name for lever in LEVERS for name in lever.replaced),
    changes=(("base_dropout", 0.1),),
    random_batches=True,
)
ALL = Lever("all levers")


@contextmanager
def without(lever: Lever) -> Iterator[None]:
    """The program as it would be without a lever."""
    with ExitStack() as stack:
        for name in lever.replaced:
            stack.enter_context(patch(name, lambda *_: None))
        yield


class Contender:
    """A trial that can be trained a piece at a time."""

    def __init__(
        self, lever: Lever, loaded: LoadedBase, data: EncodedDataset, seed: int = 0, epochs: int = 2
    ):
        self.lever, self.data = lever, data
        self.settings = TrainingSettings(epochs=epochs, evaluations_per_epoch=1, seed=seed)
        self.hyperparameters = SETTINGS.model_copy(update=dict(lever.changes))
        self.amp = PRECISION
        with without(lever):
            model = build_classifier(loaded, self.hyperparameters, seed, self.amp)
        self.state = TrainingState.start(model, self.hyperparameters, self.amp)

    def _batches(self) -> Callable[[int], list[np.ndarray]] | None:
        if not self.lever.random_batches:
            return None
        size, rows = self.hyperparameters.batch_size, len(self.data.train)

        def shuffled(epoch: int) -> list[np.ndarray]:
            order = np.random.default_rng((self.settings.seed, epoch)).permutation(rows)
            return [order[start : start + size] for start in range(0, rows, size)]

        return shuffled

    def train(self) -> None:
        """To the end of the budget."""
        for _ in fine_tune(
            self.state, self.data, self.hyperparameters, self.settings, batches=self._batches()
        ):
            pass

    def speed(self) -> float:
        """Texts a second of one pass over the training rows, its evaluation left out."""
        self.state.step = self.state.rung = 0
        run = fine_tune(self.state, self.data, self.hyperparameters, self.settings, batches=self._batches())
        return next(run).samples_per_second

    def accuracy(self) -> float:
        """On the test split."""
        logits = predict_logits(self.state.model, self.data.test, self.amp)
        return score(logits, self.data.test.labels).accuracy


def cut(data: EncodedDataset, rows: int) -> EncodedDataset:
    """The first training rows, and hardly any to evaluate on."""

    def first(texts: EncodedTexts, count: int) -> EncodedTexts:
        return take(texts, np.arange(min(count, len(texts))))

    return replace(data, train=first(data.train, rows), validation=first(data.validation, 32))


def speeds(loaded: LoadedBase, data: EncodedDataset, rounds: int) -> dict[str, list[float]]:
    """Texts a second by contender, the first round left out as warm-up."""
    levers = [lever for lever in LEVERS if PRECISION.dtype is not None or not lever.amp_only]
    contenders = [Contender(lever, loaded, data) for lever in (ALL, *levers, NONE)]
    speeds_of: dict[str, list[float]] = {contender.lever.name: [] for contender in contenders}
    for round_ in range(rounds + 1):
        for contender in contenders:
            speed = contender.speed()
            if round_:
                speeds_of[contender.lever.name].append(speed)
    return speeds_of


def speed_rows(shapes: list[dict[str, list[float]]]) -> Iterator[list[str]]:
    """A row for each lever: texts a second without it, and what it brings."""
    for name in shapes[0]:
        cells = []
        for speeds_of in shapes:
            gains = [whole / part for whole, part in zip(speeds_of[ALL.name], speeds_of[name], strict=True)]
            cells += [spread(speeds_of[name], 0), "" if name == ALL.name else f"{median(gains):.2f} times"]
        yield [name if name in (ALL.name, NONE.name) else f"without: {name}", *cells]


def accuracies(loaded: LoadedBase, data: EncodedDataset, seeds: int) -> Iterator[list[str]]:
    """Test accuracy after two epochs with all levers and with none, seed by seed, and the time they took."""
    for lever in (ALL, NONE):
        scores, seconds = [], []
        for seed in range(seeds):
            contender = Contender(lever, loaded, data, seed)
            started = time.perf_counter()
            contender.train()
            seconds.append(time.perf_counter() - started)
            scores.append(contender.accuracy())
        each = ", ".join(f"{value:.1%}" for value in scores)
        yield [lever.name, f"{mean(scores):.2%}", each, f"{spread(seconds, 0)} s"]


def speed_report(loaded: LoadedBase, data: EncodedDataset, short: bool) -> list[str]:
    """Title and tables of the speeds."""
    rounds, rows = (2, 320) if short else (7, 960)
    shapes = [
        speeds(loaded, texts, rounds) for texts in (fixed_shape(rows, len(data.label_names)), cut(data, rows))
    ]
    head = ["", "32 × 32 tokens, texts/s", "gain", "headlines, texts/s", "gain"]
    return [
        "# Levers of the training step",
        f"Texts a second, median (least–greatest) of {rounds} rounds in turn; a gain is with all levers against "
        "without the one, round by round.",
        table(head, speed_rows(shapes)),
    ]


def accuracy_report(loaded: LoadedBase, data: EncodedDataset) -> list[str]:
    """Title and table of what the levers do to accuracy."""
    return [
        "# What the levers do to accuracy",
        "Test accuracy after two epochs, seeds 0, 1 and 2.",
        table(["", "mean", "each seed", "training and evaluation"], accuracies(loaded, data, 3)),
    ]


def main() -> None:
    """Measure, print, and write if wanted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--news", type=Path, help="folder of the real headlines, if LORASWEEP_NEWS names none"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--accuracy", action="store_true", help="train to the end, with all and with none")
    what.add_argument("--short", action="store_true", help="two rounds of few rows")
    parser.add_argument("--write", action="store_true", help="write results/levers.md or levers-accuracy.md")
    options = parser.parse_args()
    path = news_file(HEADLINES, options.news)
    base = resolve_base_model("minilm")
    if path is None:
        source, data_settings = "the project's own sample", DataSettings()
    else:
        source = f"`{HEADLINES}`, 4,000 training rows"
        data_settings = DataSettings(
            path=str(path), text=("headline",), label="category", split_column="split", max_train_rows=4000
        )
    data = encode_dataset(load_dataset(data_settings, 0), load_tokenizer(base), 128)
    loaded = load_base(base, data.label_names, 0, torch.device("cpu"))
    parts = accuracy_report(loaded, data) if options.accuracy else speed_report(loaded, data, options.short)
    parts = [
        parts[0],
        f"MiniLM-L6 in {PRECISION.name}, rank 16, every linear layer, batches of 32; {source}.",
        *parts[1:],
    ]
    if PRECISION.dtype is None:
        parts.append(f"No part in fp32 have: {', '.join(lever.name for lever in LEVERS if lever.amp_only)}.")
    flags = " --accuracy" if options.accuracy else " --short" if options.short else ""
    name = "levers-accuracy.md" if options.accuracy else "levers.md"
    finish(parts, name, f"python benchmarks/levers.py{flags} --write", LIBRARIES, write=options.write)


if __name__ == "__main__":
    main()

"""Learning curves of this project's own trials on real texts, for `search.py` to replay.

    python benchmarks/record_curves.py FOLDER --set trec [--curves 40] [--train-rows 4252]

FOLDER holds the files of `SETS`: parts of R. Misra's News Category Dataset, and public research sets. The settings are
the default space's (`lora_cpu`): a usual start, then random draws, the same ones for every set. Each is trained to the
end of the default budget (3 epochs) with 12 evaluations and never stopped, so that any scheduler can be replayed on it.
An evaluation has accuracy, macro-F1 and loss (plain cross entropy, in nats) of the validation rows, by which a search
decides, and of held-out rows, which say what its decision is worth: 1,000 rows of the test split, or as many as it
has; `seconds` of training and evaluating so far. One JSON line a curve; curves that the file has already are not
trained again. A curve took about 45 s of a core on TREC and 150 s on AG News (Intel Xeon, two recorders at once,
beside other work). `--train-rows` records another size of the same set, into a file of its own. Two options record
other settings, each into another file: `--rates`, the start at these learning rates; `--finalists 5`, the five best
settings of the set's own size by validation accuracy, their rates lowered as `lorasweep run --proxy` lowers them.

The curves in `results/curves/` are older: their held-out rows are the rest of the validation split.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from surrogate import Curve, load_curves, recorded

from lorasweep.search_spaces.space import load_space
from lorasweep.training.data.dataset import Texts
from lorasweep.training.data.encoded import EncodedDataset
from lorasweep.training.data.encoding import encode_dataset
from lorasweep.training.data.load import load_dataset
from lorasweep.training.errors import TrainingError
from lorasweep.training.loop.fine_tune import fine_tune
from lorasweep.training.loop.state import TrainingState
from lorasweep.training.metrics import ALWAYS
from lorasweep.training.model.base_model import load_base, load_tokenizer, resolve_base_model
from lorasweep.training.model.classifier import build_classifier
from lorasweep.training.model.precision import resolve_precision
from lorasweep.training.scores.scores import score
from lorasweep.training.settings import MINILM, DataSettings, Hyperparameters, TrainingSettings
from lorasweep.tuning.quiet import quiet_environment, quiet_libraries
from lorasweep.tuning.sweep.finalists import rate_factor

SPACE = "lora_cpu"
HELD_OUT_ROWS = 1000
# The space's start when the first curves were recorded. It stays, whatever the space starts with now: the curves of
# all sets are of the same settings.
START = {"rank": 16, "alpha": 32, "target_modules": "all-linear", "learning_rate": 2e-3, "batch_size": 32}
SETTINGS = TrainingSettings(epochs=3, evaluations_per_epoch=4)
CURVES = Path(__file__).parent / "results" / "curves"
PRECISION = resolve_precision("auto", torch.device("cpu"))


@dataclass(frozen=True)
class CurveSet:
    """A data set on which curves are recorded: a part of it, so that a trial takes half a minute."""

    file: str
    train_rows: int
    validation_rows: int
    text: tuple[str, ...] = ("text",)
    label: str = "label"
    split_column: str | None = "split"


SETS = {
    "headlines": CurveSet("huffpost_headlines_41x1000.jsonl.gz", 2000, 800, ("headline",), "category"),
    "records": CurveSet(
        "News_Category_Dataset_13k.json.gz", 600, 400, ("headline", "short_description"), "category", None
    ),
    "ag_news": CurveSet("ag_news_7600.jsonl.gz", 400, 400),
    "trec": CurveSet("trec.jsonl.gz", 1200, 400),
    "subj": CurveSet("subj.jsonl.gz", 700, 400),
    "movie_reviews": CurveSet("movie_reviews.jsonl.gz", 700, 400),
    "sst2": CurveSet("sst2_20k.jsonl.gz", 1200, 400),
}


def proposals(count: int) -> Iterator[dict[str, Any]]:
    """A usual start, then random settings; the same ones each time."""
    space = load_space(SPACE)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    yield dict(START)
    for _ in range(count - 1):
        yield space.suggest(study.ask())


def lowered(part: Sequence[Curve], count: int, factor: float) -> dict[int, dict[str, Any]]:
    """The best settings on a part of the rows by validation accuracy, with lower rates; best first, by their numbers.

    The start is none of them: it is trained on all rows in any case, as it is.
    """
    best = sorted(range(1, len(part)), key=lambda number: -part[number].best())[:count]
    rates = {number: factor * part[number].settings["learning_rate"] for number in best}
    return {number: {**part[number].settings, "learning_rate": rates[number]} for number in best}


def encoded(folder: Path, chosen: CurveSet, train_rows: int, tokenizer: Any) -> EncodedDataset:
    """The set's rows, tokenised; the validation split holds the rows that a search sees, then the held-out ones."""
    data_settings = DataSettings(
        path=str(folder / chosen.file),
        text=chosen.text,
        label=chosen.label,
        split_column=chosen.split_column,
        max_train_rows=train_rows,
        max_validation_rows=chosen.validation_rows,
    )
    dataset = load_dataset(data_settings, SETTINGS.seed)
    # A trial evaluates the validation split alone.
    held_out = np.random.default_rng(0).permutation(len(dataset.test))[:HELD_OUT_ROWS]
    dataset = replace(dataset, validation=with_rows(dataset.validation, dataset.test, held_out))
    return encode_dataset(dataset, tokenizer, SETTINGS.max_length)


def with_rows(first: Texts, second: Texts, rows: np.ndarray) -> Texts:
    """A split, then these rows of another one."""
    pair = None
    if first.pair is not None and second.pair is not None:
        pair = first.pair + [second.pair[row] for row in rows]
    text = first.text + [second.text[row] for row in rows]
    return Texts(text, pair, np.concatenate([first.labels, second.labels[rows]]))


def train(values: dict[str, Any], data: EncodedDataset, base: Any, rows: int) -> Iterator[dict[str, Any]]:
    """The evaluations of one trial that is never stopped; fewer where its loss is not finite.

    Args:
        rows: how many of the validation rows, the first ones, a search sees.
    """
    hyperparameters: Hyperparameters = load_space(SPACE).hyperparameters(values)
    model = build_classifier(base, hyperparameters, SETTINGS.seed, PRECISION)
    state = TrainingState.start(model, hyperparameters, PRECISION)
    labels = data.validation.labels
    parts = (slice(None, rows), slice(rows, None))
    try:
        for evaluation in fine_tune(state, data, hyperparameters, SETTINGS):
            seen, held_out = (_scores(evaluation.logits[part], labels[part]) for part in parts)
            yield rounded(seen) | {"seconds": round(evaluation.seconds, 3), "held_out": rounded(held_out)}
    except TrainingError:
        return


def _scores(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    scores = score(logits, labels)
    return {name: scores.by(name) for name in ALWAYS}


def rounded(scores: dict[str, float]) -> dict[str, float]:
    """Scores to the digits that matter, so that the files stay small."""
    return {name: round(value, 5) for name, value in scores.items()}


def main() -> None:
    """Record what is missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--set", choices=SETS, required=True)
    parser.add_argument("--curves", type=int, default=40)
    parser.add_argument("--train-rows", type=int)
    others = parser.add_mutually_exclusive_group()
    others.add_argument("--rates", type=float, nargs="+", metavar="RATE")
    others.add_argument("--finalists", type=int, metavar="K")
    options = parser.parse_args()
    chosen = SETS[options.set]
    train_rows = options.train_rows or chosen.train_rows
    name = options.set if train_rows == chosen.train_rows else f"{options.set}-{train_rows}"
    wanted = dict(enumerate(proposals(options.curves)))
    if options.rates:
        name += "-rates"
        wanted = {number: START | {"learning_rate": rate} for number, rate in enumerate(options.rates)}
    if options.finalists:
        # Among the settings that the whole has, too, to be held against them.
        both = len(load_curves(CURVES / f"{name}.jsonl"))
        name += "-finalists"
        part = load_curves(CURVES / f"{options.set}.jsonl")[:both]
        wanted = lowered(part, options.finalists, rate_factor(chosen.train_rows, train_rows))
    out = CURVES / f"{name}.jsonl"
    out.parent.mkdir(exist_ok=True)
    quiet_libraries()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    torch.set_num_threads(1)
    base = resolve_base_model(MINILM)
    data = encoded(options.folder, chosen, train_rows, load_tokenizer(base))
    loaded = load_base(base, data.label_names, SETTINGS.seed, torch.device("cpu"))
    already = recorded(out, "number") if out.is_file() else []
    for number, values in wanted.items():
        if number in already:
            continue
        evaluations = list(train(values, data, loaded, chosen.validation_rows))
        curve = {"number": number, "settings": values, "train_rows": len(data.train)}
        curve |= {"torch": version("torch"), "peft": version("peft"), "machine": platform.machine()}
        curve |= {"precision": PRECISION.name, "evaluations": evaluations}
        with out.open("a") as file:
            file.write(json.dumps(curve) + "\n")
        best = max((entry["accuracy"] for entry in evaluations), default=0.0)
        print(f"{number}: {best:.1%}  {values}", flush=True)


if __name__ == "__main__":
    quiet_environment()
    main()

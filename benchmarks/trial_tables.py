"""What `trial.py` has measured, as tables and sentences, and whether the aims are reached."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median

from common import spread, table
from gemm import SECONDS, GemmRate, StepWork
from levers import SETTINGS, TOKENS
from trial_contenders import Lorasweep, Notebook, TrainerAtItsBest, TrainerDefaults
from trial_task import Contender, Measured, Task

from training.settings import MINILM

BERT_BASE = "bert-base"
HEADLINE, PAIR, FIXED = "headlines", "headline + description", f"random rows of {TOKENS} tokens"


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        rounds: of every contender, the warm-up left out.
        train, validation: rows of real texts to train on and to predict.
        fixed: rows of one shape to train on.
        padded: rows of real texts that the notebook's loop trains on; all if None.
    """

    rounds: int
    train: int
    validation: int
    fixed: int
    padded: int | None

    def eighth(self) -> Plan:
        """An eighth of the rows: BERT-base has eight times MiniLM's work."""
        padded = max(32, self.padded // 8) if self.padded else None
        return replace(
            self,
            train=self.train // 8,
            validation=self.validation // 8,
            fixed=self.fixed // 8,
            padded=padded,
        )


@dataclass(frozen=True)
class Found:
    """All rounds on one kind of texts.

    Attributes:
        loss: mean cross entropy over the validation rows before training; all contenders start alike.
        rounds: contender → what was measured, round by round.
        ceilings: the rate of bare matrix products in each round.
    """

    texts: str
    task: Task
    loss: float
    rounds: dict[type[Contender], list[Measured]]
    ceilings: list[GemmRate]

    def gains(self, contender: type[Contender], rate: Callable[[Measured], float]) -> list[float]:
        """How many times a contender's rate lorasweep's is, round by round."""
        pairs = zip(self.rounds[Lorasweep], self.rounds[contender], strict=True)
        return [rate(ours) / rate(theirs) for ours, theirs in pairs]

    def shares(self, contender: type[Contender]) -> list[float]:
        """Nominal work over training time, as a share of the ceiling, round by round."""
        work = StepWork.of(self.task.loaded, self.task.hyperparameters)
        pairs = zip(self.rounds[contender], self.ceilings, strict=True)
        return [work.flops(found.shapes) / found.seconds / ceiling.rate for found, ceiling in pairs]


def _training(found: Measured) -> float:
    return found.training


def _evaluation(found: Measured) -> float:
    return found.evaluation


def intro(base: str, plan: Plan, measured: Sequence[Found], sources: Sequence[str]) -> Iterator[str]:
    """What was measured, and how to read the tables."""
    task = measured[0].task
    amp, work = task.amp, StepWork.of(task.loaded, task.hyperparameters)
    model = "MiniLM-L6" if base == MINILM else "BERT-base's size with random weights and MiniLM's vocabulary"
    part = (
        f"; the notebook's loop, whose batches are all alike, trains on {plan.padded}" if plan.padded else ""
    )
    yield (
        f"{model} on a {'GPU' if amp.device.type == 'cuda' else 'CPU'}, {amp.name}, rank {SETTINGS.rank}, alpha "
        f"{SETTINGS.alpha:g}, every linear layer, rate {SETTINGS.learning_rate:g}, batches of {SETTINGS.batch_size}. "
        f"Every contender trains a fresh model once over the same {plan.train:,} texts ({plan.fixed} random){part}; "
        f"then it predicts {plan.validation}. Median (least–greatest) of {plan.rounds} rounds in turn after one that "
        f"is left out; ratios are taken round by round. Texts: {'; '.join(sources)}."
    )
    yield (
        "The contenders: lorasweep, as a sweep trains; `Trainer` at its defaults with dynamic padding and AMP (its "
        "default optimiser is the fused one); `Trainer` with length grouping, in evaluation too, whose batches hold "
        f"128 rows in {amp.name} throughout; a loop with random batches, every row padded to {task.padded_to} tokens. "
        "Training excludes building the model and evaluation. The three beside lorasweep keep the base model's own "
        "dropout, which lorasweep leaves out of frozen layers. `Trainer` sorts inside pools of a quarter of the "
        "rows, so the fewer they are, the more it pads; lorasweep's pools hold 50 batches."
    )
    rates = [ceiling.rate for found in measured for ceiling in found.ceilings]
    best = max(
        (ceiling for found in measured for ceiling in found.ceilings), key=lambda ceiling: ceiling.rate
    )
    yield (
        f"The ceiling is the fastest of several matrix products in {amp.name if amp.dtype else 'fp32'}, each kept up "
        f"for {SECONDS:g} s at the start of a round: {spread([rate / 1e9 for rate in rates], 0)} GFLOP/s, at best "
        f"{best}. A step's nominal work is 4·N + 12·T·d·L + 6·r·Σ(d_in + d_out) FLOPs a token "
        f"({work.per_token(TOKENS) / 1e6:.1f} million at {TOKENS} tokens), padding counted like text; lorasweep does "
        "less than that, as its last layer computes the first token only. The share is nominal work over time over "
        "the ceiling of the same round."
    )


def section(found: Found) -> Iterator[str]:
    """The table of one kind of texts."""
    memory = found.task.amp.device.type == "cuda"
    head = [
        "",
        "training, samples/s",
        "lorasweep against it",
        "evaluation, samples/s",
        "lorasweep against it",
    ]
    head += ["tokens computed for one of text", "of the ceiling", "loss after"] + ["GPU memory, MiB"] * memory
    rows = []
    for contender, measured in found.rounds.items():
        gains = [found.gains(contender, rate) for rate in (_training, _evaluation)]
        ours = contender is Lorasweep
        cells = [
            contender.name,
            spread([entry.training for entry in measured], 0),
            "" if ours else f"{spread(gains[0], 2)} times",
            spread([entry.evaluation for entry in measured], 0),
            "" if ours else f"{spread(gains[1], 2)} times",
            f"{median(entry.padding for entry in measured):.2f}",
            f"{spread([100 * share for share in found.shares(contender)], 0)} %",
            f"{median(entry.loss for entry in measured):.2f}",
        ]
        rows.append(cells + [f"{median(entry.memory for entry in measured) / 2**20:,.0f}"] * memory)
    yield table(head, rows)
    if found.texts != FIXED:
        rises = [c.name for c, runs in found.rounds.items() if median(run.loss for run in runs) >= found.loss]
        yield f"Loss on the rows predicted: {found.loss:.2f} before training; " + (
            f"it did not fall for {', '.join(rises)}." if rises else "it fell for every contender."
        )


def aims(base: str, device: str, measured: Sequence[Found]) -> Iterator[str]:
    """Each aim of this base and device, and what was seen."""
    by_texts = {found.texts: found for found in measured}
    pair, fixed = by_texts[PAIR], by_texts[FIXED]
    seen: list[tuple[str, float, list[float]]] = []
    if (base, device) == (MINILM, "cpu"):
        seen = [
            (f"times {contender.name} on {PAIR}", aim, pair.gains(contender, _training))
            for contender, aim in ((TrainerDefaults, 2), (TrainerAtItsBest, 1.3), (Notebook, 5))
        ]
        seen.append((f"of the ceiling at 32 × {TOKENS} tokens", 0.65, fixed.shares(Lorasweep)))
    elif (base, device) == (BERT_BASE, "cuda"):
        name = f"times {TrainerDefaults.name} at 32 × {TOKENS} tokens"
        seen = [(name, 4, fixed.gains(TrainerDefaults, _training))]
    if not seen:
        yield "None is set for this base model on this device."
        return
    rows = [
        [name, f"at least {aim:g}", spread(values, 2), "reached" if median(values) >= aim else "missed"]
        for name, aim, values in seen
    ]
    yield table(["lorasweep's training", "aim", "seen", ""], rows)

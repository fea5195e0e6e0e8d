"""What `trial.py` has measured, as tables and sentences, and whether the aims are reached."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median

from common import spread, table
from gemm import SECONDS, GemmRate, StepWork
from levers import SETTINGS
from rows import TOKENS
from trial_contenders import Lorasweep, Notebook, TrainerAtItsBest, TrainerDefaults
from trial_task import Contender, Measured, Task

from lorasweep.training.settings import MINILM

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

    def part(self, divisor: int) -> Plan:
        """So much fewer rows, in whole batches; never fewer than the news have classes."""

        def rows(count: int, least: int = 64) -> int:
            return max(least, count // divisor // 32 * 32)

        return replace(
            self,
            train=rows(self.train),
            validation=rows(self.validation),
            fixed=rows(self.fixed),
            padded=rows(self.padded, 32) if self.padded else None,
        )


@dataclass(frozen=True)
class Result:
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
        return [work.flops(run.shapes) / run.seconds / ceiling.rate for run, ceiling in pairs]


def _training(run: Measured) -> float:
    return run.training


def _evaluation(run: Measured) -> float:
    return run.evaluation


def intro(base: str, plan: Plan, measured: Sequence[Result], sources: Sequence[str]) -> Iterator[str]:
    """What was measured, and how to read the tables."""
    task = measured[0].task
    amp, work = task.amp, StepWork.of(task.loaded, task.hyperparameters)
    model = "MiniLM-L6" if base == MINILM else "BERT-base's size with random weights and MiniLM's vocabulary"
    part = (
        f" (the notebook's loop, whose batches are all alike, over {plan.padded} of them)"
        if plan.padded
        else ""
    )
    yield (
        f"{model} on a {'GPU' if amp.device.type == 'cuda' else 'CPU'} in {amp.name}, rank {SETTINGS.rank}, alpha "
        f"{SETTINGS.alpha:g}, every linear layer, rate {SETTINGS.learning_rate:g}, batches of {SETTINGS.batch_size}. "
        f"Every contender trains a fresh model once over the same {len(task.data.train):,} texts{part} and predicts "
        f"{len(task.data.validation)}; of the random rows it trains on {plan.fixed}. Median (least–greatest) of "
        f"{plan.rounds} rounds in turn after a short one that is left out; ratios are taken round by round. "
        f"Texts: {'; '.join(sources)}."
    )
    if amp.dtype is None:
        yield "This machine has no bf16 in hardware, so every contender runs in fp32: not what the aims are set for."
    yield (
        "The contenders: lorasweep, as a sweep trains; `Trainer` at its defaults with dynamic padding (its default "
        "optimiser is the fused one); `Trainer` with length grouping, in evaluation too, whose batches then hold 128 "
        f"rows; a loop with random batches, every row padded to {task.padded_to} tokens. Training excludes building "
        "the model and evaluation. The three beside lorasweep keep the base model's own dropout, which lorasweep "
        "leaves out of frozen layers. `Trainer` sorts in pools of at most a quarter of the rows, so the fewer they "
        "are, the more it pads; lorasweep's pools hold 50 batches."
    )
    rates = [ceiling.rate for result in measured for ceiling in result.ceilings]
    best = max(
        (ceiling for result in measured for ceiling in result.ceilings), key=lambda ceiling: ceiling.rate
    )
    yield (
        f"The ceiling is the fastest of several matrix products in {amp.name}, each kept up for {SECONDS:g} s at the "
        f"start of a round: {spread([rate / 1e9 for rate in rates], 0)} GFLOP/s, at best {best}. A step's nominal "
        f"work is 4·N + 12·T·d·L + 6·r·Σ(d_in + d_out) FLOPs a token ({work.per_token(TOKENS) / 1e6:.1f} million at "
        f"{TOKENS} tokens), padding counted like text; lorasweep does less than that, as its last layer computes the "
        "first token only. The share is nominal work over training time over the ceiling of the same round."
    )


def section(result: Result) -> Iterator[str]:
    """The table of one kind of texts."""
    memory, real = result.task.amp.device.type == "cuda", result.texts != FIXED
    head = [
        "",
        "training, samples/s",
        "lorasweep against it",
        "evaluation, samples/s",
        "lorasweep against it",
    ]
    head += [
        "tokens computed for one of text",
        "of the ceiling",
        *["loss after"] * real,
        *["GPU memory, MiB"] * memory,
    ]
    rows = []
    for contender, measured in result.rounds.items():
        gains = [result.gains(contender, rate) for rate in (_training, _evaluation)]
        ours = contender is Lorasweep
        cells = [
            contender.name,
            spread([entry.training for entry in measured], 0),
            "" if ours else f"{spread(gains[0], 2)} times",
            spread([entry.evaluation for entry in measured], 0),
            "" if ours else f"{spread(gains[1], 2)} times",
            f"{median(entry.padding for entry in measured):.2f}",
            f"{spread([100 * share for share in result.shares(contender)], 0)} %",
        ]
        cells += [f"{median(entry.loss for entry in measured):.2f}"] * real
        rows.append(cells + [f"{median(entry.memory for entry in measured) / 2**20:,.0f}"] * memory)
    yield table(head, rows)
    if real:
        rises = [
            c.name for c, runs in result.rounds.items() if median(run.loss for run in runs) >= result.loss
        ]
        yield f"Loss on the rows predicted: {result.loss:.2f} before training; " + (
            f"it did not fall for {', '.join(rises)}." if rises else "it fell for every contender."
        )
    else:
        yield "Nothing is padded here, so the notebook's loop shows what plain PEFT and autocast reach."


def aims(base: str, measured: Sequence[Result]) -> Iterator[str]:
    """Each aim of this base and device, and what was seen."""
    by_texts = {result.texts: result for result in measured}
    pair, fixed = by_texts[PAIR], by_texts[FIXED]
    amp = fixed.task.amp
    seen: list[tuple[str, float, list[float]]] = []
    if base == MINILM and amp.device.type == "cpu":
        seen = [
            (f"times {contender.name}, on {PAIR}", aim, pair.gains(contender, _training))
            for contender, aim in ((TrainerDefaults, 2), (TrainerAtItsBest, 1.3), (Notebook, 5))
        ]
        seen.append((f"of the bf16 ceiling, at 32 × {TOKENS} tokens", 0.65, fixed.shares(Lorasweep)))
    elif base == BERT_BASE and amp.device.type == "cuda":
        name = f"times {TrainerDefaults.name}, at 32 × {TOKENS} tokens"
        seen = [(name, 4, fixed.gains(TrainerDefaults, _training))]
    if not seen:
        yield "None is set for this base model on this device."
        return
    rows = []
    for name, aim, values in seen:
        outcome = "reached" if median(values) >= aim else "missed"
        if amp.name != "bf16":
            outcome = "not measured" if "ceiling" in name else f"{outcome}, in {amp.name}"
        rows.append(
            [name, f"at least {aim:g}", spread(values, 2) if outcome != "not measured" else "", outcome]
        )
    yield table(["lorasweep's training", "aim", "seen", ""], rows)

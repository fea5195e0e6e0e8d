"""The checks of speed: a step by base model, precision and shape; new lengths; several processes; a whole trial."""

from __future__ import annotations

import math
import multiprocessing
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import torch
from gemm import wait
from gpu_bases import BERT_BASE, Size, even_texts, headline_dataset
from gpu_check import Bench
from gpu_report import Finding
from gpu_timing import Measured, forget, measure, once_ms
from gpu_training import (
    CAPTURED,
    EAGER,
    PLAIN,
    Step,
    begin,
    can_capture,
    plain_model,
    plain_step,
    start_trial,
    whole_trial,
)

from lorasweep.training.model.precision import AmpPolicy
from lorasweep.training.settings import Precision

ROWS = 32
# Tokens of a row: a headline, and a headline with its description padded to the default maximum.
TOKENS = (32, 128)
# What one captured step on BERT-base has to reach against plain PEFT, at 32 × 32 tokens in bf16.
AIM = 4.0
# Lengths whose first two steps are timed, after a step of another length.
LENGTHS = (8, 16, 24, 40, 48)
# Of a square matrix whose products show the card's rate.
SIDE = 8192
# Share of the device for each of several processes.
QUARTER = 0.25


def machine(bench: Bench) -> Iterator[Finding]:
    """The card, what a process takes of it before any tensor, and its rate of matrix products."""
    if not bench.on_gpu:
        yield Finding("a GPU that torch can use", "one", "none: all of this runs in small on the CPU")
        return
    card = torch.cuda.get_device_properties(bench.device)
    free, total = torch.cuda.mem_get_info(bench.device)
    figures = {"name": card.name, "capability": [card.major, card.minor], "memory": total}
    seen = f"{card.name}, {card.major}.{card.minor}, {total / 2**30:.0f} GiB, CUDA {torch.version.cuda}"
    yield Finding("a GPU that torch can use", "one", seen, True, figures)
    yield Finding(
        "memory taken before any tensor",
        "",
        f"{(total - free) / 2**30:.2f} GiB, all processes together",
        figures={"bytes": total - free},
    )
    left = torch.randn(SIDE, SIDE, device=bench.device, dtype=torch.bfloat16)
    left @ left
    taken = min(once_ms(lambda: left @ left, bench.device) for _ in range(10))
    rate = 2 * SIDE**3 / taken / 1e9
    yield Finding(f"matrix products of {SIDE}, bf16", "", f"{rate:,.0f} TFLOP/s", figures={"TFLOP/s": rate})


def speed(size: Size, precision: Precision) -> Callable[[Bench], Iterator[Finding]]:
    """The check of a base model's speed in a precision."""
    return partial(_speed, size=size, precision=precision)


def _speed(bench: Bench, size: Size, precision: Precision) -> Iterator[Finding]:
    amp = AmpPolicy(precision, bench.device)
    plain: dict[int, Measured] = {}
    for way in (PLAIN, EAGER, CAPTURED) if can_capture(bench.device) else (PLAIN, EAGER):
        if way != PLAIN:
            begin(bench.device)  # plain PEFT has torch's own settings
        for tokens in TOKENS[:1] if bench.small else TOKENS:
            measured, notes = _measure_way(bench, size, amp, way, tokens)
            forget(bench.device)
            if way == PLAIN:
                plain[tokens] = measured
            ratio = plain[tokens].ms / measured.ms
            aimed = way == CAPTURED and (size.name, precision, tokens) == (BERT_BASE.name, "bf16", 32)
            what = f"{size.name}, {precision}, {ROWS} × {tokens}, {way}"
            seen = str(measured) if way == PLAIN else f"{ratio:.1f} × plain; {measured}"
            passed = ratio >= AIM if aimed and not bench.small else None
            if notes:  # of a capture that failed, or of memory that ran out
                seen, passed = "; ".join((seen, *notes)), False
            figures = asdict(measured) | {"ratio": ratio, "notes": notes}
            yield Finding(what, f"at least {AIM:g} × plain" if aimed else "", seen, passed, figures)


def _measure_way(
    bench: Bench, size: Size, amp: AmpPolicy, way: str, tokens: int
) -> tuple[Measured, tuple[str, ...]]:
    """A way's speed, and the notes that it leaves in the trial's record."""
    texts, folder = even_texts(4 * ROWS, tokens, size), bench.base(size)
    step: Step
    trial = None
    if way == PLAIN:
        step = plain_step(plain_model(folder, size.model_type, bench.device), texts, amp)
    else:
        trial = start_trial(folder, texts, amp, captured=way == CAPTURED)
        step = trial.step
    order = np.random.default_rng(0)

    def one() -> torch.Tensor:
        return step(order.choice(len(texts), ROWS, replace=False))

    if bench.small:
        measured = measure(one, ROWS, bench.device, 0, warm_up=4, chunk=2)
    else:
        measured = measure(one, ROWS, bench.device, 1.0)
    return measured, trial.state.notes if trial else ()


def first_steps(bench: Bench) -> Iterator[Finding]:
    """The first and the second eager step of new lengths, without and with cuDNN's attention."""
    begin(bench.device)
    amp = AmpPolicy("bf16", bench.device)
    for cudnn in (False, True) if bench.on_gpu else (False,):
        if cudnn:
            torch.backends.cuda.enable_cudnn_sdp(True)
        first, second = [], []
        for tokens in (32, *LENGTHS):
            trial = start_trial(bench.base(BERT_BASE), even_texts(ROWS, tokens, BERT_BASE), amp)
            times = [once_ms(partial(trial.step, np.arange(ROWS)), bench.device) for _ in range(2)]
            first.append(times[0])
            second.append(times[1])
        extra = max(a - b for a, b in zip(first[1:], second[1:], strict=True))
        seen = (
            f"{np.median(first[1:]):.0f} ms, then {np.median(second[1:]):.0f} ms; {extra:.0f} ms more at most"
        )
        yield Finding(
            f"first step of a new length, {'with' if cudnn else 'without'} cuDNN's attention",
            "" if cudnn else "at most 200 ms more than the second",
            seen,
            None if cudnn or not bench.on_gpu else extra <= 200,
            {"first ms": first, "second ms": second},
        )


def beside(bench: Bench) -> Iterator[Finding]:
    """Rows a second of 1, 2 and 4 processes together, each with a quarter of the card."""
    context: Any = multiprocessing.get_context(bench.start_method)
    # Written once, and not by this process: one that has computed may not be forked.
    writer = context.Process(target=bench.base, args=(BERT_BASE,))
    writer.start()
    writer.join()
    alone = 0.0
    for count in (1, 2, 4) if bench.on_gpu else (1, 2):
        ready = context.Barrier(count)
        rates = context.SimpleQueue()
        processes = [context.Process(target=_worker, args=(bench, ready, rates)) for _ in range(count)]
        for process in processes:
            process.start()
        each = [rates.get() for _ in processes]
        for process in processes:
            process.join()
        together = sum(each)
        alone = alone or together
        seen = f"{together:,.0f} rows/s together, {together / alone:.2f} × one alone"
        passed = together > 0.9 * alone if bench.on_gpu and count > 1 else None
        expected = "no slower than one alone" if count > 1 else ""
        yield Finding(
            f"{count} process{'es' * (count > 1)} on the card", expected, seen, passed, {"rows/s": each}
        )


def _worker(bench: Bench, ready: Any, rates: Any) -> None:
    try:
        rates.put(_rate(bench, ready))
    except Exception:
        ready.abort()
        rates.put(math.nan)
        raise


def _rate(bench: Bench, ready: Any) -> float:
    """Rows a second of this process, while the others train too."""
    begin(bench.device, QUARTER)
    texts, amp = even_texts(4 * ROWS, TOKENS[0], BERT_BASE), AmpPolicy("bf16", bench.device)
    step = start_trial(bench.base(BERT_BASE), texts, amp, captured=can_capture(bench.device)).step
    for _ in range(6):
        step(np.arange(ROWS))
    wait(bench.device)
    ready.wait(60)
    steps, started = 0, time.perf_counter()
    while time.perf_counter() - started < (0.3 if bench.small else 4):
        for _ in range(10):
            step(np.arange(ROWS))
        wait(bench.device)
        steps += 10
    return steps * ROWS / (time.perf_counter() - started)


def trial(bench: Bench) -> Iterator[Finding]:
    """A whole trial on texts as long as headlines, with its evaluations, as a sweep runs it."""
    begin(bench.device)
    data = headline_dataset(64 if bench.small else 4096, BERT_BASE)
    evaluations, notes = whole_trial(bench.base(BERT_BASE), data, AmpPolicy("bf16", bench.device))
    first, last = evaluations[0], evaluations[-1]
    seen = (
        f"loss {first.train_loss:.2f} → {last.train_loss:.2f}, {last.samples_per_second:,.0f} rows/s in training, "
        f"{last.seconds:.1f} s with evaluations"
    )
    figures = {"evaluations": [evaluation.to_dict() for evaluation in evaluations], "notes": notes}
    yield Finding(
        f"a trial of {len(data.train):,} headlines",
        "the loss falls",
        seen,
        last.train_loss < first.train_loss,
        figures,
    )
    for note in notes:
        yield Finding("a line in the trial's record", "none", note, False)

"""The checks of a step's waits, of fp16's scale, and of a memory that is too small."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_bases import BERT_BASE, MODERNBERT, even_texts, headline_texts
from gpu_check import Bench
from gpu_equal import run_steps
from gpu_report import Finding
from gpu_timing import forget, waits
from gpu_training import (
    CAPTURED,
    EAGER,
    HYPERPARAMETERS,
    PLAIN,
    Step,
    Trial,
    begin,
    can_capture,
    plain_model,
    plain_step,
    start_trial,
    trained_values,
)

from lorasweep.training.errors import LorasweepError
from lorasweep.training.loop.out_of_memory import no_memory_for
from lorasweep.training.model.fitting import device_texts
from lorasweep.training.model.precision import AmpPolicy
from lorasweep.training.scores.scores import predict_logits

SCALE = 2.0**24
# Memory for tensors, in multiples of the base model's: from less than loading it needs to more than a step does.
CAPS = {"lora": (0.6, 1.05, 1.3, 2.0), "full": (1.05, 1.5, 2.5, 3.5, 4.5, 5.5)}
# Rows of a step, and those that are predicted after it, of so many tokens.
OOM_ROWS, OOM_PREDICTED, OOM_TOKENS = 64, 1024, 128


def waits_in_a_step(bench: Bench) -> Iterator[Finding]:
    """Times that a step, and the evaluation of a split, wait for the device."""
    begin(bench.device)
    amp, rows = AmpPolicy("bf16", bench.device), np.arange(32)
    for size in (BERT_BASE, MODERNBERT):
        texts = headline_texts(64 if bench.small else 512, size)
        for way in (EAGER, CAPTURED, PLAIN) if can_capture(bench.device) else (EAGER, PLAIN):
            step: Step
            if way == PLAIN:
                step = plain_step(plain_model(bench.base(size), size.model_type, bench.device), texts, amp)
            else:
                trial = start_trial(bench.base(size), texts, amp, captured=way == CAPTURED)
                step = trial.step
            for _ in range(6):
                step(rows)
            expected = None if way == PLAIN else 0
            yield _waits(bench, f"{way} step, {size.name}", expected, partial(step, rows))
            if way == EAGER:
                # On the device already, as in a trial that evaluates more than once.
                placed = device_texts(trial.state.model, texts, bench.device)
                predict = partial(predict_logits, trial.state.model, placed, amp)
                predict()
                yield _waits(bench, f"evaluation of {len(texts)} rows, {size.name}", 1, predict)
            del step
            forget(bench.device)


def _waits(bench: Bench, what: str, expected: int | None, call: Callable[[], object]) -> Finding:
    seen = waits(call, bench.device)
    return Finding(
        f"waits: {what}",
        "" if expected is None else f"{expected}",
        "cannot be counted on a CPU" if seen is None else f"{seen}",
        None if seen is None or expected is None else seen <= expected,
        {"waits": seen},
    )


def large_scale(bench: Bench) -> Iterator[Finding]:
    """fp16 from a scale that overflows at first; saved and resumed half way; and on from a trial in bf16."""
    begin(bench.device)
    texts, amp = headline_texts(256, BERT_BASE), AmpPolicy("fp16", bench.device)
    steps = 12 if bench.small else 40

    def start(policy: AmpPolicy) -> Trial:
        trial = start_trial(bench.base(BERT_BASE), texts, policy)
        if policy is amp:
            trial.state.scaler = torch.amp.GradScaler(bench.device.type, init_scale=SCALE)
        return trial

    with tempfile.TemporaryDirectory() as place:
        trial = start(amp)
        begun = trained_values(trial.state.model)
        losses = run_steps(trial, texts, steps // 2)
        trial.state.save(Path(place))
        losses += run_steps(trial, texts, steps - steps // 2, steps // 2)
        ended, scale = trained_values(trial.state.model), trial.state.scaler.get_scale()
        fine = all(map(math.isfinite, losses)) and bool(ended.isfinite().all()) and scale < SCALE
        seen = f"loss {losses[0]:.2f} → {losses[-1]:.2f}, scale 2^{math.log2(scale):.0f}"
        yield Finding(
            "fp16 from a scale of 2^24",
            "finite, a smaller scale",
            seen,
            fine,
            {"losses": losses, "scale": scale},
        )
        resumed = start(amp)
        resumed.state.load(Path(place))
        run_steps(resumed, texts, steps - steps // 2, steps // 2)
        apart = float((trained_values(resumed.state.model) - ended).norm() / (ended - begun).norm())
        yield Finding(
            "the same, saved and resumed half way",
            "at most 0.001 apart",
            f"{apart:.1e} of what was learnt",
            apart <= 1e-3,
            {"apart": apart},
        )
    with tempfile.TemporaryDirectory() as place:
        before = start(AmpPolicy("bf16", bench.device))
        run_steps(before, texts, 2)
        before.state.save(Path(place))
        after = start_trial(bench.base(BERT_BASE), texts, amp)
        after.state.load(Path(place))
        loss = run_steps(after, texts, 4, 2)[-1]
        yield Finding(
            "a trial in bf16 goes on in fp16", "a finite loss", f"loss {loss:.2f}", math.isfinite(loss)
        )


def out_of_memory(bench: Bench) -> Iterator[Finding]:
    """A step under less and less memory: it takes fewer rows at once, or ends in one line."""
    texts = even_texts(OOM_PREDICTED, OOM_TOKENS, BERT_BASE)
    begin(bench.device)
    if not bench.on_gpu:
        yield _judged("memory for 4 rows", lambda: _faked(bench, most=4))
        return
    bench.base(BERT_BASE)
    enough = _one_step(bench, "lora", texts)
    base = sum(file.stat().st_size for file in bench.base(BERT_BASE).glob("*.safetensors"))
    total = torch.cuda.mem_get_info(bench.device)[1]
    yield Finding(f"{OOM_ROWS} rows, memory enough", "", enough)
    for method, caps in CAPS.items():
        for cap in caps:
            forget(bench.device)
            torch.cuda.set_per_process_memory_fraction(min(1.0, cap * base / total), bench.device)
            what = f"{method}, memory of {cap:g} × the base model"
            yield _judged(what, partial(_one_step, bench, method, texts))
            torch.cuda.set_per_process_memory_fraction(1.0, bench.device)


def _judged(what: str, train: Callable[[], str]) -> Finding:
    """Whether a step ends well: it trains, or says in one line what to do."""
    try:
        seen, fine = train(), True
    except LorasweepError as error:
        seen, fine = f"{type(error).__name__}: {error}", "\n" not in str(error)
    except Exception as error:
        seen, fine = f"raw {type(error).__name__}: {str(error).splitlines()[0]:.80}", False
    return Finding(what, "fewer rows, or one line", seen, fine)


def _one_step(bench: Bench, method: str, texts: Any) -> str:
    """Two steps of all rows and an evaluation, in words."""
    chosen = HYPERPARAMETERS.model_copy(update={"method": method, "batch_size": OOM_ROWS})
    amp = AmpPolicy("bf16", bench.device)
    with no_memory_for("a trial"):  # as a sweep's trial runs
        trial = start_trial(bench.base(BERT_BASE), texts, amp, hyperparameters=chosen)
        losses = [float(trial.step(np.arange(OOM_ROWS))) for _ in range(2)]
        predict_logits(trial.state.model, texts, amp)
    return f"loss {losses[0]:.3f}, {trial.state.micro_batch_size or OOM_ROWS} rows at once"


def _faked(bench: Bench, most: int) -> str:
    """A step on a CPU whose memory is said to hold so many rows."""
    texts = even_texts(32, 8, BERT_BASE)
    trial = start_trial(bench.base(BERT_BASE), texts, AmpPolicy("fp32", bench.device))

    def refuse(module: Any, _: Any, inputs: dict[str, torch.Tensor]) -> None:
        if len(inputs["input_ids"]) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")

    trial.state.model.register_forward_pre_hook(refuse, with_kwargs=True)
    loss = float(trial.step(np.arange(32)))
    return f"loss {loss:.3f}, {trial.state.micro_batch_size} rows at once"

"""The checks of equality: captured and eager steps, faster and plain layers, GPU and CPU, a trial and its export."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from gpu_bases import BERT_BASE, ROBERTA_LARGE, SIZES, headline_texts, load_plainly
from gpu_check import Bench
from gpu_report import Finding
from gpu_timing import forget
from gpu_training import (
    CAPTURED,
    EAGER,
    SETTINGS,
    Trial,
    begin,
    can_capture,
    copy_trained,
    gradients,
    start_trial,
    trained,
    trained_values,
)

from lorasweep.training.data.batches import epoch_batches
from lorasweep.training.data.encoded import EncodedTexts
from lorasweep.training.model.classifier import save_weights
from lorasweep.training.model.precision import AmpPolicy
from lorasweep.training.scores.scores import predict_logits
from lorasweep.training.settings import Precision

PRECISIONS: tuple[Precision, ...] = ("bf16", "fp16", "fp32")
# Levers of a step that have a plain form, and the functions that put them in.
LEVERS = {
    "first-token layer": "lorasweep.training.model.classifier.read_first_token_only",
    "lean LoRA layer": "lorasweep.training.model.faster.lora_linear.speed_up_lora",
}
# How much further from fp64 a faster form may be than the plain one.
FURTHER = 1.5
# Shares of the largest logit that count as rounding: in fp32, in TF32, and of an export in bf16 (as
# `lorasweep.tuning.adapters.export.verify` has it, which Optuna is needed to import).
FP32_TOLERANCE, TF32_TOLERANCE, HALF_TOLERANCE = 1e-3, 1e-2, 0.05


def captured(bench: Bench) -> Iterator[Finding]:
    """Trainings with captured steps against the same with eager ones, by what rounding alone does to one."""
    begin(bench.device)
    texts = headline_texts(64 if bench.small else 1024, BERT_BASE)
    way = CAPTURED if can_capture(bench.device) else EAGER
    for precision in PRECISIONS if bench.on_gpu else ("fp32",):
        amp = AmpPolicy(precision, bench.device)
        (eager, _), (other, notes), (halves, _) = (
            _trained(bench, texts, amp, captured=captured, micro=micro)
            for captured, micro in ((False, None), (way == CAPTURED, None), (False, 16))
        )
        length = float((eager - _start(bench, texts, amp)).norm())
        apart, rounding = (float((eager - values).norm()) / length for values in (other, halves))
        seen = f"{apart:.2g} of what was learnt; {rounding:.2g} in two micro-batches"
        yield Finding(
            f"{way} against eager steps, {precision}",
            "apart no further than rounding, twice",
            "; ".join((seen, *notes)),
            apart <= 2 * rounding + 1e-4 and not notes,
            {"apart": apart, "rounding": rounding, "notes": notes},
        )


def _trained(
    bench: Bench, texts: EncodedTexts, amp: AmpPolicy, *, captured: bool, micro: int | None
) -> tuple[torch.Tensor, tuple[str, ...]]:
    """What is trained, after some steps over rows of many lengths, and the notes for the trial's record."""
    settings = SETTINGS.model_copy(update={"micro_batch_size": micro})
    trial = start_trial(bench.base(BERT_BASE), texts, amp, captured=captured, settings=settings)
    run_steps(trial, texts, 12 if bench.small else 60)
    return trained_values(trial.state.model), trial.state.notes


def _start(bench: Bench, texts: EncodedTexts, amp: AmpPolicy) -> torch.Tensor:
    return trained_values(start_trial(bench.base(BERT_BASE), texts, amp).state.model)


def run_steps(trial: Trial, texts: EncodedTexts, steps: int, first: int = 0) -> list[float]:
    """Steps over batches of similar length, from the given one on; returns their losses."""
    batches: list[np.ndarray] = []
    while len(batches) < first + steps:
        batches += epoch_batches(texts.lengths, 32, 0, len(batches))
    return [float(trial.step(rows)) for rows in batches[first : first + steps]]


def faster_layers(bench: Bench) -> Iterator[Finding]:
    """Logits and gradients of each faster form and of the plain one, by their distance from fp64."""
    begin(bench.device)
    texts, rows = headline_texts(64, BERT_BASE, seed=3), np.arange(32)
    with _without(*LEVERS):
        reference = start_trial(bench.base(BERT_BASE), texts, AmpPolicy("fp32", bench.device)).state
    random = torch.Generator().manual_seed(0)
    # Not the start, where B is zero and A has no gradient.
    values = [0.02 * torch.randn(p.shape, generator=random) for p in trained(reference.model)]
    copy_trained(values, reference)
    exact = gradients(reference.model.double(), reference.amp, texts, rows)
    del reference
    for precision in PRECISIONS if bench.on_gpu else ("fp32",):
        amp = AmpPolicy(precision, bench.device)
        distances: dict[str, list[float]] = {}
        for name, others in {
            "plain": [*LEVERS],
            **{kept: [o for o in LEVERS if o != kept] for kept in LEVERS},
        }.items():
            with _without(*others):
                state = start_trial(bench.base(BERT_BASE), texts, amp).state
            copy_trained(values, state)
            found = gradients(state.model, amp, texts, rows)
            distances[name] = [float((a - b).norm() / b.norm()) for a, b in zip(found, exact, strict=True)]
            del state
            forget(bench.device)
        for name in LEVERS:
            pairs = list(zip(distances[name], distances["plain"], strict=True))
            (logits, plain_logits), (by_all, plain_by_all) = pairs
            yield Finding(
                f"{name}, {precision}",
                f"no further from fp64 than {FURTHER:g} × plain",
                f"logits {logits:.1e} (plain {plain_logits:.1e}), gradient {by_all:.1e} ({plain_by_all:.1e})",
                all(own <= FURTHER * plain + 1e-6 for own, plain in pairs),
                {"distances": distances},
            )


def _without(*levers: str) -> ExitStack:
    """The program without some levers."""
    stack = ExitStack()
    for name in levers:
        stack.enter_context(patch(LEVERS[name], lambda *_: None))
    return stack


def logits(bench: Bench) -> Iterator[Finding]:
    """Logits in fp32 on the GPU against those on the CPU, exactly and as a trial runs (TF32)."""
    cpu, texts = torch.device("cpu"), {size: headline_texts(16, size) for size in SIZES}
    models = {
        size.name: start_trial(bench.base(size), texts[size], AmpPolicy("fp32", cpu)).state for size in SIZES
    }
    expected = {
        size.name: predict_logits(models[size.name].model, texts[size], AmpPolicy("fp32", cpu))
        for size in SIZES
    }
    for name, tolerance in (("fp32", FP32_TOLERANCE), ("TF32", TF32_TOLERANCE)):
        if name == "TF32":
            begin(bench.device)
        for size in SIZES:
            amp = AmpPolicy("fp32", bench.device)
            state = start_trial(bench.base(size), texts[size], amp).state
            copy_trained([p.detach().cpu() for p in trained(models[size.name].model)], state)
            finding = _apart(
                f"logits of {size.name}, GPU and CPU, {name}",
                expected[size.name],
                predict_logits(state.model, texts[size], amp),
                tolerance,
            )
            # Without a GPU both sides are the CPU's, which shows nothing.
            yield finding if bench.on_gpu else replace(finding, seen="no GPU", passed=None)
            del state
            forget(bench.device)


def exports(bench: Bench) -> Iterator[Finding]:
    """A trained adapter in bf16 and what plain PEFT predicts with it, at 12 and at 24 layers."""
    from peft import PeftModel

    begin(bench.device)
    amp = AmpPolicy("bf16", bench.device)
    for size in (BERT_BASE, ROBERTA_LARGE):
        texts = headline_texts(256, size)
        trial = start_trial(bench.base(size), texts, amp)
        run_steps(trial, texts, 2 if bench.small else 40)
        expected = predict_logits(trial.state.model, texts, amp)
        with tempfile.TemporaryDirectory() as folder:
            save_weights(trial.state.model, Path(folder))
            model = PeftModel.from_pretrained(load_plainly(bench.base(size), bench.device), folder)
        del trial
        found = predict_logits(model.to(bench.device).eval(), texts, amp)
        finding = _apart(f"export of {size.name}, bf16, with plain PEFT", expected, found, HALF_TOLERANCE)
        relabelled = float((expected.argmax(1) != found.argmax(1)).mean())
        yield replace(finding, seen=f"{finding.seen}; {relabelled:.1%} other labels")
        del model
        forget(bench.device)


def _apart(what: str, expected: np.ndarray, found: np.ndarray, tolerance: float) -> Finding:
    """How far logits are from those expected, as a share of the largest."""
    apart = float(np.abs(found - expected).max() / np.abs(expected).max())
    seen = f"apart by {apart:.1e} of the largest logit"
    return Finding(what, f"at most {tolerance:g}", seen, apart <= tolerance, {"apart": apart})

"""Latency, memory and operators of tiny models, where what they must show is known."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_cuda import FakeCuda
from tiny_trials import CPU, FP32, dataset, loaded
from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent

from lorasweep.training.loop.state import TrainingState
from lorasweep.training.model.base_model import LoadedBase
from lorasweep.training.model.classifier import build_classifier, save_weights
from lorasweep.training.model.precision import AmpPolicy
from lorasweep.training.settings import Hyperparameters
from lorasweep.tuning.compare.profile import (
    OTHER,
    OtherPrograms,
    PeakMemory,
    measure_latency,
    operator_kind,
    operator_uses,
    profile_step,
    stored_bytes,
)
from lorasweep.tuning.record.machine import usable_cores

FULL = Hyperparameters(method="full")
LORA = Hyperparameters(rank=2, alpha=4, target_modules="query-value")


@pytest.fixture(scope="module")
def base(tiny_base: Callable[[str], Path]) -> LoadedBase:
    return loaded(tiny_base("bert"))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("aten::addmm", "linear (addmm, mm)"),
        ("aten::mm", "linear (addmm, mm)"),
        ("aten::gelu_backward", "gelu"),
        ("aten::native_layer_norm_backward", "layer norm"),
        ("aten::_softmax", "softmax"),
        ("aten::_scaled_dot_product_flash_attention_for_cpu", "attention"),
        ("aten::copy_", "casts and copies"),
        ("aten::to", "casts and copies"),
        ("aten::add", OTHER),
        ("aten::topk", OTHER),
    ],
)
def test_operators_are_known_by_what_they_do(name: str, kind: str) -> None:
    assert operator_kind(name) == kind


def test_a_kernel_counts_once() -> None:
    """On CUDA the profiler gives a kernel's time to its operator, and reports the kernel itself, too."""

    def event(id: int, name: str, start: int, end: int, device: str) -> FunctionEvent:
        kind = getattr(DeviceType, device)
        return FunctionEvent(id, name, 0, start, end, use_device="cuda", device_type=kind)

    linear, addmm, kernel = (
        event(1, "aten::linear", 0, 50, "CPU"),
        event(2, "aten::addmm", 10, 40, "CPU"),
        event(2, "sm90_gemm", 100, 3100, "CUDA"),
    )
    addmm.append_kernel(kernel.name, 0, 3000)
    linear.append_cpu_child(addmm)
    addmm.set_cpu_parent(linear)
    (use,) = operator_uses([linear, addmm, kernel], steps=3, cuda=True)
    assert use.name == "linear (addmm, mm)"
    assert use.milliseconds == pytest.approx(1.0)


def test_amp_halves_what_linear_layers_allocate(base: LoadedBase) -> None:
    data = dataset(64)
    used = {}
    for amp in (FP32, AmpPolicy("bf16", CPU)):
        model = build_classifier(base, FULL, 0, amp)
        before = [p.detach().clone() for p in model.parameters()]
        operators = {use.name: use for use in profile_step(model, data.train, amp, 32)}
        assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
        assert all(p.grad is None for p in model.parameters())
        assert operators["linear (addmm, mm)"].milliseconds > 0
        used[amp.name] = operators["gelu"].megabytes
    assert used["bf16"] == pytest.approx(used["fp32"] / 2, rel=0.05)


def test_a_model_in_training_is_profiled_as_it_trains(base: LoadedBase) -> None:
    """On its flat gradient, which it keeps, at 0."""
    amp = AmpPolicy("bf16", CPU)
    state = TrainingState.start(build_classifier(base, LORA, 0, amp), LORA, amp)
    before = [id(parameter.grad) for parameter in state.trained.parameters]
    profile_step(state.model, dataset(64).train, amp, 8, steps=1)
    assert [id(parameter.grad) for parameter in state.trained.parameters] == before
    assert not state.trained.gradients.any()


def test_latency_is_told_by_its_median_and_tail(base: LoadedBase) -> None:
    model = build_classifier(base, LORA, 0, FP32)
    found = measure_latency(model, dataset(40).train, FP32, batch=8, form="adapter", repeats=6)
    assert (found.form, found.precision, found.batch) == ("adapter", "fp32", 8)
    assert 0 < found.median <= found.p95


def test_of_texts_in_chunks_a_step_is_of_chunks(base: LoadedBase) -> None:
    model, chunks = build_classifier(base, LORA, 0, FP32), dataset(160).train
    split = replace(chunks, documents=np.arange(0, 161, 4), labels=chunks.labels[::4])
    calls = []
    model.register_forward_hook(lambda module, inputs, output: calls.append(len(output.logits)))
    assert profile_step(model, split, FP32, batch=8, steps=1)
    assert calls == [8, 8]


def test_a_model_is_stored_in_as_many_bytes_as_its_files_have(base: LoadedBase, tmp_path: Path) -> None:
    full, lora = build_classifier(base, FULL, 0, FP32), build_classifier(base, LORA, 0, FP32)
    save_weights(lora, tmp_path)
    save_weights(full, tmp_path / "full")
    adapter, whole = stored_bytes(tmp_path), stored_bytes(tmp_path / "full")
    assert adapter == (tmp_path / "adapter_model.safetensors").stat().st_size
    assert whole > 4 * sum(p.numel() for p in full.parameters()) > adapter


def test_a_peak_that_is_over_is_still_seen() -> None:
    memory = PeakMemory(CPU)
    array = np.ones(25_000_000)
    del array
    assert 190_000_000 < memory.read() < 400_000_000
    assert PeakMemory(CPU).read() < 50_000_000


def test_a_peak_on_a_gpu_is_what_came_on_top(gpus: FakeCuda) -> None:
    gpus.add()
    memory = PeakMemory(torch.device("cuda", 0))
    assert [call[0] for call in gpus.calls[:2]] == ["current_device", "reset_peak_memory_stats"]
    assert memory.read() == 2000


def test_what_other_programs_use_is_seen() -> None:
    """A program beside this one, which itself does nothing."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as beside:
        others = OtherPrograms()
        time.sleep(0.5)
        share = others.share()
        beside.kill()
    assert 0.1 / usable_cores() < share <= 1

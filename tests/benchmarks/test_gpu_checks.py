"""The GPU checks see what is wrong, and what only a GPU runs is run by a CPU that answers for it."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gpu_equal
import gpu_limits
import gpu_speed
import gpu_timing
import gpu_training
import pytest
import torch
from gpu_bases import BERT_BASE
from gpu_check import Bench
from gpu_timing import covered, measure
from recorded_graphs import RecordedGraphs

from lorasweep.training.data import device_texts
from lorasweep.training.errors import TrainingError
from lorasweep.training.model.faster.mask import make_masks_without_waiting
from lorasweep.tuning.adapters.export import verify

CPU = torch.device("cpu")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(CPU, True, tmp_path)


def test_intervals_that_overlap_count_once() -> None:
    assert covered([(0, 2), (1, 3), (5, 6), (5.2, 5.5)]) == pytest.approx(4)


def test_a_step_is_measured_by_its_rows() -> None:
    measured = measure(lambda: time.sleep(0.002), 32, CPU, 0.02, warm_up=1, chunk=2)
    assert 2 <= measured.ms < 1000
    assert measured.rows_per_second == pytest.approx(32_000 / measured.ms)
    assert (measured.launches, measured.busy, measured.memory) == (None, None, None)


@pytest.mark.filterwarnings("ignore:called a synchronizing", "ignore:something is deprecated")
def test_waits_are_told_from_other_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[str] = []
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    monkeypatch.setattr(gpu_timing, "wait", lambda device: None)

    def step() -> None:
        for message in ("called a synchronizing CUDA operation", "something is deprecated") * 2:
            warnings.warn(message, stacklevel=1)

    assert gpu_timing.waits(step, torch.device("cuda", 0)) == 2
    assert modes == ["warn", "default"]
    assert gpu_timing.waits(step, CPU) is None


class TestChecksFail:
    """Each where what it looks at is wrong."""

    def test_captured_steps_that_train_otherwise(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        assert [finding.passed for finding in gpu_equal.captured(bench)] == [True]
        start = gpu_equal.start_trial

        def other(*args: object, captured: bool = False, **options: object) -> object:
            return start(*args, **options | {"seed": int(captured)})  # type: ignore[arg-type]

        monkeypatch.setattr(gpu_equal, "can_capture", lambda device: True)
        monkeypatch.setattr(gpu_equal, "start_trial", other)
        assert [finding.passed for finding in gpu_equal.captured(bench)] == [False]

    def test_a_faster_layer_with_another_result(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        assert [finding.passed for finding in gpu_equal.faster_layers(bench)] == [True, True]

        from lorasweep.training.model.faster.lora_linear import LeanLinear

        plain = LeanLinear.forward
        monkeypatch.setattr(LeanLinear, "forward", lambda self, x: 1.01 * plain(self, x))
        found = {finding.what: finding.passed for finding in gpu_equal.faster_layers(bench)}
        assert found == {"first-token layer, fp32": True, "lean LoRA layer, fp32": False}

    def test_an_export_of_other_weights(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        assert all(finding.passed for finding in gpu_equal.exports(bench))
        load = gpu_equal.load_plainly

        def other(folder: Path, device: torch.device) -> torch.nn.Module:
            model = load(folder, device)
            with torch.no_grad():
                next(model.parameters()).mul_(1.5)
            return model

        monkeypatch.setattr(gpu_equal, "load_plainly", other)
        assert not any(finding.passed for finding in gpu_equal.exports(bench))

    def test_an_error_that_is_raw(self) -> None:
        def told() -> str:
            raise TrainingError("out of memory: lower max_length")

        def raw() -> str:
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")

        assert gpu_limits._judged("lora", told).passed is True
        found = gpu_limits._judged("lora", raw)
        assert (found.passed, found.seen) == (False, "raw OutOfMemoryError: CUDA out of memory.")


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[RecordedGraphs]:
    """What stands in for CUDA graphs on this CPU: one for each trial with captured steps, in order."""
    made: list[RecordedGraphs] = []
    build = gpu_training.build_classifier

    def recorded(device: torch.device) -> RecordedGraphs:
        made.append(RecordedGraphs())
        return made[-1]

    def built(*arguments: Any) -> Any:
        model: Any = build(*arguments)
        make_masks_without_waiting(model.get_base_model())  # as on a GPU
        return model

    monkeypatch.setattr(
        device_texts, "library", lambda device: torch
    )  # and not numpy, which cannot be recorded
    monkeypatch.setattr(gpu_training, "graphs_for", recorded)
    monkeypatch.setattr(gpu_training, "build_classifier", built)
    return made


class TestCaptured:
    def test_steps_are_compared_with_eager_ones(self, bench: Bench, graphs: list[RecordedGraphs]) -> None:
        (found,) = gpu_equal.captured(bench)
        assert (found.what, found.passed) == ("captured against eager steps, fp32", True)
        assert graphs[-1].replays > 2

    def test_a_trial_that_does_not_capture_fails(
        self, bench: Bench, graphs: list[RecordedGraphs], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(graph: RecordedGraphs, function: object) -> None:
            raise RuntimeError("operation not permitted when stream is capturing")

        monkeypatch.setattr(RecordedGraphs, "capture", refuse)
        (found,) = gpu_equal.captured(bench)
        assert found.passed is False
        assert "operation not permitted" in found.seen

    def test_their_speed_is_measured_beside_plain_peft(
        self, bench: Bench, graphs: list[RecordedGraphs]
    ) -> None:
        plain, eager, captured = gpu_speed.speed(BERT_BASE, "fp32")(bench)
        assert [found.what.rpartition(" ")[2] for found in (plain, eager, captured)] == [
            "PEFT",
            "eager",
            "captured",
        ]
        assert (plain.figures["ratio"], captured.figures["notes"]) == (1, ())
        assert captured.figures["ratio"] == pytest.approx(plain.figures["ms"] / captured.figures["ms"])
        assert graphs[-1].replays > 2


class GpuBench(Bench):
    """Says that it has a GPU, so that what only such a machine runs is run here."""

    @property
    def on_gpu(self) -> bool:
        return True


class TestOnAGpu:
    """With a CPU that answers for it."""

    @pytest.fixture
    def limits(self, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        set_limits: list[float] = []
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3 * 2**30, 4 * 2**30))
        monkeypatch.setattr(
            torch.cuda,
            "get_device_properties",
            lambda device: SimpleNamespace(name="H100", major=9, minor=0, total_memory=4 * 2**30),
        )
        monkeypatch.setattr(
            torch.cuda, "set_per_process_memory_fraction", lambda share, device: set_limits.append(share)
        )
        return set_limits

    @pytest.mark.usefixtures("limits")
    def test_the_card_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gpu_speed, "SIDE", 64)
        card, taken, rate = gpu_speed.machine(GpuBench(CPU, True, tmp_path))
        assert card.seen.startswith("H100, 9.0, 4 GiB")
        assert taken.seen.startswith("1.00 GiB")
        assert rate.figures["TFLOP/s"] > 0

    def test_memory_is_limited_and_given_back(
        self, tmp_path: Path, limits: list[float], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(gpu_limits, "OOM_ROWS", 4)
        monkeypatch.setattr(gpu_limits, "OOM_PREDICTED", 8)
        monkeypatch.setattr(gpu_limits, "OOM_TOKENS", 8)
        enough, *found = gpu_limits.out_of_memory(GpuBench(CPU, True, tmp_path))
        assert "4 rows at once" in enough.seen
        assert [finding.passed for finding in found] == [True] * len(found)
        assert len(found) == sum(map(len, gpu_limits.CAPS.values()))
        assert limits[1::2] == [1.0] * len(found)
        assert limits[2] / limits[0] == pytest.approx(1.05 / 0.6)

    @pytest.mark.filterwarnings("ignore:CUDA is not available")
    def test_launches_are_counted_in_a_profile(self) -> None:
        """There are none on a CPU, whose operators are not taken for kernels."""
        assert gpu_timing._profiled(lambda: torch.ones(8) @ torch.ones(8), CPU) == (0, 0)


def test_tolerances_are_those_of_exports() -> None:
    """They are repeated, because exports need Optuna."""
    assert (gpu_equal.HALF_TOLERANCE, gpu_equal.TF32_TOLERANCE) == (
        verify.HALF_TOLERANCE,
        verify.TF32_TOLERANCE,
    )

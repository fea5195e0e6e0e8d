"""Devices, on a fake `torch.cuda`: which is chosen, how CUDA is set up, and how errors read."""

from __future__ import annotations

import platform
import sys

import psutil
import pytest
import torch
from fake_cuda import GIGABYTE, FakeCuda

from lorasweep.training import devices
from lorasweep.training.devices import Card
from lorasweep.training.errors import LorasweepError, ModelError, SettingsError, TrainingError

CPU, GPU, SECOND = torch.device("cpu"), torch.device("cuda", 0), torch.device("cuda", 1)


def raised(error: Exception, cause: Exception) -> Exception:
    """An error that was raised from another."""
    error.__cause__ = cause
    return error


class TestCards:
    def test_of_a_machine(self, gpus: FakeCuda) -> None:
        assert (devices.cards(), devices.count_cards()) == ([], 0)
        gpus.add("T4", (7, 5), 16 * GIGABYTE).add()
        assert devices.cards() == [
            Card("T4", (7, 5), 16 * GIGABYTE),
            Card("H100", (9, 0), 80 * GIGABYTE),
        ]
        assert devices.count_cards() == 2

    def test_those_that_torch_cannot_use_are_only_counted(self, gpus: FakeCuda) -> None:
        gpus.driver = 4
        assert (devices.cards(), devices.count_cards()) == ([], 4)

    @pytest.mark.parametrize(
        ("capabilities", "expected"),
        [([(8, 0)], True), ([(7, 5)], False), ([(9, 0), (7, 5)], False), ([(9, 0), (8, 6)], True)],
    )
    def test_bf16_of_workers_needs_no_gpu_here(
        self, gpus: FakeCuda, capabilities: list[tuple[int, int]], expected: bool
    ) -> None:
        workers = [Card("a GPU", capability, GIGABYTE) for capability in capabilities]
        assert devices.bf16_in_hardware(torch.device("cuda"), workers) is expected
        gpus.add(capability=capabilities[-1])
        assert devices.bf16_in_hardware(GPU) is (capabilities[-1] >= (8, 0))


class TestChoose:
    def test_a_gpu_where_there_is_one(self, gpus: FakeCuda) -> None:
        assert devices.choose_device() == CPU
        gpus.add()
        assert devices.choose_device() == devices.choose_device("cuda") == GPU
        assert devices.choose_device("cpu") == CPU

    @pytest.mark.parametrize(
        ("free", "expected"),
        [({"uuid-1": 9000, "uuid-0": 10, "other": 99999}, 1), ({"uuid-0": 9000, "uuid-1": 10}, 0), ({}, 0)],
    )
    def test_the_gpu_with_the_most_free_memory(
        self,
        gpus: FakeCuda,
        monkeypatch: pytest.MonkeyPatch,
        free: dict[str, int],
        expected: int,
    ) -> None:
        gpus.add().add()
        monkeypatch.setattr(devices, "free_memory", lambda: free)
        assert devices.choose_device() == torch.device("cuda", expected)
        assert devices.choose_device("cuda", 0) == GPU

    def test_by_the_name_that_a_user_gives(self, gpus: FakeCuda) -> None:
        assert devices.named_device("auto") == devices.named_device("cpu") == CPU
        assert devices.named_device("meta") == torch.device("meta")
        gpus.add().add()
        assert devices.named_device("cuda:1") == SECOND
        for name in ("cuda:2", "gpu", "cuda:x", "cuda:-1"):
            with pytest.raises(SettingsError, match=f"device {name}") as caught:
                devices.named_device(name)
            assert "\n" not in str(caught.value)

    def test_none_where_torch_cannot_use_it(self, gpus: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
        gpus.driver = 1
        monkeypatch.setattr(torch.version, "cuda", "13.0")
        monkeypatch.setattr(devices, "driver_cuda_version", lambda: "12.2")
        with pytest.raises(
            SettingsError, match=r"torch's CUDA is 13\.0, and the NVIDIA driver supports CUDA 12\.2"
        ):
            devices.choose_device("cuda")
        assert devices.choose_device("auto") == CPU


class TestReserved:
    def test_its_own_share(self, gpus: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
        ran: list[torch.device] = []
        monkeypatch.setattr(devices, "_run_a_kernel", ran.append)
        gpus.add()
        assert devices.reserved_device(0.0) == CPU
        assert ran == []
        assert devices.reserved_device(0.25) == GPU
        assert ran == [GPU]

    @pytest.mark.parametrize(
        ("cuda", "driver", "words"),
        [
            (
                "13.0",
                "12.2",
                r"torch's CUDA is 13\.0, and the NVIDIA driver supports CUDA 12\.2: update the driver",
            ),
            ("13.0", None, r"torch's CUDA is 13\.0, and the NVIDIA driver is missing"),
            (
                None,
                "13.0",
                r"was built without CUDA; torch's CUDA is none, and .* supports CUDA 13\.0: install one",
            ),
        ],
    )
    def test_one_that_torch_cannot_use_is_an_error(
        self,
        gpus: FakeCuda,
        monkeypatch: pytest.MonkeyPatch,
        cuda: str | None,
        driver: str | None,
        words: str,
    ) -> None:
        gpus.driver = 1
        monkeypatch.setattr(torch.version, "cuda", cuda)
        monkeypatch.setattr(torch.version, "hip", None)
        monkeypatch.setattr(devices, "driver_cuda_version", lambda: driver)
        with pytest.raises(
            SettingsError, match=rf"reserved 0\.5 of a GPU: .*{words}.*--gpus-per-trial 0"
        ) as caught:
            devices.reserved_device(0.5)
        assert "\n" not in str(caught.value)

    def test_one_that_fails_at_its_first_kernel_is_an_error(
        self, gpus: FakeCuda, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(device: torch.device) -> None:
            raise error

        gpus.add("K80", (3, 7))
        monkeypatch.setattr(devices, "_run_a_kernel", fail)
        monkeypatch.setattr(devices, "driver_cuda_version", lambda: "12.2")
        error = RuntimeError("CUDA error: no kernel image is available\nCompile with TORCH_USE_CUDA_DSA")
        with pytest.raises(SettingsError, match=r"K80 does not work \(CUDA error: no kernel image") as caught:
            devices.reserved_device(1.0)
        assert "\n" not in str(caught.value)
        # Where others have taken its memory, it is not the GPU that is wrong.
        error = torch.OutOfMemoryError("CUDA out of memory")
        with pytest.raises(torch.OutOfMemoryError):
            devices.reserved_device(1.0)


class TestBegin:
    @pytest.fixture(autouse=True)
    def as_torch_starts(self, gpus: FakeCuda) -> None:
        torch.backends.cuda.enable_cudnn_sdp(True)
        torch.backends.cuda.matmul.allow_tf32 = False

    def test_a_cpu_changes_nothing(self, gpus: FakeCuda) -> None:
        devices.begin(CPU, 0.5)
        devices.release(CPU)
        assert torch.backends.cuda.cudnn_sdp_enabled()
        assert not torch.backends.cuda.matmul.allow_tf32
        assert gpus.calls == []
        assert not devices.uses_tf32(CPU)

    def test_no_attention_by_cudnn_and_fp32_in_tf32(self, gpus: FakeCuda) -> None:
        gpus.add().add("T4", (7, 5))
        assert not devices.uses_tf32(GPU)
        devices.begin(SECOND)
        assert not torch.backends.cuda.cudnn_sdp_enabled()
        assert torch.backends.cuda.matmul.allow_tf32
        assert torch.get_float32_matmul_precision() == "high"
        assert gpus.calls == [("set_device", SECOND)]
        assert devices.uses_tf32(GPU)
        assert not devices.uses_tf32(SECOND)

    @pytest.mark.parametrize(
        ("share", "memory", "fraction"),
        # Half a GB of the share is CUDA's own.
        [(0.5, 8, 0.4375), (0.25, 80, 0.24375), (0.0625, 8, 0.03125), (0.05, 8, 0.025)],
    )
    def test_a_share_of_the_memory_is_cudas_own(
        self, gpus: FakeCuda, share: float, memory: int, fraction: float
    ) -> None:
        gpus.add(memory=memory * GIGABYTE)
        devices.begin(GPU, share)
        assert gpus.calls[-1] == ("set_per_process_memory_fraction", pytest.approx(fraction), 0)

    def test_the_next_trial_has_its_own_share(self, gpus: FakeCuda) -> None:
        gpus.add()
        for begun in (lambda: devices.begin(GPU), lambda: devices.release(torch.device("cuda"))):
            devices.begin(GPU, 0.5)
            begun()
            shares = [call[1:] for call in gpus.calls if call[0] == "set_per_process_memory_fraction"]
            assert shares[-1] == (1.0, 0)
        assert gpus.calls[-1] == ("empty_cache",)
        # A limit that somebody else has set is left alone.
        before = len(gpus.calls)
        devices.begin(GPU)
        assert gpus.calls[before:] == [("set_device", GPU)]


class TestMemoryAndRandomNumbers:
    def test_a_cpu_has_none_of_its_own(self, gpus: FakeCuda) -> None:
        devices.empty_cache(CPU)
        devices.synchronize(CPU)
        devices.reset_peak_memory(CPU)
        devices.set_random_state(CPU, torch.zeros(4, dtype=torch.uint8))
        assert devices.random_state(CPU) is None
        assert devices.peak_memory(CPU) == devices.allocated_memory(CPU) == 0
        assert devices.utilization(CPU) is None
        assert gpus.calls == []

    def test_a_gpu_is_asked(self, gpus: FakeCuda) -> None:
        gpus.add().add()
        state = devices.random_state(SECOND)
        devices.set_random_state(SECOND, state)
        devices.set_random_state(SECOND, None)
        assert [call[:1] + call[-1:] for call in gpus.calls] == [
            ("get_rng_state", SECOND),
            ("set_rng_state", SECOND),
        ]
        assert (devices.peak_memory(SECOND), devices.allocated_memory(SECOND)) == (3000, 1000)
        devices.synchronize(SECOND)
        assert gpus.calls[-1] == ("synchronize", SECOND)

    def test_cuda_is_started_before_its_peak_is_reset(self, gpus: FakeCuda) -> None:
        """Or the reset fails where nothing has used CUDA yet, as with a base model that stays on the CPU."""
        gpus.add()
        devices.reset_peak_memory(GPU)
        assert [call[0] for call in gpus.calls] == ["current_device", "reset_peak_memory_stats"]


class TestOutOfMemory:
    @pytest.mark.parametrize(
        "error",
        [
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
            torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be ..."),
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
            RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
            RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you ..."
            ),
            RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 4 bytes."),
            RuntimeError("unable to mmap 4096 bytes from file <x>: Cannot allocate memory (12)"),
            OSError(12, "Cannot allocate memory"),
            MemoryError(),
            raised(ModelError("its weights cannot be loaded"), torch.OutOfMemoryError("")),
            raised(ValueError("a"), raised(KeyError("b"), MemoryError())),
        ],
        ids=lambda error: f"{type(error).__name__} {str(error)[:40]}",
    )
    def test_of_every_form(self, error: Exception) -> None:
        assert devices.is_out_of_memory(error)

    @pytest.mark.parametrize(
        "error",
        [
            RuntimeError("CUDA error: an illegal memory access was encountered"),
            RuntimeError("CUDA error: device-side assert triggered"),
            ValueError("a text about being out of memory"),
            TrainingError("out of memory with a single row on the device: lower max_length"),
            LorasweepError("x"),
            OSError(28, "No space left on device"),
            KeyboardInterrupt(),
            None,
        ],
    )
    def test_no_other_error(self, error: BaseException | None) -> None:
        assert not devices.is_out_of_memory(error)


def test_freed_memory_goes_back_to_the_system() -> None:
    """Small pieces between others that stay, which the C library would keep."""
    process = psutil.Process()
    pieces = [bytearray(60_000) for _ in range(5_000)]
    kept = pieces[::50]
    held = process.memory_info().rss
    pieces.clear()
    devices.trim_host_memory()
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        assert process.memory_info().rss < held - 200e6
    assert len(kept) == 100

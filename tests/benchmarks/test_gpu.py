"""The GPU's checks, as they run on a CPU: in small, without an installed lorasweep, each in its own process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gpu
import gpu_equal
import gpu_limits
import gpu_speed
import gpu_training
import numpy as np
import pytest
import torch
from gpu_bases import BERT_BASE, CLASSES, FIRST_TOKEN, fake_texts
from gpu_check import Bench, Check, run_check
from gpu_checkout import CHECKOUT
from gpu_report import WIDTHS, Finding, append, read, summary, terminal_table
from gpu_timing import covered, measure
from recorded_graphs import RecordedGraphs

from lorasweep.training.errors import TrainingError
from lorasweep.training.model.faster.mask import make_masks_without_waiting
from lorasweep.tuning.adapters.export import verify

CPU = torch.device("cpu")
# lorasweep made unknown to Python, and what a borrowed machine does not have.
BARE = """
import importlib.metadata, sys
known = importlib.metadata.version
def version(name):
    if name == "lorasweep":
        raise importlib.metadata.PackageNotFoundError(name)
    return known(name)
importlib.metadata.version = version
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in str(finder).lower()]
for name in ("ray", "mlflow", "optuna", "plotly", "typer"):
    sys.modules[name] = None
sys.path.insert(0, FOLDER)
import gpu, json, lorasweep.training
print(json.dumps({"training": lorasweep.training.__file__, "tuning": "lorasweep.tuning" in sys.modules}))
"""


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(CPU, True, tmp_path)


class TestOwnProcess:
    def run(self, tmp_path: Path, check: Check, seconds: float = 20) -> list[Finding]:
        shown: list[Finding] = []
        run_check(check, seconds, Bench(CPU, True, tmp_path), tmp_path / "gpu.jsonl", shown.append)
        assert shown == read(tmp_path / "gpu.jsonl")
        return shown

    def test_findings_come_with_their_check(self, tmp_path: Path) -> None:
        def two(bench: Bench) -> Iterator[Finding]:
            assert 0 < bench.left <= 20
            yield Finding("one", "1", "1", True, {"value": 1})
            yield Finding("two", "", "2")

        first, second = self.run(tmp_path, Check("counting", two, 20))
        assert (first.what, first.mark, first.figures, first.check) == (
            "one",
            "pass",
            {"value": 1},
            "counting",
        )
        assert (second.what, second.mark) == ("two", "-")

    def test_an_error_is_a_finding_beside_those_before_it(self, tmp_path: Path) -> None:
        def broken(bench: Bench) -> Iterator[Finding]:
            yield Finding("one", "1", "1", True)
            raise ValueError("no such kernel\nand a long trace")

        first, second = self.run(tmp_path, Check("breaking", broken, 20))
        assert (first.passed, second.passed) == (True, False)
        assert (second.what, second.seen) == ("breaking", "ValueError: no such kernel")
        assert "in broken" in second.figures["traceback"]

    def test_a_check_that_takes_too_long_is_stopped_with_its_processes(self, tmp_path: Path) -> None:
        def slow(bench: Bench) -> Iterator[Finding]:
            child = subprocess.Popen(["sleep", "60"])
            yield Finding("child", "", str(child.pid))
            child.wait()

        started = time.monotonic()
        child, stopped = self.run(tmp_path, Check("sleeping", slow, 20), seconds=1)
        assert time.monotonic() - started < 20
        assert (stopped.passed, stopped.seen) == (False, "stopped after 1 s")
        state = Path(f"/proc/{child.seen}/stat")
        # Killed; until somebody collects it, it may be there as a zombie.
        assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"

    def test_a_process_that_dies_is_a_finding(self, tmp_path: Path) -> None:
        def dying(bench: Bench) -> Iterator[Finding]:
            os._exit(3)
            yield

        (died,) = self.run(tmp_path, Check("dying", dying, 20))
        assert (died.passed, died.seen) == (False, "its process ended with 3")


class TestReport:
    def test_the_table_has_at_most_100_columns_and_loses_nothing(self) -> None:
        long = Finding(
            "BERT-base, bf16, 32 × 32, captured " * 2, "at least 4 × plain PEFT", "rows/s, " * 20, False
        )
        lines = terminal_table([long, Finding("memory", "", "1 GiB")]).splitlines()
        assert max(map(len, lines)) <= 100
        words = " ".join(line[: WIDTHS[0]] for line in lines).split()
        assert words.count("captured") == 2
        assert "\n".join(lines).count("rows/s,") == 20
        assert [line.split()[-1] for line in lines[2:] if line.split()[-1] in ("fail", "-")] == ["fail", "-"]

    def test_a_line_that_was_cut_off_is_left_out(self, tmp_path: Path) -> None:
        append(tmp_path / "lines", Finding("one", "", "1", True))
        with (tmp_path / "lines").open("a") as file:
            file.write('{"what": "tw')
        assert [finding.what for finding in read(tmp_path / "lines")] == ["one"]

    def test_checks_without_time_are_named(self, bench: Bench, tmp_path: Path) -> None:
        gpu.run(gpu.CHECKS, 0, bench, tmp_path / "lines")
        found = read(tmp_path / "lines")
        assert [finding.what for finding in found] == [check.name for check in gpu.CHECKS]
        assert summary(found) == f"0 passed, 0 failed, {len(found)} figures"


def test_intervals_that_overlap_count_once() -> None:
    assert covered([(0, 2), (1, 3), (5, 6), (5.2, 5.5)]) == pytest.approx(4)


def test_a_step_is_measured_by_its_rows() -> None:
    measured = measure(lambda: time.sleep(0.002), 32, CPU, 0.02, warm_up=1, chunk=2)
    assert 2 <= measured.ms < 50
    assert measured.rows_per_second == pytest.approx(32_000 / measured.ms)
    assert (measured.launches, measured.busy, measured.memory) == (None, None, None)


def test_the_second_token_of_a_fake_text_is_its_label() -> None:
    texts = fake_texts(np.array([5, 9, 7]), typed=True)
    assert texts.lengths.tolist() == [5, 9, 7]
    assert (texts.input_ids[texts.offsets[:-1] + 1] - FIRST_TOKEN).tolist() == texts.labels.tolist()
    assert ((texts.labels >= 0) & (texts.labels < CLASSES)).all()


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


def test_tolerances_are_those_of_exports() -> None:
    """They are repeated, because exports need Optuna."""
    assert gpu_equal.HALF_TOLERANCE == verify.HALF_TOLERANCE


def test_a_base_is_written_once(bench: Bench) -> None:
    folder = bench.base(BERT_BASE)
    written = (folder / "model.safetensors").stat().st_mtime_ns
    assert bench.base(BERT_BASE) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == written


def test_it_needs_no_installed_lorasweep_and_no_ray() -> None:
    program = BARE.replace("FOLDER", repr(str(CHECKOUT / "benchmarks")))
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == {"training": str(CHECKOUT / "training" / "__init__.py"), "tuning": False}


@pytest.mark.slow
def test_a_check_runs_in_a_process_that_is_not_forked(bench: Bench, tmp_path: Path) -> None:
    """As where importing the libraries has touched CUDA."""
    found: list[Finding] = []
    run_check(gpu.CHECKS[0], 120, replace(bench, start_method="spawn"), tmp_path / "lines", found.append)
    assert [finding.what for finding in found] == ["a GPU that torch can use"]


@pytest.mark.slow
def test_all_checks_run_in_small(tmp_path: Path) -> None:
    program = str(CHECKOUT / "benchmarks" / "gpu.py")
    done = subprocess.run(
        [sys.executable, program, "--small", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    facts = json.loads((tmp_path / "gpu.json").read_text())
    assert {finding["check"] for finding in facts["findings"]} == {check.name for check in gpu.CHECKS}
    assert not any("not run" in finding["seen"] for finding in facts["findings"])
    table = done.stdout[done.stdout.index("what  ") :].splitlines()
    assert max(len(line) for line in table if not line.endswith(".json")) <= 100

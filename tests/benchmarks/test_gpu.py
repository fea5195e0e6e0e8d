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

import gpu
import numpy as np
import pytest
import torch
from gpu_bases import BERT_BASE, CLASSES, FIRST_TOKEN, fake_texts
from gpu_check import Bench, Check, run_check
from gpu_checkout import CHECKOUT
from gpu_report import WIDTHS, Finding, append, read, summary, terminal_table

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


def test_the_second_token_of_a_fake_text_is_its_label() -> None:
    texts = fake_texts(np.array([5, 9, 7]), typed=True)
    assert texts.lengths.tolist() == [5, 9, 7]
    assert (texts.input_ids[texts.offsets[:-1] + 1] - FIRST_TOKEN).tolist() == texts.labels.tolist()
    assert ((texts.labels >= 0) & (texts.labels < CLASSES)).all()


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

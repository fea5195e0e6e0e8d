"""What a trial says of the machine on which it ran, and what is told of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from lorasweep.training.model.precision import AmpPolicy
from lorasweep.tuning.record import ran_on as module
from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.machine import machine
from lorasweep.tuning.record.ran_on import RanOn, devices_text, node_name, this_process
from lorasweep.tuning.record.sweep import SweepRecord
from lorasweep.tuning.record.trial_records import TrialRecord
from lorasweep.tuning.report.rows import search_rows
from lorasweep.tuning.tracking.entries import trial_tags

L4 = RanOn(node="gpu-1 (10.0.0.7)", device="cuda", gpu="NVIDIA L4", processor="Xeon", precision="bf16")
CORES = RanOn(node="cpu-1", processor="EPYC", precision="fp32", packages={"torch": "2.13.0", "peft": "0.21"})


def test_a_process_says_what_it_trains_on() -> None:
    ran = this_process(AmpPolicy("fp32", torch.device("cpu")), "10.0.0.9")
    here = machine()
    assert ran.node.endswith(" (10.0.0.9)")
    assert (ran.device, ran.gpu, ran.cuda, ran.precision) == ("cpu", None, None, "fp32")
    assert {name: value for name, value in ran.machine.items() if value} == {
        name: here[name] for name in ("cpu", "os", "python", "packages")
    }


def test_a_node_has_its_host_name_and_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.socket, "gethostname", lambda: "worker-1")
    assert [node_name(address) for address in ("10.0.0.1", "", "worker-1")] == [
        "worker-1 (10.0.0.1)",
        "worker-1",
        "worker-1",
    ]


def test_devices_are_told_once_each() -> None:
    assert devices_text([L4, None, CORES, L4]) == "NVIDIA L4, bf16; cpu, fp32"
    assert devices_text([None]) == ""


def test_the_report_tells_the_trials_devices_and_not_the_drivers(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path, "demo")
    folder.create(SweepConfig(name="demo"))
    folder.write_plan({"device": "cpu", "precision": "fp32"})
    folder.write_trial(TrialRecord(id="t000", number=0))
    assert dict(search_rows(SweepRecord(folder)))["device"] == "cpu fp32"
    folder.write_trial(TrialRecord(id="t001", number=1, ran_on=L4))
    assert dict(search_rows(SweepRecord(folder)))["device"] == "NVIDIA L4, bf16"


def test_mlflow_has_what_the_best_evaluation_ran_on() -> None:
    moved = TrialRecord(id="t000", number=0, ran_on=L4, best_ran_on=CORES)
    tags = trial_tags(moved, "accuracy", "loss", 4, "ASHA")
    assert {name.removeprefix("lorasweep."): tags[name] for name in module_tags()} == {
        "node": "cpu-1",
        "device": "EPYC",
        "precision": "fp32",
        "versions": "torch 2.13.0, peft 0.21",
    }
    assert trial_tags(TrialRecord(id="t0", number=0, ran_on=L4), "loss", "loss", 4, "")[
        "lorasweep.device"
    ] == ("NVIDIA L4")
    assert not set(module_tags()) & set(trial_tags(TrialRecord(id="t0", number=0), "loss", "loss", 4, ""))


def module_tags() -> list[str]:
    return [f"lorasweep.{name}" for name in ("node", "device", "precision", "versions")]


def test_records_of_earlier_and_later_versions_are_read() -> None:
    old = TrialRecord.model_validate({"id": "t000", "number": 0, "settings": {}})
    assert (old.ran_on, old.best_ran_on) == (None, None)
    new = json.loads(TrialRecord(id="t000", number=0, ran_on=L4).model_dump_json())
    new["ran_on"]["more"] = 1
    assert TrialRecord.model_validate(new).ran_on == L4

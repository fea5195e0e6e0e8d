"""Failures of a node, told apart from those of a trial's settings: by the trial itself, and by Ray's words."""

from __future__ import annotations

import errno

import pytest

from lorasweep.training.errors import ModelError
from lorasweep.tuning.trials import place as places
from lorasweep.tuning.trials.faults import (
    Fault,
    NodeError,
    NodeFailedError,
    error_line,
    fault_of,
    last_failure,
    reason_of,
)
from lorasweep.tuning.trials.place import Place

NAMES = {
    "abc1": "gpu-1 (10.0.0.1)",
    "abc2": "gpu-2 (10.0.0.11)",
    "abc3": "one (127.0.0.1)",
    "abc4": "two (127.0.0.1)",
}
TRACEBACK = """\
ray::ImplicitFunc.train() (pid=1, ip=10.0.0.1, actor_id=1, repr=run_trial)
  File "/x/trial.py", line 5, in run_trial
    raise {error}
{error}
"""


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (NodeError("base model /m cannot be read"), "base model /m cannot be read"),
        (
            ModuleNotFoundError("No module named 'peft'"),
            "a package is missing or broken (No module named 'peft')",
        ),
        (OSError(errno.EIO, "Input/output error"), "OSError: [Errno 5] Input/output error"),
        (ConnectionResetError("reset\nby peer"), "ConnectionResetError: reset"),
        (
            RuntimeError("CUDA error: uncorrectable ECC error encountered"),
            "the GPU failed (CUDA error: uncorrectable ECC error encountered)",
        ),
        (RuntimeError("CUDA error: out of memory"), None),
        (RuntimeError("CUDA error: device-side assert triggered"), None),
        (RuntimeError("shapes (3) and (4) do not match"), None),
        (ValueError("lora_alpha"), None),
        (ModelError("target_modules matches nothing"), None),
    ],
)
def test_who_is_to_blame_for_an_error_in_a_trial(error: Exception, reason: str | None) -> None:
    assert reason_of(error) == reason


def test_a_trials_own_word_reaches_the_driver_as_rays_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "node_name", lambda address: f"gpu-1 ({address})")
    raised = NodeFailedError.at(Place("abc1", "fe80::1"), "no: such model")
    text = TRACEBACK.format(error=f"lorasweep.tuning.trials.faults.NodeFailedError: {raised}")
    assert fault_of(text, {}) == Fault("abc1", "gpu-1 (fe80::1)", "no: such model")
    text = TRACEBACK.format(error=f"x.NodeFailedError: {NodeFailedError.at(Place('', ''), 'y')}")
    assert fault_of(text, {}) == Fault("", "gpu-1 ()", "y")


DIED = "The actor died unexpectedly before finishing this task.\n\tclass_name: ImplicitFunc\n\tip: {}\n{}"


@pytest.mark.parametrize(
    ("report", "fault"),
    [
        (
            DIED.format("10.0.0.1", "The actor died because its node has died. Node Id: abc1\n\tterminated"),
            Fault("abc1", NAMES["abc1"], "the machine was lost, or its Ray ended"),
        ),
        (
            DIED.format("10.0.0.9", "The actor died because its node has died. Node Id: ffff"),
            Fault("ffff", "10.0.0.9", "the machine was lost, or its Ray ended"),
        ),
        (
            "The actor is temporarily unavailable: IOError\n\tip: 10.0.0.1\n",
            Fault("abc1", NAMES["abc1"], "it could not be reached for a while"),
        ),
        # Several nodes of one machine: nobody knows which.
        (
            "The actor is temporarily unavailable: IOError\n\tip: 127.0.0.1\n",
            Fault("", "127.0.0.1", "it could not be reached for a while"),
        ),
        (
            "The actor died because of an error raised in its creation task, "
            + TRACEBACK.format(error="ModuleNotFoundError: No module named 'lorasweep'"),
            Fault(
                "abc1",
                NAMES["abc1"],
                "a trial's process could not start (ModuleNotFoundError: No module named 'lorasweep')",
            ),
        ),
        (
            TRACEBACK.format(
                error="ValueError: Could not recover from checkpoint as it does not exist on storage anymore. Got"
            ),
            Fault("abc1", NAMES["abc1"], "a checkpoint cannot be read from the storage"),
        ),
        # Its process alone: it may have taken too much memory.
        (DIED.format("10.0.0.1", "The actor is dead because its worker process has died."), None),
        (TRACEBACK.format(error="ValueError: line one"), None),
        ("", None),
    ],
)
def test_rays_words_tell_a_lost_node_from_a_process_that_died(report: str, fault: Fault | None) -> None:
    assert fault_of(report, NAMES) == fault


def test_the_last_of_several_failures_counts() -> None:
    first = "Failure # 1 (occurred at noon)\n" + TRACEBACK.format(error="OSError: old")
    second = "Failure # 2 (occurred at one)\n" + DIED.format("10.0.0.1", "its worker process has died")
    assert "old" not in last_failure(first + second)
    assert error_line(last_failure(first + second)).startswith("its process died")
    assert error_line(last_failure(first)) == "OSError: old"
    assert last_failure("") == ""


def test_a_fault_is_one_line() -> None:
    assert Fault("a", "gpu-1", "no model").line == "failure of node gpu-1: no model"

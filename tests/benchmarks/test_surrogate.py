"""Recorded curves, and settings answered by them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from made_curves import curve, curves, settings, write
from surrogate import RUNGS, Surrogate, load_curves


def test_settings_get_the_curve_of_the_nearest_rate() -> None:
    surrogate = Surrogate(curves())
    assert surrogate.curve(settings(1.9e-3)).settings["learning_rate"] == 2e-3
    assert surrogate.curve(settings(1e-4)).settings["learning_rate"] == 3e-4


def test_a_scale_moves_as_half_a_rate() -> None:
    """So that of two neighbours the one wins that is a little off in the rate, not much off in the scale."""
    known = [replace(curve(), settings=settings(2e-3, alpha=64)), replace(curve(), settings=settings(1.6e-3))]
    assert Surrogate(known).curve(settings(2e-3)).settings["alpha"] == 32


def test_held_out_worth_is_read_at_the_evaluation_that_validation_chose() -> None:
    chosen = replace(
        curve(rungs=3),
        validation={"accuracy": (0.5, 0.8, 0.7), "loss": (1.0, 0.9, 0.6)},
        held_out={"accuracy": (0.4, 0.6, 0.9), "loss": (1.1, 1.0, 0.7)},
    )
    assert (chosen.best(), chosen.worth()) == (0.8, 0.6)
    assert (chosen.best("loss"), chosen.worth("loss")) == (0.6, 0.7)
    assert chosen.worth("accuracy", of="loss") == 0.9


def test_a_curve_without_evaluations_is_worth_nothing() -> None:
    nothing = curve(rungs=0)
    assert (nothing.best(), nothing.worth()) == (0.0, 0.0)
    assert nothing.best("loss") == nothing.worth("loss") == float("inf")


def test_curves_are_read_as_they_were_recorded(tmp_path: Path) -> None:
    recorded = [curve(luck=0.01), curve(5e-3, rungs=4)]
    read = load_curves(write(tmp_path / "set.jsonl", recorded))
    assert [len(each) for each in read] == [RUNGS, 4]
    assert read[0].validation["accuracy"] == pytest.approx(recorded[0].validation["accuracy"])
    assert read[0].held_out["loss"] == pytest.approx(recorded[0].held_out["loss"])
    assert read[1].seconds == pytest.approx((1.0,) * 4)


def test_a_curve_is_predicted_without_itself() -> None:
    errors = Surrogate(curves()).leave_one_out()
    assert 0.02 < errors.nearest < errors.mean
    assert errors.rank_correlation > 0

"""The rows that a comparison has."""

from __future__ import annotations

from compared import SETTINGS, WINNER

from lorasweep.training.settings import Hyperparameters
from lorasweep.tuning.compare.rows import row_plans, untuned_for


def test_the_studys_rows_and_the_winner() -> None:
    plans = row_plans(SETTINGS, WINNER)
    assert [(plan.id, plan.hyperparameters.method, plan.precision) for plan in plans] == [
        ("full-fp32", "full", "fp32"),
        ("full-amp", "full", "auto"),
        ("lora-fp32", "lora", "fp32"),
        ("lora-amp", "lora", "auto"),
        ("tuned", "lora", "auto"),
    ]
    rates = [plan.hyperparameters.learning_rate for plan in plans]
    assert rates == [1e-4, 1e-4, 2e-5, 2e-5, 2e-3]
    assert [plan.hyperparameters.batch_size for plan in plans] == [32, 32, 32, 32, 16]
    plain = plans[3].hyperparameters
    assert (plain.rank, plain.alpha, plain.target_modules) == (8, 16, "query-value")
    assert all(f"{rate:.1e}" in plan.about for plan, rate in zip(plans[:4], rates[:4], strict=True))


def test_baselines_that_were_tuned_have_the_rates_that_were_found() -> None:
    plans = {plan.id: plan for plan in row_plans(SETTINGS, WINNER, full_rate=3e-5, lora_rate=4e-3)}
    assert (
        plans["full-fp32"].hyperparameters.learning_rate
        == plans["full-amp"].hyperparameters.learning_rate
        == 3e-5
    )
    assert plans["lora-amp"].hyperparameters.learning_rate == 2e-5
    assert plans["lora-rate"].hyperparameters.learning_rate == 4e-3
    assert plans["full-amp"].about.endswith(", tuned")


def test_merged_labels_bring_a_row_of_unmerged_ones() -> None:
    *_, tuned, unmerged = row_plans(SETTINGS, WINNER, unmerged_classes=41)
    assert tuned.hyperparameters == unmerged.hyperparameters
    assert (tuned.unmerged, unmerged.unmerged) == (False, True)
    assert "41 classes" in unmerged.name


def test_a_winner_that_is_trained_whole_is_called_so() -> None:
    assert (
        row_plans(SETTINGS, Hyperparameters(method="full", learning_rate=1e-4))[-1].name == "tuned full + AMP"
    )


def test_plain_lora_takes_the_pattern_where_a_model_has_no_presets() -> None:
    assert untuned_for(Hyperparameters(target_modules=r".*[.]q")).target_modules == r".*[.]q"
    assert untuned_for(Hyperparameters(target_modules="all-linear")).target_modules == "query-value"
    assert untuned_for(Hyperparameters(method="full", target_modules="x")).target_modules == "query-value"

"""What was searched: from the study, from the records, and what decided."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import optuna
import pytest
from drawn_trials import KINDS, TRIALS, only, trial
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from lorasweep.tuning.record.folder import TrialRecord
from lorasweep.tuning.report.plots import settings as plot_settings
from lorasweep.tuning.report.searched import importance_of, searched_of
from lorasweep.tuning.search.study import WARM


def study_of(trials: Sequence[TrialRecord], warm: int = 0, **more: BaseDistribution) -> optuna.Study:
    """A study in which the records' trials stand, after `warm` of another sweep."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize")
    study.set_user_attr(WARM, warm)
    kinds = KINDS | more
    for number in range(-warm, len(trials)):
        settings = trials[max(number, 0)].hyperparameters.model_dump() | ({"rank": 32} if number < 0 else {})
        values = {name: settings.get(name, 2) for name in kinds} | {"alpha": int(settings["alpha"])}
        done = number >= 0 and trials[number].state == "completed"
        study.add_trial(
            create_trial(
                state=TrialState.COMPLETE if done else TrialState.PRUNED,
                value=trials[number].score if done else None,
                params=values,
                distributions=kinds,
            )
        )
    return study


def test_what_was_searched_is_read_from_the_study() -> None:
    """Own trials behind those of a warm start; helpers of a function too; nothing that `full` has no use for."""
    trials = [*TRIALS[:3], trial(3, [0.4], method="full")]
    helper = CategoricalDistribution((1, 2))
    searched = searched_of(trials, study_of(trials, warm=2, _ratio=helper))
    assert searched.distributions == KINDS | {"_ratio": helper}
    assert [searched.values[f"t00{number}"]["rank"] for number in range(3)] == [4, 8, 16]
    assert searched.values["t000"]["_ratio"] == 2
    assert set(searched.values["t003"]) == {"base_dropout", "learning_rate", "batch_size", "_ratio"}


def test_without_a_study_the_records_tell() -> None:
    """With the space's distributions a value is its own choice; without them the values must tell."""
    known = searched_of(TRIALS, known=KINDS)
    assert known.distributions == KINDS
    assert known.values["t000"]["alpha"] == 8
    assert isinstance(known.values["t000"]["alpha"], int), "a record holds 8.0, the space says 8"
    assert known.values["t000"]["base_dropout"] is None
    odd = searched_of([trial(0, [0.5], rank=5, learning_rate=0.9, dropout=0.7)], known=KINDS)
    assert set(odd.values["t000"]) == {"alpha", "base_dropout", "batch_size"}, "outside the space"
    guessed = searched_of([trial(number, [0.5]) for number in range(9)]).distributions
    assert guessed["learning_rate"] == FloatDistribution(1e-4, 1e-2, log=True)
    assert guessed["batch_size"] == FloatDistribution(8, 12)
    assert guessed["base_dropout"] == CategoricalDistribution((None, 0.0, 0.1))


def test_branches_of_a_space_are_joined() -> None:
    """A function may draw one name from several ranges."""
    study = optuna.create_study()
    kinds = [FloatDistribution(1e-3, 1e-2, log=True), FloatDistribution(1e-5, 1e-4, log=True)]
    for kind, value in zip(kinds, (2e-3, 2e-5), strict=True):
        study.add_trial(create_trial(value=0.5, params={"x": value}, distributions={"x": kind}))
    trials = [trial(0, [0.5]), trial(1, [0.6])]
    searched = searched_of(trials, study)
    assert searched.distributions == {"x": FloatDistribution(1e-5, 1e-2, log=True)}
    assert [searched.values[t.id]["x"] for t in trials] == [2e-3, 2e-5]


@pytest.mark.parametrize("metric", ["accuracy", "loss"])
def test_importances_count_stopped_trials(metric: Any) -> None:
    """Only the rate decides, and only two trials have completed: Optuna alone would know next to nothing."""
    trials = [
        trial(
            number, [0.9 if number % 9 > 6 else 0.2 + 0.01 * number], "completed" if number < 2 else "stopped"
        )
        for number in range(40)
    ]
    if metric == "loss":
        trials = [t.model_copy(update={"score": 1 - (t.score or 0.0)}) for t in trials]
    searched = searched_of(trials, known=KINDS)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    shares = importance_of(searched, trials, metric)
    assert optuna.logging.get_verbosity() == optuna.logging.WARNING
    assert next(iter(shares)) == "learning_rate"
    assert shares["learning_rate"] > 0.5
    assert sum(shares.values()) == pytest.approx(1)
    assert shares == importance_of(searched, trials, metric)
    axes = only(plot_settings.importances(searched, trials, metric))
    assert axes.get_yticklabels()[-1].get_text() == "rate", "the largest on top"


@pytest.mark.parametrize(("count", "part"), [(4, 1 / 3), (12, 1 / 3), (20, 0.25), (50, 0.1), (90, 0.1)])
def test_the_best_part_grows_with_the_sweep(count: int, part: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the trials, but 5 where there are so many, and never more than a third."""
    parts: list[float] = []
    evaluator = optuna.importance.PedAnovaImportanceEvaluator

    def record(*, target_quantile: float) -> Any:
        parts.append(target_quantile)
        return evaluator(target_quantile=target_quantile)

    monkeypatch.setattr(optuna.importance, "PedAnovaImportanceEvaluator", record)
    trials = [trial(number, [number / 100]) for number in range(count)]
    assert importance_of(searched_of(trials, known=KINDS), trials, "accuracy")
    assert parts == [pytest.approx(part)]


def test_no_importance_is_made_up() -> None:
    """Too few trials, or all alike, or some without the setting."""
    trials = [trial(number, [0.1 * number]) for number in range(5)]
    searched = searched_of(trials, known=KINDS)
    assert plot_settings.importances(searched, trials, "accuracy") is not None
    assert plot_settings.importances(searched, trials[:3], "accuracy") is None
    assert (
        plot_settings.importances(searched, [*trials[:3], trial(9, [math.nan]), TRIALS[2]], "accuracy")
        is None
    )
    assert (
        plot_settings.importances(searched, [trial(number, [0.5]) for number in range(5)], "accuracy") is None
    )
    mixed = [*trials, *(trial(number, [0.5], method="full") for number in range(5, 9))]
    assert "rank" in importance_of(searched_of(mixed, known=KINDS), mixed, "accuracy")

"""What the trials drew: from the study, from the records, and as a study whose texts may be shown."""

from __future__ import annotations

import math
from collections.abc import Sequence

import optuna
from drawn_trials import KINDS, TRIALS, drawn, trial
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from lorasweep.tuning.record.trial_records import TrialRecord
from lorasweep.tuning.report.plots.data import plot_data
from lorasweep.tuning.report.reading import own_trials
from lorasweep.tuning.search.study import WARM

SHOWN = {
    "rank": KINDS["rank"],
    "alpha": KINDS["alpha"],
    "base dropout": CategoricalDistribution(("null", "0", "0.1")),
    "rate": KINDS["learning_rate"],
    "dropout": KINDS["dropout"],
    "batch": KINDS["batch_size"],
}


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
    data = plot_data(trials, "accuracy", drawn=own_trials(study_of(trials, warm=2, _ratio=helper)))
    assert data.kinds == SHOWN | {"ratio": helper}
    assert data.domains[:1] == [("rank", "4, 8, 16, 32")]
    assert data.domains[-1] == ("_ratio", "1, 2")
    assert [data.values[f"t00{number}"]["rank"] for number in range(3)] == [4, 8, 16]
    assert data.values["t000"]["ratio"] == 2
    assert set(data.values["t003"]) == {"base dropout", "rate", "batch", "ratio"}


def test_without_a_study_the_records_tell() -> None:
    """With the space's distributions a value is its own choice; without them the values must tell."""
    known = drawn(TRIALS)
    assert known.kinds == SHOWN
    assert repr(known.values["t000"]["alpha"]) == "8", "a record holds 8.0, the space says 8"
    assert known.values["t000"]["base dropout"] == "null"
    odd = drawn([trial(0, [0.5], rank=5, learning_rate=0.9, dropout=0.7)])
    assert set(odd.values["t000"]) == {"alpha", "base dropout", "batch"}, "outside the space"
    guessed = plot_data([trial(number, [0.5]) for number in range(9)], "accuracy").kinds
    assert guessed["rate"] == FloatDistribution(1e-4, 1e-2, log=True)
    assert guessed["batch"] == FloatDistribution(8, 12)
    assert guessed["base dropout"] == CategoricalDistribution(("null", "0", "0.1"))


def test_branches_of_a_space_are_joined() -> None:
    """A function may draw one name from several ranges."""
    study = optuna.create_study()
    kinds = [FloatDistribution(1e-3, 1e-2, log=True), FloatDistribution(1e-5, 1e-4, log=True)]
    for kind, value in zip(kinds, (2e-3, 2e-5), strict=True):
        study.add_trial(create_trial(value=0.5, params={"x": value}, distributions={"x": kind}))
    trials = [trial(0, [0.5]), trial(1, [0.6])]
    data = plot_data(trials, "accuracy", drawn=own_trials(study))
    assert data.kinds == {"x": FloatDistribution(1e-5, 1e-2, log=True)}
    assert [data.values[t.id]["x"] for t in trials] == [2e-3, 2e-5]


def test_optunas_plots_get_every_trial_with_a_score() -> None:
    """Those that ASHA stopped too, under the records' order; the rest without a value; Optuna says nothing of it."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = drawn([*TRIALS, trial(6, [math.inf])], "loss").study
    assert optuna.logging.get_verbosity() == optuna.logging.WARNING
    assert study.direction.name == "MINIMIZE"
    values = [t.value if t.state == TrialState.COMPLETE else None for t in study.trials]
    assert values == [0.6, 0.2, None, 0.9, 0.33, None, None]
    assert study.trials[2].params == drawn(TRIALS).values["t002"]


def test_names_that_are_shown_alike_stay_apart() -> None:
    """Long ones lose their middle, and choices may differ in type alone."""
    kinds = {
        f"a_{'long' * 8}_name_{'long' * 8}": CategoricalDistribution((1, "1", 1.5)),
        f"a_{'long' * 8}_same_{'long' * 8}": FloatDistribution(0, 1),
    }
    study = optuna.create_study()
    for n in range(2):
        values = (kinds[next(iter(kinds))].choices[n], 0.5)
        study.add_trial(
            create_trial(value=n, params=dict(zip(kinds, values, strict=True)), distributions=kinds)
        )
    data = plot_data([trial(0, [0.5]), trial(1, [0.6])], "accuracy", drawn=own_trials(study))
    assert len(data.kinds) == 2
    assert [len(set(values.values())) for values in data.values.values()] == [2, 2]
    first = next(iter(data.kinds))
    assert data.values["t000"][first] != data.values["t001"][first]

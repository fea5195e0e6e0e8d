"""The space for the next search: it loads, holds its starts, and says for each line why."""

from __future__ import annotations

import re
from math import log
from pathlib import Path

import numpy as np
import pytest
from scored_trials import drawn, scored

from lorasweep.search_spaces.domains import Choice, Domain, IntRange, Range
from lorasweep.search_spaces.fields import check_value
from lorasweep.search_spaces.function_space import FunctionSpace
from lorasweep.search_spaces.space import SearchSpace, load_space, shipped_spaces
from lorasweep.training.errors import SettingsError
from lorasweep.training.settings import Hyperparameters, Metric
from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.sweep import SweepRecord
from lorasweep.tuning.record.trial_records import TrialRecord
from lorasweep.tuning.search.evidence import Evidence
from lorasweep.tuning.search.next_space import NextSpace, next_space, next_space_after

RATE = SearchSpace("rate", {"learning_rate": Range(1e-4, 1e-2, log=True), "batch_size": 16})


def by_rate(chosen: Hyperparameters, best: float = 1e-3) -> float:
    return 0.9 - abs(log(chosen.learning_rate / best)) / 10


def after(space: SearchSpace, trials: list[TrialRecord], metric: Metric = "accuracy") -> NextSpace:
    return next_space("news", Evidence(space, trials, metric), trials)


MODULES = SearchSpace(
    "modules",
    {
        "target_modules": Choice(("attention", "query-value", "all-linear")),
        "dropout": Choice((0.0, 0.1)),
    },
)


def by_modules(*scores: float) -> list[TrialRecord]:
    """Thirteen trials with each of the modules, of these scores; a little better with dropout."""
    settings = [
        {"target_modules": ("attention", "query-value", "all-linear")[n % 3], "dropout": (0.0, 0.1)[n % 2]}
        for n in range(39)
    ]
    return scored(MODULES, settings, [scores[n % 3] + n % 2 / 1000 for n in range(39)])


def near(name: str, best: float) -> SearchSpace:
    """A space of one range of the hyperparameter, whose trials are the better the nearer they are to `best`."""
    ranges = {
        "dropout": Range(0.0, 0.2),
        "label_smoothing": Range(0.5, 0.9),
        "rank": IntRange(4, 64, step=4),
        "batch_size": IntRange(2, 64, log=True),
        "learning_rate": Range(1e-4, 1e-2, log=True),
    }
    return after(
        SearchSpace(name, {name: ranges[name]}),
        drawn(SearchSpace(name, {name: ranges[name]}), 30, lambda h: -abs(getattr(h, name) - best)),
    ).space


def test_a_range_is_narrowed_to_where_the_good_trials_lie() -> None:
    trials = drawn(RATE, 30, by_rate)
    made = after(RATE, trials)
    domain = made.space.parameters["learning_rate"]
    assert isinstance(domain, Range)
    assert domain.log
    assert 1e-4 < domain.low < 7e-4
    assert 1.5e-3 < domain.high < 6e-3
    assert made.changed == ["learning_rate"]
    good = sorted(trial.hyperparameters.learning_rate for trial in Evidence(RATE, trials, "accuracy").good)
    assert domain.low < good[0] < good[-1] < domain.high
    reason = made.reasons["learning_rate"]
    assert reason.startswith("narrowed from 1e-4 ... 0.01 (log): the good trials lie at ")
    assert reason.endswith("22 trials outside")
    assert float(f"{domain.low:.2g}") == domain.low, "a number that a person would write"


def test_a_range_is_widened_past_the_end_that_the_best_touch() -> None:
    made = after(RATE, drawn(RATE, 30, lambda h: by_rate(h, 1e-2)))
    domain = made.space.parameters["learning_rate"]
    assert isinstance(domain, Range)
    # A quarter of two decades further.
    assert domain.high == pytest.approx(1e-2 * 10**0.5, rel=0.05)
    assert domain.low > 1e-4
    assert "widened past 0.01: the best lie at this end" in made.reasons["learning_rate"]


@pytest.mark.parametrize(
    ("name", "best", "low", "high"),
    [
        ("dropout", 0.0, 0.0, None),  # there is none below
        ("label_smoothing", 0.9, None, 0.95),  # 1 itself is not allowed
        ("rank", 64, None, 80),
        ("rank", 4, 4, None),  # steps of 4 from 4 do not hold 1
        ("batch_size", 2, 1, None),
        ("learning_rate", 1e-4, 3.1e-5, None),
    ],
)
def test_no_range_leaves_what_the_hyperparameter_takes(
    name: str, best: float, low: float | None, high: float | None
) -> None:
    domain = near(name, best).parameters[name]
    assert isinstance(domain, Range | IntRange)
    domain.check(name)
    assert low in (None, domain.low)
    assert high in (None, domain.high)


def test_choices_that_were_never_good_are_left_out() -> None:
    made = after(MODULES, by_modules(0.5, 0.9, 0.88))
    assert made.space.parameters["target_modules"] == "query-value"
    why = "no good trial had attention (13 trials), all-linear (13 trials)"
    assert made.reasons["target_modules"] == why
    assert made.reasons["dropout"] == "as before: nothing here sets the good trials apart"


def test_a_choice_within_noise_of_the_best_stays() -> None:
    trials = [
        trial.model_copy(
            update={
                "evaluations": tuple(e.model_copy(update={"standard_error": 0.03}) for e in trial.evaluations)
            }
        )
        for trial in by_modules(0.5, 0.9, 0.88)
    ]
    assert after(MODULES, trials).space.parameters["target_modules"] == Choice(("query-value", "all-linear"))


@pytest.mark.parametrize(
    ("name", "values", "best", "expected"),
    [
        ("rank", (4, 8, 16), 16, (32,)),
        ("rank", (4, 8, 16), 4, (2,)),
        ("rank", (1, 2, 4), 1, (1,)),  # none below
        ("dropout", (0.0, 0.05, 0.1), 0.1, (0.2,)),
        ("dropout", (0.0, 0.05, 0.1), 0.0, (0.0,)),
        ("alpha", (16, 32), 32, (64,)),
        ("rank", (4, 512, 1024), 1024, (1024,)),  # the highest there is
    ],
)
def test_a_choice_goes_on_past_its_end(
    name: str, values: tuple[float, ...], best: float, expected: tuple[float, ...]
) -> None:
    """In the same proportion as before."""
    space = SearchSpace("choice", {name: Choice(values), "learning_rate": Range(1e-4, 1e-2, log=True)})
    made = after(space, drawn(space, 60, lambda h: float(getattr(h, name) == best) + h.learning_rate))
    domain = made.space.parameters[name]
    numbers = domain.values if isinstance(domain, Choice) else (domain,)
    assert set(expected) <= set(numbers)
    assert all(type(number) is type(values[0]) for number in numbers)
    assert {*numbers} <= {*values, *expected}
    assert ("is new" in made.reasons[name]) == (expected[0] not in values)


def test_what_does_not_matter_keeps_the_best_trials_value() -> None:
    space = SearchSpace("two", {**RATE.parameters, "dropout": Choice((0.0, 0.1))})
    rates = [1e-4 * 10 ** (n // 2 / 29 * 2) for n in range(60)]
    settings = [{"learning_rate": rate, "dropout": (0.0, 0.1)[n % 2]} for n, rate in enumerate(rates)]
    trials = scored(space, settings, [by_rate(space.hyperparameters(values)) for values in settings])
    made = after(space, trials)
    assert (
        made.space.parameters["dropout"]
        == Evidence(space, trials, "accuracy").ranked[0].hyperparameters.dropout
    )
    assert re.fullmatch(
        r"constant, at the best trial's value: \d % of what sets the best trials apart, by 60 trials",
        made.reasons["dropout"],
    )
    assert all(list(start) == ["learning_rate"] for start in made.space.starts)


def test_something_is_left_to_search() -> None:
    space = SearchSpace("one", {"target_modules": Choice(("attention", "query-value"))})
    settings = [{"target_modules": ("attention", "query-value")[n % 2]} for n in range(40)]
    made = after(space, scored(space, settings, [float(n % 2) for n in range(40)]))
    assert made.space.parameters == space.parameters
    assert made.reasons["target_modules"] == "as before: something has to be searched"


def test_the_starts_are_the_best_trials() -> None:
    """The best three that are not nearly the same, those on all rows first; their values as the space writes them."""
    space = SearchSpace("two", {"alpha": Choice((16, 32)), "learning_rate": Range(1e-4, 1e-2, log=True)})
    rates = [1e-3, 1.02e-3, 2e-3, 4e-3, 6e-3, 8e-3]
    settings = [{"alpha": 32.0, "learning_rate": rate} for rate in rates]
    trials = scored(space, settings, [0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    made = after(space, trials)
    assert [start["learning_rate"] for start in made.space.starts] == [1e-3, 2e-3, 4e-3]
    assert (
        made.reasons["starts"] == "the best trials of news, tried first: t000 90.0%, t002 70.0%, t003 60.0%"
    )
    assert "{alpha: 32, " in made.to_yaml()
    finalists = [
        trial.model_copy(
            update={"id": f"f{n}", "number": 10 + n, "finalist_of": trial.id, "score": 0.3 + n / 100}
        )
        for n, trial in enumerate(trials[4:])
    ]
    again = after(space, [*trials, *finalists])
    assert [start["learning_rate"] for start in again.space.starts] == [8e-3, 6e-3, 1e-3]


def test_a_bad_trial_is_no_start() -> None:
    """However few good ones there are that differ."""
    made = after(MODULES, by_modules(0.5, 0.9, 0.88))
    assert made.space.starts == ({"dropout": 0.1}, {"dropout": 0.0}), "not a third, of other modules"


def test_few_trials_change_nothing_but_the_starts() -> None:
    made = after(RATE, drawn(RATE, 5, by_rate))
    assert made.space.parameters == RATE.parameters
    assert "5 trials with a score" in made.head
    assert "Too few to judge a range (8 are needed)" in made.head
    assert len(made.space.starts) == 3
    assert made.changed == []


@pytest.mark.parametrize("space", [*shipped_spaces(), RATE], ids=lambda space: space.name)
@pytest.mark.parametrize("count", [1, 9, 40])
def test_it_is_a_space_like_any_other(space: SearchSpace, count: int, tmp_path: Path) -> None:
    """It loads as what it was made as, holds its starts and allowed values alone, and each line says why."""
    for seed in range(6):
        luck = np.random.default_rng(seed)
        trials = drawn(
            space, count, lambda h, luck=luck: -abs(log(h.learning_rate / 1e-3)) + luck.normal(), seed=seed
        )
        made = after(space, trials)
        file = tmp_path / "after-news.yaml"
        file.write_text(made.to_yaml())
        loaded = load_space(str(file))
        assert loaded == made.space
        assert 1 <= len(made.space.starts) <= 3
        for name, domain in made.space.parameters.items():
            domain.check(name) if isinstance(domain, Domain) else check_value(name, domain)
        lines = made.to_yaml().splitlines()
        for name in (*space.parameters, "starts"):
            line = next(n for n, text in enumerate(lines) if text.startswith(f"{name}:"))
            assert lines[line - 1].startswith("# ")
            assert made.reasons[name] in lines[line - 1]


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    folder = SweepFolder(tmp_path, "news")
    folder.create(SweepConfig(name="news"))
    return folder


def test_it_is_made_from_a_sweeps_records(folder: SweepFolder) -> None:
    folder.write_space(RATE)
    with pytest.raises(
        SettingsError, match=r"^sweep news: no trial has a score yet; go on with it: lorasweep resume"
    ):
        next_space_after(SweepRecord(folder))
    trials = drawn(RATE, 30, by_rate)
    for trial in trials:
        folder.write_trial(trial)
    assert next_space_after(SweepRecord(folder)) == after(RATE, trials)


def test_a_function_is_not_rewritten(folder: SweepFolder, tmp_path: Path) -> None:
    """Its code is not run either."""
    (tmp_path / "mine.py").write_text("raise SystemExit")
    folder.write_space(FunctionSpace(tmp_path / "mine.py", "space"))
    with pytest.raises(
        SettingsError, match=r"^sweep news: searched a Python function, .*; change the function"
    ):
        next_space_after(SweepRecord(folder))


KNOBS = SearchSpace(
    "knobs",
    {
        "rank_pattern": Choice((None, "query=16,value=8", "query=4")),
        "init": Choice(("default", "pissa", "olora")),
        "loss": Choice(("cross_entropy", "focal")),
        "focal_gamma": Range(0.5, 5.0),
        "lora_plus_ratio": Range(1.0, 16.0, log=True),
    },
)


def test_settings_of_words_are_judged_as_any_other() -> None:
    """What is left is written and read back, with starts in it; null is a choice like any other."""

    def by_words(chosen: Hyperparameters) -> float:
        worse = 0.2 * (chosen.rank_pattern == "query=4") + 0.2 * (chosen.init == "olora")
        return 0.9 - worse - 0.001 * chosen.focal_gamma

    made = after(KNOBS, drawn(KNOBS, 90, by_words))
    assert made.space.parameters["rank_pattern"] == Choice((None, "query=16,value=8"))
    assert made.space.parameters["init"] == Choice(("default", "pissa"))
    assert SearchSpace.from_yaml(made.to_yaml(), made.space.name) == made.space
    assert all("rank_pattern" in start for start in made.space.starts)


def test_what_goes_with_a_choice_goes_when_the_choice_does() -> None:
    trials = drawn(
        KNOBS, 60, lambda chosen: 0.3 if chosen.loss == "focal" else 0.9 - 0.01 * (chosen.init == "olora")
    )
    made = after(KNOBS, trials)
    assert made.space.parameters["loss"] == "cross_entropy"
    assert "focal_gamma" not in made.space.parameters
    assert "focal_gamma" in made.changed
    assert SearchSpace.from_yaml(made.to_yaml(), made.space.name) == made.space

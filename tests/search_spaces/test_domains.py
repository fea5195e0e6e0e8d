import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from lorasweep.search_spaces.domains import Choice, IntRange, Range, from_distribution, parse, show
from lorasweep.training.errors import SettingsError


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2e-3, "2e-3"),
        (0.00015, "1.5e-4"),
        (5e-05, "5e-5"),
        (0.01, "0.01"),
        (0.0, "0"),
        (0.05, "0.05"),
        (1.0, "1"),
        (16, "16"),
        ("all-linear", "all-linear"),
        (None, "null"),
    ],
)
def test_show(value, text):
    assert show(value) == text


DOMAINS = [
    ({"choice": [4, 8, 16]}, Choice((4, 8, 16)), CategoricalDistribution((4, 8, 16)), "4, 8, 16"),
    ({"choice": [None, 0.1]}, Choice((None, 0.1)), CategoricalDistribution((None, 0.1)), "null, 0.1"),
    ({"uniform": [0, 0.2]}, Range(0, 0.2), FloatDistribution(0, 0.2), "0 ... 0.2"),
    (
        {"loguniform": [1e-4, 1e-2]},
        Range(1e-4, 1e-2, log=True),
        FloatDistribution(1e-4, 1e-2, log=True),
        "1e-4 ... 0.01 (log)",
    ),
    ({"int": [4, 64]}, IntRange(4, 64), IntDistribution(4, 64), "4 ... 64"),
    (
        {"int": [4, 64], "log": True},
        IntRange(4, 64, log=True),
        IntDistribution(4, 64, log=True),
        "4 ... 64 (log)",
    ),
    (
        {"int": [4, 64], "step": 4},
        IntRange(4, 64, step=4),
        IntDistribution(4, 64, step=4),
        "4 ... 64 (step 4)",
    ),
]


@pytest.mark.parametrize(("written", "domain", "distribution", "text"), DOMAINS)
class TestEachKind:
    def test_read_and_written(self, written, domain, distribution, text):
        assert parse(written) == domain
        assert domain.written() == written

    def test_words(self, written, domain, distribution, text):
        assert str(domain) == text == from_distribution(distribution)

    def test_optuna_samples_from_it(self, written, domain, distribution, text):
        assert domain.distribution() == distribution
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
        for _ in range(30):
            trial = study.ask()
            assert domain.suggest(trial, "x") in domain
            assert trial.distributions == {"x": distribution}


@pytest.mark.parametrize(
    ("domain", "inside", "outside"),
    [
        (Choice((4, 8)), [4, 8], [6, "4", None]),
        (Range(0.1, 0.5), [0.1, 0.5, 0.3], [0.09, 0.51, "0.3", None]),
        (IntRange(4, 64, step=4), [4, 8, 64], [3, 5, 68, 8.0, "8"]),
    ],
)
def test_contains(domain, inside, outside):
    assert all(value in domain for value in inside)
    assert not any(value in domain for value in outside)


@pytest.mark.parametrize("value", [8, 0.1, "all-linear", None])
def test_a_single_value_is_a_constant(value):
    assert parse(value) == value


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (
            {"chioce": [4, 8]},
            "chioce is not a domain (did you mean choice?); name one of choice, uniform, log",
        ),
        ({"low": 4, "high": 8}, "low, high is not a domain; name one of"),
        ({}, "nothing is not a domain"),
        ({"int": [1, 4], "choice": [1, 4]}, "int, choice is not a domain"),
        ([4, 8], "[4, 8] is a list; write {choice: [4, 8]} to search over it"),
        ({"choice": []}, "choice needs at least two values, not []"),
        ({"choice": [8]}, "choice needs at least two values, not [8]; write a constant as it is"),
        ({"choice": [4, 8, 4]}, "4 stands twice in the choice"),
        ({"choice": [["query"], ["key"]]}, "a choice must be a single value, not ['query']"),
        ({"choice": "lora"}, "choice takes a list in brackets, not 'lora'"),
        ({"choice": [4, 8], "log": True}, "log does not go with choice, which takes no options"),
        ({"uniform": [0.1, 0.1]}, "the range 0.1 ... 0.1 is empty; write uniform: [low, high]"),
        ({"uniform": [0.5, 0.1]}, "the range 0.5 ... 0.1 is empty"),
        ({"uniform": [0.5]}, "uniform takes two numbers, [low, high], not [0.5]"),
        ({"uniform": [0.1, 0.2, 0.3]}, "uniform takes two numbers, [low, high], not [0.1, 0.2, 0.3]"),
        ({"uniform": ["low", 0.5]}, "uniform takes two numbers, [low, high], not 'low'"),
        ({"uniform": [0.1, float("inf")]}, "uniform takes two numbers, [low, high], not inf"),
        ({"uniform": [False, True]}, "uniform takes two numbers, [low, high], not False"),
        (
            {"uniform": [0.1, 0.2], "log": True},
            "log does not go with uniform, which takes no options; use log",
        ),
        ({"loguniform": [0, 0.1]}, "loguniform must begin above 0, not at 0"),
        ({"loguniform": [-1e-4, 0.1]}, "loguniform must begin above 0"),
        ({"int": [8, 4]}, "the range 8 ... 4 is empty; write int: [low, high]"),
        ({"int": [4, 8.5]}, "int takes whole numbers, not 8.5"),
        ({"int": [4, 8], "base": 2}, "base does not go with int, which takes only log and step"),
        ({"int": [4, 8], "log": "yes"}, "log is true or false, not 'yes'"),
        ({"int": [4, 8], "step": 0}, "step must be at least 1, not 0"),
        ({"int": [4, 8], "step": 1.5}, "int takes whole numbers, not 1.5"),
        ({"int": [4, 8], "step": 2, "log": True}, "int takes log or step, not both"),
        ({"int": [0, 8], "log": True}, "int with log must begin at 1 or above, not at 0"),
        ({"int": [4, 63], "step": 4}, "steps of 4 from 4 do not reach 63; end at 60 or 64"),
    ],
)
def test_refused(written, message):
    with pytest.raises(SettingsError) as refusal:
        parse(written)
    assert str(refusal.value).startswith(message)
    assert "\n" not in str(refusal.value)


def test_fractions_for_a_whole_number_are_refused():
    with pytest.raises(
        SettingsError, match=r"^rank: uniform draws fractions, but it takes a whole number.*use int"
    ):
        Range(4, 16).check("rank")


@pytest.mark.parametrize(
    ("domain", "name", "value"),
    [
        (Range(0.0, 0.5), "alpha", "0.0"),
        (Range(0.5, 1.0), "dropout", "1.0"),
        (IntRange(0, 8), "rank", "0"),
        (IntRange(8, 2048), "rank", "2048"),
        (Choice(("lora", "qlora")), "method", "'qlora'"),
        (IntRange(1, 2), "method", "1"),
        (Range(1, 2), "method", "1.0"),
    ],
)
def test_both_ends_and_every_choice_are_checked(domain, name, value):
    with pytest.raises(SettingsError, match=rf"^{name}: {value} is not allowed; it takes "):
        domain.check(name)

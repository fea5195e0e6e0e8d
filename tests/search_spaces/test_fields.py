import pytest

from lorasweep.search_spaces.fields import allowed, check_name, check_value, field_names, make_hyperparameters
from lorasweep.training.errors import SettingsError
from lorasweep.training.settings import Hyperparameters


def test_every_hyperparameter_is_a_name_and_takes_its_own_default():
    assert set(field_names()) == set(Hyperparameters.model_fields)
    for name, value in Hyperparameters().model_dump().items():
        check_value(name, value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("rank", "a whole number, at least 1 and at most 1024"),
        ("method", "one of lora, rslora, dora, full"),
        ("alpha", "a number, above 0"),
        ("dropout", "a number, at least 0 and below 1"),
        ("base_dropout", "a number, at least 0 and below 1, or null"),
        (
            "target_modules",
            "text (Layers to adapt: a preset, or a regular expression over full module names.)",
        ),
    ],
)
def test_allowed_in_words(name, words):
    assert allowed(name) == words


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rank", 1),
        ("rank", 1024),
        ("alpha", 8),
        ("base_dropout", None),
        ("target_modules", ".*query"),
        ("layers", "6-11"),
    ],
)
def test_taken_values(name, value):
    check_value(name, value)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("rank", "eight", "rank: 'eight' is not allowed; it takes a whole number"),
        ("rank", "8", "rank: '8' is not allowed"),
        ("rank", True, "rank: True is not allowed"),
        ("rank", 8.0, "rank: 8.0 is not allowed"),
        ("rank", 0, "rank: 0 is not allowed; it takes a whole number, at least 1 and at most 1024"),
        ("rank", None, "rank: null is not allowed"),
        ("alpha", float("inf"), "alpha: inf is not allowed; it takes a number, above 0"),
        ("alpha", float("nan"), "alpha: nan is not allowed"),
        ("dropout", 1, "dropout: 1 is not allowed"),
        ("method", "qlora", "method: 'qlora' is not allowed; it takes one of lora, rslora, dora, full"),
        ("target_modules", "(query", "target_modules: '(query' is neither a preset"),
        ("layers", "half", "layers: 'half' is not allowed; it takes text (Adapt all layers, the upper-half"),
        ("layers", "6-11-12", "layers: '6-11-12' is not allowed"),
        ("ranks", 8, "ranks: not a hyperparameter (did you mean rank?); allowed are method, rank"),
    ],
)
def test_refused_values(name, value, message):
    with pytest.raises(SettingsError) as refusal:
        check_value(name, value)
    assert str(refusal.value).startswith(message)
    assert "\n" not in str(refusal.value)


def test_unknown_name_without_a_near_one():
    with pytest.raises(SettingsError, match=r"^xyz: not a hyperparameter; allowed are method, "):
        check_name("xyz")


def test_hyperparameters_keep_defaults():
    assert make_hyperparameters({"rank": 4}) == Hyperparameters(rank=4)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"rank": 4, "dropout": 2.0},
            "dropout: 2.0 is not allowed; it takes a number, at least 0 and below 1",
        ),
        ({"learningrate": 0.1}, "learningrate: not a hyperparameter (did you mean learning_rate?)"),
    ],
)
def test_hyperparameters_refuse(values, message):
    with pytest.raises(SettingsError) as refusal:
        make_hyperparameters(values)
    assert str(refusal.value).startswith(message)

import pickle
import sys

import optuna
import pytest

from lorasweep.search_spaces.function_space import FunctionSpace
from lorasweep.search_spaces.space import load_space
from lorasweep.training.errors import SettingsError
from lorasweep.training.settings import Hyperparameters

CONDITIONAL = '''
from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Ratio:
    low: int = 1


def sample(trial):
    """Alpha follows rank; only DoRA gets dropout."""
    method = trial.suggest_categorical("method", ["lora", "dora"])
    rank = trial.suggest_int("rank", 4, 16, log=True)
    ratio = trial.suggest_categorical("_ratio", [Ratio().low, 2])
    if method == "dora":
        trial.suggest_float("dropout", 0.0, 0.2)
        trial.suggest_float("learning_rate", 1e-4, 1e-3, log=True)
    else:
        trial.suggest_float("learning_rate", 2e-4, 2e-3, log=True)
    return {"alpha": ratio * rank}


def plain(trial):
    trial.suggest_int("rank", 1, 8)
'''


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "mine.py"
        path.write_text(text)
        return path

    return write


def ask():
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=3)).ask()


def test_a_condition_that_yaml_cannot_say(file):
    space = load_space(f"{file(CONDITIONAL)}:sample")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=3))
    methods = set()
    for _ in range(40):
        trial = study.ask()
        values = space.suggest(trial)
        methods.add(values["method"])
        assert ("dropout" in values) == (values["method"] == "dora")
        assert values["alpha"] == values["_ratio"] * values["rank"]
        expected = {name: value for name, value in values.items() if name != "_ratio"}
        assert space.hyperparameters(values) == Hyperparameters(**expected)
    assert methods == {"lora", "dora"}


def test_it_shows_what_it_is(file):
    space = load_space(f"{file(CONDITIONAL)}:sample")
    assert space.name == "mine.py:sample"
    assert space.about == "Alpha follows rank; only DoRA gets dropout."
    assert dict(space.describe()) == {
        "method": "lora, dora",
        "rank": "4 ... 16 (log)",
        "_ratio": "1, 2",
        "dropout": "0 ... 0.2",
        "learning_rate": "1e-4 ... 1e-3 (log) or 2e-4 ... 2e-3 (log)",
    }
    assert set(space.searched) == set(dict(space.describe()))
    assert (space.starts, space.start_points(), space.constants) == ((), [], {})


def test_a_function_may_return_nothing(file):
    space = load_space(f"{file(CONDITIONAL)}:plain")
    values = space.suggest(ask())
    assert set(values) == {"rank"}
    assert space.about == ""


def test_pickling_after_use(file):
    space = load_space(f"{file(CONDITIONAL)}:sample")
    pickled = pickle.dumps(space.suggest)
    # As in another process, which has not loaded the user's file.
    del sys.modules["search_space_of_mine"]
    suggest = pickle.loads(pickled)
    assert suggest(ask()) == space.suggest(ask())
    assert pickle.loads(pickle.dumps(space)) == space


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("def sample(trial:\n    pass\n", "mine.py line 1: sample cannot be loaded: SyntaxError: "),
        (
            "import json\n\nraise ValueError('a\\nb')\n",
            "mine.py line 3: sample cannot be loaded: ValueError: a b",
        ),
        ("def other(trial):\n    pass\n", "mine.py: no function 'sample'; it has other"),
        ("sample = 3\n", "mine.py: no function 'sample'; it has none"),
        ("def sample(trial):\n    return {'rank': 4}\n", "mine.py: sample suggests nothing"),
        (
            "def sample(trial):\n    trial.suggest_int('ranks', 1, 4)\n",
            "mine.py: sample: ranks: not a hyperparameter (did you mean rank?)",
        ),
        (
            "def sample(trial):\n    trial.suggest_int('rank', 0, 1)\n",
            "mine.py: sample: rank: 0 is not allowed; it takes a whole number",
        ),
        (
            "def sample(trial):\n    r = trial.suggest_int('rank', 1, 9)\n"
            "    trial.suggest_categorical('alpha', [r, 2 * r])\n",
            "mine.py line 3: sample failed: ValueError: CategoricalDistribution does not support dynamic",
        ),
        (
            "def sample(trial):\n    trial.suggest_int('rank', 1, 9)\n    return 4\n",
            "mine.py: sample must return a dict or nothing, not 4",
        ),
        ("def sample():\n    pass\n", "mine.py: sample failed: TypeError: "),
    ],
)
def test_refused(file, body, message):
    path = file(body)
    with pytest.raises(SettingsError) as refusal:
        load_space(f"{path}:sample")
    text = str(refusal.value)
    assert text.startswith(f"{path.parent}/{message}")
    assert "\n" not in text


def test_no_such_file(tmp_path):
    with pytest.raises(SettingsError, match=r"none\.py: no such file"):
        load_space(f"{tmp_path}/none.py:sample")
    (tmp_path / "space.txt").write_text(CONDITIONAL)
    space = FunctionSpace(tmp_path / "space.txt", "sample")
    with pytest.raises(SettingsError, match=r"space\.txt: not a Python file; its name must end with \.py"):
        space.check()


def test_the_function_is_asked_for(tmp_path):
    with pytest.raises(SettingsError, match=r"mine\.py: name the function in it, as mine\.py:FUNCTION"):
        load_space("mine.py")

import pickle
import subprocess
import sys
from pathlib import Path

import optuna
import pytest

import lorasweep.search_spaces
from lorasweep.search_spaces.domains import Choice, IntRange, Range
from lorasweep.search_spaces.space import SearchSpace, load_space, shipped_spaces
from lorasweep.training.errors import SettingsError
from lorasweep.training.files.yaml_file import read_yaml
from lorasweep.training.model.target_modules import PRESETS
from lorasweep.training.settings import Hyperparameters

TEXT = """\
about: for these tests
starts:
  - {rank: 8, alpha: 20, learning_rate: 1e-3, target_modules: all-linear}
  - {rank: 4, alpha: 64, learning_rate: 5e-3, target_modules: '.*[.](query|key), x{1}', dropout: 0.05}
rank: {choice: [4, 8]}
alpha: {int: [4, 64], step: 4}
learning_rate: {loguniform: [1e-4, 1e-2]}
target_modules: {choice: [query-value, '.*[.](query|key), x{1}', all-linear]}
dropout: 0.05
base_dropout: null
"""

SHIPPED = sorted(Path(lorasweep.search_spaces.__file__).parent.rglob("*.yaml"))


@pytest.fixture
def space():
    return SearchSpace.from_yaml(TEXT, "mine")


def test_spaces_are_read_without_torch_and_ray():
    code = (
        "import sys, lorasweep.search_spaces.space as s; s.shipped_spaces();"
        "print({'torch', 'transformers', 'ray'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


# What a comparison searches for its baselines: the rate alone.
RATES = {"full_rate", "lora_rate"}


class TestShipped:
    def test_they_are_all_found(self):
        assert {path.stem for path in SHIPPED} == {
            "quickstart",
            "lora_bert",
            "lora_cpu",
            "lora_methods",
            *RATES,
        }
        assert {space.name for space in shipped_spaces()} == {path.stem for path in SHIPPED}

    @pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
    def test_each_loads_and_says_when_to_use_it(self, path):
        space = load_space(path.stem)
        assert space == load_space(str(path))
        assert len(space.about) > 20
        assert set(space.to_mapping()) == set(read_yaml(path))

    @pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
    def test_each_searches_what_matters_most(self, path):
        searched = load_space(path.stem).searched
        if path.stem in RATES:
            assert set(searched) == {"learning_rate"}
            return
        assert {"rank", "alpha", "target_modules", "learning_rate"} <= set(searched)
        assert set(searched["target_modules"].values) <= set(PRESETS)

    @pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
    def test_optuna_takes_the_start_as_it_is_and_stays_inside_afterwards(self, path):
        space = load_space(path.stem)
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=5))
        for start in space.start_points():
            study.enqueue_trial(start)
        assert space.starts
        for number in range(15):
            trial = study.ask()
            values = space.suggest(trial)
            if number < len(space.starts):
                assert values == {**space.constants, **space.starts[number]}
            assert all(values[name] in domain for name, domain in space.searched.items())
            assert trial.distributions == space.distributions()
            assert space.hyperparameters(values) == Hyperparameters(**values)
            study.tell(trial, float(number % 4))


class TestOne:
    def test_parts(self, space):
        assert space.about == "for these tests"
        assert space.searched == {
            "rank": Choice((4, 8)),
            "alpha": IntRange(4, 64, step=4),
            "learning_rate": Range(1e-4, 1e-2, log=True),
            "target_modules": Choice(("query-value", ".*[.](query|key), x{1}", "all-linear")),
        }
        assert space.constants == {"dropout": 0.05, "base_dropout": None}

    def test_yaml_there_and_back(self, space):
        text = space.to_yaml()
        assert SearchSpace.from_yaml(text, "mine") == space
        assert len(text.splitlines()) == len(TEXT.splitlines())
        assert text.splitlines()[1:5] == [
            "starts:",
            "  - {rank: 8, alpha: 20, learning_rate: 0.001, target_modules: all-linear}",
            "  - {rank: 4, alpha: 64, learning_rate: 0.005, target_modules: '.*[.](query|key), x{1}', dropout: 0.05}",
            "rank: {choice: [4, 8]}",
        ]

    def test_rows(self, space):
        assert space.describe() == [
            ("rank", "4, 8"),
            ("alpha", "4 ... 64 (step 4)"),
            ("learning_rate", "1e-4 ... 0.01 (log)"),
            ("target_modules", "query-value, .*[.](query|key), x{1}, all-linear"),
            ("dropout", "0.05"),
            ("base_dropout", "null"),
            ("starts", "rank 8, alpha 20, rate 1e-3, targets all-linear; and 1 more"),
        ]
        assert str(space).splitlines()[0] == "rank: 4, 8"

    def test_hyperparameters_fill_constants_and_defaults(self, space):
        assert space.hyperparameters({"rank": 4}) == Hyperparameters(rank=4, dropout=0.05)
        with pytest.raises(SettingsError, match=r"^rank: 0 is not allowed"):
            space.hyperparameters({"rank": 0})

    def test_pickling(self, space):
        assert pickle.loads(pickle.dumps(space)) == space
        suggest = pickle.loads(pickle.dumps(space.suggest))
        values = suggest(optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask())
        assert set(values) == set(space.parameters)

    @pytest.mark.parametrize("none", ["", "start: {}\n", "starts: []\n"])
    def test_starts_are_optional(self, none):
        space = SearchSpace.from_yaml(none + "rank: {choice: [4, 8]}", "mine")
        assert space.start_points() == []
        assert "start" not in space.to_yaml()
        assert space.describe() == [("rank", "4, 8")]

    def test_one_start_may_stand_alone_as_in_older_sweeps(self):
        text = "start: {rank: 4}\nrank: {choice: [4, 8]}\n"
        space = SearchSpace.from_yaml(text, "mine")
        assert space.starts == ({"rank": 4},)
        assert space == SearchSpace.from_yaml(space.to_yaml(), "mine")
        assert dict(space.describe())["starts"] == "rank 4"

    def test_starts_keep_their_order_and_lose_the_constants(self, space):
        assert space.start_points() == [
            {"rank": 8, "alpha": 20, "learning_rate": 1e-3, "target_modules": "all-linear"},
            {"rank": 4, "alpha": 64, "learning_rate": 5e-3, "target_modules": ".*[.](query|key), x{1}"},
        ]
        there = SearchSpace.from_dict(space.to_mapping(), "mine")
        assert there == space
        assert [list(start) for start in there.start_points()] == [list(space.searched)] * 2

    def test_start_may_repeat_a_constant(self):
        text = "start: {rank: 4, dropout: 0.1}\nrank: {choice: [4, 8]}\ndropout: 0.1\n"
        assert SearchSpace.from_yaml(text, "mine").start_points() == [{"rank": 4}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ranks: {choice: [4, 8]}", "ranks: not a hyperparameter (did you mean rank?); allowed are method"),
        ("rank: {chioce: [4, 8]}", "rank: chioce is not a domain (did you mean choice?)"),
        ("rank: {choice: []}", "rank: choice needs at least two values"),
        ("rank: {choice: [4, eight]}", "rank: 'eight' is not allowed; it takes a whole number"),
        ("rank: eight", "rank: 'eight' is not allowed"),
        ("rank:", "rank: null is not allowed"),
        ("rank: {int: [0, 8]}", "rank: 0 is not allowed"),
        ("rank: {uniform: [4, 8]}", "rank: uniform draws fractions"),
        ("learning_rate: {loguniform: [1e-2, 1e-4]}", "learning_rate: the range 0.01 ... 1e-4 is empty"),
        ("learning_rate: {loguniform: [1e-2, 2]}", "learning_rate: 2.0 is not allowed"),
        ("target_modules: {choice: [[query], [key]]}", "target_modules: a choice must be a single value"),
        ("target_modules: {choice: [attention, '(']}", "target_modules: '(' is neither a preset"),
        ("rank: 4", "nothing to search; give a hyperparameter a domain"),
        ("start: {rank: 4}", "nothing to search"),
        ("about: [a]\nrank: {choice: [4, 8]}", "about: ['a'] is not text"),
        ("start: 4\nrank: {choice: [4, 8]}", "start: 4 is not a mapping"),
        ("start: {rank: 16}\nrank: {choice: [4, 8]}", "start: rank: 16 is outside the space; it has 4, 8"),
        ("start: {rank: '4'}\nrank: {choice: [4, 8]}", "start: rank: '4' is not allowed"),
        ("start: {alpha: 8}\nrank: {choice: [4, 8]}", "start: alpha is not in this space; it has rank"),
        (
            "start: {rank: 4}\nrank: {choice: [4, 8]}\nalpha: {choice: [4, 8]}",
            "start: no value for alpha; give one for each searched name",
        ),
        (
            "start: {rank: 4, dropout: 0.2}\nrank: {choice: [4, 8]}\ndropout: 0.1",
            "start: dropout: 0.2 is outside the space, where it is always 0.1",
        ),
        (
            "start: {rank: 4}\nstarts: [{rank: 8}]\nrank: {choice: [4, 8]}",
            "start and starts: both are given; put all settings into the list under starts",
        ),
        (
            "start: [{rank: 4}]\nrank: {choice: [4, 8]}",
            "start: [{'rank': 4}] is not a mapping; write {rank: 16",
        ),
        (
            "starts: {rank: 4}\nrank: {choice: [4, 8]}",
            "starts: {'rank': 4} is not a list; write one `- {rank: 16",
        ),
        ("starts:\nrank: {choice: [4, 8]}", "starts: None is not a list"),
        (
            "starts: [{rank: 4}, 8]\nrank: {choice: [4, 8]}",
            "starts, entry 2: 8 is not a mapping; write {rank: 16",
        ),
        (
            "starts: [{rank: 4}, {rank: 5}]\nrank: {choice: [4, 8, 16]}",
            "starts, entry 2: rank: 5 is outside the space; it has 4, 8, 16",
        ),
        ("starts: [{rank: 4}, {}]\nrank: {choice: [4, 8]}", "starts, entry 2: no value for rank; give one"),
        (
            "starts: [{rank: 4}, {rank: 8}, {rank: 4, dropout: 0.1}]\nrank: {choice: [4, 8]}\ndropout: 0.1",
            "starts, entry 3: the same as entry 1; name each start once",
        ),
    ],
)
def test_refused(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError) as refusal:
        load_space(str(path))
    assert str(refusal.value).startswith(f"{path}: {message}")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "quikstart",
            "no search space 'quikstart' (did you mean quickstart?); shipped are full_rate, lora_bert",
        ),
        ("", "no search space ''; shipped are"),
        ("none.yaml", "none.yaml: no such file"),
    ],
)
def test_no_such_space(spec, message):
    with pytest.raises(SettingsError) as refusal:
        load_space(spec)
    assert str(refusal.value).startswith(message)


def test_a_file_without_the_usual_ending(tmp_path):
    (tmp_path / "space.txt").write_text(TEXT)
    assert load_space(str(tmp_path / "space.txt")).name == "space"


KNOBS = {
    "rank_pattern": {"choice": [None, "query=16,value=8", "attention.*=4"]},
    "alpha_pattern": "query=32",
    "init": {"choice": ["default", "pissa", "olora"]},
    "lora_plus_ratio": {"loguniform": [1, 16]},
    "head_rate_ratio": {"choice": [0.5, 1.0, 2.0]},
    "schedule": {"choice": ["linear", "cosine"]},
    "loss": {"choice": ["cross_entropy", "focal"]},
    "focal_gamma": {"uniform": [0.5, 5.0]},
    "sampling": {"choice": ["natural", "balanced"]},
    "class_weights": {"choice": ["none", "inverse"]},
}
START = {
    "rank_pattern": None, "init": "pissa", "lora_plus_ratio": 4.0, "head_rate_ratio": 1.0, "schedule": "cosine",
    "loss": "focal", "focal_gamma": 2.0, "sampling": "balanced", "class_weights": "inverse",
}  # fmt: skip


def test_settings_of_words_are_written_and_proposed_as_any_other() -> None:
    space = SearchSpace.from_dict({**KNOBS, "starts": [START]}, "knobs")
    assert SearchSpace.from_yaml(space.to_yaml(), "knobs") == space
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.enqueue_trial(space.start_points()[0])
    for _ in range(12):
        trial = study.ask()
        chosen = space.hyperparameters(space.suggest(trial))
        assert chosen.alpha_pattern == "query=32"
        study.tell(trial, 0.5)
    first = study.trials[0].params
    assert first == START


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        ({"rank_pattern": "query"}, r"rank_pattern: 'query' is not allowed; it takes text \(Other ranks"),
        ({"rank_pattern": {"query": 8, "value": 4}}, "rank_pattern: query, value is not a domain"),
        ({"init": "pissa_niter_4"}, "init: 'pissa_niter_4' is not allowed; it takes one of default, pissa, olora"),
        ({"focal_gamma": 3.0}, "focal_gamma: goes with loss: focal, which no trial of this space has"),
        ({"method": "full", "rank": {"choice": [4, 8]}}, "rank: full fine-tuning has no use for it; leave it out"),
        ({"lora_plus_ratio": 0}, "lora_plus_ratio: 0 is not allowed; it takes a number, above 0 and at most 1000"),
    ],
)  # fmt: skip
def test_what_no_trial_could_use_is_refused(entries: dict[str, object], problem: str) -> None:
    with pytest.raises(SettingsError, match=problem):
        SearchSpace.from_dict({"learning_rate": {"choice": [1e-3, 1e-2]}, **entries}, "mine")

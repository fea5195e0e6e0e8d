"""What a search space can propose at most."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch

from lorasweep.search_spaces.domains import Choice, IntRange
from lorasweep.search_spaces.function_space import FunctionSpace
from lorasweep.search_spaces.space import SearchSpace, as_space
from lorasweep.training.data.encoding import encode_texts
from lorasweep.training.errors import ModelError, SettingsError
from lorasweep.training.model.base_model import empty_model, load_base, load_tokenizer, resolve_base_model
from lorasweep.training.model.precision import AmpPolicy
from lorasweep.training.model.target_modules import resolve_target_modules
from lorasweep.training.settings import TrainingSettings
from lorasweep.tuning.sweep.plan.proposals import adapted_modules, check_proposals, highest, largest_trial

AMP = AmpPolicy("bf16", torch.device("cpu"))


def test_the_highest_number_of_choices_ranges_constants_and_defaults() -> None:
    space = SearchSpace(
        "mine", {"rank": Choice((4, 64, 16)), "batch_size": IntRange(8, 48, step=8), "alpha": 7}
    )
    assert [highest(space, name) for name in ("rank", "batch_size", "alpha")] == [64, 48, 7]
    assert highest(SearchSpace("mine", {"rank": Choice((4, 64))}), "batch_size") == 32


def test_modules_are_those_of_the_most_layers(tiny_base: Callable[[str], Path]) -> None:
    model = empty_model(resolve_base_model(str(tiny_base("bert"))))
    targets = Choice(("query-value", "all-linear"))
    for layers, counts in ((None, [4, 12]), (Choice(("0-0", "all")), [4, 12]), ("upper-half", [2, 6])):
        parameters: dict[str, Any] = {"target_modules": targets} | ({"layers": layers} if layers else {})
        found = adapted_modules(SearchSpace("mine", parameters), model, "bert")
        assert [len(names) for names in found.values()] == counts
    with pytest.raises(SettingsError, match="layers: 1-2 is no range of this model's 2 layers"):
        adapted_modules(SearchSpace("mine", {"layers": Choice(("all", "1-2"))}), model, "bert")
    full = SearchSpace("mine", {"method": "full", "layers": "1-2", "learning_rate": Choice((1e-4, 1e-3))})
    assert adapted_modules(full, model, "bert") == {}


def test_patterns_are_those_of_layers_that_are_adapted(tiny_base: Callable[[str], Path]) -> None:
    model = empty_model(resolve_base_model(str(tiny_base("bert"))))

    def check(**parameters: Any) -> None:
        space = SearchSpace("mine", {"learning_rate": Choice((1e-3, 1e-2)), **parameters})
        check_proposals(space, TrainingSettings(), model, adapted_modules(space, model, "bert"))

    targets = Choice(("attention", "all-linear"))
    check(target_modules=targets, rank_pattern=Choice((None, "query=8,intermediate.dense=4")))
    with pytest.raises(ModelError, match="alpha_pattern: 'querry' is the end of no linear layer's name"):
        check(alpha_pattern=Choice(("query=8", "querry=8")))
    with pytest.raises(
        SettingsError, match="rank_pattern: 'key' is the name of a layer that no trial adapts"
    ):
        check(target_modules="query-value", rank_pattern="query=8,key=4")
    check(method="full", rank_pattern="querry=8")


def test_class_weights_are_asked_for_in_one_place(tiny_base: Callable[[str], Path]) -> None:
    model = empty_model(resolve_base_model(str(tiny_base("bert"))))
    space = SearchSpace("mine", {"class_weights": Choice(("none", "inverse"))})
    check_proposals(space, TrainingSettings(), model, {})
    function = "def weighed(trial):\n    trial.suggest_categorical('class_weights', ['none', 'inverse'])\n"
    for each in (space, FunctionSpace(Path("mine.py"), "weighed", function)):
        with pytest.raises(SettingsError, match=r"--class-weights: the space .* has class_weights, too"):
            check_proposals(each, TrainingSettings(class_weights=True), model, {})


@pytest.fixture(scope="module")
def bytes_of(tiny_base: Callable[[str], Path]) -> Callable[..., int | None]:
    """Memory of the largest trial of a space with these parameters, on a tiny BERT."""
    base = resolve_base_model(str(tiny_base("bert")))
    loaded = load_base(base, ("a", "b", "c"), 0, AMP.device)
    texts = encode_texts(load_tokenizer(base), ["film star " * 8, "film"], None, None, 16)
    targets = {"all-linear": resolve_target_modules(loaded.model, "bert", "all-linear")}

    def largest(micro_batch_size: int | None = None, **parameters: Any) -> int | None:
        space = SearchSpace("mine", {"learning_rate": Choice((1e-3, 1e-2)), **parameters})
        return largest_trial(space, loaded, texts, targets, AMP, micro_batch_size)

    return largest


def test_the_largest_trial_counts(bytes_of: Callable[..., int | None]) -> None:
    """Of every hyperparameter that takes memory, the value that takes most."""
    usual = bytes_of() or 0
    assert usual > 0
    assert bytes_of(batch_size=Choice((8, 32))) == usual
    assert bytes_of(rank=Choice((4, 16))) == usual
    for more in (
        {"batch_size": Choice((8, 64))},
        {"rank": IntRange(4, 64)},
        {"init": Choice(("default", "olora"))},
        {"rank_pattern": Choice((None, "query=8,value=64"))},
        {"method": Choice(("lora", "dora"))},
    ):
        assert (bytes_of(**more) or 0) > usual
    assert (bytes_of(micro_batch_size=4) or 0) < usual
    assert bytes_of(micro_batch_size=64) == usual


def test_what_a_function_proposes_cannot_be_foreseen() -> None:
    def space(trial: optuna.Trial) -> dict[str, Any]:
        return {"rank": trial.suggest_int("rank", 2, 4)}

    assert largest_trial(as_space(space), None, None, {}, AMP) is None  # type: ignore[arg-type]


def test_a_model_whose_code_fails_costs_the_estimate_and_not_the_plan(
    bytes_of: Callable[..., int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr("lorasweep.tuning.sweep.plan.proposals.measure_row", fail)
    assert bytes_of() is None


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_a_rank_is_at_most_the_narrowest_layer_of_which_it_is_taken(
    init: str, tiny_base: Callable[[str], Path]
) -> None:
    model = empty_model(resolve_base_model(str(tiny_base("bert"))))
    entries = {
        "init": {"choice": ["default", init]},
        "rank": {"choice": [4, 33]},
        "target_modules": "all-linear",
    }
    space = SearchSpace.from_dict(entries, "mine")
    with pytest.raises(
        SettingsError, match=rf"init: {init} takes the space's rank 33 out of .*, which has only 32"
    ):
        check_proposals(space, TrainingSettings(), model, adapted_modules(space, model, "bert"))
    fitting = SearchSpace.from_dict(entries | {"rank": {"choice": [4, 32]}}, "mine")
    check_proposals(fitting, TrainingSettings(), model, adapted_modules(fitting, model, "bert"))

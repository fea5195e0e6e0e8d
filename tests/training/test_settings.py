"""What the settings of a trial refuse, and that nobody changes them on the way."""

import json
import re
from typing import Any

import pytest
from pydantic import ValidationError

from lorasweep.training.metrics import METRICS
from lorasweep.training.settings import UNTUNED, DataSettings, Hyperparameters, Settings, TrainingSettings


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("method", "adalora"),
        ("rank", 0),
        ("rank", 2.5),
        ("alpha", 0),
        ("target_modules", ""),
        ("learning_rate", 0),
        ("learning_rate", 1.5),
        ("dropout", 1),
        ("base_dropout", -0.1),
        ("batch_size", 0),
        ("weight_decay", -1),
        ("warmup", 1.1),
        ("max_grad_norm", 0),
        ("label_smoothing", 1),
    ],
)
def test_hyperparameters_out_of_range_are_refused(field: str, value: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        Hyperparameters(**{field: value})
    assert [error["loc"] for error in caught.value.errors()] == [(field,)]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("evaluations_per_epoch", 0),
        ("precision", "int8"),
        ("max_length", 3),
        ("micro_batch_size", 0),
        ("metric", "f2"),
        ("seed", -1),
    ],
)
def test_training_settings_out_of_range_are_refused(field: str, value: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        TrainingSettings(**{field: value})
    assert [error["loc"] for error in caught.value.errors()] == [(field,)]


@pytest.mark.parametrize("tree", [Hyperparameters, TrainingSettings])
def test_unknown_names_are_refused(tree: type[Hyperparameters] | type[TrainingSettings]) -> None:
    with pytest.raises(ValidationError, match="lerning_rate"):
        tree(lerning_rate=1e-3)


@pytest.mark.parametrize("tree", [DataSettings, Hyperparameters, TrainingSettings])
def test_every_field_is_explained_in_a_sentence(tree: type[Settings]) -> None:
    helps = {name: field.description or "" for name, field in tree.model_fields.items()}
    if "metric" in helps:  # names all metrics
        helps["metric"] = helps["metric"].replace(f": {', '.join(METRICS)}", "")
    assert [name for name, text in helps.items() if not re.fullmatch(r"[A-Z][^\n]{9,99}\.", text)] == []


def test_settings_do_not_change() -> None:
    chosen = Hyperparameters()
    with pytest.raises(ValidationError, match="frozen"):
        chosen.rank = 4


def test_settings_survive_json() -> None:
    chosen = Hyperparameters(method="dora", rank=8, alpha=12.5, base_dropout=0.1)
    assert Hyperparameters(**json.loads(chosen.model_dump_json())) == chosen


def test_rungs_of_a_full_trial() -> None:
    assert TrainingSettings(epochs=3, evaluations_per_epoch=4).rungs == 12


def test_the_untuned_choice_is_the_usual_one() -> None:
    assert (UNTUNED.method, UNTUNED.rank, UNTUNED.alpha) == ("lora", 8, 16)
    assert (UNTUNED.target_modules, UNTUNED.learning_rate) == ("query-value", 2e-5)


def test_older_records_name_one_label_column_or_none() -> None:
    assert DataSettings.model_validate({"label": "category"}).label == ("category",)
    assert DataSettings.model_validate({"label": None}).label == ()
    assert DataSettings.model_validate({"label": ["a", "b"]}).label == ("a", "b")

"""How the trial of a model card was found: its settings, their ranges and the search's budget, in words."""

from __future__ import annotations

from lorasweep.search_spaces.bases import base_models
from lorasweep.search_spaces.domains import show
from lorasweep.search_spaces.space import SearchSpace
from lorasweep.search_spaces.starts import BASE_MODEL
from lorasweep.training.errors import SettingsError
from lorasweep.tuning.record.bases import base_label
from lorasweep.tuning.record.sweep import SweepRecord
from lorasweep.tuning.record.trial_records import TrialRecord


def budget_text(sweep: SweepRecord) -> str:
    """What the search was given: a number of trials, minutes, or both; and what ended it."""
    search, passes = sweep.config.search, sweep.config.training.epochs
    text = "trials" if search.open else f"{search.trials} trials"
    text += f" of at most {passes} pass{'es' * (passes > 1)} over the rows"
    if search.max_minutes is not None:
        text += f", in {search.max_minutes:g} minutes{'' if search.open else ' at most'}"
    if sweep.result is not None and sweep.result.stopped_by == "patience":
        text += f", until {search.patience} in a row brought nothing"
    return text


def setting_rows(trial: TrialRecord) -> list[tuple[str, object]]:
    """All settings: (name, value)."""
    values = trial.hyperparameters.model_dump()
    return [(name, _public(value) if name == BASE_MODEL else value) for name, value in values.items()]


def ranges(sweep: SweepRecord) -> list[tuple[str, str]]:
    """What each setting might have been. A space that is a function is not run for this."""
    path = sweep.folder.path / "space.yaml"
    try:
        space = SearchSpace.from_yaml(path.read_text(encoding="utf-8"), path.stem)
    except (OSError, UnicodeDecodeError, SettingsError):
        return []
    bases = ", ".join(show(_public(name)) for name in base_models(space))
    return [(name, bases if name == BASE_MODEL else text) for name, text in space.describe()]


def _public(base_model: str | None) -> str | None:
    """A base model's name without a folder's path, which tells of its user's machine."""
    return None if base_model is None else base_label(base_model)

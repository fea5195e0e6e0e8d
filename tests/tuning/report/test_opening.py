"""What a report says first."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from math import log
from pathlib import Path

import pytest
from reported_sweeps import SCRIPT, page_of
from scored_trials import drawn

from lorasweep.search_spaces.domains import Choice, Range
from lorasweep.search_spaces.function_space import FunctionSpace
from lorasweep.search_spaces.space import SearchSpace
from lorasweep.training.settings import Hyperparameters, Metric, TrainingSettings
from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.trial_records import TrialRecord
from lorasweep.tuning.report.opening import Opening, open_report
from lorasweep.tuning.report.reading import read_report_data

SPACE = SearchSpace("two", {"learning_rate": Range(1e-4, 1e-2, log=True), "rank": Choice((4, 8))})


def by_rate(chosen: Hyperparameters, best: float = 1e-3) -> float:
    return 0.9 - abs(log(chosen.learning_rate / best)) / 10


def opening(place: Path, trials: Sequence[TrialRecord], metric: Metric = "accuracy") -> Opening:
    """The first lines on a sweep with these trials."""
    folder = SweepFolder(place, "news")
    folder.create(SweepConfig(name="news", training=TrainingSettings(metric=metric)))
    folder.write_space(SPACE)
    for trial in trials:
        folder.write_trial(trial)
    return open_report(read_report_data(folder))


def with_error(trials: Sequence[TrialRecord], error: float) -> list[TrialRecord]:
    return [
        trial.model_copy(
            update={
                "evaluations": tuple(
                    e.model_copy(update={"standard_error": error}) for e in trial.evaluations
                )
            }
        )
        for trial in trials
    ]


def test_many_trials(tmp_path: Path) -> None:
    settings, space, outlook = opening(tmp_path, drawn(SPACE, 40, by_rate)).sentences
    assert settings.startswith("<b>rate</b> mattered most (")
    assert " of what sets the best trials apart)" in settings
    assert "hint" not in settings
    assert space.startswith("None of the 10 best trials had <b>rate</b> below ")
    assert " others did) or <b>rate</b> above " in space
    assert outlook.startswith("More trials in this space could still find up to about ")
    assert outlook.endswith(" points (Optuna’s bound).")


def test_an_end_that_the_best_touched(tmp_path: Path) -> None:
    _, space, _ = opening(tmp_path, drawn(SPACE, 40, lambda h: by_rate(h, 1e-2))).sentences
    assert space.endswith("; the best lie at the high end of <b>rate</b> (0.01).")


def test_a_space_without_dead_parts(tmp_path: Path) -> None:
    trials = drawn(SPACE, 12, lambda h: h.learning_rate * 1e9 % 1)
    _, space, _ = opening(tmp_path, trials).sentences
    assert space == "No part of the space looked dead, and the best trials touched no end of it."


@pytest.mark.parametrize("error", [0.001, 0.3])
def test_what_is_left_is_told_beside_the_noise(error: float, tmp_path: Path) -> None:
    outlook = opening(tmp_path, with_error(drawn(SPACE, 40, by_rate), error)).sentences[2]
    if error > 0.1:
        assert outlook.startswith("More trials in this space would hardly pay: at most about ")
    else:
        assert outlook.startswith("More trials in this space could still find up to about ")
    assert f"a validation score is known to ± {100 * error:.1f} points" in outlook


def test_losses_are_in_nats(tmp_path: Path) -> None:
    outlook = opening(tmp_path, drawn(SPACE, 40, lambda h: 1 - by_rate(h)), "loss").sentences[2]
    assert " nats (Optuna’s bound)." in outlook


def test_few_trials(tmp_path: Path) -> None:
    trials = drawn(SPACE, 6, lambda h: 0.5)
    trials[2] = trials[2].model_copy(update={"score": 0.8})
    settings, space, outlook = opening(tmp_path, trials).sentences
    assert settings.endswith("; from 6 trials with a score, this is only a hint.")
    assert space == "What of the space is dead cannot be said from 6 trials with a score; it takes 8."
    assert outlook == (
        "Whether more trials would pay cannot be estimated from 6 trials with a score (it takes 30); the best is "
        "t002, and the 3 trials after it brought nothing better."
    )


def test_one_trial_and_none(tmp_path: Path) -> None:
    one = opening(tmp_path / "one", drawn(SPACE, 1, by_rate))
    assert one.sentences[0] == "Which settings mattered cannot be said from 1 trial with a score."
    assert one.sentences[2].endswith("the best is t000, and it was the last one.")
    assert one.command == "lorasweep spaces --next news > next.yaml"
    assert opening(tmp_path / "none", []) == Opening([], "")


def test_trials_on_all_rows_are_not_mixed_with_those_on_a_part(tmp_path: Path) -> None:
    """A finalist's higher score comes from its rows."""
    trials = drawn(SPACE, 6, by_rate)
    finalist = trials[0].model_copy(update={"id": "t006", "number": 6, "finalist_of": "t000", "score": 0.99})
    assert "from 6 trials" in opening(tmp_path, [*trials, finalist]).sentences[2]
    assert "the best is t006" not in opening(tmp_path / "again", [*trials, finalist]).sentences[2]


def test_a_function_has_no_next_space(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path, "news")
    folder.create(SweepConfig(name="news"))
    (tmp_path / "mine.py").write_text("raise SystemExit")
    folder.write_space(FunctionSpace(tmp_path / "mine.py", "space"))
    for trial in drawn(SPACE, 12, by_rate):
        folder.write_trial(trial)
    said = open_report(read_report_data(folder))
    assert said.sentences[0].startswith("<b>rate</b> mattered most (")
    assert said.sentences[1] == "The space is a Python function, so its ranges are not judged."
    assert said.command == ""


@pytest.mark.usefixtures("bare")
def test_the_page_opens_with_it(folder: SweepFolder) -> None:
    """Before all figures; what a space or a trial holds is text."""
    text = " ".join(page_of(folder).text.split())
    first = text.index("mattered most (")
    assert first < text.index("What of the space is dead") < text.index("Whether more trials would pay")
    assert text.index("lorasweep spaces --next demo > next.yaml") < text.index(
        "best validation accuracy", first
    )
    shutil.rmtree(folder.path / "trials")
    (folder.path / "trials").mkdir()
    assert "mattered most" not in page_of(folder).text


def test_names_and_values_of_strangers_are_escaped(tmp_path: Path) -> None:
    pattern = f".*query|{SCRIPT.replace('(', '[(]').replace(')', '[)]')}"
    space = SearchSpace("bad", {"target_modules": Choice((pattern, "attention"))})
    folder = SweepFolder(tmp_path, "news")
    folder.create(SweepConfig(name="news"))
    folder.write_space(space)
    for trial in drawn(space, 40, lambda h: float(h.target_modules == "attention") + h.alpha):
        folder.write_trial(trial)
    sentence = open_report(read_report_data(folder)).sentences[1]
    assert "<script>" not in sentence
    assert "&lt;script&gt;" in sentence

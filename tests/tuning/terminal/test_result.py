"""Tables that fit a terminal of 80 columns and say what the records hold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, Group, RenderableType
from rich.table import Table

from lorasweep.training.settings import Hyperparameters
from lorasweep.tuning.record.config import SearchSettings, SweepConfig
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.ran_on import RanOn
from lorasweep.tuning.record.results import (
    Confirmed,
    Gain,
    Reference,
    StartReference,
    SweepResult,
    TestScores,
    UnmergedReference,
    Winner,
)
from lorasweep.tuning.record.sweep import SweepRecord
from lorasweep.tuning.record.trial_records import TrialRecord
from lorasweep.tuning.record.words import counts_text, duration, parameters_text, score_text, setting_text
from lorasweep.tuning.terminal.console import console, next_steps
from lorasweep.tuning.terminal.plan import kinds_of
from lorasweep.tuning.terminal.result import result_text, trials_table
from lorasweep.tuning.terminal.status import listed_entries, status_entries, sweeps_table

PATTERN = r".*\.encoder\.layer\.(0|1|2|3|4|5)\.attention\.self\.(query|key|value)[bold]"
SETTINGS: dict[str, Any] = {
    "method": "rslora",
    "rank": 128,
    "alpha": 256.0,
    "target_modules": PATTERN,
    "learning_rate": 0.00216,
    "dropout": 0.125,
    "batch_size": 64,
    "weight_decay": 0.01,
}


def trial(number: int, score: float | None, state: str = "stopped", **fields: object) -> TrialRecord:
    """A record with a score after two rungs."""
    return TrialRecord.model_validate(
        {
            "id": f"t{number:03d}",
            "number": number,
            "state": state,
            "settings": SETTINGS,
            "score": score,
            "evaluations": [{"rung": 1, "score": score}, {"rung": 2, "score": score}]
            if score is not None
            else [],
            "trainable_parameters": 1_344_100 + number,
            "seconds": 61.4 + number,
        }
        | fields
    )


def lines_of(shown: RenderableType, width: int = 80) -> list[str]:
    """The lines on a terminal of this width."""
    console = Console(width=width, file=StringIO(), record=True)
    console.print(shown)
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= width
    return lines


TRIALS = [
    trial(0, 0.512, "completed"),
    trial(1, 0.873),
    trial(2, None, "failed", error="target_modules 'x[0]': no module has [this] name " + "y" * 90),
    trial(3, 0.701),
    trial(4, None, "running"),
]
SCORES = TestScores(accuracy=0.861, macro_f1=0.794, loss=0.4567)
RESULT = SweepResult(
    state="finished",
    metric="accuracy",
    seconds=3723.0,
    winner=Winner(id="t001", score=0.873, hyperparameters=SETTINGS, test=SCORES),
    untuned=Reference(
        hyperparameters=Hyperparameters(rank=8),
        score=0.4,
        seconds=9.0,
        test=TestScores(accuracy=0.65, macro_f1=0.6, loss=1.2),
    ),
)


def sweep_of(
    mlruns: Path,
    name: str,
    result: SweepResult | None = None,
    searched: Sequence[str] = ("rank",),
    trials: Sequence[TrialRecord] = TRIALS,
) -> SweepRecord:
    """A sweep on disk with the trials above."""
    folder = SweepFolder(mlruns, name)
    folder.create(SweepConfig(name=name))
    folder.write_plan({"searched": list(searched)})
    for record in trials:
        folder.write_trial(record)
    if result:
        folder.write_result(result)
    return SweepRecord(folder)


@pytest.mark.parametrize("searched", [["rank"], list(SETTINGS)[:5], list(SETTINGS)])
def test_the_trials_fit_and_their_scores_stay_whole(searched: list[str]) -> None:
    """Best first, failed ones left out; settings may give way, the figures beside them may not."""
    head, *rows = lines_of(trials_table(TRIALS, "accuracy", searched, rungs=6))
    assert [row.split()[:2] for row in rows if row.startswith("t0")] == [
        ["t001", "87.3%"],
        ["t003", "70.1%"],
        ["t000", "51.2%"],
    ]
    assert head.split()[:2] == ["trial", "accuracy"]
    assert rows[0].split()[-4:] == ["1.3", "M", "2/6", "1:02"]


KNOBS = {
    "rank_pattern": "attention.self.query=16,attention.self.value=8",
    "init": "olora",
    "loss": "cross_entropy",
    "lora_plus_ratio": 5.6789,
    "class_weights": "inverse",
    "sampling": "balanced",
    "focal_gamma": 2.345,
}


@pytest.mark.parametrize("count", [5, 7])
def test_settings_of_words_fit_the_table(count: int) -> None:
    searched = list(KNOBS)[:count]
    trials = [trial(0, 0.5, settings=KNOBS), trial(1, 0.4, settings={})]
    table = trials_table(trials, "accuracy", searched, rungs=6)
    head, *rows = lines_of(table)
    assert head.split()[:2] == ["trial", "accuracy"]
    assert [row.split()[1] for row in rows if row.startswith("t0")] == ["50.0%", "40.0%"]
    assert "5.679" in "".join(rows)


def test_with_many_searched_names_every_value_can_still_be_read() -> None:
    """Ten columns of settings would be cut to nothing: they share one, folded."""
    named = trial(0, 0.5, settings=SETTINGS | {"warmup": 0.06, "label_smoothing": 0.0321})
    lines = lines_of(trials_table([named], "macro_f1", [*SETTINGS, "warmup", "label_smoothing"], rungs=6))
    assert lines[1].split()[:2] == ["t000", "50.0%"]
    text = " ".join("".join(lines).split())
    for value in ("rslora", "128", "256", "2.2e-3", "0.125", "64", "0.01", "0.06", "0.0321"):
        assert value in text


def test_a_loss_is_shown_in_nats_with_the_lowest_first() -> None:
    """Not as a percentage."""
    _, *rows = lines_of(trials_table(TRIALS, "loss", ["learning_rate"], rungs=6, most=2))
    assert [row.split()[:3] for row in rows] == [["t000", "0.5120", "2.2e-3"], ["t003", "0.7010", "2.2e-3"]]


def test_an_interval_may_begin_at_zero(tmp_path: Path) -> None:
    assert RESULT.winner is not None
    winner = RESULT.winner.model_copy(update={"interval": {"accuracy": (0.0, 0.2)}})
    lines = lines_of(result_text(sweep_of(tmp_path, "demo", RESULT.model_copy(update={"winner": winner}))))
    assert "0.0% to 20.0%" in next(line for line in lines if line.startswith("winner t001"))


def test_why_it_won_and_what_it_is_compared_with(tmp_path: Path) -> None:
    """Interval, baselines, the confirmed trials with mean and spread, the other rules' winners, a warning."""
    assert RESULT.winner is not None
    linear = TestScores(accuracy=0.9, macro_f1=0.8, loss=0.4)
    confirmed = (
        Confirmed(id="t001", scores={"1": 0.86, "2": 0.84}, mean=0.85, spread=0.01414),
        Confirmed(id="t003", scores={"1": 0.7, "2": 0.7}, mean=0.7, spread=0.0),
    )
    rule = "best mean accuracy over 2 other seeds"
    winner = RESULT.winner.model_copy(update={"interval": {"accuracy": (0.841, 0.88)}, "rule": rule})
    result = RESULT.model_copy(
        update={
            "winner": winner,
            "baselines": {"TF-IDF + logistic regression": linear},
            "confirmed": confirmed,
            "choices": {"accuracy": "t001", "loss": "t003", "smallest within 0.5 points": "t000"},
            "also_tested": (winner.model_copy(update={"id": "t000"}),),
        }
    )
    lines = lines_of(result_text(sweep_of(tmp_path, "demo", result)))
    text = "\n".join(lines)
    assert next(line.split() for line in lines if line.startswith("winner t001"))[2:6] == [
        "86.1%", "84.1%", "to", "88.0%",
    ]  # fmt: skip
    assert next(line.split() for line in lines if line.startswith("TF-IDF"))[4:] == [
        "90.0%",
        "80.0%",
        "0.400",
    ]
    means = [line.split() for line in lines if line.startswith("t0") and "pts" in line]
    assert means == [
        ["t001", "85.0%", "1.4", "pts", "86.0%", "84.0%"],
        ["t003", "70.0%", "0.0", "pts", "70.0%", "70.0%"],
    ]
    assert f"chosen by    {rule}" in [line.rstrip() for line in lines]
    judged = sweep_of(tmp_path, "loss", result)
    judged.folder.write_config(SweepConfig(name="loss", search=SearchSettings(objective="loss")))
    text = "\n".join(lines_of(result_text(judged)))
    assert f"chosen by    {rule}; trials were judged by loss" in text
    assert "t003 by loss, t000 by smallest within 0.5 points" in text
    assert "without a neural network scores higher" in text
    assert "t000, the winner of fewer trials: 86.1%" in text


def test_merged_labels_bring_two_rows_below_the_winner(tmp_path: Path) -> None:
    """Over the classes as they were, and the same answers merged: with these the winner compares."""
    before = TestScores(accuracy=0.701, macro_f1=0.6, loss=1.1)
    after = TestScores(accuracy=0.851, macro_f1=0.7, loss=0.5)
    unmerged = UnmergedReference(
        hyperparameters=SETTINGS, classes=41, score=0.7, test=before, merged=after, seconds=9.0
    )
    result = RESULT.model_copy(update={"unmerged": unmerged})
    lines = lines_of(result_text(sweep_of(tmp_path, "demo", result)))
    winner = next(number for number, line in enumerate(lines) if line.startswith("winner t001"))
    assert lines[winner + 1].split() == ["trained", "on", "41", "classes", "70.1%", "60.0%", "1.100"]
    assert lines[winner + 2].split() == ["and", "merged", "afterwards", "85.1%", "70.0%", "0.500"]
    assert any("+1.0 points over merging the predictions afterwards" in line for line in lines)
    assert status_entries(SweepRecord(SweepFolder(tmp_path, "demo")))["unmerged"] == unmerged.model_dump()
    assert status_entries(sweep_of(tmp_path, "plain", RESULT))["unmerged"] is None


@pytest.mark.parametrize("searched", [["rank", "learning_rate"], list(SETTINGS)])
def test_the_result_holds_what_the_records_hold(searched: list[str], tmp_path: Path) -> None:
    """Counts, the winner's test scores, the untuned settings beside it, the reason of a failure."""
    text = "\n".join(lines_of(result_text(sweep_of(tmp_path, "demo", RESULT, searched))))
    counts = "demo finished after 1:02:03: 1 completed, 2 stopped by ASHA, 1 failed, 1 to go on"
    assert counts in " ".join(text.split())
    winner = next(line for line in text.splitlines() if line.startswith("winner t001"))
    assert winner.split()[2:5] == ["86.1%", "79.4%", "0.457"]
    untuned = next(line for line in text.splitlines() if line.startswith("untuned default"))
    assert untuned.split()[2:5] == ["65.0%", "60.0%", "1.200"]
    assert "Tuning adds +21.1 points of accuracy to the untuned default." in text
    assert any(line.startswith("untuned  ") for line in text.splitlines())
    assert "x[0]" in text, "brackets are not markup"
    assert "[this]" in text


def test_no_trial_is_hidden_in_silence(tmp_path: Path) -> None:
    """The best five and three that failed; how many more, and the command that shows all of them."""
    few = "\n".join(lines_of(result_text(sweep_of(tmp_path, "few"))))
    assert "and 1 more; all of them: lorasweep status few --all --mlruns" in " ".join(few.split())
    trials = [
        *(trial(number, 0.5 + number / 100) for number in range(8)),
        *(trial(number, None, "failed", error="no memory") for number in range(8, 13)),
        trial(13, None, "running"),
    ]
    many = sweep_of(tmp_path, "many", trials=trials)
    text = "\n".join(lines_of(result_text(many)))
    assert "and 6 more; all of them: lorasweep status many --all" in " ".join(text.split())
    assert "t002" not in text
    whole = "\n".join(lines_of(result_text(many, all_trials=True)))
    assert [f"t{number:03d}" in whole for number in range(14)] == [True] * 14
    assert "t013 interrupted" in whole
    assert "more" not in whole
    one = sweep_of(tmp_path, "one", trials=trials[:5])
    assert "more" not in "\n".join(lines_of(result_text(one)))


def test_a_failed_sweep_has_a_result_without_a_winner(tmp_path: Path) -> None:
    """No test table, and nothing breaks without any trial."""
    failed = SweepResult(state="failed", metric="accuracy", error="all failed")
    assert "test split" not in "\n".join(lines_of(result_text(sweep_of(tmp_path, "demo", failed))))
    assert "no trials yet" in lines_of(result_text(sweep_of(tmp_path, "empty", failed, trials=())))[0]
    # A result that a full disk did not take is shown all the same.
    unwritten = sweep_of(tmp_path, "full")
    assert "full failed after" in lines_of(result_text(unwritten, failed))[0]
    assert "full interrupted after" in lines_of(result_text(unwritten))[0]


def test_all_sweeps_fit(tmp_path: Path) -> None:
    """Ended trials of those asked for; long names are folded."""
    sweeps = [sweep_of(tmp_path, "demo", RESULT), sweep_of(tmp_path, "x" * 80)]
    text = "\n".join(lines_of(sweeps_table(sweeps)))
    row = next(line for line in text.splitlines() if line.startswith("demo"))
    assert row.split() == ["demo", "finished", "4/20", "87.3%", "86.1%"]
    assert text.count("x") >= 80
    assert "interrupted" in text


def test_status_for_other_programs(tmp_path: Path) -> None:
    """Plain values under names that stay."""
    dated = [trial(0, 0.512, started=9.0), trial(1, 0.873, started=20.0, ended=1e9), *TRIALS[2:]]
    sweep = sweep_of(tmp_path, "demo", RESULT, trials=dated)
    sweep.folder.write_plan({"data": {"rows": {"train": 7}}})
    sweep.folder.write_config(SweepConfig.build({"name": "demo", "data": {"path": "news.csv"}}, "test"))
    entries = status_entries(SweepRecord(sweep.folder))
    assert (entries["name"], entries["state"], entries["metric"]) == ("demo", "finished", "accuracy")
    assert [entry["score"] for entry in entries["trials"]] == [0.512, 0.873, None, 0.701, None]
    assert ["error" in entry for entry in entries["trials"]] == [False, False, True, False, False]
    assert entries["winner"]["test"] == {"accuracy": 0.861, "macro_f1": 0.794, "loss": 0.4567}
    assert entries["untuned"]["score"] == 0.4
    assert entries["data"]["rows"] == {"train": 7}
    assert entries["data"]["path"] == "news.csv"
    assert (entries["started"], entries["ended"]) == (
        "1970-01-01T00:00:09+00:00",
        "2001-09-09T01:46:40+00:00",
    )
    assert entries["trials"][0]["started"] == "1970-01-01T00:00:09+00:00"
    assert entries["trials"][0]["ended"] is None
    assert entries["trials"][0]["evaluations"][1]["rung"] == 2
    assert listed_entries(sweep).items() <= entries.items()
    json.dumps(entries)
    assert status_entries(sweep_of(tmp_path, "open"))["winner"] is None


def test_programs_hear_what_a_trial_ran_on_and_what_it_notes(tmp_path: Path) -> None:
    """The one of its best evaluation; nothing of a trial that has not recorded it."""
    moved = {
        "ran_on": RanOn(node="b"),
        "best_ran_on": RanOn(node="a", gpu="NVIDIA L4"),
        "notes": ("tried again",),
    }
    sweep = sweep_of(tmp_path, "moved")
    before = sweep.trials[0]
    assert not {"ran_on", "notes"} & set(status_entries(sweep)["trials"][0])
    sweep.folder.write_trial(before.model_copy(update=moved))
    told = status_entries(SweepRecord(sweep.folder))["trials"][0]
    assert (told["ran_on"]["node"], told["ran_on"]["gpu"], told["notes"]) == (
        "a",
        "NVIDIA L4",
        ["tried again"],
    )
    assert "cuda" not in told["ran_on"]


def test_next_steps_can_be_copied() -> None:
    """Each command on one line as it is typed, whatever the width, below what it does."""
    narrow = Console(width=40, file=StringIO(), record=True)
    long = f"lorasweep export a[0] --out {'deep/' * 20}best"
    next_steps(narrow, [(long, "writes [it]"), ("lorasweep predict", ""), ("lorasweep status", "shows it")])
    assert narrow.export_text() == (
        f"\n# writes [it]\n{long}\nlorasweep predict\n\n# shows it\nlorasweep status\n"
    )


def test_the_console_breaks_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A command in a message, or a path, is printed in one piece; tables still fit."""
    line = f"no sweeps in {'deep/' * 80}mlruns: start one with: lorasweep run"
    table = Table(box=None)
    table.add_column("", overflow="fold")
    table.add_row("word " * 100)
    console.print(Group(line, table))
    first, *rest = capsys.readouterr().out.splitlines()
    assert first == line
    assert max(map(len, rest)) <= console.width


def test_numbers_as_a_person_writes_them() -> None:
    """Settings, scores, parameters, time."""
    assert [setting_text(value) for value in (0.00216, 0.0001, 0.0, 0.05, 16, "dora", None)][:5] == [
        "2.2e-3",
        "1.0e-4",
        "0",
        "0.05",
        "16",
    ]
    assert [score_text(None, "loss"), score_text(0.69314, "loss"), score_text(1.0, "macro_f1")] == [
        "-",
        "0.6931",
        "100.0%",
    ]
    counts = (None, 950, 344_064, 999_949, 999_950, 12_345_678)
    assert [parameters_text(count) for count in counts] == [
        "-",
        "0.9 K",
        "344.1 K",
        "999.9 K",
        "1.0 M",
        "12.3 M",
    ]
    assert [duration(seconds) for seconds in (0.4, 59.6, 185, 7384)] == ["0:00", "1:00", "3:05", "2:03:04"]
    assert counts_text([], "ASHA") == "no trials yet"
    names = [
        f"encoder.layer.{layer}.attention.self.{kind}" for layer in range(9) for kind in ("query", "value")
    ]
    assert kinds_of([*names, "pooler.dense"]) == "attention.self.query, attention.self.value, pooler.dense"


def started(near: Sequence[str] = ("t003",), **fields: Any) -> tuple[list[TrialRecord], SweepResult]:
    """The trials above, the first of which is the known-good start, and their result."""
    trials = [TRIALS[0].model_copy(update={"start": 1}), *TRIALS[1:]]
    start = StartReference(
        id="t000",
        hyperparameters=SETTINGS,
        score=0.512,
        test=TestScores(accuracy=0.85, macro_f1=0.78, loss=0.5),
        interval={"accuracy": (0.83, 0.87)},
    )
    known = {
        "start": start,
        "over_start": Gain(difference=0.011, interval=(-0.004, 0.026)),
        "near": tuple(near),
    }
    return trials, RESULT.model_copy(update=known | fields)


@pytest.mark.parametrize("searched", [["rank"], list(SETTINGS)[:5], list(SETTINGS)])
def test_the_start_is_marked_and_what_the_search_adds_to_it_comes_first(
    searched: list[str], tmp_path: Path
) -> None:
    """Its row stands below the winner's with an interval, its sentence before that of the untuned settings."""
    trials, result = started()
    lines = lines_of(result_text(sweep_of(tmp_path, "demo", result, searched, trials)))
    marked = [line.split()[0] for line in lines if line.startswith("t0") and "failed" not in line]
    assert marked == ["t001", "t003~", "t000*"]
    assert "* the known-good start, ~ within noise of the winner" in " ".join(" ".join(lines).split())
    winner = next(number for number, line in enumerate(lines) if line.startswith("winner t001"))
    row = ["known-good", "start", "t000", "85.0%", "83.0%", "to", "87.0%", "78.0%", "0.500"]
    assert lines[winner + 1].split() == row
    text = " ".join(" ".join(lines).split())
    added = (
        "The search adds +1.1 points of accuracy to its known-good start t000 (95 % interval -0.4 to +2.6): "
        "within noise. Tuning adds +21.1 points of accuracy to the untuned default."
    )
    assert added in text
    assert "within noise the validation scores of t003" in text


def test_marks_that_no_trial_has_are_not_explained(tmp_path: Path) -> None:
    trials, result = started(near=())
    text = "\n".join(lines_of(result_text(sweep_of(tmp_path, "demo", result, trials=trials))))
    assert "* the known-good start" in text
    assert "~" not in text
    plain = "\n".join(lines_of(result_text(sweep_of(tmp_path, "older", RESULT))))
    assert "*" not in plain
    assert "known-good" not in plain


def test_other_programs_see_the_start_and_what_is_noise(tmp_path: Path) -> None:
    trials, result = started()
    entries = status_entries(sweep_of(tmp_path, "demo", result, trials=trials))
    assert entries["start"]["id"] == "t000"
    assert entries["over_start"] == {"difference": 0.011, "interval": (-0.004, 0.026)}
    assert (entries["over_untuned"], entries["near"]) == (None, ("t003",))
    assert [entry["start"] for entry in entries["trials"]] == [1, None, None, None, None]

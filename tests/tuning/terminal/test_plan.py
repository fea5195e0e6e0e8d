"""The plan of a sweep: short, whole, extended, warm; whatever may be wrong is always shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import IPython.display
import numpy as np
import pytest
import torch
from rich.console import Console
from whole_sweeps import write_rows

from lorasweep import display
from lorasweep.training.data.part import Part
from lorasweep.training.devices import Card
from lorasweep.training.model.precision import AmpPolicy
from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.record.results import SweepResult
from lorasweep.tuning.record.trial_records import TrialRecord, rank_trials
from lorasweep.tuning.sweep.plan.plan import Estimate, SweepPlan
from lorasweep.tuning.sweep.plan.planning import plan_sweep
from lorasweep.tuning.terminal.plan import minutes_text, plan_text
from lorasweep.tuning.terminal.progress import LogDisplay


@pytest.fixture(scope="module")
def plan(tiny_base: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> SweepPlan:
    """Of eight trials of two epochs, two at once."""
    rows = tmp_path_factory.mktemp("rows") / "rows.csv"
    write_rows(rows)
    config = {
        "name": "news",
        "data": {"path": str(rows)},
        "base_model": str(tiny_base("bert")),
        "training": {"epochs": 2, "evaluations_per_epoch": 3, "max_length": 16, "precision": "fp32"},
        "search": {"trials": 8},
        "resources": {"gpus_per_trial": 0, "cpus_per_trial": 1, "concurrency": 1},
    }
    plan = plan_sweep(SweepConfig.model_validate(config))
    # Their paths are as long as this machine has them.
    config["base_model"] = "minilm"
    return replace(
        plan,
        config=SweepConfig.model_validate(config),
        dataset=replace(plan.dataset, source="rows.csv"),
        resources=replace(plan.resources, concurrency=2),
    )


def changed(plan: SweepPlan, **settings: Any) -> SweepPlan:
    """The plan under other settings of its sweep."""
    return replace(plan, config=SweepConfig.model_validate(plan.config.model_dump() | settings))


def lines_of(plan: SweepPlan, *arguments: Any, width: int = 80, **options: Any) -> list[str]:
    """The plan's lines, without blanks at their ends."""
    console = Console(width=width, file=StringIO(), record=True)
    console.print(plan_text(plan, *arguments, **options))
    lines = [line.rstrip() for line in console.export_text().splitlines()]
    assert max(map(len, lines)) <= width
    return lines


def test_the_plan_is_short(plan: SweepPlan) -> None:
    """With the sweep's name eight lines of 80 columns."""
    assert lines_of(plan) == [
        "data    rows.csv: train 48, validation 6, test 6 rows",
        "columns text text, label label: 3 classes",
        "model   minilm (bert), fp32 on cpu",
        "space   lora_cpu: rank, alpha, targets, rate, batch",
        "trials  8 by TPE for the best validation accuracy, 2 at once with 1 core each",
        "rungs   6 evaluations per full trial; ASHA: keep the best 1/2 after rungs 2, 4",
        "cost    about 9.3 of 16 epochs of 48 rows",
    ]


def test_the_plan_says_which_groups_stay_together(plan: SweepPlan) -> None:
    groups = {"train": 12, "validation": 3, "test": 4}
    grouped = replace(plan, dataset=replace(plan.dataset, group_column="author", groups=groups))
    assert (
        lines_of(grouped)[0]
        == "data    rows.csv: train 48, validation 6, test 6 rows, each author in one split"
    )
    assert "        groups by author, each in one split: train 12, validation 3, test 4" in lines_of(
        grouped, whole=True
    )


def test_the_plan_says_what_judges_the_trials(plan: SweepPlan) -> None:
    """Where that is not what chooses the winner; on one line of 80 columns."""
    search = plan.config.search.model_dump() | {"objective": "loss"}
    lines = lines_of(changed(plan, search=search))
    assert lines[4] == "trials  8 by TPE for the best accuracy, judged by loss; 2 at once, 1 core each"
    assert lines[:4] + lines[5:] == lines_of(plan)[:4] + lines_of(plan)[5:]


def test_the_plan_names_the_gpus_and_says_why_trials_share_one(plan: SweepPlan) -> None:
    """Those on which trials run, which may be another machine's."""
    card = Card("NVIDIA L4", (8, 9), 24 * 10**9)
    shared = replace(
        plan,
        hardware=replace(plan.hardware, cards=(card, card)),
        amp=AmpPolicy("bf16", torch.device("cuda")),
        resources=replace(plan.resources, gpus_per_trial=0.5, cpus_per_trial=2, concurrency=4),
        share_reason="a trial may take 2.5 GB of a GPU's 24 GB",
    )
    lines = lines_of(shared)
    assert lines[2] == "model   minilm (bert), bf16 on 2 × NVIDIA L4"
    assert lines[4:7] == [
        "trials  8 by TPE for the best validation accuracy, 4 at once with 0.5 GPU each",
        "        with 2 cores each; a trial may take 2.5 GB of a GPU's 24 GB",
        lines_of(plan)[5],
    ]
    # The cores are said though the share was asked for.
    assert lines_of(replace(shared, share_reason=""))[5] == "        with 2 cores each"


def test_the_whole_plan_tells_more(plan: SweepPlan) -> None:
    text = "\n".join(lines_of(plan, whole=True))
    for part in ("60 rows read", "tokens per row: median", "all-linear: 12 modules", "learning_rate: "):
        assert part in text
    assert lines_of(plan, whole=True)[-3:] == lines_of(plan)[-3:]


@pytest.mark.parametrize("whole", [False, True])
def test_what_may_be_wrong_is_always_shown(plan: SweepPlan, whole: bool) -> None:
    """Rows and classes that are lost, texts that are cut off, labels that are not merged."""
    dataset = replace(
        plan.dataset,
        dropped={"no text": 2, "beyond --max-train-rows": 7},
        left_out_classes={"[rare]": 1},
        merged_by="map.yaml",
    )
    train = replace(plan.encoded.train, truncated=4)
    odd = replace(plan, dataset=dataset, encoded=replace(plan.encoded, train=train))
    text = " ".join(" ".join(lines_of(odd, whole=whole, width=60)).split())
    assert "dropped: no text 2" in text
    # Nobody wonders about a limit that was asked for.
    assert ("beyond" in text) == whole
    assert "left out (too few rows for every split): [rare] (1 row)" in text
    assert "4 rows truncated at 16" in text
    assert "labels merged by map.yaml: none of the data's" in text
    training = odd.config.training.model_copy(update={"long": "head-tail"})
    odd = replace(odd, config=odd.config.model_copy(update={"training": training}))
    text = " ".join(" ".join(lines_of(odd, whole=whole, width=60)).split())
    assert f"4 rows longer than 16{'' if whole else ' tokens'}, read without the middle" in text


def extended(**more: Any) -> Any:
    """A sweep of three trials of which one goes on."""
    trials = [
        TrialRecord(id="t000", number=0, state="completed", score=0.9, evaluations=rungs(6)),
        TrialRecord(id="t001", number=1, state="stopped", score=0.5, evaluations=rungs(1)),
        TrialRecord(id="t002", number=2, state="running", score=0.7, evaluations=rungs(3)),
    ]
    ranked = rank_trials(trials, "accuracy")
    return SimpleNamespace(trials=trials, ranked=lambda: ranked, result=None, seconds=120.0, **more)


def rungs(count: int) -> Any:
    return [{"rung": rung, "seconds": rung} for rung in range(1, count + 1)]


def test_an_extension_counts_what_is_done(plan: SweepPlan) -> None:
    """Five new trials and half of one: 11 of 16 epochs."""
    lines = lines_of(plan, extended())
    assert lines[5].startswith("done    3 of them: 1 completed, 1 stopped by ASHA, 1 ")
    assert lines[5].endswith("; best 90.0%, t000")
    assert lines[-1] == "cost    about 6.4 of 11 more epochs of 48 rows"


ESTIMATE = Estimate(rung=10, trial=60, after=30, total=500)


def test_the_cost_is_told_in_minutes(plan: SweepPlan) -> None:
    """Those of a sweep that goes on are what is left of it; in a given time its trials are not counted."""
    plan = replace(plan, estimate=ESTIMATE)
    assert lines_of(plan)[-1] == "cost    about 9.3 of 16 epochs of 48 rows; some 8 minutes"
    # Eleven epochs of three rungs each, of which seven twelfths are expected, two at once.
    assert lines_of(plan, extended())[-1].endswith("of 11 more epochs of 48 rows; some 2.1 minutes")
    search = plan.config.search.model_dump()
    both = changed(plan, search=search | {"max_minutes": 9, "patience": 4})
    assert lines_of(both)[-3:] == [
        "        until 4 in a row bring nothing beyond noise",
        lines_of(plan)[5],
        "cost    about 9.3 of 16 epochs of 48 rows; some 8 minutes, 9 minutes at most",
    ]
    going_on = " ".join(" ".join(lines_of(both, extended())).split())
    assert going_on.endswith("; some 2.1 minutes, 7 minutes at most")
    alone = changed(plan, search={"max_minutes": 9}, compare_untuned=True)
    assert lines_of(alone)[4:] == [
        "trials  by TPE for the best validation accuracy, 2 at once with 1 core each",
        lines_of(plan)[5],
        "cost    9 minutes: about 8 trials of 2 epochs of 48 rows, 2 to compare",
    ]
    assert lines_of(replace(alone, estimate=None))[-1].startswith("cost    9 minutes, trials of 2 epochs")
    assert lines_of(alone, extended())[-1].startswith("cost    7 minutes more, trials of 2 epochs")


def test_a_time_that_is_too_short_is_noted(plan: SweepPlan) -> None:
    short = replace(changed(plan, search={"max_minutes": 1}), estimate=ESTIMATE)
    note = "--max-minutes 1: one trial and what comes after it take some 1.5 minutes here"
    assert note in short.notes
    assert note not in replace(changed(plan, search={"max_minutes": 2}), estimate=ESTIMATE).notes


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1, "10 seconds"),
        (42, "50 seconds"),
        (60, "1 minute"),
        (100, "1.7 minutes"),
        (540, "9 minutes"),
        (5000, "83 minutes"),
        (9000, "2.5 hours"),
    ],
)
def test_minutes_are_as_exact_as_an_estimate(seconds: float, text: str) -> None:
    assert minutes_text(seconds) == text


def test_a_warm_start_names_the_older_trials(plan: SweepPlan) -> None:
    warm: Any = SimpleNamespace(trials=[None] * 3, best=extended().trials[0])
    search = plan.config.search.model_dump() | {"warm_start": "older"}
    lines = lines_of(changed(plan, search=search), None, warm)
    assert "learns  from 3 trials of older; begins with its best, t000 (90.0%)" in lines


def test_what_comes_after_the_trials_is_in_the_cost(plan: SweepPlan) -> None:
    """References that are on record are not trained again."""
    much = changed(plan, compare_untuned=True, choice={"confirm": "3x3", "rule": "smallest"})
    text = " ".join(" ".join(lines_of(much)).split())
    assert "winner smallest adapter within 0.5 points of the best mean accuracy over 3 other seeds" in text
    assert text.endswith("about 9.3 of 16 epochs of 48 rows, 18 to confirm, 2 to compare")
    done = extended()
    done.result = SimpleNamespace(untuned="on record")
    assert lines_of(much, done)[-1].endswith("to confirm")


def test_the_notes_are_shown_before_a_sweep_begins(plan: SweepPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal and in a log; in a notebook they stay above the progress. Silence shows nothing."""
    console = Console(width=80, file=StringIO(), record=True)
    monkeypatch.setattr(display, "console", console)
    prepared: Any = SimpleNamespace(
        plan=plan, new=True, warm=None, notes=["one class has [few] rows, " + "x " * 30]
    )
    assert isinstance(display.display_for(prepared, 1), LogDisplay)
    shown = console.export_text()
    assert shown.startswith("news\ndata ")
    assert "note    one class has [few] rows, x" in shown
    assert "\n        x x" in shown
    assert "modules" not in shown
    display.display_for(prepared, 2)
    assert "all-linear: 12 modules" in console.export_text()
    # Whoever resumes a sweep has seen the plan.
    display.display_for(prepared, 1, plan=False)
    assert console.export_text().startswith("note    one class")
    display.display_for(prepared, 0)
    assert console.export_text() == ""
    pages: list[Any] = []
    monkeypatch.setattr(display, "in_notebook", lambda: True)
    monkeypatch.setattr(IPython.display, "display", lambda page, **_: pages.append(page))
    shown_there = display.display_for(prepared, 1)
    shown_there.begin(plan.summary(), extended().trials)
    shown_there.phase("scoring t000")
    for part in ("one class has [few] rows", "scoring t000", "90.0%", "6/6", "running"):
        assert part in pages[-1].data
    assert " left" in pages[-1].data
    shown_there.end(SweepResult(state="finished", metric="accuracy", seconds=80), {})
    assert "finished after 1:20" in pages[-1].data
    assert " left" not in pages[-1].data


def test_a_search_on_a_part_says_what_follows_on_all_rows(plan: SweepPlan) -> None:
    part = plan.encoded.take(Part(np.arange(12), np.arange(6)))
    search = plan.config.search.model_dump() | {"proxy": 0.25, "finalists": 2}
    lines = lines_of(replace(changed(plan, search=search), part=part))
    assert lines[4:6] == [
        "trials  8 on 25 % of the rows (12) by TPE for the best validation accuracy, 2",
        "        at once with 1 core each",
    ]
    assert lines[6:8] == [
        "        then the best 2 and the start on all 48 rows, at 0.63 of their rate;",
        "        the winner is one of them",
    ]
    assert lines[-1] == "cost    about 9.3 of 16 epochs of 12 rows, 6 of all 48 rows for the finalists"

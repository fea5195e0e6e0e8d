"""The page of sweeps built by hand: right figures, and somebody's texts escaped."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial
from reported_sweeps import (
    LABELS,
    LONG,
    PREDICTED,
    SCORES,
    SCRIPT,
    SEARCHED,
    TRIALS,
    Page,
    dataset,
    finished_sweep,
    logits_of,
    page_of,
    pieces_of,
    table,
    trial,
)
from safetensors.numpy import save_file

from lorasweep.training.errors import SettingsError
from lorasweep.training.scores.scores import score
from lorasweep.training.settings import Hyperparameters, TrainingSettings
from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.results import (
    Confirmed,
    Gain,
    Reference,
    StartReference,
    SweepResult,
    UnmergedReference,
    Winner,
)
from lorasweep.tuning.report.page import write_report
from lorasweep.tuning.report.plots.table import PLOTS as ALL_PLOTS
from lorasweep.tuning.sweep.winner.winner import TEST_FILE

PLOTS = (
    "importances",
    "slices",
    "adapter_sizes",
    "confusion",
    "learning_curves",
    "history",
    "parallel_coordinates",
)
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def whole(finished: SweepFolder, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The finished sweep's page with everything in it."""
    out = tmp_path_factory.mktemp("page") / "new" / "folder" / "report.html"
    assert write_report(finished, out) == out
    return out.read_text(encoding="utf-8")


def test_only_known_scripts_run(whole: str) -> None:
    """Plotly and our own by their hashes, the figures as data; nothing is loaded, nothing is sent."""
    data, plotly, own = re.findall(r"<script([^>]*)>(.*?)</script>", whole, re.DOTALL)
    assert "application/json" in data[0]
    found = re.search(r'Content-Security-Policy" content="([^"]*)"', whole)
    assert found is not None
    policy = html.unescape(found[1])
    for _, code in (plotly, own):
        digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert policy.count("sha256-") == 2
    assert "'unsafe-inline'" not in policy.split("script-src")[1]
    assert "default-src 'none'; form-action 'none'" in policy
    assert "showSendToCloud: false" in own[1]
    assert len(whole) < 6_000_000
    rest = whole.replace(plotly[1], "").replace(data[1], "")
    assert "http" not in rest.replace("http-equiv", "")


def test_texts_of_strangers_are_text(whole: str) -> None:
    """In the tables escaped, in the figures JSON without markup; no tag or attribute of theirs."""
    page = Page(whole)
    names = {tag for tag, _ in page.tags}
    assert not names & {"img", "b-", "link", "iframe", "object", "a", "form", "svg", "base"}
    assert len(page.scripts) == 3
    assert all(not key.startswith("on") for _, attributes in page.tags for key in attributes)
    assert not [attributes for _, attributes in page.tags if {"src", "href"} & set(attributes)]
    for label in LABELS:
        assert label in page.text
    assert f"{SCRIPT}.csv" in page.text
    assert f"ValueError: {SCRIPT} & \"more\", 'text' [31m" in page.text, "the error without its escape code"
    assert "\u202e" not in page.text
    assert "<b>pair 16</b>" in page.text
    figures = json.loads(page.scripts[0])
    assert tuple(figures) == PLOTS
    assert "<" not in page.scripts[0]
    assert SCRIPT not in json.dumps(figures)
    labels = figures["confusion"]["layout"]["xaxis"]["ticktext"]
    assert len(labels) == len(LABELS)
    assert labels[2] == "=1+1"
    assert labels[-1].startswith("z &lt;script&gt;")


def test_each_plot_has_its_place_and_its_words(whole: str) -> None:
    """In the order of the table of plots, with title and caption."""
    page = Page(whole)
    places = [attributes["id"] for tag, attributes in page.tags if attributes.get("class") == "plot"]
    assert places == [f"plot-{name}" for name in PLOTS]
    for plot in ALL_PLOTS:
        assert plot.title in page.text
        assert plot.caption in page.text
    assert "Which settings mattered" in page.text


def test_what_was_found_comes_first(whole: str) -> None:
    """The winner, what mattered, mistakes, then all trials; what the user knows already is folded."""
    order = ["Winner", "Which settings mattered", "The winner’s mistakes", "Trials", "Configuration"]
    assert re.findall(r"<h2>(.*?)</h2>", whole) == order
    folded = "".join(re.findall(r"<details>.*?</details>", whole, re.DOTALL))
    for known in ("batch size", "base model", "early stopping", "learning_rate"):
        assert known in folded
        assert known not in whole.split("<script")[1].replace(folded, "")
    text = " ".join(Page(whole).text.split())
    assert "of what sets the best trials apart; from 4 trials, this is only a hint." in text


def test_plots_have_words_for_who_cannot_see_them(whole: str) -> None:
    """Title and caption, by their ids."""
    page = Page(whole)
    ids = {attributes.get("id") for _, attributes in page.tags}
    plots = [attributes for _, attributes in page.tags if attributes.get("class") == "plot"]
    assert len(plots) == len(PLOTS)
    for plot in plots:
        assert plot["role"] == "img"
        assert {plot["aria-labelledby"], plot["aria-describedby"]} <= ids


def test_the_tables_rows_are_the_lines(whole: str) -> None:
    """By which the browser filters it: the best trial's line is the last; one without a score has none."""
    lines = re.findall(r'<tr data-line="(\d*)"[^>]*><td>(t\d+)', whole)
    assert lines == [("3", "t001"), ("2", "t004"), ("1", "t000"), ("0", "t003"), ("", "t002"), ("", "t005")]


@pytest.mark.usefixtures("quick")
def test_settings_that_a_function_invents_are_text(folder: SweepFolder) -> None:
    """Their names and values stand in the study alone; in the page they are no markup either."""
    (folder.path / "study.db").unlink()
    (folder.path / "space.yaml").unlink()
    study = optuna.create_study(study_name="demo", storage=folder.study_url, direction="maximize")
    kinds = {
        f"_{SCRIPT}": CategoricalDistribution((f"<img src=x>{SCRIPT}", "b")),
        "x<y": FloatDistribution(0, 1),
    }
    for record in TRIALS:
        drawn = dict(zip(kinds, (f"<img src=x>{SCRIPT}", record.number / 9), strict=True))
        done = record.state == "completed"
        state = TrialState.COMPLETE if done else TrialState.PRUNED
        value = record.score if done else None
        study.add_trial(create_trial(state=state, value=value, params=drawn, distributions=kinds))
    written = pieces_of(folder)[1]["report/report.html"].decode()
    page = Page(written)
    assert len(page.scripts) == 3
    assert "img" not in {tag for tag, _ in page.tags}
    assert [f"_{SCRIPT}", f"<img src=x>{SCRIPT}, b"] in page.rows
    figures = json.loads(page.scripts[0])
    assert "<" not in page.scripts[0]
    shown = [axis["label"] for axis in figures["parallel_coordinates"]["data"][0]["dimensions"]]
    assert shown == ["&lt;script&gt;a…/script&gt;", "x&lt;y", "accuracy"]
    assert sorted(figures["importances"]["data"][0]["y"]) == sorted(shown[:2])
    assert "x&lt;y 0.11" in figures["history"]["data"][-1]["hovertext"][0]


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
def test_a_browser_draws_it(whole: str, tmp_path: Path) -> None:
    """All plots, in a frame without an origin as MLflow's pages show it, under the page's own policy."""
    frame = (
        '<iframe id="f" sandbox="allow-scripts" width="1100" height="900"></iframe>'
        f"<script>f.srcdoc = {json.dumps(whole).replace('<', chr(92) + 'u003c')};</script>"
    )
    (tmp_path / "frame.html").write_text(frame, encoding="utf-8")
    (tmp_path / "page.html").write_text(whole, encoding="utf-8")
    found = {}
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-unsafe-swiftshader", "--no-first-run"]
    flags += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    flags += [f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--timeout=8000"]
    for name in ("page", "frame"):
        command = [BROWSER or "", *flags, "--dump-dom", (tmp_path / f"{name}.html").as_uri()]
        found[name] = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        assert "Content Security Policy" not in found[name].stderr
        assert "Uncaught" not in found[name].stderr
    drawn = found["page"].stdout
    for name in PLOTS:
        start = drawn.index(f'id="plot-{name}"')
        assert "main-svg" in drawn[start : start + 2000], name


@pytest.mark.usefixtures("bare")
def test_the_page_says_what_the_records_hold(finished: SweepFolder) -> None:
    """State, time, winner, every trial with its end, the best first."""
    page = page_of(finished)
    assert "demo finished" in " ".join(page.text.split())
    assert "1:02:03" in page.text
    assert "started 2023-11-14 22:13 UTC" in page.text
    trials = page.below("trial", "state", "accuracy", "rank", "targets", "rate")
    assert [(row[0], row[1], row[2]) for row in trials] == [
        ("t001", "completed", "87.5%"),
        ("t004", "completed", "62.5%"),
        ("t000", "completed", "50.0%"),
        ("t003", "stopped", "25.0%"),
        ("t002", "failed", "-"),
        ("t005", "interrupted", "-"),
    ]
    assert trials[0][3:9] == ["8", "query-value", "1.8e-4", "200.0 K", "3/3", "1:01"]
    assert trials[3][-1] == "stopped by ASHA after rung 1"
    assert SCRIPT in trials[4][-1]
    assert f"full budget; out of memory: {SCRIPT}" == trials[0][-1]
    assert ["learning_rate", "1e-4 ... 0.01 (log)"] in page.rows
    assert ["early stopping", "ASHA: keep the best 1/2 after rung 1"] in page.rows
    assert ["rank", "8"] in page.rows
    assert ["batch size", "16"] in page.rows
    won = [attributes for tag, attributes in page.tags if tag == "tr" and attributes.get("class") == "won"]
    assert len(won) == 2, "the winner's scores, and its row among the trials"
    for absent in ("95 %", "Other rules", "other seeds", "untuned", "Note:"):
        assert absent not in page.text, "nothing of this is on record"


@pytest.mark.usefixtures("bare")
def test_the_winners_errors_are_counted_right(finished: SweepFolder) -> None:
    """Classes from the weakest, the pairs that are mixed up, and the mistakes it is most confident of."""
    page = page_of(finished)
    classes = page.below("class", "precision", "recall", "F1", "rows")
    # Of B's 13 rows 2 are found, and nothing else is taken for B; `=1+1` takes 11 of its 13 from B.
    assert classes[0] == ["=1+1", "15.4%", "100.0%", "26.7%", "2"]
    assert classes[1] == ["B", "100.0%", "15.4%", "26.7%", "13"]
    assert len(classes) == 7
    mixed = page.below("true", "predicted", "rows", "of the class")
    assert mixed[0] == ["B", "=1+1", "11", "84.6%"]
    assert len(mixed) == 4
    mistakes = page.below("text", "true", "predicted", "probability")
    assert len(mistakes) == 10
    assert [row[3] for row in mistakes[:4]] == ["99.0%", "95.0%", "60.0%", "60.0%"]
    assert [row[1:3] for row in mistakes[:2]] == [["two\nlines", LONG], [f"z {SCRIPT}", "../../x"]]
    assert mistakes[0][0].startswith(f"=row 16, {SCRIPT}")
    assert len(mistakes[0][0]) < 600, "long texts are cut"


@pytest.mark.usefixtures("bare")
def test_what_else_a_result_may_hold(folder: SweepFolder) -> None:
    """Intervals, comparisons, other rules and other seeds are shown where they are on record."""
    result = folder.result()
    assert result is not None
    assert result.winner is not None
    untuned = Reference(
        hyperparameters=Hyperparameters(rank=8, learning_rate=2e-5), score=0.3, test=SCORES, seconds=1.0
    )
    winner = result.winner.model_copy(
        update={"interval": {"accuracy": (0.41, 0.69), "loss": (0.5, 1.25)}, "rule": f"best {SCRIPT}"}
    )
    more = {
        "winner": winner,
        "untuned": untuned,
        "unmerged": UnmergedReference(
            hyperparameters=Hyperparameters(), classes=41, score=0.3, test=SCORES, merged=SCORES, seconds=1.0
        ),
        "baselines": {f"linear {SCRIPT}": SCORES},
        "choices": {"macro-F1": "t001", "smallest within 0.5 points": "t000"},
        "confirmed": (Confirmed(id="t001", scores={"1": 0.5, "2": 0.75}, mean=0.625, spread=0.1768),),
    }
    folder.write_result(result.model_copy(update=more))
    plan = json.loads((folder.path / "plan.json").read_text())
    plan["data"] |= {"group_column": f"author {SCRIPT}", "groups": {"train": 3, "validation": 1, "test": 1}}
    (folder.path / "plan.json").write_text(json.dumps(plan))
    page = page_of(folder)
    assert ["split by group", f"each author {SCRIPT} in one split"] in page.rows
    assert "95 % interval 41.0% to 69.0%" in " ".join(page.text.split())
    tested = page.below("test split", "accuracy", "macro-F1", "loss")
    names = ["winner t001", "its 95 % interval", "trained on 41 classes", "and merged afterwards"]
    assert [row[0] for row in tested] == [*names, "untuned default", f"linear {SCRIPT}"]
    assert tested[1][1:] == ["41.0% – 69.0%", "", "0.500 – 1.250"]
    assert tested[4][1:] == ["40.0%", "25.0%", "1.750"]
    assert "untuned default: rank 8, targets all-linear, rate 2.0e-5" in page.text
    assert f"chosen by: best {SCRIPT}" in page.text
    gain = 100 * (winner.test.accuracy - 0.4)
    assert f"Tuning adds {gain:+.1f} points" in page.text
    assert ["smallest within 0.5 points", "t000"] in page.rows
    assert ["macro-F1", "t001 (the winner)"] in page.rows
    assert page.below("trial", "mean accuracy") == [["t001", "62.5%", "17.7 points", "50.0%, 75.0%"]]
    assert len(page.scripts) == 3


@pytest.mark.usefixtures("bare")
def test_an_unfinished_sweep(folder: SweepFolder) -> None:
    """No winner yet: what there is of the trials is shown, as running while somebody drives it."""
    (folder.path / "result.json").unlink()
    with folder.lock():
        page = page_of(folder)
        assert "demo running" in " ".join(page.text.split())
        assert page.below("trial", "state")[-1][1] == "running"
    page, files = pieces_of(folder)
    assert "demo interrupted" in " ".join(page.text.split())
    assert "No winner has been chosen" in page.text
    assert "test split" not in page.text
    assert set(files) == {"report/report.html", "report/trials.csv"}
    folder.write_result(SweepResult(state="failed", metric="accuracy", error=f"all failed: {SCRIPT}"))
    page = page_of(folder)
    assert f"all failed: {SCRIPT}" in page.text
    assert len(page.scripts) == 3


@pytest.mark.usefixtures("quick")
def test_a_sweep_before_its_first_trial(tmp_path: Path) -> None:
    """Nothing but a configuration."""
    folder = SweepFolder(tmp_path, "new")
    folder.create(SweepConfig(name="new"))
    page, files = pieces_of(folder)
    assert "No trial has started" in page.text
    assert "figure" not in {tag for tag, _ in page.tags}
    assert json.loads(page.scripts[0]) == {}
    assert table(files["report/trials.csv"])[0][:3] == ["trial", "state", "score"]


@pytest.mark.usefixtures("quick")
def test_a_loss_in_nats_with_the_lowest_first_and_full_trials_without_a_rank(tmp_path: Path) -> None:
    """One column of text, no pair; a score that is not finite comes last, and is not drawn."""
    folder = SweepFolder(tmp_path, "loss")
    folder.create(SweepConfig(name="loss", training=TrainingSettings(metric="loss")))
    full = TRIALS[0].hyperparameters.model_copy(update={"method": "full"})
    for record in (trial(0, 2.5, settings=full), trial(1, 0.375), trial(2, 7.0), trial(3, 1.5)):
        folder.write_trial(record)
    odd = folder.path / "trials" / "t002.json"
    odd.write_text(odd.read_text().replace("7.0", "-Infinity"))
    assert np.isinf(folder.trials()[2].score or 0.0)
    page = page_of(folder)
    rows = page.below("trial", "state", "loss")
    assert [row[:3:2] for row in rows[:3]] == [["t001", "0.3750"], ["t003", "1.5000"], ["t000", "2.5000"]]
    assert rows[3][:3:2] == ["t002", "-"]
    assert rows[2][3:5] == ["–", "–"], "full fine-tuning has no rank and no target modules"
    assert rows[0][3] == "8"
    data = dataset(pairs=False)
    data.save(folder.data)
    logits = logits_of(PREDICTED)
    folder.winner.mkdir()
    save_file({"logits": logits}, folder.winner / TEST_FILE)
    accuracy = score(logits, data.test.labels).accuracy
    winner = Winner(
        id="t000", score=2.5, hyperparameters=full, test=SCORES.model_copy(update={"accuracy": accuracy})
    )
    folder.write_result(SweepResult(state="finished", metric="loss", winner=winner))
    page, files = pieces_of(folder)
    assert "validation loss 2.5000" in page.text
    assert ["method", "full"] in page.rows
    assert ["rank", "4"] not in page.rows
    assert "Most confident mistakes" in page.text
    assert table(files["report/mistakes.csv"])[1][2] == ""


@pytest.mark.usefixtures("bare")
def test_many_searched_settings_share_a_column(tmp_path: Path) -> None:
    """Ten columns would not fit a page; what a sweep did not write down is not made up."""
    folder = SweepFolder(tmp_path, "many")
    folder.create(SweepConfig(name="many"))
    more = {"dropout": 0.1, "warmup": 0.05, "weight_decay": 0.01, "label_smoothing": 0.0}
    settings = {**TRIALS[0].hyperparameters.model_dump(), **more}
    folder.write_trial(trial(0, 0.5, settings=settings, searched=(*SEARCHED, *more)))
    page = page_of(folder)
    row = page.below("trial", "state", "accuracy", "settings", "params")[0]
    assert row[3] == (
        "rank 4, targets all-linear, rate 1.0e-4, dropout 0.1, warmup 0.05, decay 0.01, label_smoothing 0"
    )
    assert ["early stopping", "ASHA"] in page.rows
    folder.write_plan({"budget": {"halving": []}})
    assert ["early stopping", "none"] in page_of(folder).rows


@pytest.mark.usefixtures("bare")
def test_what_judged_the_trials_is_told(tmp_path: Path) -> None:
    """Where it is not the metric, by which everything is drawn and sorted."""
    folder = finished_sweep(tmp_path / "mlruns")
    assert not [row for row in page_of(folder).rows if row[0] == "objective"]
    config = folder.config()
    search = config.search.model_copy(update={"objective": "loss"})
    folder.write_config(config.model_copy(update={"search": search}))
    page = page_of(folder)
    assert ["objective", "trials are judged by loss, the winner is chosen by accuracy"] in page.rows
    assert "A sweep for the best validation accuracy, its trials judged by loss, started" in page.text
    trials = page.below("trial", "state", "accuracy", "rank", "targets", "rate")
    assert [row[2] for row in trials][:2] == ["87.5%", "62.5%"]


@pytest.mark.usefixtures("bare")
def test_where_it_cannot_be_written(finished: SweepFolder, tmp_path: Path) -> None:
    """Refused in one line; a page that is there is replaced."""
    with pytest.raises(SettingsError, match=r"is a folder; name a file"):
        write_report(finished, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match=r"cannot be written .*; name another file"):
        write_report(finished, tmp_path / "file" / "report.html")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.usefixtures("bare")
def test_the_start_stands_beside_the_winner_and_noise_is_marked(folder: SweepFolder) -> None:
    """Its scores with an interval below the winner's, what the search added to it, and its row among the trials."""
    result = folder.result()
    assert result is not None
    folder.write_trial(TRIALS[0].model_copy(update={"start": 1}))
    start = StartReference(
        id="t000",
        hyperparameters=TRIALS[0].hyperparameters,
        score=0.5,
        test=SCORES,
        interval={"accuracy": (0.3, 0.5)},
    )
    more = {"start": start, "over_start": Gain(difference=0.03, interval=(0.01, 0.05)), "near": ("t004",)}
    folder.write_result(result.model_copy(update=more))
    page = page_of(folder)
    tested = page.below("test split", "accuracy", "macro-F1", "loss")
    assert [row[0] for row in tested] == ["winner t001", "known-good start t000", "its 95 % interval"]
    assert tested[1][1:] == ["40.0%", "25.0%", "1.750"]
    assert tested[2][1:] == ["30.0% – 50.0%", "", ""]
    text = " ".join(page.text.split())
    assert (
        "The search adds +3.0 points of accuracy to its known-good start t000 (95 % interval +1.0 to +5.0)."
        in text
    )
    assert "known-good start t000: rank" in text
    assert [row[0] for row in page.below("trial", "state")][:4] == ["t001", "t004 ~", "t000 start", "t003"]
    assert "~ within noise of the winner" in text

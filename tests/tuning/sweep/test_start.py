"""What happens between asking and printing: which sweeps may begin, and what is written when."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lorasweep.training.data.dataset import Dataset
from lorasweep.training.errors import SettingsError
from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.listener import StoreCopy, SweepListener
from lorasweep.tuning.record.results import SweepResult
from lorasweep.tuning.record.trial_records import TrialRecord
from lorasweep.tuning.sweep import estimate as estimating
from lorasweep.tuning.sweep import run as running
from lorasweep.tuning.sweep import start
from lorasweep.tuning.sweep.plan import planning

CONFIG = SweepConfig.model_validate({"name": "demo", "search": {"trials": 3}})
MORE = SweepConfig.model_validate({"name": "demo", "search": {"trials": 5}})
FINISHED = SweepResult(state="finished", metric="accuracy")


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    """An interrupted sweep."""
    folder = SweepFolder(tmp_path, "demo")
    folder.create(CONFIG)
    return folder


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """The arguments of `plan_sweep`, which is not run."""
    calls: list[tuple[Any, ...]] = []

    def plan(*arguments: Any, **more: Any) -> Any:
        calls.append(arguments)
        rows = SimpleNamespace(multi_label=arguments[0].data.label_separator is not None)
        made = SimpleNamespace(
            config=arguments[0], summary=lambda: {"budget": {"trials": 5}}, notes=[], dataset=rows
        )
        made.going_on = lambda earlier: made
        return made

    monkeypatch.setattr(planning, "plan_sweep", plan)
    monkeypatch.setattr(estimating, "with_estimate", lambda plan, earlier=None: plan)
    monkeypatch.setattr(Dataset, "load", lambda path: f"rows of {path.name}")
    monkeypatch.setattr(SweepFolder, "space", lambda self, spec: f"kept {spec}")
    return calls


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """The arguments of `run_sweep`, which is not run; nor is MLflow's store made."""
    calls: list[tuple[Any, ...]] = []

    def run(*arguments: Any) -> SweepResult:
        calls.append((*arguments, arguments[1].config(), arguments[1].plan()))
        return FINISHED

    monkeypatch.setattr(running, "run_sweep", run)
    monkeypatch.setattr(start, "open_store", lambda config, mlruns: "sqlite:///none.db")
    return calls


def test_a_name_in_use_is_refused_first(folder: SweepFolder, planned: list[Any]) -> None:
    with pytest.raises(SettingsError, match="in use"):
        start.prepare(CONFIG, folder.mlruns)
    assert planned == []


def test_credentials_are_refused_before_anything_is_written(tmp_path: Path, planned: list[Any]) -> None:
    """A sweep of an older version has them in its files, and goes on."""
    resources = {"storage": "s3://KEY:WORD@bucket/x"}
    config = SweepConfig.model_validate({"name": "demo", "resources": resources})
    with pytest.raises(SettingsError, match=r"^--storage s3://bucket/x: the URI holds credentials"):
        start.prepare(config, tmp_path)
    assert (planned, list(tmp_path.iterdir())) == ([], [])
    older = SweepFolder(tmp_path, "demo")
    older.create(config)
    assert start.resume(older) is not None


def test_which_sweeps_are_resumed(folder: SweepFolder, planned: list[Any]) -> None:
    """An interrupted one with its own rows and space; one that MLflow lacks is to be published."""
    with folder.lock(), pytest.raises(SettingsError, match="is running"):
        start.resume(folder)
    prepared = start.resume(folder)
    assert prepared is not None
    assert not prepared.new
    assert prepared.notes == []
    assert planned == [(CONFIG, "rows of data", "kept lora_cpu")]
    folder.write_result(FINISHED)
    assert start.resume(folder) is None
    folder.write_result(FINISHED.model_copy(update={"published": True}))
    with pytest.raises(SettingsError, match="has finished"):
        start.resume(folder)


def test_failed_trials_that_a_resumed_sweep_tries_again(folder: SweepFolder, planned: list[Any]) -> None:
    """By itself where none has ended well; all where it is asked to, also in a finished sweep."""
    folder.write_trial(TrialRecord(id="t000", number=0, state="failed", error="broke"))
    folder.write_trial(TrialRecord(id="t001", number=1))
    prepared = start.resume(folder)
    assert prepared is not None
    assert (prepared.retry, prepared.failed) == (("t000",), ())
    assert prepared.notes == ["tried again after they failed: t000"]
    folder.write_trial(TrialRecord(id="t001", number=1, state="completed"))
    prepared = start.resume(folder)
    assert prepared is not None
    assert (prepared.retry, prepared.failed) == ((), ("t000",))
    assert prepared.notes == [
        f"failed before: t000; to try these again, too: {folder.command('resume', '--retry-failed')}"
    ]
    folder.write_result(FINISHED.model_copy(update={"published": True}))
    with pytest.raises(SettingsError, match=r"has finished; .* again: lorasweep resume demo --retry-failed"):
        start.resume(folder)
    prepared = start.resume(folder, retry_failed=True)
    assert prepared is not None
    assert prepared.retry == ("t000",)
    folder.write_trial(TrialRecord(id="t000", number=0, state="stopped"))
    with pytest.raises(SettingsError, match=r"has finished; see: lorasweep status demo --mlruns [^ ]+$"):
        start.resume(folder, retry_failed=True)


def test_a_finished_sweep_goes_on_where_a_step_after_its_trials_failed(
    folder: SweepFolder, planned: list[Any]
) -> None:
    folder.write_trial(TrialRecord(id="t000", number=0, state="failed"))
    folder.write_result(FINISHED.model_copy(update={"published": True, "missing": {"exporting t001": "no"}}))
    prepared = start.resume(folder)
    assert prepared is not None
    assert prepared.retry == (), "it has a winner: what failed is not in the way"


def test_an_extension_is_written_when_it_begins(
    folder: SweepFolder, planned: list[Any], ran: list[tuple[Any, ...]]
) -> None:
    folder.write_result(FINISHED.model_copy(update={"stopped_by": "time"}))
    prepared = start.extend(folder, MORE)
    assert planned[0][0] == MORE
    assert (folder.config(), folder.plan()) == (CONFIG, {}), "only looked at, nothing is changed"
    listener = SweepListener()
    assert start.begin(prepared, [listener]) == FINISHED
    assert folder.result() == FINISHED, "what ended its search does not end it now"
    ((plan, where, listeners, retry, config, summary),) = ran
    assert retry == ()
    assert (plan, where) == (prepared.plan, folder)
    assert (config, summary) == (MORE, {"budget": {"trials": 5}})
    assert listeners[0] is listener
    assert isinstance(listeners[1], StoreCopy)
    # Another choice among the same trials leaves the search as it has ended.
    folder.write_result(FINISHED.model_copy(update={"stopped_by": "time"}))
    start.begin(start.extend(folder, MORE.model_copy(update={"keep": 7})))
    assert folder.config().keep == 7
    assert (folder.result() or FINISHED).stopped_by == "time"


def test_several_labels_keep_the_thresholds_that_trials_were_judged_by(
    folder: SweepFolder, planned: list[Any]
) -> None:
    """Of two classes a threshold is the winner's alone, and may change."""
    other = MORE.model_copy(update={"choice": MORE.choice.model_copy(update={"threshold": "none"})})
    start.extend(folder, other)
    several = CONFIG.data.model_copy(update={"label_separator": ";"})
    folder.write_config(CONFIG.model_copy(update={"data": several}))
    same = MORE.model_copy(update={"data": several})
    start.extend(folder, same)
    with pytest.raises(SettingsError, match=r"the trials of sweep demo were judged by f1; leave that out"):
        start.extend(folder, other.model_copy(update={"data": several}))


def test_a_new_sweep_is_made_with_its_warm_start(
    tmp_path: Path, ran: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a resumed one is left as it is."""
    made: list[Any] = []

    def create(plan: Any, mlruns: Path, warm: Any) -> None:
        made.append(warm)
        SweepFolder(mlruns, "demo").create(CONFIG)

    monkeypatch.setattr(start, "create_folder", create)
    plan: Any = SimpleNamespace(config=CONFIG, summary=lambda: {"never": "written"}, notes=["few rows"])
    warm: Any = SimpleNamespace(notes=["older"])
    prepared = start.Prepared(plan, SweepFolder(tmp_path, "demo"), new=True, warm=warm)
    assert prepared.notes == ["few rows", "older"]
    start.begin(prepared)
    start.begin(start.Prepared(plan, prepared.folder))
    assert made == [warm]
    assert [summary for *_, summary in ran] == [{}, {}]


def test_a_finished_sweep_is_confirmed_on_other_seeds(folder: SweepFolder, planned: list[Any]) -> None:
    """It goes on with nothing but that; asked for what it has, it has finished."""
    folder.write_trial(TrialRecord(id="t000", number=0, state="completed", score=0.5, checkpoint="c"))
    folder.write_result(FINISHED.model_copy(update={"published": True}))
    prepared = start.resume(folder, confirm="1x3")
    assert prepared is not None
    assert planned[0][0].choice.confirmed == (1, 3)
    assert folder.config().choice.confirm is None, "only looked at, nothing is changed"
    folder.write_config(planned[0][0])
    with pytest.raises(SettingsError, match="has finished"):
        start.resume(folder, confirm="1x3")


def test_a_sweep_goes_on_elsewhere(
    folder: SweepFolder, planned: list[Any], ran: list[tuple[Any, ...]]
) -> None:
    """What differs is said before it begins and stays for the next time."""
    entries = {"resources": {"address": "10.0.0.9:6379", "concurrency": 2}}
    prepared = start.resume(folder, entries=entries)
    assert prepared is not None
    assert prepared.notes == [
        "from now on: address 10.0.0.9:6379 instead of this machine; concurrency 2 instead of as many as fit"
    ]
    assert folder.config() == CONFIG
    start.begin(prepared)
    assert folder.config().resources.model_dump(exclude_none=True) == entries["resources"]
    # That alone is no reason for a finished sweep to go on.
    folder.write_result(FINISHED.model_copy(update={"published": True}))
    with pytest.raises(SettingsError, match="has finished"):
        start.resume(folder, entries={"resources": {"concurrency": 4}})


def test_a_sweep_in_a_ray_job_joins_its_cluster_and_says_so(
    folder: SweepFolder, planned: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.5:6379")
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    joins = "runs as a Ray job: it joins the job's cluster (10.0.0.5:6379)"
    new = start.prepare(CONFIG.model_copy(update={"name": "new"}), folder.mlruns)
    assert planned[0][0].resources.address == "auto"
    assert new.notes == [joins]
    resumed = start.resume(folder)
    assert resumed is not None
    assert resumed.plan.config.resources.address == "auto"
    assert resumed.notes == [joins, "from now on: address auto instead of this machine"]

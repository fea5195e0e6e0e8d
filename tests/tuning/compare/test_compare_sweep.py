"""Which sweeps a comparison builds on, and what Python gets of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from compared import SETTINGS, WINNER, failed, rows

import lorasweep
from lorasweep.training.errors import SettingsError, SweepStoppedError
from lorasweep.tuning.compare.compare import Comparison, compare_sweep, find_or_run
from lorasweep.tuning.compare.record import CompareSettings, ComparisonFolder
from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.results import SweepResult, TestScores, Winner
from lorasweep.tuning.record.trial_records import TrialRecord

CONFIG = SweepConfig(name="demo-sweep")


def sweep_folder(mlruns: Path, state: str) -> SweepFolder:
    folder = SweepFolder(mlruns, CONFIG.name)
    if not folder.exists():
        folder.create(CONFIG)
    folder.write_result(SweepResult(state=state, metric="accuracy"))
    return folder


def test_a_sweep_is_run_unless_it_is_finished(tmp_path: Path) -> None:
    runs: list[str] = []

    def run_sweep(config: SweepConfig) -> SweepFolder:
        runs.append(config.name)
        return sweep_folder(tmp_path, "finished" if len(runs) > 1 else "interrupted")

    with pytest.raises(SweepStoppedError, match="demo-sweep: is interrupted; repeat the command"):
        find_or_run(CONFIG, tmp_path, run_sweep)
    for _ in range(2):
        assert find_or_run(CONFIG, tmp_path, run_sweep).state() == "finished"
    assert runs == ["demo-sweep"] * 2
    other = CONFIG.model_copy(update={"base_model": "another"})
    with pytest.raises(SettingsError, match="demo-sweep: exists with other settings"):
        find_or_run(other, tmp_path, run_sweep)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"batch_size": 0}, "batch_size=0: use 1 or more"),
        ({"full_rate": -1.0}, "full_rate=-1.0: use more than 0"),
        ({"epochs": 0}, "epochs=0: use 1 or more"),
        ({"max_train_rows": 0}, "max_train_rows=0: use 1 or more"),
        ({"name": "../up"}, r"name='\.\./up': use letters"),
    ],
)
def test_values_that_cannot_be_are_refused_by_name(
    options: dict[str, Any], named: str, tmp_path: Path
) -> None:
    sweep_folder(tmp_path, "finished")
    with pytest.raises(SettingsError, match=f"^{named}"):
        lorasweep.compare(sweep=CONFIG.name, mlruns=tmp_path, verbose=False, **options)
    assert not (tmp_path / "comparisons").exists()


class StopError(Exception):
    """Raised where a comparison would begin to run sweeps."""


def configured(tmp_path: Path, options: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The options that the comparison's own sweep is configured with."""
    given: list[dict[str, Any]] = []

    def configure(options: dict[str, Any]) -> SweepConfig:
        given.append(options)
        raise StopError

    with pytest.raises(StopError):
        compare_sweep(
            options, name="demo", mlruns=tmp_path, configure=configure,
            run_sweep=lambda config: SweepFolder(tmp_path, config.name), report=print, **more,
        )  # fmt: skip
    return given[0]


def test_the_comparisons_own_sweep_searches_on_a_part_of_the_rows(tmp_path: Path) -> None:
    options = configured(tmp_path, {"data": "rows.csv", "trials": 3, "text": [], "label": None})
    assert options == {
        "data": "rows.csv",
        "trials": 3,
        "epochs": 2,
        "compare_untuned": False,
        "max_train_rows": 4000,
        "name": "demo-sweep",
    }
    assert configured(tmp_path, {"max_train_rows": 500})["max_train_rows"] == 500
    assert configured(tmp_path, {"max_train_rows": 500}, search_rows=100)["max_train_rows"] == 100


@pytest.mark.parametrize("older", [False, True])
def test_rows_take_over_how_the_sweep_is_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, older: bool
) -> None:
    """Its threshold, unless an older version has begun without; and a metric that nobody has asked for stays open."""
    opened: list[CompareSettings] = []

    def prepare(settings: CompareSettings, *arguments: object) -> None:
        opened.append(settings)
        raise StopError

    monkeypatch.setattr("lorasweep.tuning.compare.run.prepare", prepare)
    config = SweepConfig.build({"name": "demo-sweep", "choice": {"threshold": "f2"}}, "settings")
    folder = SweepFolder(tmp_path, config.name)
    folder.create(config)
    winner = Winner(
        id="t000", score=0.5, hyperparameters=WINNER, test=TestScores(accuracy=0.5, macro_f1=0.5, loss=1.0)
    )
    folder.write_trial(TrialRecord(id="t000", number=0, state="completed", score=0.5))
    folder.write_result(SweepResult(state="finished", metric="accuracy", winner=winner))
    path = tmp_path / "comparisons" / "demo" / "settings.yaml"

    def compare() -> CompareSettings:
        with pytest.raises(StopError):
            compare_sweep(
                {"epochs": 1}, name="demo", mlruns=tmp_path, configure=lambda options: config,
                run_sweep=lambda config: folder, report=lambda line: None,
            )  # fmt: skip
        return opened[-1]

    settings = compare()
    if older:
        path.write_text(path.read_text().replace("threshold: f2\n", ""))
        settings = compare()
    assert settings.threshold == (None if older else "f2")
    assert settings.training.epochs == 1
    assert "metric" not in settings.training.model_fields_set


def test_options_of_a_finished_sweep_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError, match="--sweep small with --max-length, --seed: the sweep has set these"
    ):
        compare_sweep(
            {"max_length": 16, "seed": 4, "epochs": 1}, name="demo", mlruns=tmp_path, sweep="small",
            configure=lambda options: CONFIG, run_sweep=lambda config: SweepFolder(tmp_path, ""), report=print,
        )  # fmt: skip


def test_a_comparison_is_a_table_in_python(tmp_path: Path) -> None:
    made = rows()
    made[1] = failed(made[1], "out of <memory>")
    comparison = Comparison(ComparisonFolder(tmp_path, "demo"), SETTINGS, tuple(made), ())
    assert repr(comparison) == f"Comparison('demo', 5 rows, '{tmp_path}/comparisons/demo')"
    assert comparison.failed == (made[1],)
    frame = comparison.rows
    assert list(frame.index) == ["full-fp32", "full-amp", "lora-fp32", "lora-amp", "tuned"]
    assert frame.loc["tuned", "accuracy"] == pytest.approx(0.6)
    assert frame.loc["tuned", "accuracy_low"] == pytest.approx(0.58)
    assert frame.loc["tuned", "latency_ms_merged_bf16_1"] == pytest.approx(2.0)
    assert frame.loc["full-fp32", "step_mb_gelu"] == pytest.approx(100.0)
    assert frame.loc["full-amp", "error"] == "out of <memory>"
    html = comparison._repr_html_()
    assert html.count("<tr") == 6
    assert "tuned LoRA + AMP" in html
    assert "out of &lt;memory&gt;" in html

"""`import lorasweep`: what it gives, how quick it is, and a sweep from rows in memory to an export."""

from __future__ import annotations

import doctest
import importlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from whole_sweeps import WORDS

import lorasweep
from lorasweep.driving import split_data

# Whatever is public and has a docstring, with its methods.
PUBLIC = [name for name in lorasweep.__all__ if name != "__version__"]


def test_its_names_are_few_and_there() -> None:
    assert len(lorasweep.__all__) <= 25
    for name in lorasweep.__all__:
        assert getattr(lorasweep, name) is not None
    assert set(lorasweep.__all__) <= set(dir(lorasweep))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = lorasweep.nothing
    assert (Path(lorasweep.__file__).parent / "py.typed").is_file()


def test_importing_it_loads_nothing_heavy() -> None:
    code = (
        "import sys, lorasweep; heavy = {'torch', 'ray', 'transformers', 'mlflow', 'optuna', 'pandas', 'sklearn'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_errors_are_one_family() -> None:
    kinds = [getattr(lorasweep, name) for name in lorasweep.__all__ if name.endswith("Error")]
    assert len(kinds) == 7
    assert all(issubclass(kind, lorasweep.LorasweepError) for kind in kinds)


def test_data_is_a_table_or_several() -> None:
    frame = pd.DataFrame({"text": ["a"], "label": ["b"]})
    assert split_data(None) == ({"data": None}, {})
    assert split_data(Path("a.csv")) == ({"data": "a.csv"}, {})
    paths, frames = split_data((frame, "test.csv"))
    assert paths == {"data": "DataFrame", "test": "test.csv"}
    assert list(frames) == ["train"]
    paths, frames = split_data({"train": "a.csv", "validation": frame})
    assert paths == {"data": "a.csv", "validation": "DataFrame"}
    assert list(frames) == ["validation"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ((1, 2, 3, 4), "4 tables; give"),
        ({"test": "a.csv"}, "name them train, validation and test"),
        ({"train": "a.csv", "dev": "b.csv"}, "splits train, dev"),
        (["a.csv"], "1 tables; give"),
        (3, "the train rows are of type int"),
    ],
)
def test_data_that_is_none_is_refused(data: object, said: str) -> None:
    with pytest.raises(lorasweep.SettingsError, match=said):
        split_data(data)


def rows(count: int) -> pd.DataFrame:
    """Distinct texts of three labels."""
    labels = list(WORDS)
    return pd.DataFrame(
        {
            "headline": [f"{WORDS[labels[n % 3]]} {n}" for n in range(count)],
            "section": [labels[n % 3] for n in range(count)],
        }
    )


def space(trial):  # type: ignore[no-untyped-def]
    """A space that is a function of this very module."""
    rank = trial.suggest_categorical("rank", [2, 4])
    trial.suggest_float("learning_rate", 1e-3, 1e-2, log=True)
    return {"alpha": 2 * rank, "batch_size": 8, "target_modules": "query-value"}


@pytest.fixture(scope="module")
def work(place: Path) -> Iterator[Path]:
    """The working directory of everything below."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        yield place


@pytest.fixture(scope="module")
def sweep(work: Path) -> lorasweep.Sweep:
    """A finished sweep, started from Python with rows in memory and a function as its space."""
    return lorasweep.run(
        (rows(54), rows(75)[54:]),
        text="headline",
        label="section",
        name="demo",
        base_model="./base",
        space=space,
        trials=3,
        epochs=1,
        max_length=16,
        precision="fp32",
        verbose=False,
    )


def test_a_sweep_from_memory_and_a_function(
    sweep: lorasweep.Sweep, capfd: pytest.CaptureFixture[str]
) -> None:
    assert (sweep.state, len(sweep.trials)) == ("finished", 3)
    assert {"id", "state", "score", "rank", "learning_rate", "accuracy", "seconds"} <= set(
        sweep.trials.columns
    )
    assert sweep.plan["data"]["rows"]["test"] == 21
    assert sweep.winner is not None
    assert sweep.winner.hyperparameters.alpha == 2 * sweep.winner.hyperparameters.rank
    assert sweep.winner.compared.loc[f"winner {sweep.winner.id}", "accuracy"] == sweep.winner.test.accuracy
    low, high = sweep.winner.interval["accuracy"]
    assert low <= sweep.winner.test.accuracy <= high
    # The function is kept with the sweep, which can be resumed without this module.
    assert "def space(trial)" in (sweep.path / "space.py").read_text()
    assert lorasweep.open(mlruns="mlruns").name == "demo"
    assert "demo" in sweep._repr_html_()
    assert sweep.winner.id in sweep._repr_html_()


def test_it_can_be_extended(sweep: lorasweep.Sweep) -> None:
    with pytest.raises(lorasweep.SettingsError, match="has 3 trials; add 1"):
        lorasweep.run(name="demo", trials=4, verbose=False)
    with pytest.raises(lorasweep.SettingsError, match="the name is in use"):
        lorasweep.run("rows.csv", name="demo", base_model="./base", verbose=False)


def test_without_a_name_nothing_is_extended(sweep: lorasweep.Sweep, work: Path, tmp_path: Path) -> None:
    """Whatever sweeps there are, one that is called None among them."""
    shutil.copytree(sweep.path, tmp_path / "sweeps" / "None")
    plan = lorasweep.run(
        "rows.csv", base_model="./base", trials=9, mlruns=tmp_path, dry_run=True, verbose=False
    )
    assert plan.config.name == "rows-1"


def test_predictions_are_a_frame(sweep: lorasweep.Sweep, work: Path) -> None:
    found = sweep.predict(["markets rally", "film star"], probabilities=True)
    assert list(found.columns) == ["text", "label", "score", *(f"p_{label}" for label in sorted(WORDS))]
    shares = found[[f"p_{label}" for label in sorted(WORDS)]]
    assert shares.sum(axis=1).tolist() == pytest.approx([1, 1])
    assert found["score"].tolist() == pytest.approx(shares.max(axis=1).tolist())
    exported = sweep.export("same")
    again = lorasweep.load("same").predict(["markets rally", "film star"], probabilities=True)
    assert exported.path == Path("same")
    pd.testing.assert_frame_equal(found, again)


def test_what_mlflow_holds_can_be_loaded(sweep: lorasweep.Sweep) -> None:
    found = lorasweep.load("models:/demo@champion").predict(["markets rally"])
    assert found["label"].tolist() == sweep.predict(["markets rally"])["label"].tolist()


def examples() -> list[doctest.DocTest]:
    """Those in the docstrings of every public name and its public methods."""
    finder, found = doctest.DocTestFinder(recurse=True), []
    for name in PUBLIC:
        value = getattr(lorasweep, name)
        if importlib.import_module(value.__module__).__name__.startswith("lorasweep"):
            found += [test for test in finder.find(value, name) if test.examples]
    return found


def test_every_public_docstring_has_an_example() -> None:
    with_example = {test.name for test in examples()}
    errors = {name for name in PUBLIC if name.endswith("Error")}
    wanted = set(PUBLIC) - errors
    for kind in (lorasweep.Sweep, lorasweep.Adapter):
        wanted |= {
            f"{kind.__name__}.{name}"
            for name, value in vars(kind).items()
            if callable(value) and not name.startswith("_") and name != "tracking_store"
        }
    assert wanted - with_example == set()


@pytest.mark.parametrize("example", examples(), ids=lambda test: test.name)
def test_the_examples_of_docstrings(
    example: doctest.DocTest,
    sweep: lorasweep.Sweep,
    work: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a folder that holds `mlruns` with the finished sweep `demo`, `best-adapter`, `rows.csv` and `base`."""
    for name in ("mlruns", "rows.csv", "base"):
        (tmp_path / name).symlink_to(work / name)
    monkeypatch.chdir(tmp_path)
    if "best-adapter" in example.docstring and "export(" not in example.docstring:
        assert sweep.winner is not None
        (tmp_path / "best-adapter").symlink_to(sweep.path / "best" / sweep.winner.id)
    example.globs = {
        **{name: getattr(lorasweep, name) for name in PUBLIC if name != "open"},
        "lorasweep": lorasweep,
        "pd": pd,
        "sweep": sweep,
        "adapter": lorasweep.load(next((sweep.path / "best").iterdir())),
    }
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    lines: list[str] = []
    runner.run(example, out=lines.append)
    assert runner.failures == 0, "".join(lines)

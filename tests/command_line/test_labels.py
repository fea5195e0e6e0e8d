"""What `check-labels` says can be done with its file."""

from __future__ import annotations

from pathlib import Path

import lorasweep
from lorasweep.command_line.labels import label_steps
from lorasweep.options import OPTIONS, to_entries
from lorasweep.training.settings import DataSettings
from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.record.folder import SweepFolder


def step(mlruns: Path, **data: object) -> str:
    name = f"news-{len(list(mlruns.glob('sweeps/*')))}"
    SweepFolder(mlruns, name).create(SweepConfig(name=name, data=DataSettings(**data)))  # type: ignore[arg-type]
    ((command, _),) = label_steps(lorasweep.open(name, mlruns=mlruns), Path("new.csv"))
    return command.replace(name, "news").replace(f" --mlruns {mlruns}", "").replace(str(mlruns), "mlruns")


def test_the_next_search_takes_the_file_and_those_before(tmp_path: Path) -> None:
    run = "lorasweep run --config mlruns/sweeps/news/config.yaml --corrections"
    assert step(tmp_path, path="rows.csv") == f"{run} new.csv"
    assert step(tmp_path, path="rows.csv", corrections=("old.csv",)) == f"{run} old.csv,new.csv"
    assert step(tmp_path, path="rows.csv", corrections=("a, b.csv",)) == f"{run} '\"a, b.csv\",new.csv'"
    assert OPTIONS["corrections"].many
    given = to_entries({"corrections": '"a, b.csv",new.csv'})
    assert given["data"]["corrections"] == ["a, b.csv", "new.csv"]


def test_rows_in_memory_are_searched_in_python(tmp_path: Path) -> None:
    assert step(tmp_path, path="DataFrame") == "lorasweep.run(data, corrections=['new.csv'])"

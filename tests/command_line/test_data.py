"""`lorasweep data huffpost`: a file that is checked, and a download that does not work here."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from lorasweep.command_line import main as cli
from lorasweep.training.data import huffpost
from lorasweep.training.data.huffpost import CLASSES, FILE, PAGE

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """The command in an empty folder: its exit code, and what it printed."""
    monkeypatch.chdir(tmp_path)

    def lorasweep(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["lorasweep", "data", "huffpost", *arguments])
        code = 0
        try:
            cli.main()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 0
        printed = capfd.readouterr()
        return code, printed.out, printed.err

    return lorasweep


def write(path: Path) -> None:
    """42 made-up rows, one of each category."""
    rows = [
        {"link": "", "headline": f"{name} news", "category": name, "short_description": "", "authors": ""}
        | {"date": f"{2012 + number % 11}-03-01"}
        for number, name in enumerate(sorted(CLASSES))
    ]
    path.write_text("\n".join(map(json.dumps, rows)))


def test_a_file_obtained_by_hand(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its sha256 stands beside it; a later check sees that the file is another."""
    monkeypatch.setattr(huffpost, "ROWS", 42)
    write(tmp_path / FILE)
    code, out, err = run("--file", FILE)
    assert (code, err) == (0, "")
    assert "42 rows, 42 categories, 2012-03-01 to 2022-03-01" in out
    assert f"lorasweep run --data {FILE} --base-model" in out
    record = json.loads((tmp_path / f"{FILE}.sha256.json").read_text())
    assert record["sha256"] in out
    assert (record["rows"], record["source"]) == (42, PAGE)
    assert "when it was last checked" not in out
    (tmp_path / FILE).write_text((tmp_path / FILE).read_text().replace("ARTS news", "other news"))
    code, out, _ = run()
    assert code == 0
    assert f"its sha256 was {record['sha256']} when it was last checked" in out


def test_a_part_is_not_taken_for_the_whole(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "part.json")
    code, out, err = run("--file", "part.json")
    assert code == 2
    assert "42 rows, 42 categories" in out
    assert err.count("\n") == 1
    assert "part.json: not the whole set (42 of 209,527 rows)" in err
    assert PAGE in err
    assert not (tmp_path / "part.json.sha256.json").exists()


@pytest.mark.parametrize("arguments", [[], ["--out", "sets"]])
def test_without_a_network_it_is_said_what_to_do_by_hand(
    arguments: list[str], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kagglehub itself fails at a port where nobody listens; nothing is left behind."""
    pytest.importorskip("kagglehub")
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    code, _, err = run(*arguments)
    target = Path(*arguments[1:]) / FILE
    assert code == 2
    assert err.count("\n") == 1
    assert "rmisra/news-category-dataset could not be downloaded from Kaggle" in err
    assert f"press Download on {PAGE}" in err
    assert f"put {FILE} from the archive at {target}, then: lorasweep data huffpost --file {target}" in err
    assert list(tmp_path.iterdir()) == []


def test_without_kagglehub_too(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    code, _, err = run()
    assert code == 2
    assert err.count("\n") == 1
    assert "pip install -e '.[kaggle]'" in err
    assert f"lorasweep data huffpost --file {FILE}" in err
    assert list(tmp_path.iterdir()) == []


def test_what_kagglehub_brings_is_checked(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of the network: a module that writes the file where it is asked to."""
    monkeypatch.setattr(huffpost, "ROWS", 42)
    asked = []

    def dataset_download(handle: str, path: str, output_dir: str) -> str:
        asked.append((handle, path))
        Path(output_dir).mkdir()
        write(Path(output_dir) / path)
        return str(Path(output_dir) / path)

    module = ModuleType("kagglehub")
    module.dataset_download = dataset_download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "kagglehub", module)
    for _ in range(2):
        code, out, err = run("--out", "sets")
        assert (code, err) == (0, "")
        assert f"sets/{FILE}: 42 rows" in out
    # The second time it is there already.
    assert asked == [("rmisra/news-category-dataset", FILE)]
    assert sorted(path.name for path in (tmp_path / "sets").iterdir()) == [FILE, f"{FILE}.sha256.json"]


@pytest.mark.real_news
@pytest.mark.skipif("LORASWEEP_NEWS" not in os.environ, reason="LORASWEEP_NEWS names no folder")
def test_a_real_part_is_told_to_be_one(run: Run, tmp_path: Path) -> None:
    name = "News_Category_Dataset_13k.json.gz"
    shutil.copy(Path(os.environ["LORASWEEP_NEWS"]) / name, tmp_path)
    code, out, err = run("--file", name)
    assert code == 2
    assert "13,456 rows, 29 categories, 2018-02-28 to 2022-09-23" in out
    assert "not the whole set (13,456 of 209,527 rows; 29 of 42 categories)" in err

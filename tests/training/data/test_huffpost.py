"""Whether a file is the whole HuffPost set."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lorasweep.training.data import huffpost
from lorasweep.training.data.huffpost import CLASSES, HuffPostFile, check_huffpost, recorded_sha256
from lorasweep.training.errors import DataError


def rows(count: int = 84) -> list[dict[str, Any]]:
    """Made-up rows in the set's format: the 42 categories in turn."""
    names = sorted(CLASSES)
    return [
        {
            "link": f"https://example.org/{number}",
            "headline": f"Headline {number}",
            "category": names[number % len(names)],
            "short_description": "",
            "authors": "",
            "date": f"{2012 + number % 11}-03-01",
        }
        for number in range(count)
    ]


def write(path: Path, entries: list[dict[str, Any]]) -> Path:
    content = "\n".join(map(json.dumps, entries)).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("name", ["set.json", "set.json.gz"])
def test_a_whole_set(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huffpost, "ROWS", 85)
    path = write(tmp_path / name, [*rows(), rows()[0]])
    found = check_huffpost(path)
    assert found.problems() == []
    assert (found.rows, len(found.classes), found.file) == (85, 42, name)
    assert next(iter(found.classes.items())) == ("ARTS", 2 + 1)
    assert (found.first_date, found.last_date) == ("2012-03-01", "2022-03-01")
    assert (found.sha256, found.bytes) == (
        hashlib.sha256(path.read_bytes()).hexdigest(),
        path.stat().st_size,
    )
    record = tmp_path / "record.json"
    assert recorded_sha256(record) is None
    found.write(record)
    assert recorded_sha256(record) == found.sha256
    assert json.loads(record.read_text())["classes"] == found.classes


def test_what_is_not_the_whole_set_is_told() -> None:
    whole = HuffPostFile(
        "f", "0", 1, huffpost.ROWS, dict.fromkeys(sorted(CLASSES), 1), "2012-01-28", "2022-09-23"
    )
    assert whole.problems() == []
    fewer = {name: 1 for name in whole.classes if name != "GREEN"}
    for changes, told in (
        ({"rows": 13_456}, ["13,456 of 209,527 rows"]),
        ({"rows": 209_528}, ["209,528 rows, not 209,527"]),
        ({"classes": fewer}, ["41 of 42 categories"]),
        ({"classes": fewer | {"NEW": 1}}, ["41 of 42 categories", "unknown categories 'NEW'"]),
        ({"last_date": "2024-01-01"}, ["dates from 2012-01-28 to 2024-01-01, not 2012 to 2022"]),
        ({"first_date": "1970-01-01"}, ["dates from 1970-01-01 to 2022-09-23, not 2012 to 2022"]),
    ):
        assert replace(whole, **changes).problems() == told  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"date": "soon"}, "row 4: 'soon' is not a date"),
        ({"category": ""}, "row 4: has no category"),
        ({"category": None}, "row 4: has no category"),
    ],
)
def test_rows_that_are_broken(change: dict[str, Any], told: str, tmp_path: Path) -> None:
    entries = rows()
    entries[3] |= change
    with pytest.raises(DataError) as refused:
        check_huffpost(write(tmp_path / "set.json", entries))
    assert told in str(refused.value)


def test_another_data_set_and_a_cut_file(tmp_path: Path) -> None:
    other = [{key: value for key, value in row.items() if key not in ("link", "date")} for row in rows()]
    with pytest.raises(DataError, match=r"has no 'link', 'date' in its rows \('headline'"):
        check_huffpost(write(tmp_path / "set.json", other))
    path = write(tmp_path / "set.json", rows())
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(DataError, match="line 84"):
        check_huffpost(path)


@pytest.mark.real_news
@pytest.mark.skipif("LORASWEEP_NEWS" not in os.environ, reason="LORASWEEP_NEWS names no folder")
def test_a_real_part_of_the_set() -> None:
    found = check_huffpost(Path(os.environ["LORASWEEP_NEWS"]) / "News_Category_Dataset_13k.json.gz")
    assert found.problems() == ["13,456 of 209,527 rows", "29 of 42 categories"]
    assert (found.first_date, found.last_date) == ("2018-02-28", "2022-09-23")

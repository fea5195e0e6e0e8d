"""Maps of labels that mean the same."""

from __future__ import annotations

import gzip
import json
import os
from collections import Counter
from pathlib import Path

import pytest

from lorasweep.training.data.huffpost import CLASSES
from lorasweep.training.data.label_map import load_label_map, shipped_maps
from lorasweep.training.errors import DataError, SettingsError


def test_the_shipped_map_merges_classes_of_the_set_alone() -> None:
    assert shipped_maps() == ["huffpost"]
    found = load_label_map("huffpost")
    labels = [label for group in found.merged.values() for label in group]
    assert Counter(labels).keys() <= CLASSES
    assert len(labels) == len(set(labels))
    # Each goes by the name of one of its labels, so that no name is made up.
    assert all(name in group for name, group in found.merged.items())
    new = found.apply(CLASSES)
    assert len(set(new.values())) == 32
    for group in (
        ("ARTS", "ARTS & CULTURE", "CULTURE & ARTS"),
        ("PARENTS", "PARENTING"),
        ("STYLE", "STYLE & BEAUTY"),
        ("THE WORLDPOST", "WORLDPOST", "WORLD NEWS"),
        ("GREEN", "ENVIRONMENT"),
        ("COLLEGE", "EDUCATION"),
        ("TASTE", "FOOD & DRINK"),
        ("HEALTHY LIVING", "WELLNESS"),
    ):
        assert len({new[label] for label in group}) == 1
    assert new["POLITICS"] == "POLITICS"


@pytest.mark.real_news
@pytest.mark.skipif("LORASWEEP_NEWS" not in os.environ, reason="LORASWEEP_NEWS names no folder")
def test_the_shipped_map_knows_the_real_labels() -> None:
    path = Path(os.environ["LORASWEEP_NEWS"]) / "huffpost_headlines_41x1000.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        labels = {json.loads(line)["category"] for line in lines}
    new = load_label_map("huffpost").apply(labels)
    assert (len(new), len(set(new.values()))) == (41, 31)


def test_ones_own_map(tmp_path: Path) -> None:
    """What it does not name stays; what the data lack does no harm; a label may take others in."""
    file = tmp_path / "mine.yaml"
    file.write_text("ARTS: [MUSIC, 'FILM', THEATRE]\nMONEY: [SHARES, MONEY]\n")
    found = load_label_map(str(file))
    assert found.name == "mine.yaml"
    assert found.apply({"ARTS", "FILM", "SPORTS", "MONEY"}) == {
        "ARTS": "ARTS",
        "FILM": "ARTS",
        "SPORTS": "SPORTS",
        "MONEY": "MONEY",
    }
    with pytest.raises(
        DataError, match=r"mine\.yaml: names 'MUSIC', .*none of the data's labels \('x', 'y'\)"
    ):
        found.apply({"y", "x"})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("A: [x, y]\nB: [y]\n", "the label 'y' appears twice, in 'A' and in 'B'"),
        ("A: [x, x]\n", "the label 'x' appears twice, in 'A' and in 'A'"),
        ("A: [x]\nA: [y]\n", "A stands twice (first on line 1)"),
        ("A: x\n", "'A' holds 'x'; write a list of labels: `A: [LABEL, LABEL]`"),
        ("A: []\n", "'A' holds []"),
        ("A: [1, x]\n", "'A' holds 1, which is not a text; put the label in quotes"),
        ("A: [no, x]\n", "'A' holds False, which is not a text"),
        ("A: [x]\nB: [A]\n", "'A' is a merged class and is also merged into 'B'"),
        ("- A\n", "holds a list"),
        ("A: [x\n", "not valid YAML"),
        ("", "holds nothing"),
    ],
)
def test_a_map_with_mistakes_is_refused_in_one_line(text: str, told: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(SettingsError) as refused:
        load_label_map(str(file))
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_name_that_is_neither_map_nor_file() -> None:
    with pytest.raises(SettingsError, match=r"--merge-labels hufpost: no such file, and no .*is: huffpost"):
        load_label_map("hufpost")

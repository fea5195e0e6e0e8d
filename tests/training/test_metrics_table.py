"""The table of metrics in docs/search.md is the code's."""

from __future__ import annotations

from pathlib import Path

from lorasweep.training.metrics import METRICS, MetricEntry

DOCS = Path(__file__).parents[2] / "docs" / "search.md"
TASKS = {
    ("two classes", "more classes", "several labels"): "any",
    ("two classes", "more classes"): "any, one a text",
    ("two classes",): "two",
    ("two classes", "several labels"): "two, or several labels a text",
    ("more classes",): "more than two",
    ("several labels",): "several labels a text",
}


def row(name: str, entry: MetricEntry) -> str:
    better = "" if entry.higher else "; lower is better"
    return f"| `{name}` | {entry.about}{better} | {TASKS[entry.tasks]} |\n"


def test_the_documented_metrics_are_the_codes() -> None:
    expected = "| metric | | classes |\n|---|---|---|\n"
    expected += "".join(row(name, entry) for name, entry in METRICS.items())
    assert expected in DOCS.read_text(encoding="utf-8"), f"paste this into {DOCS}:\n\n{expected}"

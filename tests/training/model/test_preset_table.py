"""The table of target modules in docs/search.md is the code's."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lorasweep.training.model.families import MODEL_FAMILIES, Family

DOCS = Path(__file__).parents[3] / "docs" / "search.md"
HEADER = """\
| model type | `query-value` | `attention` adds | `feed-forward` | `all-linear`, beside these |
|---|---|---|---|---|
"""


def table() -> str:
    """A row for each set of presets."""
    types: dict[tuple[str, ...], list[str]] = {}
    for name, family in MODEL_FAMILIES.items():
        types.setdefault(cells(family), []).append(name)
    return HEADER + "".join(
        f"| {', '.join(f'`{name}`' for name in names)} | {' | '.join(row)} |\n"
        for row, names in types.items()
    )


def cells(family: Family) -> tuple[str, ...]:
    added = [name for name in family.attention if name not in family.query_value]
    return tuple(short(names) for names in (family.query_value, added, family.feed_forward, family.extra))


def short(names: Iterable[str]) -> str:
    """The names, with a common beginning once: `mlp.{up, down}`."""
    groups: dict[str, list[str]] = {}
    for name in names:
        block, dot, layer = name.rpartition(".")
        groups.setdefault(block + dot, []).append(layer)
    texts = [
        f"{block}{{{', '.join(layers)}}}"
        if block and len(layers) > 1
        else ", ".join(block + n for n in layers)
        for block, layers in groups.items()
    ]
    return f"`{', '.join(texts)}`" if texts else ""


def test_the_documented_presets_are_the_codes() -> None:
    expected = table()
    assert expected in DOCS.read_text(encoding="utf-8"), f"paste this into {DOCS}:\n\n{expected}"

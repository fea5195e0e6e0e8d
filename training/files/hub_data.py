"""A data set of the Hugging Face hub, through its library (the extra `datasets`)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd

from lorasweep.training.errors import DataError, missing_extra, shown
from lorasweep.training.files.arrow import class_names, frame_of
from lorasweep.training.files.split_names import SPLITS, by_split

EXTRA = "datasets"
# `owner/name`, and after a colon the configuration of one that has several.
_ID = re.compile(r"(?P<id>[\w-][\w.-]*/[\w.-]+?)(:(?P<configuration>[\w.-]+))?")
_ROWS = 16_384


def is_hub_id(path: str | Path) -> bool:
    """Whether `path` looks like `owner/name` or `owner/name:configuration`."""
    return _ID.fullmatch(str(path)) is not None


def read_hub(path: str | Path) -> tuple[dict[str, pd.DataFrame], tuple[str, ...]]:
    """Split → its rows, classes by their names; and the splits whose names mean none, which are left out.

    Raises:
        DataError: `datasets` is not installed, or has no such data set.
    """
    found = _ID.fullmatch(str(path))
    assert found is not None
    try:
        from datasets import load_dataset
    except ImportError:
        raise DataError(
            f"{path}: no such file; to load it as a data set of the hub: {missing_extra(EXTRA)}"
        ) from None
    try:
        splits: Any = load_dataset(found["id"], found["configuration"])
    # Many kinds, of the hub's client and of every format.
    except Exception as error:
        raise DataError(
            f"{path}: no such file, and as a data set of the hub it cannot be loaded: "
            f"{' '.join(str(error).split())[:300]} (a configuration is named as in nyu-mll/glue:sst2)"
        ) from None
    names = by_split(splits, str(path))
    if not names:
        raise DataError(
            f"{path} has the splits {shown(list(splits))}, and none is {', '.join(SPLITS)}; save one as a file"
        )
    frames = {}
    for split, name in names.items():
        classes = class_names(splits[name].features.arrow_schema)
        batches = splits[name].with_format("arrow").iter(_ROWS)
        parts = [frame_of(batch, classes, f"{path}, {name}") for batch in batches]
        if not parts:
            raise DataError(f"{path}, {name} holds no rows")
        frames[split] = pd.concat(parts, ignore_index=True)
    return frames, tuple(name for name in splits if name not in names.values())

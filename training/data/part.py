"""A stratified part of the rows, on which settings are told apart at a fraction of what all rows cost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from lorasweep.training.data.labels import several
from lorasweep.training.data.splits import ENOUGH_VALIDATION_ROWS, stratified_part
from lorasweep.training.data.stratify import part_of_sets
from lorasweep.training.errors import SettingsError, counted


@dataclass(frozen=True)
class Part:
    """Row numbers of a part, ascending; int64, each of shape (rows of the part,)."""

    train: np.ndarray
    validation: np.ndarray


def part_of(train: np.ndarray, validation: np.ndarray, proxy: float, seed: int) -> Part:
    """Draw a part in which each class keeps its share, and at least one row; the same one for the same arguments.

    The validation part is of the same share as the training part, but has `ENOUGH_VALIDATION_ROWS` rows at least,
    or all there are: fewer cannot tell settings apart, and predicting a row costs a third of training it.

    Args:
        train, validation: labels of all rows; int64, shape (rows,), or of sets uint8, shape (rows, labels).
        proxy: a share below 1, or a number of training rows.
        seed: of the draw.

    Raises:
        SettingsError: the part would be all training rows, or lack a class.
    """
    total, classes = len(train), _classes(train)
    rows = round(proxy * total) if proxy < 1 else round(proxy)
    option, all_rows = f"--proxy {proxy:g}", counted(total, "training row")
    if rows >= total:
        raise SettingsError(f"{option}: all {all_rows} are no part; ask for fewer, or leave it out")
    if rows < classes:
        raise SettingsError(
            f"{option}: {rows:,} of {all_rows} are fewer than the {classes} classes; ask for more"
        )
    least = max(ENOUGH_VALIDATION_ROWS, _classes(validation), round(len(validation) * rows / total))
    return Part(
        _drawn(train, rows, seed, option), _drawn(validation, min(least, len(validation)), seed, option)
    )


def _drawn(labels: np.ndarray, rows: int, seed: int, option: str) -> np.ndarray:
    if several(labels):
        return np.flatnonzero(part_of_sets(labels, rows, seed, option))
    return np.flatnonzero(stratified_part(pd.Series(labels), rows, seed, option))


def _classes(labels: np.ndarray) -> int:
    return int(labels.any(axis=0).sum()) if several(labels) else len(np.unique(labels))

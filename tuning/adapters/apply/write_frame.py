"""A table in memory written as a file, in any format that predictions are written in."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa

from lorasweep.training.files.formats import FORMATS
from lorasweep.tuning.adapters.apply.predict_file import check_output
from lorasweep.tuning.adapters.export.staging import staged_file


def write_frame(frame: pd.DataFrame, out: Path) -> None:
    """Write a frame of texts and numbers; the file appears whole or not at all.

    Args:
        out: .csv, .tsv, .jsonl or .parquet; must not exist.

    Raises:
        SettingsError: another suffix.
        ExportError: `out` exists or cannot be written.
    """
    check_output(out)
    output = FORMATS[out.suffix.lower()].write
    assert output is not None
    types = [pa.float64() if frame[name].dtype == float else pa.string() for name in frame]
    with staged_file(out) as stage, output(stage, list(map(str, frame)), types) as write:
        write([frame[name].tolist() for name in frame])

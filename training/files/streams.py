"""Tables of any size, opened for reading a chunk at a time: JSON lines, CSV, TSV, Parquet, plain or .gz or .xz.

A file is gone through once beforehand. So its columns and rows are known, and a broken line is named, before
anybody has waited for a model. What cannot be read in parts (a JSON array, a .zip, a packed Parquet file, a text
file) is read whole, by `lorasweep.training.files.tables`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lorasweep.training.errors import DataError
from lorasweep.training.files.packed_lines import packed_errors
from lorasweep.training.files.row_stream import RowStream, kind_of, type_of
from lorasweep.training.files.tables import DELIMITERS, JSON, Table, read_lines, read_table
from lorasweep.training.files.text_streams import delimited_stream, json_lines_stream
from lorasweep.training.files.unpacked import table_format

# The columns in which pandas has kept an index without a name.
_UNNAMED_INDEX = re.compile(r"__index_level_\d+__")


def open_table(path: str | Path, columns: tuple[str, ...] = ()) -> RowStream:
    """Look through a file and make it ready for reading in chunks.

    Args:
        columns: names for a CSV or TSV without a header line.

    Raises:
        DataError: as `lorasweep.training.files.tables.read_table` does, and for any JSON line that cannot be read.
    """
    file, suffix = Path(path).expanduser(), table_format(path)
    packed = file.suffix.lower() in (".gz", ".xz")
    streamed = suffix in (*JSON, *DELIMITERS) or (suffix == ".parquet" and not packed)
    # Whatever the whole-file reader refuses, it refuses in its own words.
    if not file.is_file() or not streamed or (columns and suffix not in DELIMITERS):
        return _whole(path, columns)
    with packed_errors(path):
        if suffix == ".parquet":
            stream = _parquet(file, str(path))
        elif suffix in DELIMITERS:
            stream = delimited_stream(file, str(path), DELIMITERS[suffix], columns)
        else:
            stream = json_lines_stream(file, str(path)) or _whole(path, columns)
    if not stream.rows:
        raise DataError(f"{path} holds no rows; give a file with a text in every row")
    return stream


def _whole(path: str | Path, columns: tuple[str, ...]) -> RowStream:
    if table_format(path) == ".txt":
        table = Table(pd.DataFrame({"text": read_lines(path)}, dtype=object), str(path))
    else:
        table = read_table(path, columns, max_bad_share=0.0)
    frame = table.frame.astype(object)
    frame = frame.where(frame.notna(), None)
    types = tuple(type_of(set(map(kind_of, frame.iloc[:, i]))) for i in range(frame.shape[1]))

    def read(rows: int) -> Iterator[pd.DataFrame]:
        for start in range(0, len(frame), rows):
            yield frame.iloc[start : start + rows]

    names = tuple(map(str, frame.columns))
    return RowStream(table.name, names, len(frame), types, table.header_guessed, read)


def _parquet(file: Path, name: str) -> RowStream:
    try:
        with pq.ParquetFile(file) as opened:
            rows, schema = opened.metadata.num_rows, opened.schema_arrow
    except (ValueError, OSError, TypeError, KeyError, NotImplementedError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise DataError(
            f"{name} is not a readable Parquet file ({reason}); write or download it again"
        ) from None
    kept = [i for i, column in enumerate(schema.names) if not _UNNAMED_INDEX.fullmatch(column)]
    names = tuple(schema.names[i] for i in kept)

    def read(rows: int) -> Iterator[pd.DataFrame]:
        with pq.ParquetFile(file) as opened:
            for batch in opened.iter_batches(batch_size=rows):
                frame = pd.DataFrame({i: pd.Series(batch.column(i).to_pylist(), dtype=object) for i in kept})
                frame.columns = pd.Index(names)
                yield frame

    return RowStream(name, names, rows, tuple(schema.field(i).type for i in kept), False, read)

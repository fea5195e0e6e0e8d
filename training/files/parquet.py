"""Parquet: its rows in chunks, its columns and their types, and a writer."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lorasweep.training.errors import DataError
from lorasweep.training.files.arrow import class_names, frame_of, outline_of
from lorasweep.training.files.cells import Write, cell
from lorasweep.training.files.unpacked import Source


def read_parquet(source: Source, rows: int, _: tuple[str, ...] = ()) -> Iterator[pd.DataFrame]:
    """Frames of Python's own values, classes by the names that `datasets` has written; see `frame_of`."""
    with _opened(source) as file:
        classes = class_names(file.schema_arrow)
        for batch in file.iter_batches(batch_size=rows):
            yield frame_of(batch, classes, source.name)


def parquet_outline(source: Source) -> tuple[list[str], list[pa.DataType], int]:
    """Names and types of the columns, and the number of rows."""
    with _opened(source) as file:
        return *outline_of(file.schema_arrow), file.metadata.num_rows


@contextmanager
def write_parquet(file: Path, names: Sequence[str], types: Sequence[pa.DataType]) -> Iterator[Write]:
    """A column of texts takes values of any type."""
    schema = pa.schema(list(zip(names, types, strict=True)))

    def array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
        present = [None if value is pd.NA else value for value in values]
        if pa.types.is_string(kind):
            present = [None if value is None else cell(value) for value in present]
        return pa.array(present, type=kind)

    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        yield lambda columns: writer.write_table(
            pa.Table.from_arrays(list(map(array, columns, schema.types)), schema=schema)
        )


@contextmanager
def _opened(source: Source) -> Iterator[pq.ParquetFile]:
    with source.unpacked() as content:
        # Parquet is read from its end; what is packed has to be unpacked as a whole for that.
        seekable = content if isinstance(content, io.BufferedReader) else io.BytesIO(content.read())
        try:
            with pq.ParquetFile(seekable) as file:
                yield file
        except (ValueError, OSError, TypeError, KeyError, NotImplementedError, pa.ArrowException) as error:
            reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
            raise DataError(
                f"{source.name} is not a readable Parquet file ({reason}); write or download it again"
            ) from None

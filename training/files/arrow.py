"""Arrow's columns as frames, with the class names that Hugging Face's `datasets` keeps in a schema; .arrow files."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pandas as pd
import pyarrow as pa

from lorasweep.training.errors import DataError, first_line
from lorasweep.training.files.unpacked import Source

CLASS_LABEL = "ClassLabel"
# The columns in which pandas has kept an index without a name.
_UNNAMED_INDEX = "__index_level_"
# An .arrow file that can be read from any place begins so; others are streams.
_FILE = b"ARROW1"

Classes = Mapping[str, list[str]]
"""Column → names of its classes, in the order of their numbers."""


def class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """The names of the classes of each column that `datasets` has written as a `ClassLabel`, or as lists of them."""
    try:
        stored = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = stored["info"]["features"].items()
        return {
            str(column): list(map(str, feature["names"]))
            for column, feature in ((column, _class_label(feature)) for column, feature in features)
            if feature is not None and column in schema.names and _of_integers(schema.field(column).type)
        }
    # Somebody else's entry: the numbers stay numbers.
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _class_label(feature: Any) -> dict[str, Any] | None:
    """The `ClassLabel` that a feature is, or whose lists it holds: `Sequence`, `List` or a list of one feature."""
    if isinstance(feature, list) and len(feature) == 1:
        feature = feature[0]
    elif isinstance(feature, dict) and "feature" in feature:
        feature = feature["feature"]
    return feature if isinstance(feature, dict) and feature.get("_type") == CLASS_LABEL else None


def _of_integers(kind: pa.DataType) -> bool:
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return bool(pa.types.is_integer(kind.value_type if lists else kind))


def frame_of(batch: Any, classes: Classes, name: str) -> pd.DataFrame:
    """Python's own values: an integer stays one beside missing values, which are None. Classes are their names.

    Args:
        batch: a record batch or a table.
        name: of the file, for messages.

    Raises:
        DataError: a number that is no class; below 0, it is a missing value.
    """
    shown = shown_columns(batch.schema)
    values = {}
    for number in shown:
        column = batch.column(number).to_pylist()
        if names := classes.get(batch.schema.names[number]):
            column = _named(column, names, f"{name}, column {batch.schema.names[number]!r}")
        values[number] = pd.Series(column, dtype=object)
    frame = pd.DataFrame(values)
    frame.columns = pd.Index([batch.schema.names[number] for number in shown])
    return frame


def shown_columns(schema: pa.Schema) -> list[int]:
    """Numbers of the columns that are no index of pandas'."""
    return [number for number, name in enumerate(schema.names) if not name.startswith(_UNNAMED_INDEX)]


def outline_of(schema: pa.Schema) -> tuple[list[str], list[pa.DataType]]:
    """Names and types of the columns, as `frame_of` gives them."""
    classes = class_names(schema)
    names = [schema.names[number] for number in shown_columns(schema)]
    types = [schema.field(number).type for number in shown_columns(schema)]
    return names, [
        kind if name not in classes else pa.string() if pa.types.is_integer(kind) else pa.list_(pa.string())
        for name, kind in zip(names, types, strict=True)
    ]


def read_arrow(source: Source, rows: int, _: tuple[str, ...] = ()) -> Iterator[pd.DataFrame]:
    """The rows of an .arrow file, such as `save_to_disk` writes; see `frame_of`."""
    with _opened(source) as (schema, record_batches):
        classes = class_names(schema)
        for batch in record_batches:
            for start in range(0, batch.num_rows, rows):
                yield frame_of(batch.slice(start, rows), classes, source.name)


def _named(values: list[Any], names: list[str], where: str) -> list[Any]:
    numbers = [value for entry in values for value in (entry if isinstance(entry, list) else [entry])]
    if wrong := next((value for value in numbers if value is not None and value >= len(names)), None):
        raise DataError(f"{where} holds {wrong}, and has {len(names)} classes; write the file again")

    def name(value: Any) -> Any:
        if isinstance(value, list):
            return [name(entry) for entry in value]
        return None if value is None or value < 0 else names[value]

    return [name(value) for value in values]


@contextmanager
def _opened(source: Source) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
    with source.unpacked() as content:
        seekable = content if isinstance(content, io.BufferedReader) else io.BytesIO(content.read())
        head = seekable.read(len(_FILE))
        seekable.seek(0)
        try:
            if head == _FILE:
                file = pa.ipc.open_file(seekable)
                yield file.schema, map(file.get_batch, range(file.num_record_batches))
            else:
                stream = pa.ipc.open_stream(seekable)
                yield stream.schema, iter(stream)
        except (ValueError, OSError, TypeError, NotImplementedError, pa.ArrowException) as error:
            raise DataError(
                f"{source.name} is not a readable Arrow file ({first_line(error)}); write or download it again"
            ) from None

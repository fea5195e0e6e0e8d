"""What rows cost before the first trial, for `scale.py`: reading, splitting, encoding, memory, Ray's object store."""

from __future__ import annotations

import gzip
import pickle
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import numpy as np
from common import spread, table
from scale_process import MEGABYTE, aim, forget_peak, in_fresh_process, peak, progress, resident

from lorasweep.training.data.encoded import EncodedDataset
from lorasweep.training.data.encoding import encode_dataset
from lorasweep.training.data.load import load_dataset
from lorasweep.training.files.tables import Table
from lorasweep.training.files.whole_tables import read_tables
from lorasweep.training.model.base_model import load_tokenizer, resolve_base_model
from lorasweep.training.settings import MINILM, DataSettings, TrainingSettings

ALL_ROWS, WHOLE_SET = 65_555, 210_000
AIM_SECONDS = 15.0


@dataclass(frozen=True)
class RowCosts:
    """What the rows of one file took, in a process that had imported everything before.

    Attributes:
        rows: that were read.
        reading: seconds from the file to a table.
        splitting: seconds from the table to clean, split rows with their fingerprint.
        encoding: seconds of the tokenizer.
        growth: megabytes by which the process grew at its highest.
        store: megabytes that go to Ray's object store.
    """

    rows: int
    reading: float
    splitting: float
    encoding: float
    growth: float
    store: float

    @property
    def seconds(self) -> float:
        """All three."""
        return self.reading + self.splitting + self.encoding


@dataclass(frozen=True)
class StoreCosts:
    """Seconds of one `ray.put` of the encoded rows, and of a `ray.get` that shares them."""

    megabytes: float
    put: float
    get: float


def cut(source: Path, rows: int, folder: Path) -> Path:
    """A file of as many of the rows, evenly over the whole; the file itself where it has no more."""
    with gzip.open(source, "rt", encoding="utf-8") as file:
        lines = file.readlines()
    if rows >= len(lines):
        return source
    path = folder / f"rows-{rows}.jsonl.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(lines[number] for number in np.linspace(0, len(lines) - 1, rows).astype(int))
    return path


def sample_file(rows: int, folder: Path) -> Path:
    """The project's own made-up news as a file."""
    from lorasweep.training.sample_news.sample import sample_news

    path = folder / "sample.jsonl.gz"
    sample_news(rows)[["headline", "short_description", "category"]].to_json(
        path, orient="records", lines=True
    )
    return path


def row_costs(path: Path, text: tuple[str, ...]) -> RowCosts:
    """Read, split and encode a file; call it in a process of its own."""
    tokenizer = load_tokenizer(resolve_base_model(MINILM))
    reading = 0.0

    def timed(*arguments: Any, **options: Any) -> dict[str, Table]:
        nonlocal reading
        began = time.perf_counter()
        tables = read_tables(*arguments, **options)
        reading += time.perf_counter() - began
        return tables

    forget_peak()
    before = resident()
    began = time.perf_counter()
    with patch("lorasweep.training.data.sources.read_tables", timed):
        dataset = load_dataset(DataSettings(path=str(path), text=text, label="category"), 0)
    loaded = time.perf_counter()
    encoded = encode_dataset(dataset, tokenizer, TrainingSettings().max_length)
    ended = time.perf_counter()
    return RowCosts(
        rows=dataset.rows_read,
        reading=reading,
        splitting=loaded - began - reading,
        encoding=ended - loaded,
        growth=peak() - before,
        store=_megabytes(encoded),
    )


def store_costs(path: Path, text: tuple[str, ...]) -> StoreCosts:
    """Put a file's encoded rows into a real object store; call it in a process of its own."""
    import ray

    from lorasweep.tuning.trials.cluster import start_ray, stop_ray

    dataset = load_dataset(DataSettings(path=str(path), text=text, label="category"), 0)
    encoded = encode_dataset(
        dataset, load_tokenizer(resolve_base_model(MINILM)), TrainingSettings().max_length
    )
    start_ray(None, cpus=1)
    try:
        began = time.perf_counter()
        reference = ray.put(encoded)
        put = time.perf_counter()
        ray.get(reference)
        return StoreCosts(_megabytes(encoded), put - began, time.perf_counter() - put)
    finally:
        stop_ray()


def at_rows(rows: int, measured: Sequence[int], values: Sequence[float]) -> float:
    """A straight line through what was measured, followed to `rows`."""
    slope, start = np.polyfit(measured, values, 1)
    return float(start + slope * rows)


def _megabytes(encoded: EncodedDataset) -> float:
    """Of the arrays and of what describes them, as Ray stores it."""
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(encoded, protocol=5, buffer_callback=buffers.append)
    return (len(head) + sum(buffer.raw().nbytes for buffer in buffers)) / MEGABYTE


def rows_section(source: Path | None, text: tuple[str, ...], sizes: Sequence[int], rounds: int) -> list[str]:
    """Reading, splitting and encoding, by the number of rows."""
    measured: dict[int, list[RowCosts]] = {rows: [] for rows in sizes}
    with tempfile.TemporaryDirectory(prefix="lorasweep-") as temporary:
        folder = Path(temporary)
        source = source or sample_file(ALL_ROWS, folder)
        files = {rows: cut(source, rows, folder) for rows in sizes}
        for round_ in range(rounds):
            for rows, path in files.items():
                progress(f"rows: {rows:,}, round {round_ + 1} of {rounds}")
                measured[rows].append(in_fresh_process(row_costs, path, text))
        store = in_fresh_process(store_costs, files[ALL_ROWS], text)
    names = ("reading", "splitting", "encoding", "seconds", "growth", "store")
    digits = {"growth": 0, "store": 1}
    lines = [
        [
            f"{rows:,}",
            *(spread([getattr(cost, name) for cost in costs], digits.get(name, 2)) for name in names),
        ]
        for rows, costs in measured.items()
    ]
    middle = {
        name: [median(getattr(cost, name) for cost in costs) for costs in measured.values()] for name in names
    }
    counts = [costs[0].rows for costs in measured.values()]
    fitted = (f"{at_rows(WHOLE_SET, counts, middle[name]):.{digits.get(name, 2)}f}" for name in names)
    lines.append([f"{WHOLE_SET:,}, by the line", *fitted])
    head = [
        "rows",
        "reading, s",
        "splitting, s",
        "encoding, s",
        "together, s",
        "memory at its highest, MB more",
        "object store, MB",
    ]
    return [
        "## Rows",
        f"Median (least–greatest) of {rounds} round{'s' * (rounds != 1)}, each size in a fresh process that has "
        "imported everything before. The last line is arithmetic: a straight line fitted to those above, not a "
        "measurement.",
        table(head, lines),
        f"Into Ray's object store go {store.megabytes:.1f} MB for all {ALL_ROWS:,} rows: `ray.put` takes "
        f"{store.put * 1000:.0f} ms, once a sweep; `ray.get` in the same process {store.get * 1000:.1f} ms.",
        aim(f"{ALL_ROWS:,} rows read, split and encoded in", AIM_SECONDS, middle["seconds"][-1], "s", 1),
    ]

"""What the benchmarks share: texts, the machine in words, medians with their spread, tables, result files."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median

RESULTS = Path(__file__).parent / "results"
# The folder of the real news files, for machines that have them; the project's own sample elsewhere.
NEWS_VARIABLE = "LORASWEEP_NEWS"
HEADLINES, RECORDS = "huffpost_headlines_41x1000.jsonl.gz", "News_Category_Dataset_13k.json.gz"
MANY_HEADLINES = "huffpost_headlines_65k.jsonl.gz"


def news_file(name: str, folder: Path | None = None) -> Path | None:
    """A part of the HuffPost set in `folder` or in the folder that LORASWEEP_NEWS names; None without it."""
    named = os.environ.get(NEWS_VARIABLE)
    folder = folder or (Path(named) if named else None)
    path = folder / name if folder else None
    return path if path is not None and path.is_file() else None


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Median and, in brackets, least and greatest of repeated measurements."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def processor(cores: int | None = None) -> str:
    """The processor's name and the cores of it: as many as this process may use, if not told."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    cores = cores or len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    return f"{cores} core{'s' * (cores != 1)} of {name}"


def made_by(command: str, libraries: Sequence[str], hardware: str | None = None) -> str:
    """The lines under a result: command, versions, hardware."""
    versions = ", ".join(f"{name} {version(name)}" for name in libraries)
    return (
        f"## How this was made\n\n    {command}\n\n"
        f"Python {platform.python_version()}, {versions}; {hardware or processor()}."
    )


def write_result(name: str, parts: Iterable[str]) -> Path:
    """Write a Markdown result, its parts separated by blank lines."""
    path = RESULTS / name
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return path


def finish(
    parts: Sequence[str],
    name: str,
    command: str,
    libraries: Sequence[str],
    *,
    write: bool,
    hardware: str | None = None,
) -> None:
    """Print a result's parts and, where that is wanted, keep them under `results/` with what made them."""
    print("\n\n".join(parts))
    if write:
        write_result(name, [*parts, made_by(command, libraries, hardware)])

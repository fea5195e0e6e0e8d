"""Standard output that cannot hold a text, has no room, or whose reader has gone."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from small_sweep import finished_sweep
from tiny_adapters import make_folder

from lorasweep.command_line import main as cli
from lorasweep.tuning.record.listener import Listeners
from lorasweep.tuning.record.results import SweepResult
from lorasweep.tuning.terminal.console import PlainConsole, console
from lorasweep.tuning.terminal.progress import LiveDisplay, LogDisplay

LABELS = ("économie", "健康", "films ✓")
TEXTS = ["le marché – “rallies”", "健康 ✓"]


@pytest.fixture(scope="module")
def made(tiny_base: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished sweep, an adapter and a table, all with names beyond ASCII."""
    place, base = tmp_path_factory.mktemp("output"), tiny_base("bert")
    make_folder(base, place / "adapter", labels=LABELS)
    rows = [json.dumps({"texte": f"{TEXTS[n % 2]} {n}", "label": LABELS[n % 3]}) for n in range(60)]
    (place / "données.jsonl").write_text("\n".join(rows))
    finished_sweep(place, base, LABELS, ("texte", "résumé", "thème"))
    return place


@pytest.fixture
def place(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return made


@pytest.fixture(autouse=True)
def clean_console() -> Iterator[None]:
    """What could not be written stays in the console, which here outlives its command."""
    yield
    console._buffer.clear()
    console.quiet = False


def command(monkeypatch: pytest.MonkeyPatch, output: io.TextIOWrapper, *arguments: str) -> int:
    """The command in this process with another standard output; its exit code."""
    monkeypatch.setattr(sys, "argv", ["lorasweep", *arguments])
    monkeypatch.setattr(sys, "stdout", output)
    try:
        cli.main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


VERBS = {
    "version": ["--version"],
    "help": ["run", "--help"],
    "status": ["status"],
    "status of one": ["status", "news_1"],
    "status as JSON": ["status", "news_1", "--json"],
    "spaces": ["spaces"],
    "a space": ["spaces", "lora_cpu"],
    "predict": ["predict", "--adapter", "adapter", *TEXTS],
    "predict as JSON": ["predict", "--adapter", "adapter", "--json", *TEXTS],
    "evaluate": ["evaluate", "--adapter", "adapter", "--data", "données.jsonl", "--text", "texte"],
    "evaluate as JSON": ["evaluate", "--adapter", "adapter", "--data", "données.jsonl", "--text", "texte", "--json"],
    "dry run": ["run", "--dry-run", "--data", "données.jsonl", "--text", "texte", "--base-model", "base"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("verb", "encoding"),
    [*((verb, "ascii") for verb in VERBS), ("evaluate", "latin-1"), ("predict as JSON", "latin-1")],
)
def test_an_encoding_that_lacks_characters(
    verb: str, encoding: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are replaced; JSON escapes them."""
    written = io.BytesIO()
    output = io.TextIOWrapper(written, encoding=encoding)
    assert command(monkeypatch, output, *VERBS[verb]) == 0
    output.flush()
    text = written.getvalue().decode(encoding)
    if verb == "predict as JSON":
        assert text.isascii()
        assert [json.loads(line)["text"] for line in text.splitlines()] == TEXTS
    elif "JSON" in verb:
        assert isinstance(json.loads(text), dict)
    else:
        assert text.strip()
        assert "健" not in text


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize("verb", VERBS)
def test_an_output_without_room_is_one_line(
    verb: str, place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        assert command(monkeypatch, full, *VERBS[verb]) == 2
    assert capfd.readouterr().err == (
        "lorasweep: no space left where the output or a file is written; free some, then run it again\n"
    )


@pytest.mark.parametrize("arguments", [["spaces"], ["status", "news_1", "--json"]])
@pytest.mark.parametrize("output", ["/dev/full", "closed pipe"])
def test_nothing_more_is_said_as_python_exits(arguments: list[str], output: str, place: Path) -> None:
    """In a process of its own, which flushes its output once more at its end."""
    if output == "closed pipe":
        reader, writer = os.pipe()
        os.close(reader)
    elif Path(output).exists():
        writer = os.open(output, os.O_WRONLY)
    else:
        pytest.skip("the system has no /dev/full")
    try:
        done = subprocess.run(
            [sys.executable, "-m", "lorasweep", *arguments],
            stdin=subprocess.DEVNULL, stdout=writer, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr.count("\n")) == ((141, 0) if output == "closed pipe" else (2, 1))


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_live_display_in_any_encoding(encoding: str) -> None:
    """Also half a surrogate pair, which UTF-8 has no bytes for."""
    written = io.BytesIO()
    console = PlainConsole(file=io.TextIOWrapper(written, encoding=encoding), force_terminal=True, width=60)
    display = LiveDisplay(console)
    budget = {"trials": 1, "rungs": 1, "epochs_expected": 1, "epochs_at_most": 1}
    display.begin({"budget": budget, "metric": "accuracy", "searched": [], "stopping": "ASHA"}, [])
    display.phase("scoring 健康 \udc00")
    with console.status("exporting 健康 \udc00"):
        console.print("健康 \udc00 [bold]done[/bold]")
    display.end(SweepResult(state="finished", metric="accuracy"), {})
    assert b"done" in written.getvalue()


def test_a_sweep_whose_reader_has_gone_stops(capfd: pytest.CaptureFixture[str]) -> None:
    """Its log must not be taken for a listener that fails, after which the sweep goes on."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as file, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", file)
        with pytest.raises(SystemExit) as ended:
            Listeners([LogDisplay(PlainConsole(file=file))]).phase("scoring the winner")
    assert ended.value.code == 141
    assert capfd.readouterr().err == ""

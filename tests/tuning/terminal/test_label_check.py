"""What a check of the training labels has found fits 80 columns, whatever the texts and labels."""

from __future__ import annotations

from io import StringIO

from lorasweep.training.settings import Hyperparameters
from lorasweep.tuning.record.label_check import CheckSettings, LabelCheck, SuspectLabel
from lorasweep.tuning.terminal.console import PlainConsole
from lorasweep.tuning.terminal.label_check import label_check_text

SETTINGS = CheckSettings(trial="t001", hyperparameters=Hyperparameters(), folds=5, fingerprint="")


def shown(suspects: list[SuspectLabel], left_out: int = 0) -> list[str]:
    found = LabelCheck(SETTINGS, tuple(suspects), 12345, left_out, 0.0425, 0.875, paired=True)
    console = PlainConsole(width=80, file=StringIO(), soft_wrap=True)
    console.print(label_check_text(found))
    assert isinstance(console.file, StringIO)
    return console.file.getvalue().splitlines()


def suspect(row: int, label: str = "sport") -> SuspectLabel:
    text = f"[bold]row {row}[/bold]\n\x1b[31m " + "long " * 30
    return SuspectLabel(row, text, "pair", label, "a class with a very long name", 0.0312, 0.912)


def test_ten_rows_in_80_columns() -> None:
    lines = shown([suspect(row) for row in range(12)], left_out=3)
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("12,345 training rows, each predicted by t001's settings trained on others")
    assert "(5 folds): 87.5% as labelled" in lines
    assert "estimated share of wrong labels: 4.2%; 12 rows to check" in lines
    assert "3 rows not judged: their class is in no other fold" in lines
    assert "  sport -> a class with a very long na… (12 rows)" in lines
    rows = [line for line in lines if "[bold]row " in line]
    assert len(rows) == 10
    assert all("3%" in line and "91%" in line and "sport" in line for line in rows)


def test_nothing_to_check() -> None:
    lines = shown([])
    assert "estimated share of wrong labels: 4.2%; 0 rows to check" in lines
    assert len(lines) == 3

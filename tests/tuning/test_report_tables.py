"""The report's tables as files."""

from __future__ import annotations

import pytest
from reported_sweeps import (
    LABELS,
    PREDICTED,
    SCRIPT,
    TRIALS,
    table,
)

from tuning.record import SweepFolder
from tuning.report_page import report_files


def test_the_pieces_for_mlflow(finished: SweepFolder) -> None:
    """Fixed names; tables that a program can read and a spreadsheet does not run."""
    files = report_files(finished)
    pictures = {name for name in files if name.endswith(".png")}
    assert set(files) - pictures == {
        "report.html",
        "trials.csv",
        "per_class.csv",
        "confusion.csv",
        "mistakes.csv",
    }
    names = ("learning_curves", "history", "importances", "slices", "parallel_coordinates", "adapter_sizes")
    assert pictures == {f"plots/{name}.png" for name in (*names, "confusion")}
    assert all(files[name].startswith(b"\x89PNG\r\n") for name in pictures)
    head, *trials = table(files["trials.csv"])
    row = dict(zip(head, trials[2], strict=True))
    assert [line[0] for line in trials] == ["t000", "t001", "t002", "t003", "t004", "t005"]
    assert (row["state"], row["score"], row["rank"], row["rungs"]) == ("failed", "", "16", "0")
    assert row["error"] == f"ValueError: {SCRIPT} & \"more\", 'text' [31m"
    assert (
        float(dict(zip(head, trials[1], strict=True))["learning_rate"]) == TRIALS[1].settings["learning_rate"]
    )
    safe = [label if label != "=1+1" else "'=1+1" for label in LABELS]
    assert [line[0] for line in table(files["per_class.csv"])[1:]] == safe
    confusion = table(files["confusion.csv"])
    assert confusion[0] == ["true / predicted", *safe]
    assert confusion[4] == ["B", "0", "0", "11", "2", "0", "0", "0"]
    assert sum(int(cell) for line in confusion[1:] for cell in line[1:]) == len(PREDICTED)
    mistakes = [
        dict(zip(table(files["mistakes.csv"])[0], r, strict=True)) for r in table(files["mistakes.csv"])[1:]
    ]
    assert [mistake["row"] for mistake in mistakes[:2]] == ["16", "14"]
    assert mistakes[0]["text"].startswith(f"'=row 16, {SCRIPT} \"a\" 'b'\nnext\tline")
    assert len(mistakes[0]["text"]) > 1000, "the whole of it"
    assert mistakes[0]["pair"] == "<b>pair 16</b>"
    assert float(mistakes[0]["probability"]) == pytest.approx(0.99, abs=1e-4)
    assert float(mistakes[0]["probability_of_label"]) == pytest.approx(0.01 / 6, abs=1e-4)

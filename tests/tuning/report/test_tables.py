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

from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.report.page import report_files


def test_the_pieces_for_mlflow(finished: SweepFolder) -> None:
    """Fixed names; tables that a program can read and a spreadsheet does not run."""
    with finished.lock():  # as the process does that ends the sweep
        files = report_files(finished)
    assert b'<span class="state finished">' in files["report/report.html"]
    assert set(files) == {
        "report/report.html",
        "report/trials.csv",
        "report/per_class.csv",
        "report/confusion.csv",
        "report/mistakes.csv",
    }
    head, *trials = table(files["report/trials.csv"])
    row = dict(zip(head, trials[2], strict=True))
    assert [line[0] for line in trials] == ["t000", "t001", "t002", "t003", "t004", "t005"]
    assert (row["state"], row["score"], row["rank"], row["rungs"]) == ("failed", "", "16", "0")
    assert row["error"] == f"ValueError: {SCRIPT} & \"more\", 'text' [31m"
    assert (
        float(dict(zip(head, trials[1], strict=True))["learning_rate"])
        == TRIALS[1].hyperparameters.learning_rate
    )
    safe = [label if label != "=1+1" else "'=1+1" for label in LABELS]
    assert [line[0] for line in table(files["report/per_class.csv"])[1:]] == safe
    confusion = table(files["report/confusion.csv"])
    assert confusion[0] == ["true / predicted", *safe]
    assert confusion[4] == ["B", "0", "0", "11", "2", "0", "0", "0"]
    assert sum(int(cell) for line in confusion[1:] for cell in line[1:]) == len(PREDICTED)
    head, *rows = table(files["report/mistakes.csv"])
    mistakes = [dict(zip(head, row, strict=True)) for row in rows]
    assert [mistake["row"] for mistake in mistakes[:2]] == ["16", "14"]
    assert mistakes[0]["text"].startswith(f"'=row 16, {SCRIPT} \"a\" 'b'\nnext\tline")
    assert len(mistakes[0]["text"]) > 1000, "the whole of it"
    assert mistakes[0]["pair"] == "<b>pair 16</b>"
    assert float(mistakes[0]["probability"]) == pytest.approx(0.99, abs=1e-4)
    assert float(mistakes[0]["probability_of_label"]) == pytest.approx(0.01 / 6, abs=1e-4)

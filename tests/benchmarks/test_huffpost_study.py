"""The figures of the first study beside those of a comparison."""

from __future__ import annotations

from compared import failed, rows
from huffpost_study import study_rows


def test_the_studys_figures_stand_beside_their_counterparts() -> None:
    table = {cells[0]: cells[1:] for cells in study_rows({row.plan.id: row for row in rows()})}
    assert table["test accuracy, full"] == ["71.25 %", "40.00%", ""]
    assert table["test accuracy, LoRA + AMP"] == ["61.78 %", "55.00%", "60.00%"]
    assert table["trained parameters, LoRA + AMP"][1] == "76.4 K"
    # Rows 3 and 4 against row 0; the figures fall as 1 / (1 + number).
    assert table["an epoch, ratio"] == ["0.27", "0.25", "0.20"]
    assert table["addmm and gelu, MB, ratio"] == ["about 0.5", "0.25", "0.20"]
    assert table["latency of a text, ratio"] == ["0.68", "0.25", "0.20"]


def test_a_row_that_failed_leaves_blanks() -> None:
    made = {row.plan.id: row for row in rows()}
    made["full-fp32"] = failed(made["full-fp32"], "out of memory")
    table = {cells[0]: cells[1:] for cells in study_rows(made)}
    assert table["an epoch, full"][1] == "-"
    assert table["an epoch, ratio"] == ["0.27", "-", "-"]

"""What a person reads of a comparison."""

from __future__ import annotations

import io

import pytest
from compared import SETTINGS, failed, rows
from rich.console import Console

from lorasweep.tuning.compare.plot import comparison_page, costs
from lorasweep.tuning.compare.text import comparison_markdown, comparison_text
from lorasweep.tuning.record.results import TestScores


def printed(found: list) -> str:
    console = Console(file=io.StringIO(), width=80)
    console.print(comparison_text(found))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_every_figure_fits_eighty_columns() -> None:
    text = printed(rows(full_rate=1e-4, lora_rate=2e-3))
    assert max(len(line) for line in text.splitlines()) <= 80
    for line in (
        "full fine-tuning, fp32 40.00% 38.0% to 42.0% 30.00% 1.600",
        "LoRA, bf16, rate tuned",
        "tuned LoRA, bf16",
    ):
        assert line in " ".join(text.split())
    assert "16.7 s" in text  # the last of six rows
    assert "0.31 MB" in text


def test_a_row_that_failed_is_told_and_the_rest_is_shown() -> None:
    found = rows()
    found[0] = failed(found[0], "out of memory [red]with[/red] one row")
    text = printed(found)
    assert "full fine-tuning failed: out of memory [red]with[/red] one row" in text
    assert "38.0% to 42.0%" not in text
    assert "-" in text
    markdown = comparison_markdown(found, SETTINGS)
    assert "**full fine-tuning failed**: out of memory" in markdown
    assert comparison_page([found[0]]) is None


def test_rows_that_are_others_too_are_explained() -> None:
    found = rows()
    assert "AMP has no type to use here" not in printed(found)
    found[1] = found[0].model_copy(update={"plan": found[1].plan, "same_as": "full-fp32"})
    text = printed(found)
    assert "AMP has no type to use here" in text
    assert " ".join(text.split()).count("full fine-tuning, fp32 40.00%") == 1
    assert "are shown once" in comparison_markdown(found, SETTINGS)


def test_a_busy_machine_is_told_beside_the_latencies() -> None:
    found = rows()
    found[0] = found[0].model_copy(update={"others_share": 0.05})
    assert "busy" not in printed(found)
    assert "busy" not in comparison_markdown(found, SETTINGS)
    found[1] = found[1].model_copy(update={"others_share": 0.456})
    line = (
        "The machine was busy while latencies were taken: other programs used 46% at full fine-tuning, bf16"
    )
    assert line in " ".join(printed(found).split())
    assert line in comparison_markdown(found, SETTINGS).split("## Latency")[1]


def test_unmerged_labels_are_scored_both_ways() -> None:
    found = rows(unmerged_classes=41)
    merged = TestScores(accuracy=0.777, macro_f1=0.7, loss=1.0)
    found[-1] = found[-1].model_copy(update={"merged": merged})
    text = printed(found)
    assert "tuned LoRA, bf16, 41 classes" in text
    assert "and merged afterwards 77.70%" in " ".join(text.split())


def test_the_page_says_on_what_it_was_measured() -> None:
    markdown = comparison_markdown(rows(), SETTINGS)
    for line in (
        "- machine: A Processor, 2 cores",
        "torch 2.13.0",
        "- training rows: 1,000",
        "## Latency, one text: median (95th percentile), ms",
    ):
        assert line in markdown
    tables = [line for line in markdown.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in tables)


def test_the_page_shows_what_accuracy_costs() -> None:
    """Each trained row once a panel, with its interval and its name as text; nothing is loaded."""
    found = rows(lora_rate=1e-3)
    found[1] = found[1].model_copy(update={"same_as": "full-fp32"})
    plan = found[-1].plan.model_copy(update={"name": "<b>tuned</b>"})
    found[-1] = found[-1].model_copy(update={"plan": plan})
    left, right = (
        [trace for trace in costs([found[0], *found[2:]]).data if trace.xaxis == axis] for axis in ("x", "x2")
    )
    assert [trace.x[0] for trace in left] == pytest.approx([22_000_000, *[76_423] * 4])
    assert [trace.x[0] for trace in right] == [100.0, *(100 / (1 + number) for number in range(2, 6))]
    for trace, row in zip(left, [found[0], *found[2:]], strict=True):
        assert row.test is not None
        assert trace.y[0] == row.test.accuracy
        assert trace.error_y.array[0] == pytest.approx(0.02)
    assert left[-1].text[0].strip().startswith("&lt;b&gt;tuned")
    assert left[-1].marker.color != left[0].marker.color
    page = comparison_page(found)
    assert page is not None
    assert "default-src 'none'" in page
    assert 'id="plot-costs"' in page
    assert "<b>tuned" not in page


def test_the_page_says_by_what_thresholds_were_chosen() -> None:
    """Of several labels a text alone."""
    found, settings = rows(), SETTINGS.model_copy(update={"threshold": "f2"})
    assert "- thresholds" not in comparison_markdown(found, settings)
    found[0] = found[0].model_copy(update={"thresholds": (0.3, 0.4)})
    assert "- thresholds: the best F2 on the validation split\n" in comparison_markdown(found, settings)
    assert "- thresholds: the best F1 on the validation split\n" in comparison_markdown(found, SETTINGS)

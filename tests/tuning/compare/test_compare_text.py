"""What a person reads of a comparison."""

from __future__ import annotations

import io

from compared import SETTINGS, failed, rows
from rich.console import Console

from lorasweep.tuning.compare.plot import comparison_plot
from lorasweep.tuning.compare.text import comparison_markdown, comparison_text
from lorasweep.tuning.record.folder import TestScores


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
    assert comparison_plot([found[0]]) is None


def test_rows_that_are_others_too_are_explained() -> None:
    found = rows()
    assert "AMP has no type to use here" not in printed(found)
    found[1] = found[0].model_copy(update={"plan": found[1].plan, "same_as": "full-fp32"})
    text = printed(found)
    assert "AMP has no type to use here" in text
    assert " ".join(text.split()).count("full fine-tuning, fp32 40.00%") == 1
    assert "are shown once" in comparison_markdown(found, SETTINGS)


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


def test_the_picture_is_one() -> None:
    picture = comparison_plot(rows(lora_rate=1e-3))
    assert picture is not None
    assert picture.startswith(b"\x89PNG")

"""What `search.py` and `fit_portfolio.py` print of made-up curves and results."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import fit_portfolio
import numpy as np
import pytest
import record_curves
import search
import search_curves
import search_proxy
import search_tables
import yaml
from made_curves import RATES, curve, curves, settings, write
from search_strategies import BEFORE, BUDGET, FOLLOWED, NOW, RANDOM
from surrogate import RUNGS

from lorasweep.search_spaces.space import SearchSpace, load_space


def found(*levels: float, cost: int = BUDGET) -> np.ndarray:
    """Results of two seeds, which have each level for an equal part of the cost; shape (2, 2, cost × RUNGS)."""
    curve_ = np.repeat(levels, cost * RUNGS // len(levels))
    return np.broadcast_to(curve_, (2, 2, len(curve_))).copy()


def results() -> dict[str, dict[str, np.ndarray]]:
    """Random search has 0.8 after half its budget, now after three full trials, before never."""
    return {
        RANDOM.name: {"trec": found(0.7, 0.8)},
        BEFORE.name: {"trec": found(0.7, 0.7, cost=FOLLOWED)},
        NOW.name: {"trec": found(*[0.7] * 3, *[0.8] * 17, cost=FOLLOWED)},
    }


def cells(text: str, name: str) -> list[str]:
    """The cells of the row of this name."""
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return next(row[1:] for row in rows if row[0] == name)


def test_the_cost_of_reaching_random_search_is_the_first_that_has_its_level() -> None:
    held_out = list(search_tables.costs(results()))[1]
    assert cells(held_out, "random")[:3] == ["20.1", "50%", "50%"]
    assert cells(held_out, NOW.name) == ["3.1", "8%", "8%", "100%"]
    assert cells(held_out, BEFORE.name) == ["> 20", "> 50%", "> 50%", "0%"]


def test_what_is_lacking_at_a_tenth_and_a_fifth_of_the_cost() -> None:
    text = list(search_tables.short(results()))[1]
    assert cells(text, BEFORE.name) == ["10.0 / 10.0"] * 3
    assert cells(text, NOW.name) == ["0.0 / 0.0"] * 3


def test_the_gap_is_in_points_at_the_largest_cost() -> None:
    assert cells(list(search_tables.scores(results()))[1], "gap") == ["+10.0 ± 0.0"]


def test_changes_are_compared_at_both_costs() -> None:
    text = list(search_tables.changes("Any", BEFORE.name, results()))[1]
    assert cells(text, NOW.name) == ["8%", "8%", "+10.00 ± 0.00 (+10.0)", "+10.00 ± 0.00 (+10.0)"]


def test_an_early_loss_that_ranks_the_trials_correlates_with_their_worth() -> None:
    text = list(search_curves.early({"trec": curves()}))[1]
    assert cells(text, "accuracy")[0] == cells(text, "loss")[-1] == "1.00 (1.00)"


def test_portfolios_are_shown_by_the_held_out_score_of_the_one_that_validation_chooses() -> None:
    made = [replace(each) for each in curves()]
    made[0] = curve(RATES[0], luck=0.5)
    portfolio = [settings(2e-3), settings(RATES[0]), *(settings(rate) for rate in RATES[1:3])]
    text = list(search_curves.curve_table({"trec": portfolio}, {"trec": made}))[1]
    lucky = f"{100 * made[0].worth():.1f}"
    assert cells(text, "trec")[:2] == ["90.0", lucky]
    assert cells(text, "mean")[-1] == lucky


def folder(path: Path) -> Path:
    """Two sets, one of them at two sizes and with a ladder of rates."""
    write(path / "trec.jsonl", curves())
    write(path / "subj.jsonl", curves(1.2e-3))
    write(path / "trec-4252.jsonl", curves(1.2e-3)[:5])
    write(path / "trec-rates.jsonl", curves(2e-3))
    write(path / "trec-4252-rates.jsonl", curves(1.2e-3))
    return path


def test_the_proxy_is_judged_on_the_settings_that_have_both_sizes(tmp_path: Path) -> None:
    parts = list(search_proxy.proxy_parts(folder(tmp_path)))
    row = cells(parts[1], "trec-4252")
    assert row[:2] == ["12 / 12", "5"]
    assert row[-1] == "90.0"
    assert float(row[2].split(" / ")[0]) < 1


def test_lower_rates_are_held_against_the_same_settings(tmp_path: Path) -> None:
    """The whole's best rate is below both: half of each is nearer to it."""
    place = folder(tmp_path)
    write(place / "trec-4252-finalists.jsonl", [curve(rate / 2, 6e-4) for rate in (1.2e-3, 2e-3)], first=2)
    write(place / "trec-4252.jsonl", curves(6e-4)[:5])
    row = cells(list(search_proxy.proxy_parts(place))[3], "trec-4252")
    assert row == ["2", "0.50", "76.3 (72.6)", "1.237", "86.3 (82.6)", "1.137", "+10.0 ± 0.0"]


def test_finalists_are_the_best_of_the_part_with_lower_rates() -> None:
    wanted = record_curves.lowered(curves(1.2e-3), 2, 0.5)
    assert list(wanted) == [2, 3]
    assert [values["learning_rate"] for values in wanted.values()] == [6e-4, 1e-3]
    assert all(values["rank"] == 16 for values in wanted.values())


def test_the_best_rate_of_a_ladder_lies_between_its_rates(tmp_path: Path) -> None:
    rows = list(search_proxy.proxy_parts(folder(tmp_path)))[3]
    part, whole = (float(cells(rows, name)[-1]) for name in ("trec", "trec-4252"))
    assert whole == pytest.approx(1.2e-3, rel=0.15)
    assert part == pytest.approx(2e-3, rel=0.25)


def test_nothing_is_said_of_sizes_that_were_not_recorded(tmp_path: Path) -> None:
    write(tmp_path / "trec.jsonl", curves())
    assert list(search_proxy.proxy_parts(tmp_path)) == []
    write(tmp_path / "trec-4252.jsonl", curves()[:4])  # too few to tell
    assert list(search_proxy.proxy_parts(tmp_path)) == []


def test_the_printed_starts_belong_into_the_default_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["fit_portfolio.py", "--curves", str(folder(tmp_path)), "--size", "3"]
    monkeypatch.setattr("sys.argv", arguments)
    fit_portfolio.main()
    printed = capsys.readouterr().out
    starts = yaml.safe_load(printed[printed.index("starts:") :])["starts"]
    space = load_space("lora_cpu")
    assert isinstance(space, SearchSpace)
    entries = space.to_mapping() | {"starts": starts}
    assert len(SearchSpace.from_dict(entries, "fitted").start_points()) == 3


def test_a_set_that_is_still_being_recorded_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder(tmp_path)
    write(tmp_path / "ag_news.jsonl", curves()[:2])
    sets = search.load_sets(tmp_path)
    assert {name: len(each) for name, each in sets.items()} == {"trec": 6, "subj": 6}
    assert "ag_news is left out: 2 of 6 curves" in capsys.readouterr().err


@pytest.mark.slow
def test_a_replay_is_written_with_its_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    out.mkdir()
    arguments = ["search.py", "--curves", str(folder(tmp_path)), "--seeds", "2", "--write", "--out", str(out)]
    monkeypatch.setattr("sys.argv", arguments)
    search.main()
    assert (out / "search.png").stat().st_size > 10_000
    text = (out / "search.md").read_text()
    for title in (
        "Cost to reach",
        "Each change alone",
        "Other values",
        "early evaluation",
        "Decided on a part",
    ):
        assert title in text

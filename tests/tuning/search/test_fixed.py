"""Trials whose settings are known: each is proposed once, as Ray Tune asks."""

from __future__ import annotations

from pathlib import Path

from lorasweep.tuning.search.fixed import FixedSearch


def test_each_configuration_once_and_in_order() -> None:
    configs = [{"number": 2, "hyperparameters": {"rank": 4}}, {"number": 0, "hyperparameters": {}}]
    search = FixedSearch(configs)
    proposed = [search.suggest("a"), search.suggest("b")]
    assert proposed == configs
    search.on_trial_complete("a", error=True)
    assert search.suggest("c") is None


def test_what_is_left_is_saved(tmp_path: Path) -> None:
    search, again = FixedSearch([{"number": 0}, {"number": 1}]), FixedSearch([])
    search.suggest("a")
    search.save_to_dir(str(tmp_path))
    again.restore_from_dir(str(tmp_path))
    assert again.suggest("b") == {"number": 1}


def test_those_that_have_begun_go_on_when_no_other_may_start() -> None:
    search = FixedSearch([{"number": 0, "evaluations": []}, {"number": 1}], lambda: False)
    assert search.suggest("a") == {"number": 0, "evaluations": []}
    assert search.suggest("b") == FixedSearch.FINISHED

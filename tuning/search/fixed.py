"""Ray Tune's searcher for trials whose settings are known before the first of them starts."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher

from lorasweep.tuning.record.reported import AVOID


class FixedSearch(Searcher):
    """Proposes each of some configurations once, in order.

    Args:
        configs: Ray's configuration of each trial, as `TruthfulOptunaSearch.suggest` makes it.
        may_start: whether one more trial may start; those that go on, which come with evaluations, do so anyway.
        avoided: Ray's ids of the nodes on which a trial is not to start.
    """

    def __init__(
        self,
        configs: Sequence[Mapping[str, Any]],
        may_start: Callable[[], bool] = lambda: True,
        avoided: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        super().__init__()
        self._may_start = may_start
        self._avoided = avoided
        self._left = [dict(config) for config in configs]

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next configuration; `FINISHED` if no more trials may start."""
        if not self._left:
            return None
        if "evaluations" not in self._left[0] and not self._may_start():
            return str(self.FINISHED)
        avoided = list(self._avoided())
        return self._left.pop(0) | ({AVOID: avoided} if avoided else {})

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Nothing is learnt: the trials' records hold how they ended."""

    def save(self, checkpoint_path: str) -> None:
        """Ray asks for this as it runs; a sweep resumes from its records instead."""
        Path(checkpoint_path).write_text(json.dumps(self._left), encoding="utf-8")

    def restore(self, checkpoint_path: str) -> None:
        """The opposite of `save`."""
        self._left = list(json.loads(Path(checkpoint_path).read_text(encoding="utf-8")))

"""What `search.py` compares: random search and its peers, today's defaults, and what each lever adds to them."""

from __future__ import annotations

from dataclasses import replace

from search_replay import Strategy

from lorasweep.tuning.record.config import SearchSettings

# Of the portfolio in the shipped space.
STARTS = 6
# Costs in full trials: what random search may spend, and what the others are followed to.
BUDGET, FOLLOWED = 40, 20

RANDOM = Strategy("random", SearchSettings(sampler="random", asha=False), starts=0)
PEERS = (
    Strategy("TPE", SearchSettings(asha=False), guided_by="accuracy", starts=0),
    Strategy("TPE + Hyperband", SearchSettings(asha=False), guided_by="accuracy", starts=0, hyperband=True),
)
# TPE + ASHA of factor 3 from the first of six rungs, all by accuracy, from one start that may be stopped.
BEFORE = Strategy(
    "before",
    SearchSettings(grace_rungs=1, reduction_factor=3),
    stopped_by="accuracy",
    guided_by="accuracy",
    rungs=6,
    starts=1,
    protected=False,
)
NOW = Strategy(
    "now",
    SearchSettings(grace_rungs=2, reduction_factor=2),
    stopped_by="accuracy",
    guided_by="accuracy",
    rungs=6,
    starts=STARTS,
)


def halving(name: str, base: Strategy, rungs: int, grace: int, factor: int) -> Strategy:
    """A strategy with another shape of halving."""
    search = SearchSettings(grace_rungs=grace, reduction_factor=factor)
    return replace(base, name=name, search=search, rungs=rungs)


LEVERS = (
    replace(BEFORE, name="before, ASHA by loss", stopped_by="loss"),
    replace(BEFORE, name="before, TPE by loss", guided_by="loss"),
    replace(BEFORE, name="before, both by loss", stopped_by="loss", guided_by="loss"),
    replace(BEFORE, name="before, start kept", protected=True),
    replace(BEFORE, name="before, portfolio", starts=STARTS),
    halving("before, from 1/12", BEFORE, 12, 1, 3),
    halving("before, from 1/3", BEFORE, 6, 2, 3),
    halving("before, factor 2", BEFORE, 6, 1, 2),
    halving("before, from 1/3, factor 2", BEFORE, 6, 2, 2),
)
OTHERS = (
    *(replace(NOW, name=f"now, {n} start{'s' * (n > 1)}", starts=n) for n in (1, 3, 10)),
    replace(NOW, name="now, first start fitted, too", kept=False),
    replace(NOW, name="now, ASHA by loss", stopped_by="loss"),
    replace(NOW, name="now, both by loss", stopped_by="loss", guided_by="loss"),
    replace(NOW, name="now, random", search=NOW.search.model_copy(update={"sampler": "random"})),
    halving("now, from 1/12, factor 3", NOW, 12, 1, 3),
    halving("now, from 1/6", NOW, 6, 1, 2),
    halving("now, from 1/4", NOW, 12, 3, 2),
    halving("now, from 1/2", NOW, 6, 3, 2),
    halving("now, factor 3", NOW, 6, 2, 3),
    halving("now, factor 4", NOW, 6, 2, 4),
)

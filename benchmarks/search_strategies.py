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
    "before", stopped_by="accuracy", guided_by="accuracy", rungs=6, starts=1, protected=False, fitted=False
)
NOW = Strategy("now", rungs=6, starts=STARTS)
LEVERS = (
    replace(BEFORE, name="before, ASHA by loss", stopped_by="loss"),
    replace(BEFORE, name="before, TPE by loss", guided_by="loss"),
    replace(BEFORE, name="before, both by loss", stopped_by="loss", guided_by="loss"),
    replace(BEFORE, name="before, start kept", protected=True),
    *(replace(BEFORE, name=f"before, {n} starts", starts=n, fitted=True, protected=True) for n in (1, 3, 6, 10)),
    replace(BEFORE, name="before, 12 rungs", rungs=12),
)
OTHERS = (
    *(replace(NOW, name=f"now, {n} starts", starts=n) for n in (1, 3, 10)),
    replace(NOW, name="now, all by accuracy", stopped_by="accuracy", guided_by="accuracy"),
    replace(NOW, name="now, 12 rungs", rungs=12),
    *(
        replace(NOW, name=f"now, factor {n}", search=SearchSettings(reduction_factor=n))
        for n in (2, 4)
    ),
    replace(NOW, name="now, grace 2", search=SearchSettings(grace_rungs=2)),
    replace(NOW, name="now, random", search=SearchSettings(sampler="random")),
)

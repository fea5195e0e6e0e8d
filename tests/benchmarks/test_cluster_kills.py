"""One round of `cluster_kills.py`: a node and the driver die at random moments of a sweep.

That of a lost head is in `test_moving_cluster.py`.
"""

from __future__ import annotations

import secrets

import pytest
from cluster_kills import Findings, main


@pytest.mark.slow
def test_nothing_is_lost_doubled_or_mixed_up() -> None:
    seed = secrets.randbelow(10**6)
    print(f"seed {seed}")
    assert main(["--rounds", "1", "--kill", "node", "driver", "--seed", str(seed)]) == [Findings()]

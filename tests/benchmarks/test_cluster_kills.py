"""One round of `cluster_kills.py`: a node, the head and the driver of a cluster die at random moments of a sweep."""

from __future__ import annotations

import secrets

import pytest
from cluster_kills import Findings, main


@pytest.mark.slow
def test_nothing_is_lost_doubled_or_mixed_up() -> None:
    seed = secrets.randbelow(10**6)
    print(f"seed {seed}")
    assert main(["--rounds", "1", "--trials", "4", "--seed", str(seed)]) == [Findings()]

"""Restricts the Ray that a sweep starts to the sweep's own processes.

Ray's servers listen on every address of the machine, whatever their settings, and run what clients send. So a local
Ray demands a token that only the sweep's processes know.
"""

from __future__ import annotations

import os
import secrets

MODE, TOKEN = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"


def guard_local_ray(address: str | None) -> None:
    """Make a local Ray demand a token. Call it before Ray is imported: that is when Ray reads these variables.

    Args:
        address: of a cluster to join instead. Nothing changes then, nor if the user has set a mode.
    """
    if address is None and MODE not in os.environ:
        os.environ[MODE] = "token"
        os.environ[TOKEN] = secrets.token_hex(32)

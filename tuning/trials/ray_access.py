"""Restricts the Ray that a sweep starts to the sweep's own processes.

Ray's servers listen on every address of the machine, whatever their settings, and run what clients send. So a local
Ray demands a token that only the sweep's processes know.
"""

from __future__ import annotations

import os
import secrets
import sys
from importlib import import_module
from typing import Any

MODE, TOKEN = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"


def guard_local_ray(address: str | None) -> None:
    """Make a local Ray demand a token. Call it before Ray starts, at best before it is imported.

    Args:
        address: of a cluster to join instead. Nothing changes then, nor if the user has set a mode or has started a
            Ray of their own, which the sweep uses.
    """
    ray = sys.modules.get("ray")
    if address is not None or MODE in os.environ or (ray is not None and ray.is_initialized()):
        return
    os.environ[MODE] = "token"
    os.environ[TOKEN] = secrets.token_hex(32)
    if ray is not None:
        # Ray has read these variables when it was imported. It refreshes them itself in this way.
        raylet: Any = import_module("ray._raylet")
        raylet.Config.initialize("")
        raylet.AuthenticationTokenLoader.instance().reset_cache()

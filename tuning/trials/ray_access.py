"""Who may speak to the Ray that a sweep starts: its own processes alone.

Ray's servers listen on every address of the machine, whatever they are told, and run what a client sends. So a Ray
of the sweep's own asks for a token that only its processes know.
"""

from __future__ import annotations

import os
import secrets

MODE, TOKEN = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"


def guard_local_ray(address: str | None) -> None:
    """Make a local Ray ask for a token; call it before Ray is imported, which is when it reads these variables.

    Args:
        address: of a cluster that is joined instead. It has its own rule, and nothing is changed; nor is it where
            the user has set one.
    """
    if address is None and MODE not in os.environ:
        os.environ[MODE] = "token"
        os.environ[TOKEN] = secrets.token_hex(32)

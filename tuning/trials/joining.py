"""Joins a Ray cluster, or says in one line why that cannot be."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from lorasweep.training.errors import SettingsError
from lorasweep.tuning.trials.ray_access import MODE

# Ray itself keeps trying a dead address for minutes.
ANSWER_SECONDS = 10
# Looks for a node here, a second apart.
TRIES = 5
# As Ray says it after a minute, where only nodes of other clusters run here.
NO_NODE = "resolve node to connect to"
TOKEN = "RAY_AUTH_TOKEN (or the file ~/.ray/auth_token) to the cluster's token"

log = logging.getLogger("lorasweep")


def join_cluster(address: str, **options: Any) -> None:
    """Join the cluster at an address.

    Args:
        options: of `ray.init`.

    Raises:
        SettingsError: nothing answers there, it asks for another token, or this machine is no node of it.
    """
    import ray
    from ray.exceptions import RayError

    try:
        _greet(address)
        ray.init(address=address, **options)
    except (OSError, ValueError, RuntimeError, RayError) as error:
        log.debug("why the cluster cannot be joined", exc_info=True)
        raise SettingsError(f"--address {address}: {join_problem(error)}") from error


def check_address(address: str) -> None:
    """Refuse the address of a client or of a cluster's web page.

    Raises:
        SettingsError: it is one.
    """
    scheme, found, _ = address.partition("://")
    if found:
        raise SettingsError(
            f"--address {address}: {scheme}:// is for Ray's clients, and a sweep is run by a node; run it on one with "
            "--address auto, or as a job: ray job submit -- lorasweep run ..."
        )


def join_problem(error: BaseException) -> str:
    """Why a cluster cannot be joined and what to do, from Ray's error and those that caused it."""
    chain = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    text = "\n".join(f"{type(each).__name__}: {each}" for each in chain)
    if "no authentication token was found" in text:
        return f"{MODE} is token, and there is none; set {TOKEN}"
    if "AuthenticationError" in text:
        if os.environ.get(MODE) != "token":
            return f"the cluster asks for a token; set {MODE}=token and {TOKEN}"
        return f"the cluster refuses this token; set {TOKEN}"
    if NO_NODE in text:
        return (
            "this machine is no node of the cluster; make it one with: ray start --address HOST:PORT (--num-cpus 0 "
            "keeps trials off it), or run the sweep as a job: ray job submit -- lorasweep run ..."
        )
    first = (str(error).splitlines() or [type(error).__name__])[0][:100]
    return (
        f"no Ray cluster answers there ({first}); start one with: ray start --head, or train on this machine alone: "
        "--address local"
    )


def _greet(address: str) -> None:
    """Find out in seconds what Ray says after a minute of tries, with a line each from its native code.

    Raises:
        OSError, RuntimeError, RayError: nothing answers, the token is not the cluster's, or no raylet runs here.
    """
    from ray._private import services
    from ray._private.authentication import authentication_token_setup as tokens

    raylet: Any = import_module("ray._raylet")
    where = services.canonicalize_bootstrap_address_or_die(address)
    host, port = services.extract_ip_port(where)
    socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS).close()
    with _no_native_log():
        if address == "auto":
            # As `ray.init` does: a token that is there is used for a cluster that is found.
            tokens.maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
        tokens.ensure_token_if_auth_enabled(create_token_if_missing=False)
        raylet.GcsClient(address=where)
    for _ in range(TRIES):
        if services.find_node_ids():
            return
        time.sleep(1)
    raise RuntimeError(NO_NODE)


@contextmanager
def _no_native_log() -> Iterator[None]:
    """Keep what Ray's native code writes to standard error out of the terminal: a line for each try."""
    try:
        kept = os.dup(2)
    except OSError:  # closed
        yield
        return
    try:
        with suppress(OSError), Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)

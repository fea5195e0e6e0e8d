"""The command line's verb for MLflow's pages: `lorasweep ui`."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from typing import Annotated

import typer
from rich.markup import escape

from lorasweep.command_line.options import MLRUNS, Mlruns, TrackingUri
from lorasweep.training.errors import LorasweepError
from lorasweep.tuning.terminal.console import console
from lorasweep.tuning.tracking.store import hide_passwords, tracking_store


def ui(
    mlruns: Mlruns = MLRUNS,
    tracking_uri: TrackingUri = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(
            "--port", help="Port to listen on; left out: 5000 or the next free one.", show_default=False
        ),
    ] = None,
) -> None:
    """Serve MLflow's pages of your sweeps on this machine until Ctrl-C."""
    from lorasweep.tuning.tracking.interface import FIRST_PORT, choose_port, serve
    from lorasweep.tuning.tracking.store import prepare_store

    uri = tracking_store(tracking_uri, mlruns)
    if uri.startswith(("http://", "https://")):
        address = hide_passwords(uri)
        console.print(f"the record is on a server already: {escape(address)}")
        # Without them the address is still right.
        with suppress(LorasweepError):
            _show_links(uri, address)
        return
    chosen = choose_port(host, port)
    if port is None and chosen != FIRST_PORT:
        console.print(f"port {FIRST_PORT} is taken by another program: MLflow takes {chosen}")
    if host not in ("127.0.0.1", "localhost", "::1"):
        console.print(
            f"[yellow]listening on {escape(host)}: whoever reaches it can read and change the record[/yellow]"
        )
    with ExitStack() as stack:
        with console.status("starting MLflow"):
            prepare_store(uri, mlruns)
            interface = stack.enter_context(serve(uri, mlruns, host, chosen))
        if interface.stopped_by is None:
            _show_links(uri, interface.address)
            console.print("\nCtrl-C ends it", style="dim")
        # As shells have it for what a signal has ended.
        raise typer.Exit(128 + interface.wait())


def _show_links(uri: str, address: str) -> None:
    from lorasweep.tuning.tracking.runs import EXPERIMENT
    from lorasweep.tuning.tracking.views import view_links

    links = view_links(uri, EXPERIMENT, address)
    if not links:
        console.print(f"MLflow, which has no sweeps yet  [cyan]{escape(address)}[/cyan]")
    for view, link in links:
        # Not broken into lines, so that a terminal lets one click on it.
        console.print(f"{escape(view):<19} [cyan]{escape(link)}[/cyan]")

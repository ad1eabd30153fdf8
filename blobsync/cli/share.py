"""`blobsync share`: import files and folders, print a ticket, serve until Ctrl-C."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from blobsync.cli.formatting import format_bytes, format_count
from blobsync.cli.importing import summarize, tell_skipped, watch_import
from blobsync.cli.inputs import parse_network
from blobsync.cli.options import (
    copy_option,
    global_options,
    json_option,
    network_options,
    quiet_option,
)
from blobsync.cli.progress import display, share_status, ticking
from blobsync.cli.rates import RateMeter
from blobsync.cli.signals import Interrupts

if TYPE_CHECKING:
    from blobsync.app import NetworkOptions, Share
    from blobsync.cli.context import CommandContext
    from blobsync.cli.output import Output
    from blobsync.protocols.blobs import ProviderCounters

SERVING_INTERVAL_S = 1.0
"""Between two looks at the counters of a share."""


@click.command("share", short_help="Serve files and folders until Ctrl-C.")
@click.argument(
    "paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PATH..."
)
@network_options(relay_default="default")
@copy_option
@json_option
@quiet_option
@global_options
@click.pass_obj
def share_command(
    context: CommandContext,
    paths: tuple[Path, ...],
    transport: str,
    relay: str | None,
    relay_token: str | None,
    bind: tuple[str, ...],
    copy: bool,
) -> None:
    """Serve files and folders as one collection until Ctrl-C, and print the ticket for it.

    Whoever holds the ticket can fetch it, with `blobsync get` or `sendme receive`, while this
    runs. Sharing the same files again, from the same home folder, gives the same ticket wherever
    the addresses are the same.
    """
    network = parse_network(transport, relay, bind, relay_token)
    context.run(_share(context, paths, network, copy=copy))


async def _share(
    context: CommandContext, paths: tuple[Path, ...], network: NetworkOptions, *, copy: bool
) -> None:
    from blobstore import ImportMode

    output = context.output
    mode = ImportMode.COPY if copy else ImportMode.REFERENCE
    interrupts = context.interrupts or Interrupts()
    async with context.open_app(network) as app:
        share = await watch_import(
            output, lambda progress: app.share(paths, mode=mode, progress=progress)
        )
        try:
            _tell_ticket(output, share, network.relay)
            started_s = time.monotonic()
            with interrupts.regular_end() as stop:
                await _serve(output, share, stop)
            counters = replace(share.counters)
            seconds = time.monotonic() - started_s
        finally:
            await share.close()
    _tell_end(output, counters, seconds)


def _tell_ticket(output: Output, share: Share, relay: str | None) -> None:
    collection = share.collection
    ticket = share.ticket.to_text()
    output.event(
        {
            "event": "ticket",
            "ticket": ticket,
            "hash": str(collection.hash),
            "files": len(collection.files),
            "bytes": collection.size,
            "skipped": len(collection.skipped),
            "transport": share.transport,
            "id_is_temporary": share.id_is_temporary,
            "relay_is_missing": share.relay_is_missing,
            "refused_name": share.refused_name,
        }
    )
    tell_skipped(output, collection)
    if share.id_is_temporary:
        output.note("another process serves under the key of this home: this ticket is for now")
    if share.refused_name is not None:
        output.note(f"receivers that check names will refuse this: {share.refused_name}")
    if share.relay_is_missing:
        output.note("the relay did not answer: this ticket holds direct addresses only")
    if share.transport == "aioquic" and relay is None:
        output.note("over aioquic, without relays: this ticket holds direct addresses only")
    output.note(f"sharing {summarize(collection)}; fetch it with: blobsync get TICKET")
    output.result(ticket)
    output.note("serving until Ctrl-C")


async def _serve(output: Output, share: Share, stop: asyncio.Event) -> None:
    meter = RateMeter()
    told: ProviderCounters | None = None

    def tick() -> None:
        nonlocal told
        counters = replace(share.counters)
        meter.update(time.monotonic(), counters.bytes_sent)
        shown.show(share_status(counters, meter.per_s))
        if counters != told:
            told = counters
            output.progress_event(
                {
                    "event": "serving",
                    "connections": counters.connections_open,
                    "requests": counters.requests,
                    "requests_refused": counters.requests_refused,
                    "bytes_sent": counters.bytes_sent,
                    "rate": meter.per_s,
                }
            )

    with display(output, "serving", bar=False) as shown:
        async with ticking(tick, SERVING_INTERVAL_S):
            stopping = asyncio.ensure_future(stop.wait())
            failing = asyncio.ensure_future(share.wait_failed())
            try:
                await asyncio.wait({stopping, failing}, return_when=asyncio.FIRST_COMPLETED)
                if failing.done():
                    failing.result()
            finally:
                stopping.cancel()
                failing.cancel()


def _tell_end(output: Output, counters: ProviderCounters, seconds: float) -> None:
    output.event(
        {
            "event": "stopped",
            "requests": counters.requests,
            "requests_refused": counters.requests_refused,
            "bytes_sent": counters.bytes_sent,
            "seconds": seconds,
        }
    )
    requests = format_count(counters.requests, "request")
    output.note(
        f"stopped after {requests}, {format_bytes(counters.bytes_sent)} sent;"
        " the same command serves the same ticket again"
    )

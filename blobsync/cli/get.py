"""`blobsync get`: fetch what a ticket names into a folder, resumable by running it again."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from blobsync.cli.context import RUN_AGAIN, closed_after
from blobsync.cli.formatting import format_bytes, format_count, format_duration, format_rate
from blobsync.cli.inputs import parse_network, parse_ticket
from blobsync.cli.options import global_options, json_option, network_options, quiet_option
from blobsync.cli.progress import display, fetch_status
from blobsync.cli.rates import FetchMeter

if TYPE_CHECKING:
    from blobsync.app import NetworkOptions
    from blobsync.cli.context import CommandContext
    from blobsync.cli.output import Output
    from blobsync.cli.rates import Pace
    from blobsync.sync.events import FetchDone, FetchProgress, FetchStarted
    from blobsync.wire.ticket import BlobTicket


@click.command("get", short_help="Fetch what a ticket names into a folder.")
@click.argument("ticket")
@click.argument("dest", required=False, default=".", type=click.Path(path_type=Path))
@click.option(
    "--overwrite",
    type=click.Choice(["never", "always", "if-changed"]),
    default="never",
    show_default=True,
    help="What to do with a file that is there already with other content.",
)
@network_options(relay_default="the one in the ticket, if any")
@json_option
@quiet_option
@global_options
@click.pass_obj
def get_command(
    context: CommandContext,
    ticket: str,
    dest: Path,
    overwrite: str,
    transport: str,
    relay: str | None,
    relay_token: str | None,
    bind: tuple[str, ...],
) -> None:
    """Fetch what TICKET names into the folder DEST (the current one by default).

    The files of a collection get the names that their sender gave them, below DEST. Run the same
    command again to go on where it was interrupted; when all is there, it fetches nothing.
    """
    parsed = parse_ticket(ticket)
    network = parse_network(transport, relay, bind, relay_token)
    main = _get(context, parsed, dest, overwrite, network)
    context.run(main, kept=f"what was fetched is kept; {RUN_AGAIN}")


async def _get(
    context: CommandContext,
    ticket: BlobTicket,
    destination: Path,
    overwrite: str,
    network: NetworkOptions,
) -> None:
    from blobsync.app import Overwrite
    from blobsync.sync.events import FetchDone, FetchProgress, FetchStarted

    output = context.output
    meter = FetchMeter()
    done: FetchDone | None = None
    async with context.open_app(network) as app:
        fetch = app.get(ticket, destination, overwrite=Overwrite(overwrite))
        async with closed_after(fetch) as events:
            with display(output, "fetching") as shown:
                async for event in events:
                    match event:
                        case FetchStarted():
                            _tell_started(output, event)
                        case FetchProgress():
                            pace = meter.update(time.monotonic(), event)
                            shown.show(fetch_status(event, pace))
                            _tell_progress(output, event, pace)
                        case FetchDone():
                            done = event
    if done is not None:
        _tell_done(output, done)


def _tell_started(output: Output, event: FetchStarted) -> None:
    output.progress_event(
        {
            "event": "started",
            "hash": str(event.hash),
            "files": event.files,
            "bytes_total": event.bytes_total,
            "destination": str(event.destination),
        }
    )


def _tell_progress(output: Output, event: FetchProgress, pace: Pace) -> None:
    output.progress_event(
        {
            "event": "progress",
            "files_done": event.files_done,
            "files_total": event.files_total,
            "bytes_done": event.bytes_done,
            "bytes_total": event.bytes_total,
            "bytes_fetched": event.bytes_fetched,
            "rate": pace.rate,
            "eta_s": pace.eta_s,
            "path": event.path,
        }
    )


def _tell_done(output: Output, done: FetchDone) -> None:
    output.event(
        {
            "event": "done",
            "hash": str(done.hash),
            "files": done.files,
            "bytes": done.bytes,
            "bytes_fetched": done.bytes_fetched,
            "seconds": done.seconds,
            "destination": str(done.destination),
        }
    )
    if output.wants_notes:
        output.result(describe_done(done))


def describe_done(done: FetchDone) -> str:
    """What a fetch came to, in one line."""
    what = f"{format_count(done.files, 'file')}, {format_bytes(done.bytes)}"
    if done.bytes_fetched == 0:
        return f"{what} in {done.destination}; nothing had to be fetched"
    rate = format_rate(done.bytes_fetched / done.seconds) if done.seconds > 0 else ""
    fetched = "" if done.bytes_fetched == done.bytes else f"{format_bytes(done.bytes_fetched)} "
    took = f"{fetched}fetched in {format_duration(done.seconds)}"
    return f"{what} in {done.destination}; {took}{f' ({rate})' if rate else ''}"

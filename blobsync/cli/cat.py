"""`blobsync cat`: verified bytes of one blob to stdout."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import click

from blobsync.cli.context import closed_after
from blobsync.cli.inputs import parse_byte_range, parse_network, parse_source
from blobsync.cli.options import global_options, network_options
from blobsync.cli.output import ByteWriter

if TYPE_CHECKING:
    from blobstore import Hash
    from blobsync.app import NetworkOptions
    from blobsync.cli.context import CommandContext
    from blobsync.wire.ticket import BlobTicket


@click.command("cat", short_help="Write the verified bytes of a blob to stdout.")
@click.argument("source", metavar="TICKET|HASH")
@click.option(
    "--range",
    "byte_range",
    default="0:",
    metavar="START:END",
    help="Bytes to write, END not included; either may be left out. [default: all]",
)
@network_options(relay_default="the one in the ticket, if any")
@global_options
@click.pass_obj
def cat_command(
    context: CommandContext,
    source: str,
    byte_range: str,
    transport: str,
    relay: str | None,
    relay_token: str | None,
    bind: tuple[str, ...],
) -> None:
    """Write the bytes of one blob to stdout, each verified first: from its provider by TICKET, or
    from the store by HASH. A ticket of a collection with exactly one file means that file.
    """
    from blobstore import HashAndFormat

    start, end = parse_byte_range(byte_range)
    parsed = parse_source(source)
    network = None
    if isinstance(parsed, HashAndFormat):
        parsed = parsed.hash
    else:
        network = parse_network(transport, relay, bind, relay_token)
    context.run(_cat(context, parsed, start, end, network), kept="run the same command again")


async def _cat(
    context: CommandContext,
    source: BlobTicket | Hash,
    start: int,
    end: int | None,
    network: NetworkOptions | None,
) -> None:
    writer = ByteWriter(sys.stdout.fileno(), asyncio.get_running_loop())
    async with (
        context.open_app(network) as app,
        closed_after(app.cat(source, start=start, end=end)) as pieces,
    ):
        async for data in pieces:
            await writer.write(data)

"""`blobsync ls`: what the store holds, or the files of one collection, here or at a peer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from blobsync.cli.formatting import format_bytes, format_count
from blobsync.cli.inputs import parse_network, parse_source, with_known_format
from blobsync.cli.options import global_options, json_option, network_options
from blobsync.cli.tags import show_tag

if TYPE_CHECKING:
    from blobstore import BlobStat, HashAndFormat, Store
    from blobsync.app import NetworkOptions, RemoteFile
    from blobsync.cli.context import CommandContext
    from blobsync.cli.output import Output
    from blobsync.wire.ticket import BlobTicket


@click.command("ls", short_help="List the store, or the files of a collection.")
@click.argument("source", required=False, metavar="[TICKET|HASH]")
@click.option("--blobs", is_flag=True, help="Without an argument: list every blob as well.")
@network_options(relay_default="the one in the ticket, if any")
@json_option
@global_options
@click.pass_obj
def ls_command(
    context: CommandContext,
    source: str | None,
    blobs: bool,
    transport: str,
    relay: str | None,
    relay_token: str | None,
    bind: tuple[str, ...],
) -> None:
    """List the files of a collection: of a peer, by TICKET and without their data, or by HASH of
    the store. Without an argument: the tags and blobs of the store.
    """
    from blobstore import HashAndFormat

    if source is None:
        return context.run(_list_store(context, blobs=blobs))
    parsed = parse_source(source)
    if isinstance(parsed, HashAndFormat):
        return context.run(_list_local(context, parsed))
    network = parse_network(transport, relay, bind, relay_token)
    return context.run(_list_remote(context, parsed, network))


async def _list_remote(
    context: CommandContext, ticket: BlobTicket, network: NetworkOptions
) -> None:
    async with context.open_app(network) as app:
        _show_files(context.output, await app.list_remote(ticket))


async def _list_local(context: CommandContext, target: HashAndFormat) -> None:
    async with context.open_app() as app:
        known = await with_known_format(app.store, target)
        _show_files(context.output, await app.list_local(known))


def _show_files(output: Output, files: list[RemoteFile]) -> None:
    width = max((len(f"{file.size:,}") for file in files), default=0)
    for file in files:
        output.event(
            {"event": "file", "name": file.name, "hash": str(file.hash), "bytes": file.size}
        )
        output.result(f"{file.hash}  {file.size:{width},}  {file.name}")
    total = sum(file.size for file in files)
    output.note(f"{format_count(len(files), 'file')}, {format_bytes(total)}")


async def _list_store(context: CommandContext, *, blobs: bool) -> None:
    output = context.output
    async with context.open_app() as app:
        for tag in await app.tags():
            show_tag(output, tag)
        await _show_blobs(output, app.store, blobs=blobs)


async def _show_blobs(output: Output, store: Store, *, blobs: bool) -> None:
    count = partial = held = 0
    async for stat in store.list_blobs():
        count += 1
        partial += not stat.is_complete
        here = stat.size if stat.is_complete else stat.bitfield.bytes_within(stat.size)
        held += here
        output.event(
            {
                "event": "blob",
                "hash": str(stat.hash),
                "bytes": stat.size,
                "bytes_held": here,
                "complete": stat.is_complete,
                "location": stat.location.value,
                "paths": [str(path) for path in stat.paths],
            }
        )
        if blobs:
            output.result(_blob_line(stat, here))
    unfinished = f", {partial:,} of them unfinished" if partial else ""
    output.result(f"{format_count(count, 'blob')}, {format_bytes(held)}{unfinished}")


def _blob_line(stat: BlobStat, held: int) -> str:
    state = stat.location.value if stat.is_complete else f"{held:,} bytes so far"
    where = "".join(f"  {path}" for path in stat.paths)
    return f"{stat.hash}  {stat.size:>15,}  {state:10}{where}".rstrip()

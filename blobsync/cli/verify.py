"""`blobsync verify`: re-hash what the store holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from blobsync.cli.context import closed_after
from blobsync.cli.formatting import format_bytes, format_count
from blobsync.cli.inputs import parse_hash
from blobsync.cli.options import global_options, json_option, quiet_option
from blobsync.errors import ExitCode

if TYPE_CHECKING:
    from blobstore import BlobStat, ChunkRanges, Hash
    from blobsync.cli.context import CommandContext
    from blobsync.cli.output import Output


@click.command("verify", short_help="Re-hash blobs of the store.")
@click.argument("hashes", nargs=-1, metavar="[HASH...]")
@json_option
@quiet_option
@global_options
@click.pass_obj
def verify_command(context: CommandContext, hashes: tuple[str, ...]) -> None:
    """Re-hash blobs of the store (all of them by default) and name those that are damaged.

    What is damaged is no longer claimed: fetching or adding it again mends it. Exit code 11 if
    there was any.
    """
    parsed = [parse_hash(text) for text in hashes]
    tally = Tally()
    context.run(_verify(context, parsed, tally))
    if tally.damaged:
        raise click.exceptions.Exit(ExitCode.STORE)


class Tally:
    """What a verification came to so far."""

    def __init__(self) -> None:
        self.blobs = 0
        self.bytes = 0
        self.damaged = 0


async def _verify(context: CommandContext, hashes: list[Hash], tally: Tally) -> None:
    output = context.output
    async with context.open_app() as app, closed_after(app.verify(hashes)) as results:
        async for stat, good in results:
            _tell_blob(output, tally, stat, damaged_bytes(stat, good))
    output.event(
        {
            "event": "verify_done",
            "blobs": tally.blobs,
            "bytes": tally.bytes,
            "damaged": tally.damaged,
        }
    )
    outcome = f"{tally.damaged:,} damaged" if tally.damaged else "all good"
    if not output.quiet:
        blobs = format_count(tally.blobs, "blob")
        output.result(f"{blobs}, {format_bytes(tally.bytes)} verified: {outcome}")


def damaged_bytes(stat: BlobStat, good: ChunkRanges) -> int:
    """Bytes of a blob that the store claimed to hold and that are not good."""
    claimed = stat.bitfield.truncate(stat.size)
    return (claimed - good.truncate(stat.size)).bytes_within(stat.size)


def _tell_blob(output: Output, tally: Tally, stat: BlobStat, damaged: int) -> None:
    tally.blobs += 1
    tally.bytes += stat.bitfield.bytes_within(stat.size)
    event = output.event if damaged else output.progress_event
    event(
        {
            "event": "verified",
            "hash": str(stat.hash),
            "bytes": stat.size,
            "bytes_damaged": damaged,
            "paths": [str(path) for path in stat.paths],
        }
    )
    if damaged:
        tally.damaged += 1
        where = "".join(f"  {path}" for path in stat.paths)
        output.result(f"damaged  {stat.hash}  {format_bytes(damaged)}{where}")

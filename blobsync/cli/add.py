"""`blobsync add`: import files and folders without serving them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from blobsync.cli.importing import summarize, tell_skipped, watch_import
from blobsync.cli.options import copy_option, global_options, json_option, quiet_option

if TYPE_CHECKING:
    from blobsync.cli.context import CommandContext


@click.command("add", short_help="Add files and folders to the store.")
@click.argument(
    "paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PATH..."
)
@copy_option
@json_option
@quiet_option
@global_options
@click.pass_obj
def add_command(context: CommandContext, paths: tuple[Path, ...], copy: bool) -> None:
    """Add files and folders to the store as one collection, and tag it, without serving it.

    Prints the hash of the collection. Files over 16 KiB stay where they are and are only
    referenced, unless --copy is given.
    """
    context.run(_add(context, paths, copy=copy))


async def _add(context: CommandContext, paths: tuple[Path, ...], *, copy: bool) -> None:
    from blobstore import BlobFormat, HashAndFormat, ImportMode

    output = context.output
    mode = ImportMode.COPY if copy else ImportMode.REFERENCE
    async with context.open_app() as app:
        added = await watch_import(
            output, lambda progress: app.add(paths, mode=mode, progress=progress)
        )
    output.event(
        {
            "event": "added",
            "hash": str(added.hash),
            "files": len(added.files),
            "bytes": added.size,
            "skipped": len(added.skipped),
        }
    )
    tell_skipped(output, added)
    output.result(str(HashAndFormat(added.hash, BlobFormat.HASH_SEQ)))
    output.note(f"added {summarize(added)}")

"""`blobsync gc`: remove what nothing needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from blobsync.cli.formatting import format_bytes, format_count
from blobsync.cli.options import global_options, json_option, quiet_option

if TYPE_CHECKING:
    from blobsync.cli.context import CommandContext


@click.command("gc", short_help="Remove blobs that no tag needs.")
@click.option("--dry-run", is_flag=True, help="Only tell what would be removed.")
@json_option
@quiet_option
@global_options
@click.pass_obj
def gc_command(context: CommandContext, dry_run: bool) -> None:
    """Remove every blob that no tag, running operation or unfinished fetch needs.

    Files of yours that the store only references are never touched.
    """
    context.run(_gc(context, dry_run=dry_run))


async def _gc(context: CommandContext, *, dry_run: bool) -> None:
    output = context.output
    async with context.open_app() as app:
        report = await app.gc(dry_run=dry_run)
    output.event(
        {
            "event": "gc",
            "dry_run": dry_run,
            "blobs": report.blobs,
            "bytes_freed": report.bytes_freed,
            "files_removed": report.files_removed,
            "kept": report.kept,
        }
    )
    if not output.quiet:
        removed = "would remove" if dry_run else "removed"
        blobs = format_count(report.blobs, "blob")
        output.result(
            f"{removed} {blobs} ({format_bytes(report.bytes_freed)},"
            f" {format_count(report.files_removed, 'file')}); {report.kept:,} kept"
        )

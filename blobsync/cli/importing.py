"""What `share` and `add` have in common: watching an import and telling what it left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blobsync.cli.formatting import format_bytes, format_count
from blobsync.cli.progress import display, import_status, ticking

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TypeVar

    from blobstore import ImportedCollection, ImportProgress
    from blobsync.cli.output import Output

    Imported = TypeVar("Imported")

SKIPPED_LINES_MAX = 10


async def watch_import(
    output: Output, begin: Callable[[ImportProgress], Awaitable[Imported]]
) -> Imported:
    """Run an import that writes its counters to the progress it is given, and show them."""
    from blobstore import ImportProgress

    progress = ImportProgress()
    with display(output, "adding") as shown:
        async with ticking(lambda: shown.show(import_status(progress))):
            return await begin(progress)


def summarize(collection: ImportedCollection) -> str:
    """`3 files, 1.2 MiB`."""
    return f"{format_count(len(collection.files), 'file')}, {format_bytes(collection.size)}"


def tell_skipped(output: Output, collection: ImportedCollection) -> None:
    """Each path that was left out: all of them as JSON, the first few for people."""
    for path in collection.skipped:
        output.event({"event": "skipped", "path": path})
    for path in collection.skipped[:SKIPPED_LINES_MAX]:
        output.note(f"skipped {path}")
    rest = len(collection.skipped) - SKIPPED_LINES_MAX
    if rest > 0:
        output.note(f"skipped {rest:,} more (--json names them all)")

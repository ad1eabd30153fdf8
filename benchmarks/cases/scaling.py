"""Ten times as much, again and again: time must grow as the work does, and memory must not."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks.cases import compare, tell
from benchmarks.data import free_room, make_files, make_mostly_holes
from benchmarks.e2e.blobsync_transfer import BlobsyncTransfer

if TYPE_CHECKING:
    from benchmarks.cases import Setting

SIZES = (10 << 20, 100 << 20, 1 << 30, 10 << 30)
SIZES_SHORT = (1 << 20, 10 << 20)
COUNTS = (1_000, 10_000, 100_000)
COUNTS_SHORT = (100, 1_000)
MILLION = 1_000_000

FILE_SIZE = 1024
FILE_ROOM = 14 << 10
"""What one such file takes: at both ends a block or two on tmpfs, and its rows in the stores."""


def run_size(setting: Setting) -> list[dict[str, Any]]:
    """One file of each size. The largest are mostly holes, so that they fit into memory."""
    results: list[dict[str, Any]] = []
    for size in SIZES_SHORT if setting.is_short else SIZES:
        if free_room(setting.work.path) < size * 5 // 4:
            tell(f"skipped: scaling-size {size:,}: no room in {setting.work.path}")
            continue
        path = setting.work.path / "scaling.bin"
        make_mostly_holes(path, size)
        results += compare(
            setting,
            "scaling-size",
            {"bytes": size},
            [partial(BlobsyncTransfer, path)],
            point=f"{size:,} bytes",
        )
        path.unlink()
    return results


def run_files(setting: Setting) -> list[dict[str, Any]]:
    """So many files of 1 KiB."""
    counts = COUNTS_SHORT if setting.is_short else COUNTS
    if setting.has_million:
        counts = (*counts, MILLION)
    results: list[dict[str, Any]] = []
    for count in counts:
        if free_room(setting.work.path) < count * FILE_ROOM:
            tell(f"skipped: scaling-files {count:,}: no room in {setting.work.path}")
            continue
        tree = make_files(setting.work.path / f"scaling-{count}", count, FILE_SIZE)
        results += compare(
            setting,
            "scaling-files",
            tree.sent(),
            [partial(BlobsyncTransfer, tree.path)],
            point=f"{count:,} files",
        )
        setting.work.drop(tree.path)
    return results

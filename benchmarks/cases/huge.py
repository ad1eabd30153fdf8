"""One file of 10 GiB, or as large as there is room for; memory must not grow with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.cases import compare, tell
from benchmarks.data import free_room, make_file
from benchmarks.e2e.blobsync_transfer import BlobsyncTransfer
from benchmarks.rivals.sendme import SendmeTransfer

if TYPE_CHECKING:
    from benchmarks.cases import Setting

GIB = 1 << 30
SIZE, SIZE_SHORT = 10 * GIB, 128 << 20

COPIES = 3
"""Room it takes: the file, what is received, and what a rival may keep beside that."""


def run(setting: Setting) -> list[dict[str, Any]]:
    """By blobsync and sendme; in memory if it fits there, else on the disk."""
    wanted = SIZE_SHORT if setting.is_short else SIZE
    work = setting.work
    if free_room(work.path) < COPIES * wanted:
        # A few large files are removed at once; the caution is for trees (see `WorkFolder`).
        work = setting.disk.removing()
    size = size_with_room(wanted, free_room(work.path))
    if size < wanted:
        tell(f"huge: room for {size:,} bytes only, instead of {wanted:,}")
    path = work.path / "huge.bin"
    make_file(path, size)
    makers = [lambda: BlobsyncTransfer(path), lambda: SendmeTransfer(path)]
    result = compare(setting, "huge", {"bytes": size}, makers, folder=work)
    work.drop(path)
    return result


def size_with_room(wanted: int, free: int) -> int:
    """What is wanted, or as many whole GiB as fit, at least one."""
    return wanted if free >= COPIES * wanted else max(GIB, free // COPIES // GIB * GIB)

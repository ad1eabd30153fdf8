"""Many small files of one size: 100,000 of 4 KiB."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.cases import compare
from benchmarks.data import make_files
from benchmarks.e2e.blobsync_transfer import BlobsyncTransfer
from benchmarks.rivals.copiers import copiers
from benchmarks.rivals.rsync import RsyncCopy
from benchmarks.rivals.sendme import SendmeTransfer

if TYPE_CHECKING:
    from benchmarks.cases import Setting

FILES, FILES_SHORT = 100_000, 2_000
SIZE = 4096


def run(setting: Setting) -> list[dict[str, Any]]:
    """By blobsync, sendme, and the programs that copy."""
    count = FILES_SHORT if setting.is_short else FILES
    tree = make_files(setting.work.path / "small", count, SIZE)
    makers = [
        lambda: BlobsyncTransfer(tree.path),
        lambda: SendmeTransfer(tree.path),
        lambda: RsyncCopy(tree.path),
        *copiers(tree.path, setting.has_all_rivals),
    ]
    result = compare(setting, "small", tree.sent(), makers)
    setting.work.drop(tree.path)
    return result

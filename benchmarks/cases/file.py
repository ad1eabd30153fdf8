"""One file of random bytes: 1 GiB."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.cases import compare
from benchmarks.data import make_file
from benchmarks.e2e.blobsync_transfer import BlobsyncTransfer
from benchmarks.rivals.copiers import copiers
from benchmarks.rivals.raw_stream import RawStream
from benchmarks.rivals.sendme import SendmeTransfer

if TYPE_CHECKING:
    from benchmarks.cases import Setting

SIZE, SIZE_SHORT = 1 << 30, 64 << 20


def run(setting: Setting) -> list[dict[str, Any]]:
    """By blobsync, sendme, a bare iroh stream, and the programs that copy."""
    size = SIZE_SHORT if setting.is_short else SIZE
    path = setting.work.path / "file.bin"
    make_file(path, size)
    makers = [
        lambda: BlobsyncTransfer(path),
        lambda: SendmeTransfer(path),
        lambda: RawStream(size),
        *copiers(path, setting.has_all_rivals),
    ]
    result = compare(setting, "file", {"bytes": size}, makers)
    setting.work.drop(path)
    return result

"""Ten getters at once of one provider."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.cases import compare
from benchmarks.data import make_file
from benchmarks.e2e.blobsync_transfer import BlobsyncTransfer
from benchmarks.rivals.sendme import SendmeTransfer

if TYPE_CHECKING:
    from benchmarks.cases import Setting

GETTERS = 10
SIZE, SIZE_SHORT = 512 << 20, 16 << 20


def run(setting: Setting) -> list[dict[str, Any]]:
    """By blobsync and sendme; MB/s is of all getters together."""
    size = SIZE_SHORT if setting.is_short else SIZE
    path = setting.work.path / "getters.bin"
    make_file(path, size)
    makers = [
        lambda: BlobsyncTransfer(path, getters=GETTERS),
        lambda: SendmeTransfer(path, getters=GETTERS),
    ]
    result = compare(setting, "getters", {"bytes": size, "getters": GETTERS}, makers)
    setting.work.drop(path)
    return result

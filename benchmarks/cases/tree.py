"""A tree of real source files, received in memory and, as another case, on a disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.cases import compare
from benchmarks.data import copy_tree
from benchmarks.e2e.blobsync_transfer import BlobsyncTransfer
from benchmarks.rivals.copiers import copiers
from benchmarks.rivals.rsync import RsyncCopy
from benchmarks.rivals.sendme import SendmeTransfer

if TYPE_CHECKING:
    from benchmarks.cases import Setting
    from benchmarks.data import WorkFolder

FILES_MIN = 20_000
FILES_SHORT = 2_000


def run(setting: Setting) -> list[dict[str, Any]]:
    """In the work folder, which is memory if it has room."""
    return _run(setting, "tree", setting.work)


def run_on_disk(setting: Setting) -> list[dict[str, Any]]:
    """The same into fresh folders on a disk."""
    return _run(setting, "tree-disk", setting.disk)


def _run(setting: Setting, case: str, target: WorkFolder) -> list[dict[str, Any]]:
    files_min, files_max = (FILES_SHORT, FILES_SHORT) if setting.is_short else (FILES_MIN, None)
    tree = copy_tree(setting.work.path / case / "tree", files_min=files_min, files_max=files_max)
    makers = [
        lambda: BlobsyncTransfer(tree.path),
        lambda: SendmeTransfer(tree.path),
        lambda: RsyncCopy(tree.path),
        *copiers(tree.path, setting.has_all_rivals),
    ]
    result = compare(setting, case, tree.sent(), makers, folder=target)
    setting.work.drop(tree.path.parent)
    return result

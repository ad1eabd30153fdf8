"""Programs that CI does without: what else a user may copy a file or a tree with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.rivals.croc import CrocTransfer
from benchmarks.rivals.rclone import RcloneCopy
from benchmarks.rivals.rsync_ssh import RsyncSshCopy
from benchmarks.rivals.syncthing import SyncthingTransfer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benchmarks.harness import Contestant


def copiers(sent: Path, wanted: bool) -> list[Callable[[], Contestant]]:
    """What makes each of them; none if they are not wanted."""
    if not wanted:
        return []
    return [
        lambda: RsyncSshCopy(sent),
        lambda: RcloneCopy(sent),
        lambda: CrocTransfer(sent),
        lambda: SyncthingTransfer(sent),
    ]

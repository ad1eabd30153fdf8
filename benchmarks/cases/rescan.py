"""A tree that was added before and has not changed: what looking at it again costs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from benchmarks.cases import compare
from benchmarks.data import copy_tree
from benchmarks.e2e.blobsync_transfer import (
    PROGRAM,
    blobsync_environment,
    blobsync_version,
    compile_modules,
)
from benchmarks.harness import run_to_end
from benchmarks.rivals.rsync import find_rsync, rsync_version

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.cases import Setting
    from benchmarks.harness import Measures, Usage

FILES_MIN = 20_000
FILES_SHORT = 2_000


def run(setting: Setting) -> list[dict[str, Any]]:
    """`blobsync add` again with the same home, against `rsync -a` again to the same target."""
    files_min, files_max = (FILES_SHORT, FILES_SHORT) if setting.is_short else (FILES_MIN, None)
    tree = copy_tree(
        setting.work.path / "rescan" / "tree", files_min=files_min, files_max=files_max
    )
    makers = [lambda: BlobsyncRescan(tree.path), lambda: RsyncRescan(tree.path)]
    result = compare(setting, "rescan", tree.sent(), makers)
    setting.work.drop(tree.path.parent)
    return result


def _measures(used: Usage) -> Measures:
    return {
        "rescan_wall_s": used.wall_s,
        "rescan_cpu_s": used.cpu_s,
        **used.memory_measures("rescan"),
    }


class BlobsyncRescan:
    """The whole program, from its start to its end."""

    name = "blobsync"

    def __init__(self, tree: Path) -> None:
        self.version = blobsync_version()
        self.commands: Sequence[Sequence[str]] = ()
        self._tree = tree
        compile_modules()

    def run(self, folder: Path) -> Measures:
        """The second one of two runs."""
        command = [*PROGRAM, "add", "--quiet", str(self._tree)]
        env = blobsync_environment(os.environ, folder / ".blobsync")
        run_to_end(command, cwd=folder, env=env)
        used = run_to_end(command, cwd=folder, env=env)
        self.commands = [command]
        return _measures(used)


class RsyncRescan:
    """`rsync -a` that finds nothing to do."""

    name = "rsync"

    def __init__(self, tree: Path) -> None:
        self._program = find_rsync()
        self.version = rsync_version(self._program)
        self.commands: Sequence[Sequence[str]] = ()
        self._tree = tree

    def run(self, folder: Path) -> Measures:
        """The second one of two runs."""
        target = folder / "target"
        target.mkdir()
        command = [self._program, "-a", str(self._tree), f"{target}/"]
        run_to_end(command, cwd=folder, env=os.environ)
        used = run_to_end(command, cwd=folder, env=os.environ)
        self.commands = [command]
        return _measures(used)

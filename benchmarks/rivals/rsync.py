"""`rsync -a`, a local copy: no network, no hashes. What making the files costs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from benchmarks.data import check_equal
from benchmarks.harness import run_to_end
from benchmarks.machine import version_line
from benchmarks.rivals import find_packaged

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.harness import Measures


def find_rsync() -> str:
    """Its path.

    Raises:
        MissingRivalError: it is not on this machine.
    """
    return find_packaged("rsync", is_optional=False)


def rsync_version(program: str) -> str:
    """Name and version, without the protocol's."""
    line, _, _ = version_line(program, "--version").partition("protocol")
    return " ".join(line.split())


class RsyncCopy:
    """Has only the measures of receiving."""

    name = "rsync"

    def __init__(self, sent: Path) -> None:
        self._program = find_rsync()
        self.version = rsync_version(self._program)
        self._sent = sent
        self.commands: Sequence[Sequence[str]] = ()

    def run(self, folder: Path) -> Measures:
        """One copy."""
        target = folder / "target"
        target.mkdir()
        command = [self._program, "-a", str(self._sent), f"{target}/"]
        used = run_to_end(command, cwd=folder, env=os.environ)
        check_equal(self._sent, target / self._sent.name)
        self.commands = [command]
        return {
            "receive_wall_s": used.wall_s,
            "receive_cpu_s": used.cpu_s,
            **used.memory_measures("getter"),
        }

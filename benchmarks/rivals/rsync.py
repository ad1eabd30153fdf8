"""`rsync -a`, a local copy: no network, no hashes. What making the files costs."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from benchmarks.data import check_equal
from benchmarks.harness import MissingRivalError, run_to_end
from benchmarks.machine import version_line

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.harness import Measures


class RsyncCopy:
    """Has only the measures of receiving."""

    name = "rsync"

    def __init__(self, sent: Path) -> None:
        program = shutil.which("rsync")
        if program is None:
            raise MissingRivalError("rsync is not on this machine")
        self._program = program
        self.version = version_line(program, "--version")
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
        return {"receive_wall_s": used.wall_s, "receive_cpu_s": used.cpu_s}

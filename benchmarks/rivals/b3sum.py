"""`b3sum`, BLAKE3's own program: the hash alone, no outboard."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from benchmarks.harness import run_to_end
from benchmarks.machine import version_line
from benchmarks.rivals import find_program

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.harness import Measures


class B3sum:
    """It maps the file into memory, as it does by default."""

    name = "b3sum"
    is_optional = True

    def __init__(self, path: Path, threads: int) -> None:
        self._program = find_program(
            "b3sum", "BLOBSYNC_B3SUM", "tools", "bin", "b3sum", is_optional=True
        )
        self.version = version_line(self._program, "--version")
        self.commands: Sequence[Sequence[str]] = [
            [self._program, "--num-threads", str(threads), str(path)]
        ]

    def run(self, folder: Path) -> Measures:
        """Hash the file once: the whole program."""
        used = run_to_end(self.commands[0], cwd=folder, env=os.environ)
        return {"hash_wall_s": used.wall_s, "hash_cpu_s": used.cpu_s}

"""`rclone copy` from `rclone serve sftp`: encrypted, and what arrived is compared by its MD5."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING

from benchmarks.data import check_equal
from benchmarks.harness import Process, run_to_end
from benchmarks.machine import version_line
from benchmarks.rivals import find_packaged, free_port, is_listening, received

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.harness import Measures

USER, PASSWORD = "bench", "bench"


class RcloneCopy:
    """Has only the measures of receiving. SFTP, since webdav would neither encrypt nor hash."""

    name = "rclone"
    is_optional = True

    def __init__(self, sent: Path) -> None:
        self._program = find_packaged("rclone")
        self.version = version_line(self._program, "version")
        self.commands: Sequence[Sequence[str]] = ()
        self._sent = sent
        asked = subprocess.run(
            [self._program, "obscure", PASSWORD], capture_output=True, text=True, check=True
        )
        self._obscured = asked.stdout.strip()

    def run(self, folder: Path) -> Measures:
        """One copy."""
        port = free_port()
        # No configuration of the user's, and nothing kept in the home folder.
        env = {**os.environ, "HOME": str(folder), "RCLONE_CONFIG": ""}
        server_command = [
            *(self._program, "serve", "sftp", "--addr", f"127.0.0.1:{port}"),
            *("--user", USER, "--pass", PASSWORD, "--read-only", str(self._sent.parent)),
        ]
        target = folder / "target"
        into = target / self._sent.name if self._sent.is_dir() else target
        command = [
            *(self._program, "copy", "--sftp-host", "127.0.0.1", "--sftp-port", str(port)),
            *("--sftp-user", USER, "--sftp-pass", self._obscured),
            *(f":sftp:{self._sent.name}", str(into)),
        ]
        with Process(server_command, cwd=folder, env=env) as server:
            server.wait_until(lambda: is_listening(port))
            before_s = server.cpu_so_far_s()
            getter = run_to_end(command, cwd=folder, env=env)
            served = server.end(signal.SIGINT, accepted=(0, 1, 2, -signal.SIGINT))
        check_equal(self._sent, target / self._sent.name)
        self.commands = [
            server_command,
            [part.replace(self._obscured, "PASSWORD") for part in command],
        ]
        return received(getter, served, before_s)

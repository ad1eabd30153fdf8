"""`croc send` and `croc`, over a relay on this machine: encrypted, checked by a hash at the end."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from benchmarks.data import check_equal
from benchmarks.harness import Process, run_to_end
from benchmarks.machine import version_line
from benchmarks.rivals import find_program, free_port, is_listening

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.harness import Measures

CODE = "1234-bench-bench-bench"

PORTS = 5
"""One to meet at and four to send over: as many as its own relay opens."""


class CrocTransfer:
    """The relay is measured with the provider: without it nothing is sent."""

    name = "croc"
    is_optional = True

    def __init__(self, sent: Path) -> None:
        self._program = find_program(
            "croc", "BLOBSYNC_CROC", "tools", "bin", "croc", is_optional=True
        )
        self.version = version_line(self._program, "--version")
        self.commands: Sequence[Sequence[str]] = ()
        self._sent = sent

    def run(self, folder: Path) -> Measures:
        """One transfer; `add` is until it prints its code."""
        env = {**os.environ, "HOME": str(folder), "CROC_SECRET": CODE}
        ports = [free_port() for _ in range(PORTS)]
        target = folder / "target"
        target.mkdir()
        relay_command = [
            *(self._program, "relay", "--host", "127.0.0.1"),
            *("--ports", ",".join(map(str, ports))),
        ]
        common = [
            self._program,
            "--ignore-stdin",
            "--no-compress",
            "--relay",
            f"127.0.0.1:{ports[0]}",
        ]
        send_command = [*common, "send", "--no-local", str(self._sent)]
        get_command = [*common, "--yes", "--out", str(target)]
        with Process(relay_command, cwd=folder, env=env) as relay:
            relay.wait_until(lambda: all(map(is_listening, ports)))
            with Process(send_command, cwd=folder, env=env) as sender:
                sender.wait_until(lambda: sender.has_said("Code is"))
                add_wall_s = sender.seconds_so_far()
                add_cpu_s = sender.cpu_so_far_s()
                getter = run_to_end(get_command, cwd=folder, env=env)
                sent = sender.wait()
            relayed = relay.end(signal.SIGINT, accepted=(0, 1, 2, -signal.SIGINT))
        check_equal(self._sent, target / self._sent.name)
        secret = f"CROC_SECRET={CODE}"
        self.commands = [relay_command, [secret, *send_command], [secret, *get_command]]
        total_s = getter.cpu_s + sent.cpu_s + relayed.cpu_s
        return {
            "add_wall_s": add_wall_s,
            "add_cpu_s": add_cpu_s,
            "receive_wall_s": getter.wall_s,
            "receive_cpu_s": total_s - add_cpu_s,
            "cpu_s": total_s,
            **sent.memory_measures("provider"),
            **getter.memory_measures("getter"),
        }

"""Bare iroh streams in Rust: nothing hashed, read or written. What the network part allows."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from benchmarks.e2e.transfer import HERE, End
from benchmarks.harness import Process, run_to_end
from benchmarks.machine import version_line
from benchmarks.rivals import find_peer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.harness import Measures


class RawStream:
    """`blobsync-peer raw-stream-serve` and `raw-stream-get`: has only the measures of receiving.

    Args:
        size: bytes that are sent, over all streams together.
        streams: of each connection.
    """

    def __init__(
        self,
        size: int,
        *,
        streams: int = 1,
        connections: int = 1,
        provider: End = HERE,
        getter: End = HERE,
    ) -> None:
        self.name = f"raw-streams-{connections}x{streams}" if streams > 1 else "raw-stream"
        self._options: list[str] = []
        if (streams, connections) != (1, 1):
            self._options = ["--streams", str(streams), "--connections", str(connections)]
        self._provider, self._getter = provider, getter
        self._program = find_peer()
        self.version = version_line(self._program, "--version")
        self._size = size
        self.commands: Sequence[Sequence[str]] = ()

    def run(self, folder: Path) -> Measures:
        """One transfer of `size` bytes."""
        command = self._provider.command(
            [self._program, *bind_options(self._provider), "raw-stream-serve", str(self._size)]
        )
        with Process(command, cwd=folder, env=os.environ) as server:
            ticket = server.line_where(_parse_ready)
            cpu_before_s = server.cpu_so_far_s()
            get_command = self._getter.command(
                [
                    *(self._program, *bind_options(self._getter)),
                    *("raw-stream-get", *self._options, ticket),
                ]
            )
            getter = run_to_end(get_command, cwd=folder, env=os.environ)
            # It ends when its standard input does.
            served = server.end(None)
        self.commands = [command, [*get_command[:-1], "TICKET"]]
        return {
            "receive_wall_s": getter.wall_s,
            "receive_cpu_s": getter.cpu_s + served.cpu_s - cpu_before_s,
        }


def bind_options(end: End) -> list[str]:
    """The address to bind; it is loopback by default."""
    return [] if end is HERE else ["--bind", f"{end.ip}:0"]


def _parse_ready(line: str) -> str | None:
    event = json.loads(line)
    return event["ticket"] if event["event"] == "ready" else None

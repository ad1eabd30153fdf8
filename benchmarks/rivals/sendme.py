"""`sendme send` and `sendme receive`: the program that users have today."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from benchmarks.e2e.transfer import Transfer
from benchmarks.machine import version_line
from benchmarks.rivals import find_program

if TYPE_CHECKING:
    from pathlib import Path

OPTIONS = [
    "--relay=disabled",
    "--no-progress",
    "--magic-ipv4-addr=127.0.0.1:0",
]


def loopback_options() -> list[str]:
    """Options that keep it to loopback, in each address family that this machine has."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return OPTIONS
    return [*OPTIONS, "--magic-ipv6-addr=[::1]:0"]


class SendmeTransfer(Transfer):
    """sendme keeps a store in its working directory and removes it at the end."""

    name = "sendme"

    def __init__(self, sent: Path, *, getters: int = 1) -> None:
        super().__init__(sent, getters=getters)
        self._program = find_program("sendme", "BLOBSYNC_SENDME", "tools", "bin", "sendme")
        self.version = version_line(self._program, "--version")
        self._options = loopback_options()

    def provide_command(self, folder: Path) -> list[str]:
        return [self._program, "send", *self._options, str(self.sent)]

    def get_command(self, folder: Path, ticket: str) -> list[str]:
        return [self._program, "receive", *self._options, ticket]

    def parse_ticket(self, line: str) -> str | None:
        return line.split()[-1] if line.startswith("sendme receive blob") else None

"""`sendme send` and `sendme receive`: the program that users have today."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from benchmarks.e2e.transfer import HERE, End, Transfer
from benchmarks.machine import version_line
from benchmarks.rivals import find_program

if TYPE_CHECKING:
    from pathlib import Path


def network_options(ip: str) -> list[str]:
    """Options that keep it to one address, and to loopback in the other address family."""
    options = ["--relay=disabled", "--no-progress", f"--magic-ipv4-addr={ip}:0"]
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return options
    return [*options, "--magic-ipv6-addr=[::1]:0"]


class SendmeTransfer(Transfer):
    """sendme keeps a store in its working directory and removes it at the end."""

    name = "sendme"

    def __init__(
        self, sent: Path, *, getters: int = 1, provider: End = HERE, getter: End = HERE
    ) -> None:
        super().__init__(sent, getters=getters, provider=provider, getter=getter)
        self._program = find_program("sendme", "BLOBSYNC_SENDME", "tools", "bin", "sendme")
        self.version = version_line(self._program, "--version")

    def provide_command(self, folder: Path) -> list[str]:
        return [self._program, "send", *network_options(self.provider.ip), str(self.sent)]

    def get_command(self, folder: Path, ticket: str) -> list[str]:
        return [self._program, "receive", *network_options(self.getter.ip), ticket]

    def parse_ticket(self, line: str) -> str | None:
        return line.split()[-1] if line.startswith("sendme receive blob") else None

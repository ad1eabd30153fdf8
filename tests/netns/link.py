"""Two hosts on one machine: network namespaces joined by `blobsync-peer link`.

Delay, loss and rate are those of a program in user space, so that no kernel module is needed for
them; what is needed is the right to make namespaces, `ip`, and the TUN device. Nothing outside
the two namespaces is touched: each device is made inside of its own.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import struct
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

MTU = 1500
DEVICE = "link0"
TX_QUEUE_LEN = 10_000
"""Packets that wait for the program: a burst of a sender must not be lost before it gets there."""

_TUN_PATH = "/dev/net/tun"
_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000


@dataclass(frozen=True)
class Host:
    """One end of a link."""

    namespace: str
    ip: str

    def command(self, command: Sequence[str]) -> list[str]:
        """The command that runs `command` on this host."""
        return ["ip", "netns", "exec", self.namespace, *command]


@dataclass(frozen=True)
class LinkShape:
    """What a link does to packets, the same in both directions."""

    delay_s: float = 0.0
    """One way."""
    loss: float = 0.0
    """Share of the packets."""
    rate: int | None = None
    """Bits per second."""
    seed: int = 0

    def options(self) -> list[str]:
        """Arguments for `blobsync-peer link`."""
        options = ["--delay-ms", str(self.delay_s * 1e3), "--loss", str(self.loss)]
        if self.rate is not None:
            options += ["--rate", str(self.rate)]
        return [*options, "--seed", str(self.seed)]


def why_impossible() -> str | None:
    """What this machine lacks for a link, None if nothing."""
    if os.geteuid() != 0:
        return "not root"
    if not Path(_TUN_PATH).exists():
        return "no TUN device"
    if shutil.which("ip") is None:
        return "no ip command"
    return None


@contextmanager
def linked(peer: str, shape: LinkShape) -> Generator[tuple[Host, Host]]:
    """Two hosts joined by a link that the program `peer` carries."""
    hosts = (
        Host(f"blobsync-{os.getpid()}-a", "10.83.0.1"),
        Host(f"blobsync-{os.getpid()}-b", "10.83.0.2"),
    )
    with ExitStack() as stack:
        for host in hosts:
            _run("ip", "netns", "add", host.namespace)
            stack.callback(_run, "ip", "netns", "delete", host.namespace)
        command = [peer, "link", *shape.options()]
        for host, option in zip(hosts, ("--a", "--b"), strict=True):
            # Inside of its namespace it opens the device, then becomes the rest of the command.
            opener = [sys.executable, __file__, option, *command]
            command = host.command(opener)
        process = stack.enter_context(
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        )
        assert process.stdin is not None
        assert process.stdout is not None
        # It ends when its standard input does.
        stack.callback(process.stdin.close)
        _expect_ready(process.stdout.readline())
        for host in hosts:
            _configure(host)
        yield hosts


def _expect_ready(line: bytes) -> None:
    event: dict[str, Any] = json.loads(line)
    if event["event"] != "ready":
        raise RuntimeError(f"no link: {event}")


def _configure(host: Host) -> None:
    for command in (
        ["ip", "link", "set", "lo", "up"],
        ["ip", "link", "set", DEVICE, "mtu", str(MTU), "txqueuelen", str(TX_QUEUE_LEN), "up"],
        ["ip", "addr", "add", f"{host.ip}/24", "dev", DEVICE],
    ):
        _run(*host.command(command))


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


def _open_and_become(option: str, command: list[str]) -> None:
    """Open the TUN device of this namespace and run a command that inherits it."""
    fd = os.open(_TUN_PATH, os.O_RDWR)
    request = struct.pack("16sH22x", DEVICE.encode(), _IFF_TUN | _IFF_NO_PI)
    fcntl.ioctl(fd, _TUNSETIFF, request)
    os.set_inheritable(fd, True)
    os.execvp(command[0], [*command, option, str(fd)])


if __name__ == "__main__":
    _open_and_become(sys.argv[1], sys.argv[2:])

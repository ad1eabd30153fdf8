"""Other programs to compare with; one that is missing is skipped by name.

In CI the run fails if it is one of those that `make peers` and `.ci/run` install.
"""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.harness import MissingRivalError

if TYPE_CHECKING:
    from benchmarks.harness import Measures, Usage


def find_program(name: str, variable: str, *cached: str, is_optional: bool = False) -> str:
    """The path of a program: from the environment, the cache of `make peers`, or PATH.

    Raises:
        MissingRivalError: it is in none of them.
    """
    cache = Path(os.environ.get("BLOBSYNC_CACHE", Path.home() / ".cache" / "blobsync"))
    candidates = [os.environ.get(variable), str(cache.joinpath(*cached)), shutil.which(name)]
    for candidate in candidates:
        if candidate and Path(candidate).is_file():
            return candidate
    where = "`make rivals`" if is_optional else "`make peers`"
    raise MissingRivalError(
        f"{name} is not on this machine ({where} installs it)", is_optional=is_optional
    )


def find_peer() -> str:
    """The path of `blobsync-peer`, which the interop tests build.

    Raises:
        MissingRivalError: it is not built.
    """
    return find_program("blobsync-peer", "BLOBSYNC_PEER", "target-peer", "release", "blobsync-peer")


def find_packaged(name: str, *, is_optional: bool = True) -> str:
    """The path of a program that a package of the system brings.

    Raises:
        MissingRivalError: it is not on PATH.
    """
    found = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if found is None:
        raise MissingRivalError(f"{name} is not on this machine", is_optional=is_optional)
    return found


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def is_listening(port: int) -> bool:
    """Whether somebody accepts connections on a port of 127.0.0.1."""
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def received(getter: Usage, provider: Usage, provider_cpu_before_s: float) -> Measures:
    """The measures of a getter that ran to its end, and of the provider that served it."""
    return {
        "receive_wall_s": getter.wall_s,
        "receive_cpu_s": getter.cpu_s + provider.cpu_s - provider_cpu_before_s,
        **provider.memory_measures("provider"),
        **getter.memory_measures("getter"),
    }

"""`blobsync share` and `blobsync get`."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.e2e.transfer import HERE, End, Transfer
from benchmarks.harness import run_to_end
from benchmarks.machine import ROOT, own_version

if TYPE_CHECKING:
    from collections.abc import Mapping

PROGRAM = [sys.executable, "-m", "blobsync"]
"""The application of this clone; `.venv/bin/blobsync` is the same."""


def network_options(ip: str = "127.0.0.1") -> list[str]:
    """No relay, and one address to bind."""
    return ["--relay", "disabled", "--bind", f"{ip}:0"]


class BlobsyncTransfer(Transfer):
    """Ours: recorded in the store of each end, durable when `get` ends."""

    name = "blobsync"

    def __init__(
        self, sent: Path, *, getters: int = 1, provider: End = HERE, getter: End = HERE
    ) -> None:
        super().__init__(sent, getters=getters, provider=provider, getter=getter)
        self.version = blobsync_version()
        compile_modules()

    def provide_command(self, folder: Path) -> list[str]:
        return [*PROGRAM, "share", *network_options(self.provider.ip), "--json", str(self.sent)]

    def get_command(self, folder: Path, ticket: str) -> list[str]:
        options = network_options(self.getter.ip)
        return [*PROGRAM, "get", *options, "--quiet", ticket, str(folder)]

    def parse_ticket(self, line: str) -> str | None:
        event = json.loads(line)
        return event["ticket"] if event["event"] == "ticket" else None

    def environment(self, folder: Path) -> dict[str, str]:
        return blobsync_environment(super().environment(folder), folder / ".blobsync")


def blobsync_version() -> str:
    """Ours, as the reports name it."""
    return f"blobsync {own_version('blobsync')}"


def blobsync_environment(env: Mapping[str, str], home: Path) -> dict[str, str]:
    """The environment of a run of ours: this clone's modules, and a home of its own."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    made = {**env, "BLOBSYNC_HOME": str(home), "PYTHONPATH": path}
    made.pop("PYTHONDONTWRITEBYTECODE", None)
    return made


def compile_modules() -> None:
    """Have Python compile our modules, as installing does: not a part of what is measured."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        env = blobsync_environment(os.environ, path / ".blobsync")
        for arguments in (["id"], ["share", "--help"], ["get", "--help"]):
            run_to_end([*PROGRAM, *arguments], cwd=path, env=env)

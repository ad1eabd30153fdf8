"""`blobsync share` and `blobsync get`."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

from benchmarks.e2e.transfer import Transfer
from benchmarks.harness import run_to_end
from benchmarks.machine import ROOT, own_version

PROGRAM = [sys.executable, "-m", "blobsync"]
"""The application of this clone; `.venv/bin/blobsync` is the same."""

NETWORK = ["--relay", "disabled", "--bind", "127.0.0.1:0"]


class BlobsyncTransfer(Transfer):
    """Ours: recorded in the store of each end, durable when `get` ends."""

    name = "blobsync"

    def __init__(self, sent: Path) -> None:
        super().__init__(sent)
        self.version = f"blobsync {own_version('blobsync')}"
        with tempfile.TemporaryDirectory() as folder:
            # Compiles the modules, as installing does: not a part of what is measured.
            path = Path(folder)
            run_to_end([*PROGRAM, "id"], cwd=path, env=self.environment(path))

    def provide_command(self, folder: Path) -> list[str]:
        return [*PROGRAM, "share", *NETWORK, "--json", str(self.sent)]

    def get_command(self, folder: Path, ticket: str) -> list[str]:
        return [*PROGRAM, "get", *NETWORK, "--quiet", ticket, str(folder)]

    def parse_ticket(self, line: str) -> str | None:
        event = json.loads(line)
        return event["ticket"] if event["event"] == "ticket" else None

    def environment(self, folder: Path) -> dict[str, str]:
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        env = super().environment(folder) | {
            "BLOBSYNC_HOME": str(folder / ".blobsync"),
            "PYTHONPATH": path,
        }
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        return env

"""The real program in processes of its own, on 127.0.0.1, without a relay."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

REPOSITORY = Path(__file__).parents[2]
TIMEOUT_S = 60
LOOPBACK = ("--relay", "disabled", "--bind", "127.0.0.1:0")


@dataclass(frozen=True)
class Ended:
    """What a run of the program came to."""

    code: int
    out: bytes
    err: str

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


class Sharing:
    """A running `share`, from its ticket on."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.ticket = ""

    def next_event(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the share has ended"
        return json.loads(line)

    def stop(self, number: int = signal.SIGINT) -> Ended:
        """End it with a signal; what it printed since the ticket."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=TIMEOUT_S)
        return Ended(self.process.returncode, out, err.decode())


class Program:
    """Runs `blobsync` in one folder; its home is `home` below it, unless `--home` is given."""

    def __init__(self, cwd: Path) -> None:
        self.cwd = cwd
        self.env = {
            **os.environ,
            "BLOBSYNC_HOME": str(cwd / "home"),
            "PYTHONPATH": str(REPOSITORY),
            "TERM": "dumb",
        }

    def start(self, *args: str | Path, **options: Any) -> subprocess.Popen[bytes]:
        """Start it; its outputs are pipes unless `options` say otherwise."""
        return subprocess.Popen(
            [sys.executable, "-m", "blobsync", *map(str, args)],
            cwd=self.cwd,
            env=self.env,
            stdin=subprocess.DEVNULL,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
        )

    def run(self, *args: str | Path) -> Ended:
        with self.start(*args) as process:
            try:
                out, err = process.communicate(timeout=TIMEOUT_S)
            except BaseException:
                process.kill()
                raise
        return Ended(process.returncode, out, err.decode())

    @contextmanager
    def sharing(self, *args: str | Path, home: str = "sharer") -> Generator[Sharing]:
        """`share --json` in the background; killed at the end if nobody stopped it."""
        with self.start("share", *args, *LOOPBACK, "--json", "--home", home) as process:
            try:
                share = Sharing(process)
                first = share.next_event()
                assert first["event"] == "ticket", first
                share.ticket = first["ticket"]
                yield share
            finally:
                if process.poll() is None:
                    process.kill()
                    process.communicate(timeout=TIMEOUT_S)


def pattern_bytes(size: int) -> bytes:
    """Bytes that repeat only after 64,256, the same everywhere."""
    period = bytes((i * 31 + i // 251) % 256 for i in range(251 * 256))
    return (period * (size // len(period) + 1))[:size]


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


@pytest.fixture
def write(tmp_path: Path) -> Any:
    """Write a file below the folder of the test: its text, or as many bytes of a pattern."""

    def write(name: str, content: str | int) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = pattern_bytes(content) if isinstance(content, int) else content.encode()
        path.write_bytes(data)
        return path

    return write

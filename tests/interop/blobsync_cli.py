"""Drives our own command line, `python -m blobsync`, as a process beside the Rust peers."""

import contextlib
import json
import signal
import sys
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

from tests.interop.drivers import JsonProgram, Line, environment

LOOPBACK = ("--relay", "disabled", "--bind", "127.0.0.1:0", "--json")


class ShareProcess(JsonProgram):
    """A running `blobsync share`."""

    about: Line

    @property
    def ticket(self) -> str:
        """The ticket that it printed."""
        return str(self.about["ticket"])

    async def has_sent(self, size: int) -> Line:
        """Wait until `size` bytes were handed to the network."""
        return await self.event_where(
            lambda line: line["event"] == "serving" and line["bytes_sent"] >= size,
            f"{size} bytes sent",
        )


class GetProcess(JsonProgram):
    """A running `blobsync get`."""

    async def has_fetched(self, size: int) -> Line:
        """Wait until `size` verified bytes came over the network; `done` counts as well."""
        return await self.event_where(
            lambda line: line.get("bytes_fetched", -1) >= size, f"{size} bytes fetched"
        )


@dataclass(frozen=True, slots=True)
class Ended:
    """A command of ours that ended."""

    status: int
    events: list[Line]
    stderr: str

    @property
    def last(self) -> Line:
        """The last object: `done` of a `get` that went well, `error` of what failed."""
        return self.events[-1]


@dataclass(frozen=True, slots=True)
class Blobsync:
    """The program over one home folder."""

    home: Path
    transport: str = "auto"

    @contextlib.asynccontextmanager
    async def share(self, *paths: Path) -> AsyncGenerator[ShareProcess]:
        """Shares until left, as Ctrl-C ends it."""
        command = [*self._command("share"), *paths, *self._network]
        async with ShareProcess.running(
            command, env=environment(None), end_signal=signal.SIGINT
        ) as process:
            process.about = await process.event("ticket")
            yield process

    @contextlib.asynccontextmanager
    async def getting(self, ticket: str, destination: Path) -> AsyncGenerator[GetProcess]:
        """Fetches; what is not done when it is left is interrupted by SIGTERM."""
        command = [*self._command("get"), ticket, destination, *self._network]
        async with GetProcess.running(
            command, env=environment(None), end_signal=signal.SIGTERM
        ) as process:
            yield process

    async def get(self, ticket: str, destination: Path) -> Ended:
        """Fetches to the end, good or bad."""
        async with self.getting(ticket, destination) as process:
            status = await process.ended()
            return Ended(status, [json.loads(line) for line in process.lines], process.stderr())

    async def run(self, command: str, *arguments: str) -> Ended:
        """Runs a command that needs no network, with `--json`, to its end."""
        async with JsonProgram.running(
            [*self._command(command), *arguments, "--json"], env=environment(None)
        ) as process:
            status = await process.ended()
            return Ended(status, [json.loads(line) for line in process.lines], process.stderr())

    async def bytes_held(self, hash: str) -> int:
        """Bytes of a blob that the store knows as proven; 0 for one that it does not know."""
        listed = await self.run("ls", "--blobs")
        assert listed.status == 0, listed
        blobs = [line for line in listed.events if line["event"] == "blob"]
        held = [line["bytes_held"] for line in blobs if line["hash"] == hash]
        return max((each or 0 for each in held), default=0)

    @property
    def _network(self) -> list[str]:
        return [*LOOPBACK, "--transport", self.transport]

    def _command(self, name: str) -> list[str | Path]:
        return [sys.executable, "-m", "blobsync", "--home", self.home, name]

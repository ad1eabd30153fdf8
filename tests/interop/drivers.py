"""Drives the real Rust peers: `sendme`, and `blobsync-peer` whose source is in `peer/`.

Each peer is a process of its own. What it prints is read all the time, so that a full pipe never
stops it, and a test waits for a line, not for a time. Leaving a driver's context ends its process,
by its id.
"""

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import tempfile
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Self

# A peer that is not done after this long is broken; it is not a measure of speed.
PATIENCE_S = 240.0

# Long enough for the line of a request whose answer is printed as hex.
LINE_SIZE_MAX = 1 << 22

Line = dict[str, Any]


class PeerFailedError(Exception):
    """A peer said that its command failed, or ended without a word.

    Attributes:
        code: the reset, stop or close code that the other side sent, if there was one.
    """

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Finished:
    """A process that ended."""

    status: int
    stdout: str
    stderr: str


def environment(secret: str | None, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a peer: ours, with the key it is to have and no log settings."""
    env = {k: v for k, v in os.environ.items() if k not in ("RUST_LOG", "IROH_SECRET")}
    if secret is not None:
        env["IROH_SECRET"] = secret
    return env | dict(extra or {})


class Program:
    """A running peer whose standard output is read line by line.

    Args:
        process: with pipes for standard input and output.
        errors: the file that is its standard error.
    """

    def __init__(self, process: asyncio.subprocess.Process, errors: IO[bytes]) -> None:
        self._process = process
        self._errors = errors
        self._changed = asyncio.Condition()
        self._ended = False
        self.lines: list[str] = []

    @property
    def pid(self) -> int:
        """The process id, for tests that end a peer the hard way."""
        return self._process.pid

    def stderr(self) -> str:
        """What the peer has written to its standard error."""
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")

    def kill(self) -> None:
        """Ends the process at once, as a crash would."""
        self._process.kill()

    async def ended(self) -> int:
        """The exit status, once the process has ended and all of its output was read."""
        async with asyncio.timeout(PATIENCE_S), self._changed:
            await self._changed.wait_for(lambda: self._ended)
        return await self._process.wait()

    async def line_where(self, matches: re.Pattern[str]) -> str:
        """The first line that matches, now or once it has been printed.

        Raises:
            PeerFailedError: the peer ended before it printed such a line.
        """
        seen = 0
        async with asyncio.timeout(PATIENCE_S), self._changed:
            while True:
                for line in self.lines[seen:]:
                    if matches.search(line):
                        return line
                seen = len(self.lines)
                if self._ended:
                    said = "\n".join([*self.lines[-5:], self.stderr()[-2000:]])
                    raise PeerFailedError(f"ended without a line like {matches.pattern}: {said}")
                await self._changed.wait()

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            async with self._changed:
                self.lines.append(line.decode(errors="replace").rstrip("\n"))
                self._changed.notify_all()
        async with self._changed:
            self._ended = True
            self._changed.notify_all()

    @classmethod
    @contextlib.asynccontextmanager
    async def running(
        cls,
        command: Sequence[str | Path],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        end_signal: signal.Signals | None = None,
    ) -> AsyncGenerator[Self]:
        """Runs the command for as long as the context lasts.

        It is told to end by closing its standard input and, if given, by `end_signal`; if it has
        not ended after a while it is killed, which is an error of its own.
        """
        with tempfile.TemporaryFile() as errors:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                cwd=cwd,
                env=env,
                limit=LINE_SIZE_MAX,
            )
            program = cls(process, errors)
            # Not a task group: it would wrap the failures that tests look for in a group.
            reading = asyncio.create_task(program._read())
            try:
                yield program
            finally:
                try:
                    await program._end(end_signal)
                finally:
                    await reading

    async def _end(self, end_signal: signal.Signals | None) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        if end_signal is not None and self._process.returncode is None:
            self._process.send_signal(end_signal)
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._process.wait()
        except BaseException:
            if self._process.returncode is None:
                self._process.kill()
                await self._process.wait()
            raise


class JsonProgram(Program):
    """A program that prints one JSON object a line, each with an `event`."""

    def events(self, name: str, **fields: Any) -> list[Line]:
        """The lines printed so far with this `event` and these fields."""
        parsed: list[Line] = [json.loads(line) for line in self.lines]
        wanted = {"event": name, **fields}
        return [line for line in parsed if wanted.items() <= line.items()]

    async def event(self, name: str, **fields: Any) -> Line:
        """The first line with this `event` and these fields, now or once it has been printed.

        Raises:
            PeerFailedError: it said that it failed, or ended, before it printed such a line.
        """
        wanted = {"event": name, **fields}
        return await self.event_where(lambda line: wanted.items() <= line.items(), str(wanted))

    async def event_where(self, matches: Callable[[Line], bool], wanted: str) -> Line:
        """The first line that `matches`, now or once it has been printed.

        Args:
            matches: says whether a line is the one.
            wanted: what that is, for the message of the error.

        Raises:
            PeerFailedError: as `event`.
        """
        seen = 0
        async with asyncio.timeout(PATIENCE_S), self._changed:
            while True:
                for text in self.lines[seen:]:
                    line: Line = json.loads(text)
                    if matches(line):
                        return line
                    if line["event"] == "error":
                        raise PeerFailedError(line["message"], line.get("code"))
                seen = len(self.lines)
                if self._ended:
                    raise PeerFailedError(f"ended before {wanted}: {self.stderr()[-2000:]}")
                await self._changed.wait()


class PeerProcess(JsonProgram):
    """A `blobsync-peer` that serves; see the head of `peer/src/main.rs` for what it prints."""

    ready: Line

    @property
    def ticket(self) -> str:
        """The ticket that its `ready` line gave."""
        return str(self.ready["ticket"])

    @property
    def address(self) -> str:
        """The endpoint as `ID@IP:PORT`, which every command of the peer takes."""
        return f"{self.ready['id']}@{','.join(self.ready['addr'])}"


@dataclass(frozen=True, slots=True)
class Peer:
    """The built `blobsync-peer`."""

    path: Path

    @contextlib.asynccontextmanager
    async def serve(
        self, command: str, *arguments: str | Path, secret: str | None = None
    ) -> AsyncGenerator[PeerProcess]:
        """Runs a command that serves (`provide`, `echo-serve`, `raw-stream-serve`) until left."""
        async with PeerProcess.running(
            [self.path, command, *arguments], env=environment(secret)
        ) as process:
            process.ready = await process.event("ready")
            yield process

    @contextlib.asynccontextmanager
    async def watch(self, ticket: str) -> AsyncGenerator[PeerProcess]:
        """Observes a blob; each change is a `bitfield` event."""
        async with PeerProcess.running(
            [self.path, "observe", ticket], env=environment(None)
        ) as process:
            yield process

    async def run(self, command: str, *arguments: str | Path, secret: str | None = None) -> Line:
        """Runs a command to its end and gives its `done` line.

        Raises:
            PeerFailedError: it failed; `code` is what the other side sent, if it was that.
        """
        async with PeerProcess.running(
            [self.path, command, *arguments], env=environment(secret)
        ) as process:
            return await process.event("done")


def has_ipv6() -> bool:
    """Whether an IPv6 socket can be bound to loopback here."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Sendme:
    """The installed `sendme`, kept to loopback and off relays."""

    path: Path
    options: tuple[str, ...] = field(
        default_factory=lambda: (
            "--relay=disabled",
            "--no-progress",
            "--magic-ipv4-addr=127.0.0.1:0",
            *(["--magic-ipv6-addr=[::1]:0"] if has_ipv6() else []),
        )
    )

    @contextlib.asynccontextmanager
    async def send(
        self, path: Path, cwd: Path, *, secret: str | None = None
    ) -> AsyncGenerator["SendmeSend"]:
        """Sends a file or folder until left; its store is a hidden folder in `cwd`."""
        async with SendmeSend.running(
            [self.path, "send", *self.options, path],
            cwd=cwd,
            env=environment(secret),
            end_signal=signal.SIGINT,
        ) as process:
            line = await process.line_where(re.compile(r"^sendme receive blob"))
            process.ticket = line.split()[-1]
            yield process

    def receiving(self, ticket: str, cwd: Path) -> contextlib.AbstractAsyncContextManager[Program]:
        """Receives a ticket into `cwd`, where its store is a hidden folder until all is there."""
        command = [self.path, "receive", *self.options, ticket]
        return Program.running(command, cwd=cwd, env=environment(None))

    async def receive(self, ticket: str, cwd: Path) -> Finished:
        """As `receiving`, to the end; what came of it is in the status, 0 being success."""
        async with self.receiving(ticket, cwd) as program:
            status = await program.ended()
            return Finished(status, "\n".join(program.lines), program.stderr())


class SendmeSend(Program):
    """A running `sendme send`."""

    ticket: str

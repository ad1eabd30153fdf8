"""Where lines go: results to stdout, notes and failures to stderr, all of it escaped.

Every line passes `printable`, so that no name of a peer can act on the terminal. With `--json`
stdout carries objects only, each on one line and flushed.
"""

from __future__ import annotations

import errno
import io
import json
import os
import queue
import select
import sys
import threading
from typing import TYPE_CHECKING, TextIO

from blobsync.cli.formatting import printable

if TYPE_CHECKING:
    import asyncio

    from blobsync.cli.json_events import JsonEvent


class StdoutClosedError(Exception):
    """Whoever read our output has gone; there is nobody left to tell anything."""


class Output:
    """The three ways in which a command speaks."""

    def __init__(self, *, json: bool, quiet: bool) -> None:
        self.json = json
        self.quiet = quiet

    @property
    def wants_notes(self) -> bool:
        """Whether lines for people beside the result are welcome."""
        return not (self.json or self.quiet)

    @property
    def wants_events(self) -> bool:
        """Whether JSON objects that only tell progress are welcome."""
        return self.json and not self.quiet

    def result(self, line: str) -> None:
        """A line of what the command was run for; nothing with `--json`."""
        if not self.json:
            _write_stdout(printable(line) + "\n")

    def note(self, line: str) -> None:
        """A line on stderr that a person may like to know; nothing with `--quiet` or `--json`."""
        if self.wants_notes:
            write_stderr(printable(line) + "\n")

    def event(self, event: JsonEvent) -> None:
        """One object on stdout, flushed; nothing without `--json`."""
        if self.json:
            _write_stdout(encode_event(event) + "\n")

    def progress_event(self, event: JsonEvent) -> None:
        """As `event`, but dropped with `--quiet` or when the reader is not keeping up.

        A program that stops reading our progress must not stop us.
        """
        if self.wants_events and _stdout_has_room():
            _write_stdout(encode_event(event) + "\n")


def encode_event(event: JsonEvent) -> str:
    """One line of ASCII: nothing in it can act on a terminal."""
    # DEL is the one control character that the encoder leaves as it is.
    return json.dumps(event, ensure_ascii=True, separators=(",", ":")).replace("\x7f", "\\u007f")


def write_stderr(text: str) -> None:
    """Write to stderr; a stderr that is closed or full is not worth failing for."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError):
        # There is no other place to say it.
        return


def prepare_streams() -> None:
    """Let text that the locale cannot show be escaped instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def forget_stdout() -> None:
    """Nobody reads stdout any more: let the interpreter's last flush go nowhere."""
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError):
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def is_terminal(stream: TextIO) -> bool:
    """Whether a person looks at the stream, on a terminal that can move its cursor."""
    return stream.isatty() and os.environ.get("TERM", "") != "dumb"


def _write_stdout(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError as error:
        raise StdoutClosedError from error


def _stdout_has_room() -> bool:
    """Whether a line can be written now without waiting (a pipe takes 4 KiB then)."""
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError):
        return True  # Not a descriptor, so nothing to wait for.
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(0))


class ByteWriter:
    """Writes bytes to stdout from a thread of its own, in order, one piece at a time.

    A reader that has stopped reading holds that thread only: the event loop goes on, and the
    program can end while the thread still waits.
    """

    def __init__(self, descriptor: int, loop: asyncio.AbstractEventLoop) -> None:
        self._descriptor = descriptor
        self._loop = loop
        self._jobs: queue.SimpleQueue[tuple[bytes, asyncio.Future[None]]] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="stdout", daemon=True).start()

    async def write(self, data: bytes) -> None:
        """Write all of `data`; a cancel leaves it unknown how much was written.

        Raises:
            StdoutClosedError: nobody reads.
            OSError: it cannot be written (a full disk).
        """
        written: asyncio.Future[None] = self._loop.create_future()
        self._jobs.put((data, written))
        await written

    def _run(self) -> None:
        while True:
            data, written = self._jobs.get()
            error: Exception | None = None
            try:
                rest = memoryview(data)
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]
            except OSError as failure:
                closed = failure.errno == errno.EPIPE
                error = StdoutClosedError() if closed else failure
            try:
                self._loop.call_soon_threadsafe(_settle, written, error)
            except RuntimeError:
                return  # The loop has ended, so nobody waits for this any more.


def _settle(written: asyncio.Future[None], error: Exception | None) -> None:
    if written.done():
        return
    if error is None:
        written.set_result(None)
    else:
        written.set_exception(error)

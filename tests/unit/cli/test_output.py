"""Lines and objects, and readers that go away or stop reading."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from blobsync.cli.output import ByteWriter, Output, StdoutClosedError, encode_event

if TYPE_CHECKING:
    from collections.abc import Generator

    from blobsync.cli.json_events import SkippedEvent


def skipped(path: str) -> SkippedEvent:
    return {"event": "skipped", "path": path}


@contextmanager
def stdout_pipe(monkeypatch: pytest.MonkeyPatch) -> Generator[tuple[int, int]]:
    """Stdout is a pipe; yields its reading end and its writing end."""
    reader, writer = os.pipe()
    with open(writer, "w", closefd=False) as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        yield reader, writer
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), writer)
    for descriptor in (reader, writer):
        try:
            os.close(descriptor)
        except OSError:
            assert descriptor == reader  # The test closed it, to be the reader that went away.


def fill(descriptor: int) -> None:
    os.set_blocking(descriptor, False)
    try:
        while True:
            os.write(descriptor, bytes(4096))
    except BlockingIOError:
        os.set_blocking(descriptor, True)


def test_an_object_is_one_line_of_harmless_ascii() -> None:
    path = "a\nb\x1b[2J\x7f\x9b\u202e\udc80ü"
    line = encode_event(skipped(path))
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["path"] == path


def test_results_and_notes(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(json=False, quiet=False)
    output.result("a\x1b[0m")
    output.note("b\nc")
    output.event(skipped("x"))
    assert capsys.readouterr() == ("a\\x1b[0m\n", "b\\x0ac\n")


def test_json_is_all_there_is_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(json=True, quiet=False)
    output.result("a")
    output.note("b")
    output.event(skipped("x"))
    output.progress_event(skipped("y"))
    assert capsys.readouterr() == (
        '{"event":"skipped","path":"x"}\n{"event":"skipped","path":"y"}\n',
        "",
    )


def test_quiet_leaves_results(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(json=False, quiet=True)
    output.result("a")
    output.note("b")
    assert capsys.readouterr() == ("a\n", "")
    output = Output(json=True, quiet=True)
    output.event(skipped("x"))
    output.progress_event(skipped("y"))
    assert capsys.readouterr() == ('{"event":"skipped","path":"x"}\n', "")


def test_progress_is_dropped_for_a_reader_that_does_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = Output(json=True, quiet=False)
    with stdout_pipe(monkeypatch) as (reader, writer):
        fill(writer)
        output.progress_event(skipped("lost"))
        while os.read(reader, 1 << 20) == bytes(1 << 20):
            pass
        output.progress_event(skipped("seen"))
        assert os.read(reader, 1 << 20) == b'{"event":"skipped","path":"seen"}\n'


def test_a_reader_that_went_away(monkeypatch: pytest.MonkeyPatch) -> None:
    with stdout_pipe(monkeypatch) as (reader, _):
        os.close(reader)
        with pytest.raises(StdoutClosedError):
            Output(json=False, quiet=False).result("x")


async def test_bytes_arrive_in_order() -> None:
    reader, writer = os.pipe()
    parts: list[bytes] = []

    def read_all() -> None:
        while part := os.read(reader, 65536):
            parts.append(part)

    thread = threading.Thread(target=read_all)
    thread.start()
    sink = ByteWriter(writer, asyncio.get_running_loop())
    pieces = [bytes([i]) * 100_000 for i in range(20)]
    for piece in pieces:
        await sink.write(piece)
    os.close(writer)
    await asyncio.to_thread(thread.join)
    os.close(reader)
    assert b"".join(parts) == b"".join(pieces)


async def test_a_reader_that_stopped_reading_can_be_left() -> None:
    reader, writer = os.pipe()
    fill(writer)
    sink = ByteWriter(writer, asyncio.get_running_loop())
    task = asyncio.create_task(sink.write(b"stuck"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    # The thread ends its write once there is room, and nobody waits for that any more.
    while os.read(reader, 1 << 20)[-5:] != b"stuck":
        pass
    os.close(reader)
    with pytest.raises(StdoutClosedError):
        await sink.write(b"nobody reads")
    os.close(writer)


async def test_a_stdout_that_cannot_be_written() -> None:
    descriptor = os.open(os.devnull, os.O_RDONLY)
    try:
        with pytest.raises(OSError, match="Bad file descriptor"):
            await ByteWriter(descriptor, asyncio.get_running_loop()).write(b"x")
    finally:
        os.close(descriptor)

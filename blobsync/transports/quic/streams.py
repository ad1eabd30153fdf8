"""The two halves of a stream, between the application's calls and aioquic's buffers.

What was received waits in a queue whose size the stream's window bounds: the peer may send more
only as this is read. What is sent waits in aioquic until it is acknowledged; a writer waits once
there is a MiB of that.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

from blobsync.errors import LocalProtocolError
from blobsync.transports.api import (
    ConnectionClosedError,
    RecvStream,
    SendStream,
    StreamResetError,
    StreamStoppedError,
)
from blobsync.transports.quic.raw_connection import received_size, unacknowledged
from blobsync.transports.quic.waiting import Change

if TYPE_CHECKING:
    from aioquic.quic.stream import QuicStream

UNACKNOWLEDGED_MAX = 1 << 20
"""Bytes of a stream that may wait for the peer's acknowledgement before a writer has to."""

UNACKNOWLEDGED_LOW = UNACKNOWLEDGED_MAX // 2
"""When a writer that waits goes on."""


class StreamOwner(Protocol):
    """What a stream needs of its connection."""

    def lost_error(self) -> ConnectionClosedError | None:
        """Why the connection is gone; None while it is not."""
        ...

    def grant(self, stream: QuicStream | None, size: int) -> None:
        """So much was taken off a stream, or never will be (None)."""
        ...

    def send_soon(self) -> None:
        """There is something to send."""
        ...

    def watch(self, stream: AioquicSendStream) -> None:
        """Tell this stream about acknowledgements until it wants no more of them."""
        ...


class AioquicRecvStream(RecvStream):
    """The receiving half."""

    def __init__(self, owner: StreamOwner, stream: QuicStream) -> None:
        self._owner = owner
        self._stream = stream
        self._chunks: deque[bytes] = deque()
        self._offset = 0
        """Bytes of the first chunk that were read."""
        self._granted = 0
        """Bytes that the window was given back for."""
        self._is_ended = False
        self._is_stopped = False
        self._reset_code: int | None = None
        self._changed = Change()

    # From the connection

    def deliver(self, data: bytes, is_end: bool) -> None:
        """The next bytes, which may be none, and whether they are the last."""
        if self._is_stopped:
            self._grant(len(data))
        elif data:
            self._chunks.append(data)
        self._is_ended = self._is_ended or is_end
        self._changed.tell()

    def deliver_reset(self, code: int) -> None:
        """The peer gave up. What was not read is dropped."""
        self._reset_code = code
        self._drop()
        # What never came was counted against the connection when the peer told the final size.
        left = received_size(self._stream) - self._granted
        self._granted += left
        self._owner.grant(None, left)
        self._changed.tell()

    def tell(self) -> None:
        """The connection changed."""
        self._changed.tell()

    @property
    def is_over(self) -> bool:
        """Whether there is nothing to be read and never will be."""
        return self._reset_code is not None or self._is_stopped

    # For the application

    async def read(self, max_bytes: int) -> bytes:
        while True:
            if self._is_stopped:
                raise LocalProtocolError("the stream was stopped by us")
            if self._chunks:
                return self._take(max_bytes)
            if self._reset_code is not None:
                raise StreamResetError(self._reset_code)
            if self._is_ended:
                return b""
            if (error := self._owner.lost_error()) is not None:
                raise error
            await self._changed.wait()

    def _take(self, max_bytes: int) -> bytes:
        chunks, offset, room = self._chunks, self._offset, max_bytes
        parts: list[bytes] = []
        while chunks and room > 0:
            chunk = chunks[0]
            size = len(chunk) - offset
            if size <= room:
                parts.append(chunk[offset:] if offset else chunk)
                chunks.popleft()
                offset = 0
            else:
                size = room
                parts.append(chunk[offset : offset + size])
                offset += size
            room -= size
        self._offset = offset
        self._grant(max_bytes - room)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _grant(self, size: int) -> None:
        self._granted += size
        self._owner.grant(self._stream, size)

    def _drop(self) -> None:
        size = sum(map(len, self._chunks)) - self._offset
        self._chunks.clear()
        self._offset = 0
        if size:
            self._grant(size)

    def stop(self, code: int) -> None:
        if self._is_stopped or self._reset_code is not None:
            return
        if self._is_ended and not self._chunks:
            return
        self._is_stopped = True
        self._drop()
        if not self._is_ended and self._owner.lost_error() is None:
            self._stream.receiver.stop(code)
            self._owner.send_soon()
        self._changed.tell()


class AioquicSendStream(SendStream):
    """The sending half."""

    def __init__(self, owner: StreamOwner, stream: QuicStream) -> None:
        self._owner = owner
        self._stream = stream
        self._is_finished = False
        self._is_reset = False
        self._stop_code: int | None = None
        self._changed = Change()

    # From the connection

    def deliver_stop(self, code: int) -> None:
        """The peer wants no more. aioquic resets the stream by itself."""
        if self._stop_code is None and not self._stream.sender.is_finished:
            self._stop_code = code
        self._changed.tell()

    def tell(self) -> None:
        """The connection changed."""
        self._changed.tell()

    def look(self) -> bool:
        """Wake whoever waits for acknowledgements that came; whether somebody still waits."""
        if not self._changed.is_awaited:
            return False
        if self._stream.sender.is_finished or self._has_room:
            self._changed.tell()
        return True

    @property
    def _has_room(self) -> bool:
        return unacknowledged(self._stream) <= UNACKNOWLEDGED_LOW

    # For the application

    def _check(self) -> None:
        if self._is_finished or self._is_reset:
            raise LocalProtocolError("the stream was ended by us")
        if self._stop_code is not None:
            raise StreamStoppedError(self._stop_code)
        if (error := self._owner.lost_error()) is not None:
            raise error

    async def write(self, data: bytes) -> None:
        self._check()
        rest = memoryview(data)
        while rest:
            room = UNACKNOWLEDGED_MAX - unacknowledged(self._stream)
            if room > 0:
                self._stream.sender.write(bytes(rest[:room]))
                rest = rest[room:]
                self._owner.send_soon()
                continue
            await self._wait()
            self._check()

    async def _wait(self) -> None:
        self._owner.watch(self)
        await self._changed.wait()

    async def finish(self) -> None:
        if self._is_finished:
            return
        self._check()
        self._is_finished = True
        self._stream.sender.write(b"", end_stream=True)
        self._owner.send_soon()
        self._changed.tell()

    def reset(self, code: int) -> None:
        if self._is_finished or self._is_reset:
            return
        self._is_reset = True
        if self._owner.lost_error() is None:
            self._stream.sender.reset(code)
            self._owner.send_soon()
        self._changed.tell()

    async def wait_stopped(self) -> int | None:
        while True:
            if self._stop_code is not None:
                return self._stop_code
            if self._is_reset or self._stream.sender.is_finished:
                return None
            if (error := self._owner.lost_error()) is not None:
                raise error
            await self._wait()

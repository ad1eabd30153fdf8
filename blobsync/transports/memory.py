"""A transport within one process: for tests, simulations and examples.

Streams keep the rules of QUIC that protocols depend on: flow control per stream, FIN, reset
(which discards what was not read yet), stop, and a close that takes all streams with it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from blobsync.address import EndpointAddr, EndpointId
from blobsync.errors import LocalProtocolError, UnreachableError
from blobsync.transports.api import (
    BiStream,
    Connection,
    ConnectionClosedError,
    Endpoint,
    Incoming,
    PathInfo,
    RecvStream,
    SendStream,
    StreamResetError,
    StreamStoppedError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

STREAM_WINDOW = 256 * 1024
STREAMS_WAITING_MAX = 100


class MemoryNetwork:
    """The endpoints that can reach each other."""

    def __init__(self) -> None:
        self._endpoints: dict[EndpointId, MemoryEndpoint] = {}

    def endpoint(self, id: EndpointId, alpns: Sequence[bytes]) -> MemoryEndpoint:
        """A new endpoint of this network."""
        endpoint = MemoryEndpoint(self, id, alpns)
        self._endpoints[id] = endpoint
        return endpoint

    def find(self, id: EndpointId) -> MemoryEndpoint | None:
        """The open endpoint with this id."""
        return self._endpoints.get(id)

    def forget(self, id: EndpointId) -> None:
        """Called by an endpoint that closes."""
        self._endpoints.pop(id, None)


class _Pipe:
    """One direction of a stream: a bounded buffer and how it ended."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.finished = False
        self.reset_code: int | None = None
        self.stop_code: int | None = None
        self._waiters: list[asyncio.Future[None]] = []

    def wake(self) -> None:
        """Something changed: let everyone who waits look again."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self) -> None:
        """Wait for the next `wake`."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter


class _MemoryRecvStream(RecvStream):
    def __init__(self, pipe: _Pipe, connection: MemoryConnection) -> None:
        self._pipe = pipe
        self._connection = connection

    async def read(self, max_bytes: int) -> bytes:
        pipe = self._pipe
        while True:
            if pipe.stop_code is not None:
                raise LocalProtocolError("the stream was stopped by us")
            if pipe.reset_code is not None:
                raise StreamResetError(pipe.reset_code)
            self._connection.check_open()
            if pipe.buffer:
                data = bytes(pipe.buffer[:max_bytes])
                del pipe.buffer[: len(data)]
                pipe.wake()
                return data
            if pipe.finished:
                return b""
            await pipe.wait()

    def stop(self, code: int) -> None:
        pipe = self._pipe
        all_read = pipe.finished and not pipe.buffer
        if pipe.stop_code is None and pipe.reset_code is None and not all_read:
            pipe.stop_code = code
            pipe.buffer.clear()
            pipe.wake()


class _MemorySendStream(SendStream):
    def __init__(self, pipe: _Pipe, connection: MemoryConnection) -> None:
        self._pipe = pipe
        self._connection = connection

    def _check(self) -> None:
        pipe = self._pipe
        if pipe.finished or pipe.reset_code is not None:
            raise LocalProtocolError("the stream was ended by us")
        if pipe.stop_code is not None:
            raise StreamStoppedError(pipe.stop_code)
        self._connection.check_open()

    async def write(self, data: bytes) -> None:
        pipe = self._pipe
        view = memoryview(data)
        while True:
            self._check()
            room = STREAM_WINDOW - len(pipe.buffer)
            if room > 0 and view:
                pipe.buffer += view[:room]
                view = view[room:]
                pipe.wake()
            if not view:
                return
            await pipe.wait()

    async def finish(self) -> None:
        if self._pipe.finished:
            return
        self._check()
        self._pipe.finished = True
        self._pipe.wake()

    def reset(self, code: int) -> None:
        pipe = self._pipe
        if not pipe.finished and pipe.reset_code is None:
            pipe.reset_code = code
            pipe.buffer.clear()
            pipe.wake()

    async def wait_stopped(self) -> int | None:
        pipe = self._pipe
        while True:
            if pipe.stop_code is not None:
                return pipe.stop_code
            if pipe.finished and not pipe.buffer:
                return None
            self._connection.check_open()
            await pipe.wait()


class MemoryConnection(Connection):
    """One end of a connection between two endpoints of a network."""

    def __init__(self, local: EndpointId, remote: EndpointId, alpn: bytes) -> None:
        self._local = local
        self._remote = remote
        self._alpn = alpn
        self._other: MemoryConnection = self
        self._incoming: asyncio.Queue[BiStream | None] = asyncio.Queue()
        self._pipes: list[_Pipe] = []
        self._closed: asyncio.Future[ConnectionClosedError] = (
            asyncio.get_running_loop().create_future()
        )

    @classmethod
    def pair(
        cls, dialler: EndpointId, listener: EndpointId, alpn: bytes
    ) -> tuple[MemoryConnection, MemoryConnection]:
        """Two connected ends: the dialler's and the listener's."""
        ours, theirs = cls(dialler, listener, alpn), cls(listener, dialler, alpn)
        ours._other, theirs._other = theirs, ours
        return ours, theirs

    @property
    def remote_id(self) -> EndpointId:
        return self._remote

    @property
    def alpn(self) -> bytes:
        return self._alpn

    async def open_bi(self) -> BiStream:
        self.check_open()
        forth, back = _Pipe(), _Pipe()
        for end in (self, self._other):
            end._pipes = [pipe for pipe in end._pipes if not _is_over(pipe)]
            end._pipes += (forth, back)
        self._other._incoming.put_nowait(
            BiStream(_MemorySendStream(back, self._other), _MemoryRecvStream(forth, self._other))
        )
        return BiStream(_MemorySendStream(forth, self), _MemoryRecvStream(back, self))

    async def accept_bi(self) -> BiStream | None:
        if self._closed.done():
            return None
        return await self._incoming.get()

    async def close(self, code: int = 0, reason: bytes = b"") -> None:
        text = reason.decode(errors="replace")
        self._end(ConnectionClosedError("the connection was closed by us"))
        self._other._end(
            ConnectionClosedError(
                f"the peer closed the connection with code {code}" + (f" ({text})" if text else ""),
                code=code,
                reason=text,
            )
        )

    def _end(self, error: ConnectionClosedError) -> None:
        if self._closed.done():
            return
        self._closed.set_result(error)
        self._incoming.put_nowait(None)
        for pipe in self._pipes:
            pipe.wake()

    def check_open(self) -> None:
        """Raises ConnectionClosedError: this end is closed."""
        if self._closed.done():
            raise self._closed.result()

    async def wait_closed(self) -> ConnectionClosedError:
        return await asyncio.shield(self._closed)

    def paths(self) -> list[PathInfo]:
        return []


def _is_over(pipe: _Pipe) -> bool:
    return pipe.reset_code is not None or (pipe.finished and not pipe.buffer)


class _MemoryIncoming(Incoming):
    def __init__(self, theirs: MemoryConnection, answer: asyncio.Future[bool]) -> None:
        self._theirs = theirs
        self._answer = answer

    @property
    def remote(self) -> str:
        return f"memory:{self._theirs.remote_id}"

    async def accept(self) -> Connection:
        if self._answer.done():
            raise UnreachableError("the dialler gave up")
        self._answer.set_result(True)
        return self._theirs

    def refuse(self) -> None:
        if not self._answer.done():
            self._answer.set_result(False)


class MemoryEndpoint(Endpoint):
    """An endpoint of a `MemoryNetwork`; reachable by its id."""

    def __init__(self, network: MemoryNetwork, id: EndpointId, alpns: Sequence[bytes]) -> None:
        self._network = network
        self._id = id
        self._alpns = tuple(alpns)
        self._attempts: asyncio.Queue[_MemoryIncoming | None] = asyncio.Queue(STREAMS_WAITING_MAX)
        self._connections: list[MemoryConnection] = []
        self._is_closed = False

    @property
    def id(self) -> EndpointId:
        return self._id

    def addr(self) -> EndpointAddr:
        return EndpointAddr(self._id)

    async def connect(self, addr: EndpointAddr, alpn: bytes) -> Connection:
        listener = self._network.find(addr.id)
        if listener is None:
            raise UnreachableError(f"no endpoint {addr.id.short()} in this network")
        if alpn not in listener._alpns:
            raise UnreachableError(f"{addr.id.short()} does not speak {alpn.decode('latin-1')}")
        ours, theirs = MemoryConnection.pair(self._id, addr.id, alpn)
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        await listener._attempts.put(_MemoryIncoming(theirs, answer))
        if not await answer:
            raise UnreachableError(f"{addr.id.short()} refused the connection")
        self._connections.append(ours)
        listener._connections.append(theirs)
        return ours

    async def accept(self) -> Incoming | None:
        if self._is_closed:
            return None
        return await self._attempts.get()

    async def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._network.forget(self._id)
        while not self._attempts.empty():
            if (attempt := self._attempts.get_nowait()) is not None:
                attempt.refuse()
        self._attempts.put_nowait(None)
        for connection in self._connections:
            await connection.close()

"""The suite that every transport passes: `class TestX(TransportContract)` with two endpoints.

A subclass gives `open_endpoints`; everything else is the contract of `transports.api`, tried
through it alone.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from blobsync.errors import LocalProtocolError, UnreachableError
from blobsync.transports.api import (
    ConnectionClosedError,
    StreamResetError,
    StreamStoppedError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from blobsync.transports.api import Connection, Endpoint

ALPN = b"blobsync-test/1"
TIMEOUT_S = 30


@asynccontextmanager
async def connected(
    endpoints: tuple[Endpoint, Endpoint],
) -> AsyncGenerator[tuple[Connection, Connection]]:
    """Both ends of a new connection: the dialler's, then the listener's."""
    dialler, listener = endpoints

    async def accept() -> Connection:
        incoming = await listener.accept()
        assert incoming is not None
        return await incoming.accept()

    async with asyncio.TaskGroup() as tasks:
        accepting = tasks.create_task(accept())
        dialling = tasks.create_task(dialler.connect(listener.addr(), ALPN))
    async with dialling.result() as ours, accepting.result() as theirs:
        yield ours, theirs


class TransportContract(ABC):
    """Tests of one transport. All of them end by themselves or fail after `TIMEOUT_S`."""

    @abstractmethod
    def open_endpoints(self) -> AbstractAsyncContextManager[tuple[Endpoint, Endpoint]]:
        """Two endpoints that can reach each other and speak `ALPN`."""

    @pytest.fixture
    async def endpoints(self) -> AsyncIterator[tuple[Endpoint, Endpoint]]:
        async with asyncio.timeout(TIMEOUT_S), self.open_endpoints() as endpoints:
            yield endpoints

    @pytest.fixture
    async def ends(
        self, endpoints: tuple[Endpoint, Endpoint]
    ) -> AsyncIterator[tuple[Connection, Connection]]:
        async with connected(endpoints) as ends:
            yield ends

    async def test_both_ends_know_each_other(self, endpoints: tuple[Endpoint, Endpoint]) -> None:
        async with connected(endpoints) as (ours, theirs):
            assert ours.remote_id == endpoints[1].id
            assert theirs.remote_id == endpoints[0].id
            assert ours.alpn == theirs.alpn == ALPN

    async def test_request_and_answer(self, ends: tuple[Connection, Connection]) -> None:
        ours, theirs = ends
        stream = await ours.open_bi()
        await stream.send.write(b"question")
        await stream.send.finish()
        answering = await theirs.accept_bi()
        assert answering is not None
        assert await answering.recv.read_to_end(100) == b"question"
        await answering.send.write(b"answer")
        await answering.send.finish()
        assert await stream.recv.read_to_end(100) == b"answer"
        assert await stream.recv.read(1) == b""

    async def test_read_to_end_keeps_to_its_limit(
        self, ends: tuple[Connection, Connection]
    ) -> None:
        ours, theirs = ends
        for size, expected in [(100, bytes(100)), (101, None)]:
            stream = await ours.open_bi()
            await stream.send.write(bytes(size))
            await stream.send.finish()
            answering = await theirs.accept_bi()
            assert answering is not None
            assert await answering.recv.read_to_end(100) == expected

    async def test_many_megabytes_arrive_in_order(
        self, ends: tuple[Connection, Connection]
    ) -> None:
        ours, theirs = ends
        data = b"".join(i.to_bytes(4, "little") for i in range(1 << 20))
        stream = await ours.open_bi()

        async def send() -> None:
            await stream.send.write(data)
            await stream.send.finish()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(send())
            answering = await theirs.accept_bi()
            assert answering is not None
            assert await answering.recv.read_to_end(len(data)) == data

    async def test_a_sender_waits_for_its_reader(self, ends: tuple[Connection, Connection]) -> None:
        ours, theirs = ends
        stream = await ours.open_bi()
        await stream.send.write(b"x")
        answering = await theirs.accept_bi()
        assert answering is not None
        writing = asyncio.ensure_future(stream.send.write(bytes(32 << 20)))
        # Another stream of the same connection goes on meanwhile, back and forth.
        for _ in range(20):
            other = await ours.open_bi()
            await other.send.write(b"ping")
            await other.send.finish()
            echo = await theirs.accept_bi()
            assert echo is not None
            assert await echo.recv.read_to_end(4) == b"ping"
        assert not writing.done(), "32 MiB fit into a stream that nobody reads"
        writing.cancel()
        await asyncio.wait({writing})
        stream.send.reset(7)

    async def test_reset_carries_its_code(self, ends: tuple[Connection, Connection]) -> None:
        ours, theirs = ends
        stream = await ours.open_bi()
        await stream.send.write(b"some")
        answering = await theirs.accept_bi()
        assert answering is not None
        stream.send.reset(42)
        with pytest.raises(StreamResetError) as caught:
            while await answering.recv.read(100):
                pass
        assert caught.value.code == 42

    async def test_stop_carries_its_code(self, ends: tuple[Connection, Connection]) -> None:
        ours, theirs = ends
        stream = await ours.open_bi()
        await stream.send.write(b"some")
        answering = await theirs.accept_bi()
        assert answering is not None
        answering.recv.stop(43)
        assert await stream.send.wait_stopped() == 43
        with pytest.raises(StreamStoppedError) as caught:
            while True:
                await stream.send.write(bytes(1000))
        assert caught.value.code == 43

    async def test_wait_stopped_ends_when_all_arrived(
        self, ends: tuple[Connection, Connection]
    ) -> None:
        ours, theirs = ends
        stream = await ours.open_bi()
        await stream.send.write(b"some")
        await stream.send.finish()
        answering = await theirs.accept_bi()
        assert answering is not None
        assert await answering.recv.read_to_end(100) == b"some"
        assert await stream.send.wait_stopped() is None

    async def test_ends_may_be_said_twice(self, ends: tuple[Connection, Connection]) -> None:
        ours, theirs = ends
        stream = await ours.open_bi()
        await stream.send.write(b"some")
        await stream.send.finish()
        await stream.send.finish()
        stream.send.reset(1)
        answering = await theirs.accept_bi()
        assert answering is not None
        assert await answering.recv.read_to_end(100) == b"some"
        answering.recv.stop(1)
        answering.recv.stop(2)
        answering.send.reset(5)
        answering.send.reset(6)
        with pytest.raises(StreamResetError) as caught:
            await stream.recv.read(1)
        assert caught.value.code == 5

    async def test_write_after_finish_is_our_own_fault(
        self, ends: tuple[Connection, Connection]
    ) -> None:
        ours, _ = ends
        stream = await ours.open_bi()
        await stream.send.finish()
        with pytest.raises(LocalProtocolError):
            await stream.send.write(b"late")

    async def test_a_cancelled_read_takes_nothing(
        self, ends: tuple[Connection, Connection]
    ) -> None:
        ours, theirs = ends
        stream = await ours.open_bi()
        await stream.send.write(b"0")
        answering = await theirs.accept_bi()
        assert answering is not None
        assert await answering.recv.read(1) == b"0"
        received = bytearray()
        for i in range(300):
            reading = asyncio.ensure_future(answering.recv.read(100))
            await asyncio.sleep(0)
            await stream.send.write(bytes([i % 251]))
            if i % 3:
                await asyncio.sleep(0)
            reading.cancel()
            await asyncio.wait({reading})
            if not reading.cancelled():
                received += reading.result()
        await stream.send.finish()
        while data := await answering.recv.read(100):
            received += data
        assert received == bytes(i % 251 for i in range(300))

    async def test_close_reaches_streams_and_peer(
        self, ends: tuple[Connection, Connection]
    ) -> None:
        ours, theirs = ends
        stream = await ours.open_bi()
        await stream.send.write(b"some")
        answering = await theirs.accept_bi()
        assert answering is not None
        await ours.close(9, b"enough")
        closed = await theirs.wait_closed()
        assert (closed.code, closed.reason) == (9, "enough")
        with pytest.raises(ConnectionClosedError) as caught:
            while await answering.recv.read(100):
                pass
        assert caught.value.code == 9
        assert await theirs.accept_bi() is None
        with pytest.raises(ConnectionClosedError):
            await ours.open_bi()

    async def test_accepting_ends_with_the_connection(
        self, ends: tuple[Connection, Connection]
    ) -> None:
        ours, theirs = ends
        accepting = asyncio.ensure_future(theirs.accept_bi())
        await asyncio.sleep(0)
        await ours.close()
        assert await accepting is None

    async def test_accepting_ends_with_the_endpoint(
        self, endpoints: tuple[Endpoint, Endpoint]
    ) -> None:
        _, listener = endpoints
        accepting = asyncio.ensure_future(listener.accept())
        await asyncio.sleep(0)
        await listener.close()
        assert await accepting is None
        assert await listener.accept() is None
        await listener.close()

    async def test_refused_connections_are_an_error_of_the_dialler(
        self, endpoints: tuple[Endpoint, Endpoint]
    ) -> None:
        dialler, listener = endpoints

        async def refuse() -> None:
            incoming = await listener.accept()
            assert incoming is not None
            assert incoming.remote
            incoming.refuse()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(refuse())
            with pytest.raises(UnreachableError):
                await dialler.connect(listener.addr(), ALPN)

    async def test_unknown_alpn_is_an_error_of_the_dialler(
        self, endpoints: tuple[Endpoint, Endpoint]
    ) -> None:
        dialler, listener = endpoints

        async def accept() -> None:
            # The listener may see the attempt fail, or not see it at all.
            incoming = await listener.accept()
            if incoming is not None:
                with pytest.raises(UnreachableError):
                    await incoming.accept()

        async with asyncio.TaskGroup() as tasks:
            accepting = tasks.create_task(accept())
            with pytest.raises(UnreachableError):
                await dialler.connect(listener.addr(), b"something-else/1")
            await listener.close()
            await accepting

    async def test_closing_an_endpoint_closes_its_connections(
        self, endpoints: tuple[Endpoint, Endpoint]
    ) -> None:
        dialler, _ = endpoints
        async with connected(endpoints) as (_, theirs):
            await dialler.close()
            closed = await theirs.wait_closed()
            assert isinstance(closed, ConnectionClosedError)

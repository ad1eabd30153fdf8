"""Datagrams arrive as they were sent, in runs or one by one, also where the system says no."""

from __future__ import annotations

import asyncio
import errno
import random
from typing import TYPE_CHECKING

import pytest

from blobsync.transports.quic.udp import IS_LINUX, UDP_SEGMENT, UdpSocket
from tests.unit.transports.quic.loopback import LOOPBACK

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

SIZES = [1200] * 100 + [1200, 1452, 1452, 1452, 20, 1452, 1, 8952, 8952, 100] + [30] * 70


class Pair:
    """A socket that sends to another."""

    def __init__(self, *, offload: bool = True) -> None:
        self.received: list[bytes] = []
        self.writable = 0
        self._arrived = asyncio.Event()
        loop = asyncio.get_running_loop()
        self.sender = UdpSocket(LOOPBACK, loop, lambda _: None, self._on_writable, offload=offload)
        self.receiver = UdpSocket(LOOPBACK, loop, self._take, lambda: None, offload=offload)
        addr = self.receiver.local_addr
        self.addr = (str(addr.ip), addr.port)

    def _take(self, datagrams) -> None:
        sender = self.sender.local_addr
        for datagram in datagrams:
            assert datagram.addr == (str(sender.ip), sender.port)
            self.received.append(datagram.data)
        self._arrived.set()

    def _on_writable(self) -> None:
        self.writable += 1

    async def receive(self, count: int) -> list[bytes]:
        async with asyncio.timeout(20):
            while len(self.received) < count:
                self._arrived.clear()
                await self._arrived.wait()
        return self.received

    def close(self) -> None:
        self.sender.close()
        self.receiver.close()


class Refusing:
    """A socket whose `sendmsg` is watched."""

    def __init__(self, real: socket.socket, look: Callable[[list, list], None]) -> None:
        self._real, self._look = real, look

    def __getattr__(self, name: str):
        return getattr(self._real, name)

    def sendmsg(self, buffers, ancillary, flags, addr) -> int:
        self._look(buffers, ancillary)
        return self._real.sendmsg(buffers, ancillary, flags, addr)


def contents() -> list[bytes]:
    source = random.Random(1)
    return [source.randbytes(size) for size in SIZES]


@pytest.mark.parametrize("offload", [True, False])
async def test_datagrams_arrive_as_they_were_sent(offload: bool):
    pair = Pair(offload=offload)
    calls = []
    pair.sender._socket = Refusing(pair.sender._socket, lambda buffers, _: calls.append(buffers))
    sent = contents()
    assert pair.sender.send(sent, pair.addr, None) is None
    assert await pair.receive(len(sent)) == sent
    if offload and IS_LINUX:
        assert pair.sender.uses_segments
        assert len(calls) < 15
    else:
        assert len(calls) == len(sent)
    pair.close()


@pytest.mark.skipif(not IS_LINUX, reason="sends in segments on Linux only")
@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO])
async def test_where_segments_do_not_work_they_are_given_up(number: int):
    def refuse(_, ancillary) -> None:
        if any(type == UDP_SEGMENT for _, type, _ in ancillary):
            raise OSError(number, "no segments here")

    pair = Pair()
    pair.sender._socket = Refusing(pair.sender._socket, refuse)
    sent = contents()
    assert pair.sender.send(sent, pair.addr, None) is None
    assert await pair.receive(len(sent)) == sent
    assert not pair.sender.uses_segments
    pair.close()


@pytest.mark.parametrize("offload", [True, False])
async def test_what_finds_no_room_waits_in_order(offload: bool):
    left = 3

    def refuse(*_) -> None:
        nonlocal left
        left -= 1
        if left in (2, 0):
            raise BlockingIOError

    pair = Pair(offload=offload)
    # The loop must not find the wrapper: it watches the descriptor.
    pair.sender._socket = Refusing(pair.sender._socket, refuse)
    sent = contents()
    assert pair.sender.send(sent[:50], pair.addr, None) is None
    assert pair.sender.is_blocked
    assert pair.sender.send(sent[50:], pair.addr, None) is None
    assert await pair.receive(len(sent)) == sent
    assert not pair.sender.is_blocked
    assert pair.writable == 1
    pair.close()


async def test_a_datagram_that_cannot_be_sent_is_lost_alone():
    def refuse(buffers, _) -> None:
        if any(len(buffer) == 1452 for buffer in buffers):
            raise OSError(errno.EMSGSIZE, "too long")

    pair = Pair()
    pair.sender._socket = Refusing(pair.sender._socket, refuse)
    sent = contents()
    error = pair.sender.send(sent, pair.addr, None)
    assert error is not None
    assert error.errno == errno.EMSGSIZE
    expected = [data for data in sent if len(data) != 1452]
    assert await pair.receive(len(expected)) == expected
    assert pair.sender.uses_segments is IS_LINUX
    pair.close()

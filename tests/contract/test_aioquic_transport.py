"""The aioquic transport keeps the contract of transports, with itself and with iroh."""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from blobsync.address import SocketAddr
from blobsync.transports.quic.endpoint import AioquicEndpoint
from blobsync.transports.quic.raw_connection import RawKeyConnection
from blobsync.transports.testing import ALPN, TransportContract
from tests.needs import iroh_transport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from blobsync.transports import Endpoint


def has_ipv6() -> bool:
    """Whether an IPv6 socket can be bound to loopback here."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


LOOPBACK = SocketAddr.from_text("127.0.0.1:0")
LOOPBACK_IPV6 = SocketAddr.from_text("[::1]:0")


class TestAioquicTransport(TransportContract):
    @asynccontextmanager
    async def open_endpoints(self) -> AsyncIterator[tuple[Endpoint, Endpoint]]:
        async with (
            await AioquicEndpoint.bind(alpns=[ALPN], bind=[LOOPBACK]) as one,
            await AioquicEndpoint.bind(alpns=[ALPN], bind=[LOOPBACK]) as two,
        ):
            yield one, two


PLAIN = {
    "alpns": [ALPN],
    "bind": [LOOPBACK_IPV6],
    "offload": False,
    "make_connection": RawKeyConnection,
}


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
class TestAioquicTransportPlainOverIpv6(TransportContract):
    """Without what Linux alone has, and without shortcuts; over IPv6."""

    @asynccontextmanager
    async def open_endpoints(self) -> AsyncIterator[tuple[Endpoint, Endpoint]]:
        async with (
            await AioquicEndpoint.bind(**PLAIN) as one,
            await AioquicEndpoint.bind(**PLAIN) as two,
        ):
            yield one, two


class TestAioquicDialsIroh(TransportContract):
    @asynccontextmanager
    async def open_endpoints(self) -> AsyncIterator[tuple[Endpoint, Endpoint]]:
        iroh = iroh_transport()
        async with (
            await AioquicEndpoint.bind(alpns=[ALPN], bind=[LOOPBACK]) as ours,
            await iroh.IrohEndpoint.bind(alpns=[ALPN], bind=[LOOPBACK]) as theirs,
        ):
            await theirs.wait_for_addr(10)
            yield ours, theirs


class TestIrohDialsAioquic(TransportContract):
    @asynccontextmanager
    async def open_endpoints(self) -> AsyncIterator[tuple[Endpoint, Endpoint]]:
        iroh = iroh_transport()
        async with (
            await AioquicEndpoint.bind(alpns=[ALPN], bind=[LOOPBACK]) as ours,
            await iroh.IrohEndpoint.bind(alpns=[ALPN], bind=[LOOPBACK]) as theirs,
        ):
            await theirs.wait_for_addr(10)
            yield theirs, ours

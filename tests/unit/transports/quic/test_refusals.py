"""Peers that break a rule of the handshake, against real iroh endpoints and against ours."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

import pytest

from blobsync.address import EndpointAddr, EndpointId
from blobsync.errors import UnreachableError
from tests.unit.transports.quic import hostile
from tests.unit.transports.quic.hostile import ALPN, HostileConnection
from tests.unit.transports.quic.loopback import echo, join

if TYPE_CHECKING:
    from blobsync.transports import Endpoint
    from tests.unit.transports.quic.loopback import Endpoints

KINDS = ["iroh", "aioquic"]


async def assert_no_connection(dialler: Endpoint, listener: Endpoint, addr=None) -> None:
    """Both sides learn that it came to nothing."""

    async def accept() -> None:
        incoming = await listener.accept()
        assert incoming is not None
        with pytest.raises(UnreachableError):
            await incoming.accept()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(accept())
        with pytest.raises(UnreachableError):
            await dialler.connect(addr or listener.addr(), ALPN)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", hostile.EITHER_ROLE)
async def test_a_hostile_server(endpoints: Endpoints, kind: str, name: str):
    twist, _ = hostile.EITHER_ROLE[name]
    server = await endpoints.aioquic(make_connection=partial(HostileConnection, twist=twist))
    await assert_no_connection(await endpoints.open(kind), server)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [*hostile.EITHER_ROLE, "no key"])
async def test_a_hostile_client(endpoints: Endpoints, kind: str, name: str):
    twist = hostile.no_key if name == "no key" else hostile.EITHER_ROLE[name][0]
    client = await endpoints.aioquic(make_connection=partial(HostileConnection, twist=twist))
    await assert_no_connection(client, await endpoints.open(kind))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("point", hostile.WEAK_POINTS, ids=lambda point: point.hex()[:6])
async def test_a_client_with_a_weak_key(endpoints: Endpoints, kind: str, point: bytes):
    client = await endpoints.aioquic(
        make_connection=partial(HostileConnection, twist=hostile.weak(point))
    )
    await assert_no_connection(client, await endpoints.open(kind))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("point", hostile.WEAK_POINTS, ids=lambda point: point.hex()[:6])
async def test_a_weak_key_cannot_be_dialled(endpoints: Endpoints, kind: str, point: bytes):
    server = await endpoints.aioquic(
        make_connection=partial(HostileConnection, twist=hostile.weak(point))
    )
    addr = EndpointAddr(EndpointId(point), ip_addrs=server.addr().ip_addrs)
    with pytest.raises(ValueError, match=r".+"):
        await (await endpoints.open(kind)).connect(addr, ALPN)


@pytest.mark.parametrize(("dialler", "listener"), [("iroh", "aioquic"), ("aioquic", "iroh")])
async def test_another_key_than_the_dialled_one(endpoints: Endpoints, dialler: str, listener: str):
    ours, theirs = await endpoints.open(dialler), await endpoints.open(listener)
    addr = EndpointAddr(hostile.identity(77).id, ip_addrs=theirs.addr().ip_addrs)
    await assert_no_connection(ours, theirs, addr)


async def test_another_key_is_what_is_said(endpoints: Endpoints):
    ours, theirs = await endpoints.aioquic(), await endpoints.iroh()
    addr = EndpointAddr(hostile.identity(77).id, ip_addrs=theirs.addr().ip_addrs)

    async def accept() -> None:
        incoming = await theirs.accept()
        assert incoming is not None
        with pytest.raises(UnreachableError):
            await incoming.accept()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(accept())
        with pytest.raises(UnreachableError, match="another endpoint is there"):
            await ours.connect(addr, ALPN)


async def test_a_server_that_asks_for_no_key_hands_out_nothing(endpoints: Endpoints):
    def ask_for_nothing(connection) -> None:
        hostile.content(connection) if connection.is_client else hostile.no_request(connection)

    make = partial(HostileConnection, twist=ask_for_nothing)
    client = await endpoints.aioquic(make_connection=make)
    server = await endpoints.aioquic(make_connection=make)

    async def accept() -> None:
        incoming = await server.accept()
        assert incoming is not None
        with pytest.raises(UnreachableError, match="no key"):
            await incoming.accept()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(accept())
        connection = await client.connect(server.addr(), ALPN)
        await connection.wait_closed()


async def test_one_hostile_peer_does_not_harm_another(endpoints: Endpoints):
    client = await endpoints.aioquic(
        make_connection=partial(HostileConnection, twist=hostile.bad_signature)
    )
    honest, server = await endpoints.iroh(), await endpoints.aioquic()
    await assert_no_connection(client, server)
    ours, theirs = await join(honest, server)
    await echo(ours, theirs)


async def test_a_retry_is_answered(endpoints: Endpoints):
    """iroh may want the address proven first; aioquic then makes a new TLS object."""
    ours, theirs = await endpoints.aioquic(), await endpoints.iroh()

    async def accept():
        incoming = await theirs._endpoint.accept()
        assert not incoming.is_validated
        incoming.retry()
        incoming = await theirs._endpoint.accept()
        assert incoming.is_validated
        return await incoming.accept()

    async with asyncio.TaskGroup() as tasks:
        accepting = tasks.create_task(accept())
        connection = await ours.connect(theirs.addr(), ALPN)
    assert accepting.result().remote_id.to_bytes() == ours.id
    assert connection.remote_id == theirs.id

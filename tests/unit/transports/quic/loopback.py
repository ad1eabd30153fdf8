"""Endpoints on loopback, and what tests do with two of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from blobsync.address import SocketAddr
from blobsync.transports.quic.endpoint import AioquicEndpoint
from tests.needs import iroh_transport
from tests.unit.transports.quic.hostile import ALPN

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AsyncExitStack

    from blobsync.transports import Connection, Endpoint, NetworkEndpoint

LOOPBACK = SocketAddr.from_text("127.0.0.1:0")


class Endpoints:
    """Opens endpoints and closes them at the end of a test."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack

    async def aioquic(self, **options: Any) -> AioquicEndpoint:
        options = {"alpns": [ALPN], "bind": [LOOPBACK], **options}
        return await self._stack.enter_async_context(await AioquicEndpoint.bind(**options))

    async def iroh(self, **options: Any) -> NetworkEndpoint:
        module = iroh_transport()
        options = {"alpns": [ALPN], "bind": [LOOPBACK], **options}
        endpoint = await module.IrohEndpoint.bind(**options)
        await endpoint.wait_for_addr(10)
        return await self._stack.enter_async_context(endpoint)

    async def open(self, kind: str, **options: Any) -> NetworkEndpoint:
        return await (self.iroh if kind == "iroh" else self.aioquic)(**options)


async def join(dialler: Endpoint, listener: Endpoint) -> tuple[Connection, Connection]:
    """Both ends of a new connection, the dialler's first."""

    async def accept() -> Connection:
        incoming = await listener.accept()
        assert incoming is not None
        return await incoming.accept()

    async with asyncio.TaskGroup() as tasks:
        accepting = tasks.create_task(accept())
        dialling = tasks.create_task(dialler.connect(listener.addr(), ALPN))
    return dialling.result(), accepting.result()


async def echo(ours: Connection, theirs: Connection, data: bytes = b"ping") -> None:
    """A question and its answer."""
    asking = await ours.open_bi()
    await asking.send.write(data)
    await asking.send.finish()
    answering = await theirs.accept_bi()
    assert answering is not None
    assert await answering.recv.read_to_end(len(data)) == data
    await answering.send.write(data)
    await answering.send.finish()
    assert await asking.recv.read_to_end(len(data)) == data


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a state inside of an endpoint that no event tells of."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.01)

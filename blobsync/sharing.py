"""Something being served: an endpoint that answers whoever dials, for as long as it is wanted."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from blobsync.errors import BlobsyncError, HostileCollectionError
from blobsync.sync.names import check_names

if TYPE_CHECKING:
    from contextlib import AsyncExitStack

    from blobstore import ImportedCollection
    from blobsync.network import TransportName
    from blobsync.protocols.blobs import Provider, ProviderCounters
    from blobsync.transports import Endpoint, Incoming
    from blobsync.wire.ticket import BlobTicket

logger = logging.getLogger(__name__)

CONNECTIONS_MAX = 512
"""Peers served at once; more are refused."""


class Share:
    """Something being served: until closed, peers that hold the ticket can fetch it."""

    def __init__(
        self,
        ticket: BlobTicket,
        collection: ImportedCollection,
        provider: Provider,
        *,
        transport: TransportName,
        id_is_temporary: bool,
        relay_is_missing: bool,
        refused_name: str | None,
        serving: asyncio.Future[None],
        resources: AsyncExitStack,
    ) -> None:
        self.ticket = ticket
        self.collection = collection
        self.transport = transport
        """Over which peers are served; one without relays has direct addresses only."""
        self.id_is_temporary = id_is_temporary
        """Another process of this home serves under its key, so this one took a key of its own."""
        self.relay_is_missing = relay_is_missing
        """A relay was wanted but did not answer in time; the ticket has direct addresses only."""
        self.refused_name = refused_name
        """Why receivers that check names, as we do, will refuse this collection; None if not."""
        self._provider = provider
        self._serving = serving
        self._resources = resources

    @property
    def counters(self) -> ProviderCounters:
        """What was served so far; goes on counting."""
        return self._provider.counters

    async def wait_failed(self) -> None:
        """Wait until serving ends without having been told to, and raise why; else for ever."""
        await asyncio.shield(self._serving)
        raise BlobsyncError("the network endpoint was closed: nothing is served any more")

    async def close(self) -> None:
        """Stop serving; tells connected peers. May be called twice."""
        await self._resources.aclose()


def refused_name(collection: ImportedCollection) -> str | None:
    """What is wrong with the names of a collection of ours, in the eyes of a careful receiver."""
    try:
        check_names(collection.names())
    except HostileCollectionError as error:
        return str(error)
    return None


async def serve(endpoint: Endpoint, provider: Provider) -> None:
    """Answer everyone who dials, until the endpoint is closed."""
    async with asyncio.TaskGroup() as tasks:
        open_connections: set[asyncio.Task[None]] = set()
        while (incoming := await endpoint.accept()) is not None:
            if len(open_connections) >= CONNECTIONS_MAX:
                incoming.refuse()
                continue
            task = tasks.create_task(_serve_incoming(incoming, provider))
            open_connections.add(task)
            task.add_done_callback(open_connections.discard)


async def _serve_incoming(incoming: Incoming, provider: Provider) -> None:
    remote = incoming.remote
    try:
        connection = await incoming.accept()
    except BlobsyncError as error:
        logger.info("no connection from %s: %s", remote, error)
        return
    peer = connection.remote_id.short()
    logger.info("%s connected from %s", peer, remote)
    try:
        async with connection:
            await provider.serve(connection)
    except Exception:
        # A fault of ours with one peer must not end the service of the others.
        logger.exception("the connection of %s failed unexpectedly", peer)


async def cancelled(task: asyncio.Future[None]) -> None:
    """End a task of ours and wait until nothing of it runs; its own failure is raised."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.result()

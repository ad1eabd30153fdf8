"""The composition root: the one place that builds store, endpoint, protocols, clock and random.

`async with App.open(home) as app:` is the whole application; what the command line does, a
program can do through it.
"""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from blobstore import BlobFormat, BlobNotFoundError, HashAndFormat, HashSeq, LmdbStore
from blobsync.address import EndpointAddr, SocketAddr
from blobsync.errors import (
    NotFoundError,
    TicketError,
)
from blobsync.identity import Identity, load_key, public_id
from blobsync.network import NetworkOptions, OptionError, unspecified_addresses
from blobsync.protocols.blobs import (
    ALPN,
    Provider,
    SharedBlobs,
    decode_collection,
    get_collection_head,
    get_sizes,
    read_range,
)
from blobsync.sharing import Share, cancelled, refused_name, serve
from blobsync.sync.fetch import FolderFetch, Overwrite
from blobsync.sync.root import Root
from blobsync.transport import choose_transport
from blobsync.transports import BindError
from blobsync.wire.ticket import BlobTicket

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Generator, Sequence

    from blobstore import (
        BlobStat,
        ChunkRanges,
        GcReport,
        Hash,
        ImportedCollection,
        ImportMode,
        ImportProgress,
        Store,
        Tag,
    )
    from blobsync.address import EndpointId
    from blobsync.protocols.blobs import Pumps
    from blobsync.sync.events import FetchEvent
    from blobsync.transport import Transport
    from blobsync.transports import Connection, NetworkEndpoint

__all__ = [
    "App",
    "NetworkOptions",
    "OptionError",
    "Overwrite",
    "RemoteFile",
    "Share",
]

logger = logging.getLogger(__name__)

ADDRESS_TIMEOUT_S = 5.0
"""How long to wait for the first local address before a ticket is made."""

READ_SIZE = 1 << 20

SHARE_TAG_PREFIX = "share/"


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One entry of a collection."""

    name: str
    hash: Hash
    size: int
    """Bytes, proven."""


class App:
    """Everything of one home folder. Made by `App.open`."""

    def __init__(self, home: Path, store: Store, network: NetworkOptions) -> None:
        self.home = home
        self.store = store
        self._network = network
        self._shares: list[Share] = []

    @classmethod
    @asynccontextmanager
    async def open(
        cls, home: Path | None = None, *, network: NetworkOptions | None = None
    ) -> AsyncGenerator[App]:
        """Open a home folder: `home`, else `BLOBSYNC_HOME`, else the platform's data folder.

        Raises:
            StoreDamagedError, StoreFormatError: from the store.
        """
        home = home or default_home()
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        async with LmdbStore.open(home / "store") as store:
            app = cls(home, store, network or NetworkOptions())
            try:
                yield app
            finally:
                for share in app._shares:
                    await share.close()

    @cached_property
    def _transport(self) -> Transport:
        """Chosen at first use: most commands need none."""
        return choose_transport(self._network.transport_name())

    @cached_property
    def _pumps(self) -> Pumps:
        return self._transport.make_pumps()

    def endpoint_id(self) -> EndpointId:
        """The id that shares of this home have; makes the key at first use. No network."""
        return public_id(load_key(self.home))

    # Sharing

    async def add(
        self,
        paths: Sequence[Path],
        *,
        mode: ImportMode,
        progress: ImportProgress | None = None,
    ) -> ImportedCollection:
        """Import files and folders as one collection and tag it, without serving it."""
        async with await self.store.temp_tag() as temp:
            collection = await self.store.import_collection(
                paths, mode=mode, temp=temp, progress=progress
            )
            target = HashAndFormat(collection.hash, BlobFormat.HASH_SEQ)
            await self.store.set_tag(f"{SHARE_TAG_PREFIX}{collection.hash}", target)
        return collection

    async def share(
        self,
        paths: Sequence[Path],
        *,
        mode: ImportMode,
        progress: ImportProgress | None = None,
    ) -> Share:
        """Import files and folders as one collection, tag it, and serve it.

        Raises:
            BindError: the address is taken.
            ImportFileError: see `Store.import_collection`.
        """
        relays = self._transport.relays(self._network, if_unset=None)
        async with AsyncExitStack() as stack:
            identity = Identity.claim(self.home)
            stack.callback(identity.release)
            endpoint = await self._bind(identity, relays)
            stack.push_async_callback(endpoint.close)
            collection = await self.add(paths, mode=mode, progress=progress)
            target = HashAndFormat(collection.hash, BlobFormat.HASH_SEQ)
            # Whoever deletes the tag meanwhile does not take away what is being served.
            await stack.enter_async_context(await self.store.temp_tag(target))
            is_online = relays == () or await endpoint.online(self._network.online_timeout_s)
            addr = await endpoint.wait_for_addr(ADDRESS_TIMEOUT_S)
            if not is_online:
                addr = EndpointAddr(addr.id, ip_addrs=addr.ip_addrs)
            shared = SharedBlobs()
            shared.grant(target)
            provider = Provider(self.store, shared, self._pumps)
            serving = asyncio.ensure_future(serve(endpoint, provider))
            stack.push_async_callback(cancelled, serving)
            share = Share(
                BlobTicket(addr, *target),
                collection,
                provider,
                transport=self._transport.name,
                id_is_temporary=identity.is_temporary,
                relay_is_missing=not is_online,
                refused_name=await asyncio.to_thread(refused_name, collection),
                serving=serving,
                resources=stack.pop_all(),
            )
        self._shares.append(share)
        return share

    async def _bind(self, identity: Identity, relays: Sequence[str] | None) -> NetworkEndpoint:
        """Bind for serving: without a port of the user's the one of the last time, if free."""
        asked = self._network.bind_addrs()
        port = identity.last_port()
        attempts = [asked]
        if port and all(addr.port == 0 for addr in asked):
            hosts = [addr.ip for addr in asked] or unspecified_addresses()
            attempts.insert(0, [SocketAddr(ip, port) for ip in hosts])
        for attempt in attempts:
            try:
                endpoint = await self._transport.bind(
                    secret_key=identity.secret_key,
                    alpns=[ALPN],
                    bind=attempt,
                    relays=relays,
                    relay_token=self._network.relay_token,
                    # Whoever names an address, or wants no help of others, is left alone.
                    port_mapping=not asked and relays != (),
                )
            except BindError:
                if attempt is attempts[-1]:
                    raise
                logger.info("port %d is taken, another one will do", port)
            else:
                identity.keep_port(endpoint.bound_ports()[0])
                return endpoint
        raise AssertionError("the last attempt returns or raises")

    # Fetching

    async def get(
        self, ticket: BlobTicket, destination: Path, *, overwrite: Overwrite = Overwrite.NEVER
    ) -> AsyncIterator[FetchEvent]:
        """Fetch what a ticket names into a folder; the last event is `FetchDone`.

        A raw blob is written as a file named by its hash. Leaving the iterator early (or a
        cancel) keeps what was proven; the same call goes on from there.
        """
        is_new = not await asyncio.to_thread(destination.exists)
        with await asyncio.to_thread(Root.open, destination) as root:
            async with AsyncExitStack() as stack:
                if is_new:
                    stack.enter_context(_removed_if_failed(root.path))

                async def connect() -> Connection:
                    return await stack.enter_async_context(self._connection(ticket))

                fetch = FolderFetch(
                    self.store, self._pumps, connect, ticket.target, root, overwrite
                )
                async for event in fetch.run():
                    yield event

    @asynccontextmanager
    async def _connection(self, ticket: BlobTicket) -> AsyncGenerator[Connection]:
        """A connection to the provider of a ticket, under a key made for it alone.

        Raises:
            UnreachableError: no way to it.
            TicketError: nobody can have the key that the ticket names.
        """
        relays = self._transport.relays(self._network, if_unset=ticket.addr.relay_urls)
        endpoint = await self._transport.bind(
            bind=self._network.bind_addrs(), relays=relays, relay_token=self._network.relay_token
        )
        async with endpoint:
            try:
                connecting = await endpoint.connect(ticket.addr, ALPN)
            except ValueError as error:
                # A point of the curve, but none whose secret a peer could prove to hold.
                raise TicketError(f"the ticket names no endpoint: {error}") from error
            async with connecting as connection:
                yield connection

    async def list_remote(self, ticket: BlobTicket) -> list[RemoteFile]:
        """Names and sizes of a remote collection, without its data."""
        async with self._connection(ticket) as connection:
            if ticket.format is BlobFormat.RAW:
                sizes = await get_sizes(connection, self._pumps, ticket.hash, [(0, ticket.hash)])
                return [RemoteFile(ticket.hash.hex(), ticket.hash, sizes[0])]
            data, meta = await get_collection_head(connection, self._pumps, ticket.hash)
            entries = decode_collection(ticket.hash, data, meta).entries
            children = [(2 + i, hash) for i, (_, hash) in enumerate(entries)]
            sizes = await get_sizes(connection, self._pumps, ticket.hash, children)
        return [
            RemoteFile(name, hash, size) for (name, hash), size in zip(entries, sizes, strict=True)
        ]

    async def list_local(self, target: HashAndFormat) -> list[RemoteFile]:
        """Names and sizes of a collection in the store; of a raw blob, itself under its hash.

        Raises:
            BlobNotFoundError: it or one of its files is not in the store.
        """
        entries: Sequence[tuple[str, Hash]] = [(target.hash.hex(), target.hash)]
        if target.format is BlobFormat.HASH_SEQ:
            data = await self.store.read(target.hash)
            children = HashSeq.from_bytes(data)
            meta = await self.store.read(children[0]) if children else b""
            entries = decode_collection(target.hash, data, meta).entries
        files: list[RemoteFile] = []
        stats = await self.store.stat_many([hash for _, hash in entries])
        for (name, hash), known in zip(entries, stats, strict=True):
            if known is None or not known.is_complete:
                raise BlobNotFoundError(hash)
            files.append(RemoteFile(name, hash, known.size))
        return files

    async def cat(
        self, source: BlobTicket | Hash, *, start: int = 0, end: int | None = None
    ) -> AsyncIterator[bytes]:
        """Verified bytes `[start, end)` of one blob, from the store or (ticket) from its provider.

        A ticket of a collection with exactly one file means that file.

        Raises:
            BlobNotFoundError: a hash that is not in the store.
            NotFoundError: a collection with another number of files.
        """
        if not isinstance(source, BlobTicket):
            known = await self.store.stat(source)
            if known is None or not known.is_complete:
                raise BlobNotFoundError(source)
            stop = known.size if end is None else min(end, known.size)
            for offset in range(start, stop, READ_SIZE):
                yield await self.store.read(source, offset, min(offset + READ_SIZE, stop))
            return
        async with self._connection(source) as connection:
            element, hash = 0, source.hash
            if source.format is BlobFormat.HASH_SEQ:
                data, meta = await get_collection_head(connection, self._pumps, source.hash)
                entries = decode_collection(source.hash, data, meta).entries
                if len(entries) != 1:
                    raise NotFoundError(
                        f"the collection has {len(entries)} files, cat needs one: get it instead",
                        hash=source.hash,
                    )
                element, hash = 2, entries[0][1]
            pieces = read_range(
                connection, self._pumps, source.hash, element, hash, start=start, end=end
            )
            async for piece in pieces:
                yield piece

    # Looking after the store

    async def verify(
        self, hashes: Sequence[Hash] = ()
    ) -> AsyncIterator[tuple[BlobStat, ChunkRanges]]:
        """Re-hash blobs (all of them by default): each with the chunks that are good.

        Raises:
            BlobNotFoundError: one of `hashes` is not in the store.
        """
        if not hashes:
            async for known in self.store.list_blobs():
                yield known, await self.store.verify(known.hash)
        for hash in hashes:
            known = await self.store.stat(hash)
            if known is None:
                raise BlobNotFoundError(hash)
            yield known, await self.store.verify(hash)

    async def tags(self) -> list[Tag]:
        """All tags, by name."""
        return await self.store.list_tags()

    async def gc(self, *, dry_run: bool = False) -> GcReport:
        """Remove what no tag and no running operation needs."""
        return await self.store.gc(dry_run=dry_run)


def default_home() -> Path:
    """`BLOBSYNC_HOME`, else the data folder that the platform has for us."""
    if home := os.environ.get("BLOBSYNC_HOME"):
        return Path(home)
    return platformdirs.user_data_path("blobsync", appauthor=False)


@contextmanager
def _removed_if_failed(folder: Path) -> Generator[None]:
    """A fetch that came to nothing leaves nothing; a folder with anything in it stays."""
    try:
        yield
    except BaseException:
        with suppress(OSError):
            folder.rmdir()
        raise

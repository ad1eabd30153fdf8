"""The store on disk: LMDB for everything small and all bookkeeping, files for large data.

This is the asyncio face: each method runs one blocking operation of the modules beside it in a
worker thread. A cancelled task waits for its operation to stop, so that nothing of it goes on
behind the caller's back; an operation that was committed stays committed.
"""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

import pybao
from blobstore import adding, catalog, exporting, gc, reading, tags, verifying
from blobstore.adding import Incoming
from blobstore.api import (
    INLINE_SIZE_MAX,
    ImportMode,
    PartialBlob,
    Store,
    TempTag,
)
from blobstore.codec.hash import Hash
from blobstore.database import FULL_CODES, MAP_SIZE
from blobstore.errors import BlobError, StoreClosedError, StoreFullError
from blobstore.files import COPY_SIZE, Files, boot_id
from blobstore.importing import Importer
from blobstore.opening import close_core, open_core
from blobstore.partials import FileBackedPartial
from blobstore.threads import Workers

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence

    from blobstore.api import (
        BlobReader,
        BlobStat,
        GcReport,
        ImportedCollection,
        ImportedFile,
        ImportProgress,
        Tag,
        VerifiedFile,
        WholeSource,
    )
    from blobstore.codec.hash import HashAndFormat
    from blobstore.codec.ranges import ChunkRanges
    from blobstore.core import Core
    from blobstore.database import WriteTxn

T = TypeVar("T")

LIST_PAGE = 1000
"""Blobs listed from one read transaction."""


class LmdbStore(Store):
    """A store in a folder: `async with LmdbStore.open(path) as store:`.

    Other processes may have the same folder open at the same time; within one process it is
    opened once and shared.
    """

    def __init__(self, path: Path, files: Files, map_size: int, boot: bytes | None) -> None:
        self._path = path
        self._files = files
        self._map_size = map_size
        self._boot = boot
        self._workers = Workers()
        self._opened: Core | None = None
        self._closing = False
        self._partials: set[LmdbPartial] = set()

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        files: Files | None = None,
        map_size: int = MAP_SIZE,
        boot: bytes | None = None,
    ) -> Self:
        """The store in the folder `path`, made there if need be; entering it opens it.

        `map_size` is the address space the database begins with; it grows as needed. `files`
        and `boot` (16 bytes, see `files.boot_id`) are for tests.

        Raises (on entering):
            StoreFormatError: the folder is something else, or a store of a newer version.
            StoreDamagedError: its database cannot be read.
            StoreBusyError: this process has it open already.
        """
        return cls(Path(path), files or Files(), map_size, boot)

    async def __aenter__(self) -> Self:
        opened: list[Core] = []

        def work() -> Core:
            boot = self._boot or boot_id()
            opened.append(open_core(self._path, self._files, self._map_size, boot))
            return opened[0]

        try:
            self._opened = await self._run(work)
        except BaseException:
            # Cancelled while it opened: its writer would keep the process from ending.
            for core in opened:
                await self._run(lambda core=core: close_core(core))
            self._workers.close()
            raise
        return self

    async def close(self) -> None:
        if self._closing or self._opened is None:
            return
        core, self._closing = self._opened, True
        await self._workers.drain()
        for partial in tuple(self._partials):
            await partial.close()
        self._opened = None
        try:
            await self._run(lambda: close_core(core))
        finally:
            self._workers.close()

    @property
    def path(self) -> Path:
        """The folder."""
        return self._path

    @property
    def transactions_committed(self) -> int:
        """Write transactions of this handle so far."""
        return self._core.database.transactions_committed

    @property
    def _core(self) -> Core:
        if self._opened is None or self._closing:
            raise StoreClosedError("the store is not open")
        return self._opened

    async def _run(
        self,
        work: Callable[[], T],
        *,
        cancel: Callable[[], None] | None = None,
        tick: Callable[[], None] | None = None,
    ) -> T:
        try:
            return await self._workers.run(work, cancel=cancel, tick=tick)
        except OSError as error:
            if error.errno in FULL_CODES:
                raise StoreFullError(f"the disk is full: {error}") from error
            raise

    async def _write(self, job: Callable[[WriteTxn], T]) -> T:
        return await self._workers.finish(self._core.database.submit(job))

    def _lease(self, temp: TempTag | None) -> bytes:
        if temp is None:
            return self._core.session.default_lease
        if not isinstance(temp, LmdbTempTag) or temp.store is not self:
            raise ValueError("a temp tag of another store")
        return temp.lease

    # Adding

    async def add_bytes(self, data: bytes, *, temp: TempTag | None = None) -> Hash:
        core, lease = self._core, self._lease(temp)
        if len(data) > INLINE_SIZE_MAX:
            return await self._run(lambda: adding.add_large(core, data, lease))
        # No thread for so little: many of these at once share a transaction.
        hash = Hash(pybao.hash(data))
        await self._workers.finish(core.submit(lease, adding.small_blobs([hash], [data])))
        return hash

    async def add_many(self, blobs: Sequence[bytes], *, temp: TempTag | None = None) -> list[Hash]:
        core, lease = self._core, self._lease(temp)
        return await self._run(lambda: adding.add_many(core, blobs, lease))

    async def add_stream(
        self, chunks: AsyncIterable[bytes], *, temp: TempTag | None = None
    ) -> Hash:
        incoming = Incoming(self._core, self._lease(temp))
        try:
            waiting = bytearray()
            async for chunk in chunks:
                waiting += chunk
                if len(waiting) >= COPY_SIZE:
                    data, waiting = bytes(waiting), bytearray()
                    await self._run(lambda data=data: incoming.write(data))
            rest = bytes(waiting)
            await self._run(lambda: incoming.write(rest))
            return await self._run(incoming.finish, cancel=incoming.progress.cancel)
        finally:
            incoming.close()

    async def add_verified(
        self,
        small: Sequence[tuple[Hash, bytes]],
        files: Sequence[VerifiedFile] = (),
        *,
        temp: TempTag | None = None,
    ) -> None:
        core, lease = self._core, self._lease(temp)
        await self._run(lambda: adding.add_verified(core, small, files, lease))

    async def import_file(
        self,
        path: str | os.PathLike[str],
        *,
        mode: ImportMode = ImportMode.REFERENCE,
        temp: TempTag | None = None,
        progress: ImportProgress | None = None,
    ) -> ImportedFile:
        importer = Importer(self._core, self._lease(temp), mode, progress)
        return await self._run(
            lambda: importer.import_file(path), cancel=importer.cancel, tick=importer.tick
        )

    async def import_files(
        self,
        paths: Sequence[str | os.PathLike[str]],
        *,
        mode: ImportMode = ImportMode.REFERENCE,
        temp: TempTag | None = None,
        progress: ImportProgress | None = None,
    ) -> list[ImportedFile]:
        importer = Importer(self._core, self._lease(temp), mode, progress)
        return await self._run(
            lambda: importer.import_files(paths), cancel=importer.cancel, tick=importer.tick
        )

    async def import_collection(
        self,
        paths: Sequence[str | os.PathLike[str]],
        *,
        mode: ImportMode = ImportMode.REFERENCE,
        temp: TempTag | None = None,
        progress: ImportProgress | None = None,
    ) -> ImportedCollection:
        importer = Importer(self._core, self._lease(temp), mode, progress)
        return await self._run(
            lambda: importer.import_collection(paths), cancel=importer.cancel, tick=importer.tick
        )

    # Reading

    async def stat(self, hash: Hash) -> BlobStat | None:
        return (await self.stat_many((hash,)))[0]

    async def stat_many(self, hashes: Sequence[Hash]) -> list[BlobStat | None]:
        core = self._core
        return await self._run(lambda: reading.stat_many(core, list(hashes)))

    async def list_blobs(self) -> AsyncIterator[BlobStat]:
        start = b""
        core = self._core
        while True:
            page = await self._run(lambda at=start: reading.list_page(core, at, LIST_PAGE))
            for stat in page.stats:
                yield stat
            if page.next_start is None:
                return
            start = page.next_start

    async def read(self, hash: Hash, start: int = 0, end: int | None = None) -> bytes:
        core = self._core
        return await self._run(lambda: reading.read(core, hash, start, end))

    async def read_small(self, hashes: Sequence[Hash]) -> list[bytes | None]:
        core = self._core
        return await self._run(lambda: reading.read_small(core, list(hashes)))

    async def find_whole(
        self, hashes: Sequence[Hash], *, size_max: int, bytes_max: int
    ) -> list[WholeSource | None]:
        core = self._core
        return await self._run(lambda: reading.find_whole(core, list(hashes), size_max, bytes_max))

    async def open_reader(self, hash: Hash) -> BlobReader:
        core = self._core
        opened: list[BlobReader] = []

        def work() -> BlobReader:
            opened.append(reading.open_reader(core, hash))
            return opened[0]

        try:
            return await self._run(work)
        except asyncio.CancelledError:
            for reader in opened:
                reader.close()
            raise

    async def export(
        self,
        hash: Hash,
        target: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        progress: ImportProgress | None = None,
    ) -> int:
        core = self._core
        copying = pybao.Progress()
        before = 0 if progress is None else progress.bytes_done

        def tick() -> None:
            if progress is not None:
                progress.bytes_done = before + copying.done

        size = await self._run(
            lambda: exporting.export(core, hash, target, overwrite=overwrite, progress=copying),
            cancel=copying.cancel,
            tick=tick,
        )
        if progress is not None:
            progress.files_total += 1
            progress.files_done += 1
            progress.bytes_total += size
            progress.bytes_done = before + size
            progress.walked = True
        return size

    # Partial blobs

    async def open_partial(
        self, hash: Hash, *, data_fd: int | None = None, path: Path | None = None
    ) -> PartialBlob:
        if (data_fd is None) != (path is None):
            raise ValueError("a file of the caller's has both a descriptor and a path")
        core = self._core
        own_fd = None if data_fd is None else core.files.dup(data_fd)
        hashing = pybao.Progress()
        opened: list[FileBackedPartial] = []
        begun = threading.Event()

        def work() -> FileBackedPartial:
            begun.set()
            opened.append(FileBackedPartial.open(core, hash, own_fd, path, hashing))
            return opened[0]

        try:
            partial = LmdbPartial(self, core, await self._run(work, cancel=hashing.cancel))
        except asyncio.CancelledError:
            for file_backed in opened:
                file_backed.close()
            if own_fd is not None and not begun.is_set():
                core.files.close(own_fd)
            raise
        self._partials.add(partial)
        return partial

    # Tags

    async def set_tag(self, name: str, target: HashAndFormat) -> None:
        await self._write(lambda txn: tags.set_tag(txn, name, target))

    async def get_tag(self, name: str) -> HashAndFormat | None:
        core = self._core
        return await self._run(lambda: core.database.read(lambda txn: tags.get_tag(txn, name)))

    async def delete_tag(self, name: str) -> None:
        await self._write(lambda txn: tags.delete_tag(txn, name))

    async def rename_tag(self, old: str, new: str) -> None:
        await self._write(lambda txn: tags.rename_tag(txn, old, new))

    async def list_tags(self, prefix: str = "") -> list[Tag]:
        core = self._core
        return await self._run(lambda: core.database.read(lambda txn: tags.list_tags(txn, prefix)))

    async def temp_tag(self, *targets: HashAndFormat) -> TempTag:
        tag = LmdbTempTag(self, self._core.session.new_lease())
        await tag.protect(*targets)
        return tag

    # Removing

    async def delete(self, hashes: Sequence[Hash]) -> int:
        core = self._core
        return await self._run(lambda: gc.delete(core, hashes))

    async def gc(self, *, dry_run: bool = False) -> GcReport:
        core = self._core
        stop = threading.Event()
        return await self._run(
            lambda: gc.gc(core, dry_run=dry_run, cancelled=stop.is_set), cancel=stop.set
        )

    async def verify(self, hash: Hash) -> ChunkRanges:
        core = self._core
        hashing = pybao.Progress()
        return await self._run(lambda: verifying.verify(core, hash, hashing), cancel=hashing.cancel)

    # For the classes below

    async def run(self, work: Callable[[], T]) -> T:
        """Run blocking work of an open partial in a worker thread."""
        return await self._run(work)

    async def write(self, job: Callable[[WriteTxn], T]) -> T:
        """Run a write job."""
        return await self._write(job)

    def forget_partial(self, partial: LmdbPartial) -> None:
        """It was closed."""
        self._partials.discard(partial)

    @property
    def is_open(self) -> bool:
        return self._opened is not None and not self._closing


class LmdbTempTag(TempTag):
    """A lease within the session of its store."""

    def __init__(self, store: LmdbStore, lease: bytes) -> None:
        self.store = store
        self._lease = lease
        self._is_open = True

    @property
    def lease(self) -> bytes:
        """The lease, while it is held."""
        if not self._is_open:
            raise BlobError("the temp tag was closed")
        return self._lease

    async def protect(self, *targets: HashAndFormat) -> None:
        lease = self.lease
        if targets:
            await self.store.write(lambda txn: catalog.protect(txn, lease, targets))

    async def close(self) -> None:
        if self._is_open and self.store.is_open:
            self._is_open = False
            await self.store.write(lambda txn: catalog.release(txn, self._lease))


class LmdbPartial(PartialBlob):
    """The asyncio face of a `FileBackedPartial`."""

    def __init__(self, store: LmdbStore, core: Core, inner: FileBackedPartial) -> None:
        self._store = store
        self._core = core
        self._inner = inner
        self._lock = asyncio.Lock()
        self.hash = inner.hash
        self.data_fd = inner.data_fd
        self.outboard_fd = inner.outboard_fd
        self._take_over()

    def _take_over(self) -> None:
        claim = self._inner.known.claim
        self.size, self.size_proven, self.bitfield = claim.size, claim.size_proven, claim.bitfield

    async def record(self, proven: ChunkRanges, size: int, *, size_proven: bool) -> None:
        async with self._lock:
            await self._store.run(lambda: self._inner.record(proven, size, size_proven))
            self._take_over()

    async def complete(self, publish: Callable[[], Path] | None = None) -> None:
        async with self._lock:
            await self._store.run(lambda: self._inner.complete(publish))

    async def close(self) -> None:
        async with self._lock:
            self._inner.close()
            self._store.forget_partial(self)

    async def discard(self) -> None:
        async with self._lock:
            await self._store.run(self._inner.discard)
            self._store.forget_partial(self)

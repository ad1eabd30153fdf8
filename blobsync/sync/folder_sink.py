"""Where fetched blobs go: to the first place each belongs to, and from there into the store."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from blobstore import INLINE_SIZE_MAX, VerifiedFile
from blobsync.errors import DiskFullError
from blobsync.protocols.blobs import BlobSink, Element
from blobsync.sync.names import components_of

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from blobstore import Hash, PartialBlob, Store, TempTag
    from blobsync.protocols.blobs import WholeBlobs
    from blobsync.sync.root import Partial, Root


RECORD_BYTES = 6 << 20
RECORD_FILES = 256
RECORD_SMALL = 512
"""Whole files are recorded in the store together when they have come to so many bytes, so many
descriptors are held for it, or so many are small: each of those takes pages of the database into
memory. At most two such lots are lost by a kill: the files are there, and the next fetch reads them
again."""


WRITES_MAX = 2
"""Batches of whole files that are being written at once."""

COPIES_MAX = 64
"""To so many places a blob is written as it comes; for more it is read from the store again."""


@dataclass(slots=True)
class FetchPlan:
    """What is to be fetched and what is to be copied. Files are numbers, those of `names`."""

    names: Sequence[str]
    """Of all files of the fetch, checked."""
    places: dict[Hash, list[int]]
    """The files still to be written, by content; shrinks as they are."""
    remote: list[Element] = field(default_factory=list[Element])
    local: dict[Hash, int] = field(default_factory=dict["Hash", int])
    """Sizes of the blobs that the store holds."""
    sizes: dict[Hash, int] = field(default_factory=dict["Hash", int])
    """Proven sizes of blobs to fetch."""
    resumed: dict[Hash, int] = field(default_factory=dict["Hash", int])
    """Bytes that an earlier fetch has proven."""
    whole: list[Element] = field(default_factory=list[Element])
    """Blobs that an earlier fetch has proven to their last byte, and not put in place."""

    def components(self, file: int) -> tuple[str, ...]:
        """Where a file belongs."""
        return components_of(self.names[file])


@dataclass(slots=True)
class FetchCounters:
    """How far a fetch is, besides what came over the network."""

    files_done: int = 0
    bytes_local: int = 0
    """Bytes of files found at the destination, copied from the store or proven earlier."""
    bytes_written: int = 0
    """Bytes of the files that are done."""

    def count(self, size: int, *, files: int = 1) -> None:
        """One more file is done, or several of so many bytes in all."""
        self.files_done += files
        self.bytes_written += size


@dataclass(slots=True)
class _Written:
    """Whole files that are in their places and not yet in the store."""

    small: list[tuple[Hash, bytes]] = field(default_factory=list[tuple["Hash", bytes]])
    files: list[VerifiedFile] = field(default_factory=list[VerifiedFile])
    bytes: int = 0

    @property
    def is_much(self) -> bool:
        return (
            self.bytes >= RECORD_BYTES
            or len(self.files) >= RECORD_FILES
            or len(self.small) >= RECORD_SMALL
        )

    def close(self) -> None:
        """Let go of the descriptors."""
        for file in self.files:
            os.close(file.fd)
        self.files.clear()


class FolderSink(BlobSink):
    """Writes each blob to its place below a root; the store refers to the first one it has there.

    Leaving it records what was written, however it is left.
    """

    def __init__(
        self,
        store: Store,
        root: Root,
        plan: FetchPlan,
        counters: FetchCounters,
        temp: TempTag,
        *,
        replace: bool,
    ) -> None:
        self._store = store
        self._root = root
        self._plan = plan
        self._places = plan.places
        self._counters = counters
        self._temp = temp
        self._replace = replace
        self._partials: dict[Hash, Partial] = {}
        self._written = _Written()
        self._recording: asyncio.Task[None] | None = None
        self._room = asyncio.Semaphore(WRITES_MAX)
        self._writing: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            # Also after an error or a cancel: what is there need not be fetched again.
            await _finished(self._finish())
        finally:
            self._written.close()
            for partial in self._partials.values():
                partial.close()

    async def add_whole(self, blobs: WholeBlobs) -> None:
        """Take verified blobs. They are written after the return, at the latest before the exit.

        Raises:
            BlobsyncError, BlobError: writing these, or others before, failed.
        """
        await self._room.acquire()
        if self._failure is not None:
            self._room.release()
            raise self._failure
        writing = asyncio.ensure_future(self._write(blobs))
        self._writing.add(writing)
        writing.add_done_callback(self._end_writing)

    def _end_writing(self, writing: asyncio.Task[None]) -> None:
        self._writing.discard(writing)
        self._room.release()
        if not writing.cancelled() and self._failure is None:
            self._failure = writing.exception()

    async def _finish(self) -> None:
        """Wait for what is being written, and record it."""
        if self._writing:
            await asyncio.wait(self._writing)
        await self._record_all()
        if self._failure is not None:
            raise self._failure

    async def _write(self, blobs: WholeBlobs) -> None:
        wanted = [self._places[element.hash][:COPIES_MAX] for element in blobs.elements]
        descriptors = await asyncio.to_thread(self._write_files, wanted, blobs)
        written, counters = self._written, self._counters
        top, names = os.fspath(self._root.path), self._plan.names
        for position, (files, element, size, fd) in enumerate(
            zip(wanted, blobs.elements, blobs.sizes, descriptors, strict=True)
        ):
            if fd is None:
                written.small.append((element.hash, blobs.data(position)))
            else:
                # The names are checked, and this is all that joining their components would do.
                path = os.path.join(top, names[files[0]])  # noqa: PTH118 - a Path costs far more
                outboard = blobs.outboard(position)
                written.files.append(VerifiedFile(element.hash, size, outboard, path, fd))
            del self._places[element.hash][: len(files)]
            counters.count(size * len(files), files=len(files))
            counters.bytes_local += size * (len(files) - 1)
        written.bytes += sum(blobs.sizes)
        while self._written.is_much:
            # The next batches are written while these are recorded, and no more than that.
            await self._wait_recorded()
            if self._written.is_much:
                written, self._written = self._written, _Written()
                self._recording = asyncio.ensure_future(self._record(written))

    def _write_files(self, wanted: Sequence[Sequence[int]], blobs: WholeBlobs) -> list[int | None]:
        components = self._plan.components
        return self._root.write_contents(
            [[components(file) for file in files] for files in wanted],
            blobs,
            replace=self._replace,
            keep_open_over=INLINE_SIZE_MAX,
        )

    async def _record(self, written: _Written) -> None:
        try:
            await self._store.add_verified(written.small, written.files, temp=self._temp)
        finally:
            written.close()

    async def _wait_recorded(self) -> None:
        """Wait for the record under way; its failure is raised here."""
        recording = self._recording
        if recording is not None:
            await asyncio.shield(recording)
            if self._recording is recording:
                self._recording = None

    async def _record_all(self) -> None:
        try:
            await self._wait_recorded()
        finally:
            written, self._written = self._written, _Written()
            if written.bytes or written.small:
                await self._record(written)

    async def open_partial(self, element: Element, size: int) -> PartialBlob:
        components = self._plan.components(self._places[element.hash][0])
        room = await asyncio.to_thread(self._root.free_bytes)
        if element.hash not in self._plan.sizes and size > room:
            # A size is only a claim, but writing up to it ends the same way.
            path = self._root.path_of(components)
            raise DiskFullError(f"{path} is to have {size} bytes, there is room for {room}")
        place = await asyncio.to_thread(self._root.open_partial, components, element.hash.hex())
        self._partials[element.hash] = place
        return await self._store.open_partial(element.hash, data_fd=place.fd, path=place.path)

    async def complete(self, element: Element, partial: PartialBlob) -> None:
        place = self._partials.pop(element.hash)
        with place:
            await partial.complete(lambda: self._root.publish(place, replace=self._replace))
        self._places[element.hash].pop(0)
        self._counters.count(partial.size or 0)


async def _finished(work: Coroutine[None, None, None]) -> None:
    """Run to the end what must not be left half done, and only then pass a cancel on."""
    running = asyncio.ensure_future(work)
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait({running})
        raise

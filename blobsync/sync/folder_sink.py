"""Where fetched blobs go: to the first place each belongs to, and from there into the store."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from blobstore import INLINE_SIZE_MAX, VerifiedFile
from blobsync.protocols.blobs import BlobSink, Element

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blobstore import Hash, PartialBlob, Store, TempTag
    from blobsync.protocols.blobs import WholeBlob
    from blobsync.sync.root import Partial, Root


@dataclass(frozen=True, slots=True)
class WantedFile:
    """One file of a fetch."""

    components: tuple[str, ...]
    hash: Hash
    element: int
    """Where its blob stands in a request for the target."""


@dataclass(slots=True)
class FetchPlan:
    """What is to be fetched and what is to be copied."""

    places: dict[Hash, list[WantedFile]]
    """The files still to be written, by content; shrinks as they are."""
    remote: list[Element] = field(default_factory=list[Element])
    local: dict[Hash, int] = field(default_factory=dict["Hash", int])
    """Sizes of the blobs that the store holds."""
    sizes: dict[Hash, int] = field(default_factory=dict["Hash", int])
    """Proven sizes of blobs to fetch."""
    resumed: dict[Hash, int] = field(default_factory=dict["Hash", int])
    """Bytes that an earlier fetch has proven."""


@dataclass(slots=True)
class FetchCounters:
    """How far a fetch is, besides what came over the network."""

    files_done: int = 0
    bytes_local: int = 0
    """Bytes of files found at the destination, copied from the store or proven earlier."""
    bytes_written: int = 0
    """Bytes of the files that are done."""

    def count(self, size: int) -> None:
        """One more file is done."""
        self.files_done += 1
        self.bytes_written += size


class FolderSink(BlobSink):
    """Writes each blob to its first place below a root; the store refers to it there."""

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
        self._places = plan.places
        self._counters = counters
        self._temp = temp
        self._replace = replace
        self._partials: dict[Hash, Partial] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for partial in self._partials.values():
            partial.close()

    async def add_whole(self, blobs: Sequence[WholeBlob]) -> None:
        writes = [(self._places[blob.element.hash][0].components, blob.data) for blob in blobs]
        descriptors = await self._write(writes)
        small: list[tuple[Hash, bytes]] = []
        files: list[VerifiedFile] = []
        try:
            for (components, data), blob, fd in zip(writes, blobs, descriptors, strict=True):
                hash = blob.element.hash
                if fd is None:
                    small.append((hash, data))
                else:
                    path = self._root.path.joinpath(*components)
                    files.append(VerifiedFile(hash, len(data), blob.outboard, path, fd))
            await self._store.add_verified(small, files, temp=self._temp)
        finally:
            _close_all(descriptors)
        for blob in blobs:
            self._written(blob.element.hash, len(blob.data))

    async def _write(self, writes: Sequence[tuple[tuple[str, ...], bytes]]) -> list[int | None]:
        """Write whole files; descriptors of those that the store will refer to."""
        writing = asyncio.ensure_future(
            asyncio.to_thread(
                self._root.write_files,
                writes,
                replace=self._replace,
                keep_open_over=INLINE_SIZE_MAX,
            )
        )
        try:
            return await asyncio.shield(writing)
        except asyncio.CancelledError:
            # The thread goes on: wait until nothing of it runs, and let go of what it opened.
            await asyncio.wait({writing})
            if writing.exception() is None:
                _close_all(writing.result())
            raise

    async def open_partial(self, element: Element, size: int) -> PartialBlob:
        file = self._places[element.hash][0]
        place = await asyncio.to_thread(
            self._root.open_partial, file.components, element.hash.hex()
        )
        self._partials[element.hash] = place
        return await self._store.open_partial(element.hash, data_fd=place.fd, path=place.path)

    async def complete(self, element: Element, partial: PartialBlob) -> None:
        place = self._partials.pop(element.hash)
        with place:
            await partial.complete(lambda: self._root.publish(place, replace=self._replace))
        self._written(element.hash, partial.size or 0)

    def _written(self, hash: Hash, size: int) -> None:
        self._places[hash].pop(0)
        self._counters.count(size)


def _close_all(descriptors: Sequence[int | None]) -> None:
    for fd in descriptors:
        if fd is not None:
            os.close(fd)

"""Fetching what a ticket names into a folder: verified, resumable, nothing twice.

Order of things: names are known and checked before anything is written; what is at the
destination already, or in the store, is not fetched; a file has its final name only when it is
whole and verified; when `FetchDone` comes, all of it is durable. Whatever ends a fetch early, the
same fetch goes on from what was proven.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import os
import stat
import time
from typing import TYPE_CHECKING

import pybao
from blobstore import (
    INLINE_SIZE_MAX,
    BlobFormat,
    ChunkRanges,
    FileChangedError,
    HashSeq,
    Location,
    VerificationError,
)
from blobsync.errors import DiskFullError, NotFoundError, PeerFailedError, TargetExistsError
from blobsync.protocols.blobs import (
    Element,
    GetProgress,
    decode_collection,
    get_collection_head,
    get_elements,
    get_sizes,
)
from blobsync.sync.events import FetchDone, FetchEvent, FetchProgress, FetchStarted
from blobsync.sync.folder_sink import FetchCounters, FetchPlan, FolderSink, WantedFile
from blobsync.sync.names import check_names, partial_name
from blobsync.sync.root import TargetBusyError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from pathlib import Path

    from blobstore import BlobReader, BlobStat, Hash, HashAndFormat, Store, TempTag
    from blobsync.protocols.blobs import Pumps
    from blobsync.sync.root import Root
    from blobsync.transports import Connection

logger = logging.getLogger(__name__)

SIZES_ASKED_MAX = 1000
"""Up to this many blobs their sizes are asked for first, for a true total and a check for room.

The last chunk of each crosses the wire for it: for very many small files that would be most of
their bytes twice.
"""

PROGRESS_INTERVAL_S = 0.2

COPY_BATCH = 256
"""Small blobs that are read from the store at once."""

TAG_PREFIX = "get/"


class Overwrite(enum.Enum):
    """What a fetch does with a file that is at its destination already."""

    NEVER = "never"
    """A file with other content ends the fetch before anything is written."""
    ALWAYS = "always"
    """Every file is written anew."""
    IF_CHANGED = "if-changed"
    """Files with other content are replaced, equal ones are left alone."""


class FolderFetch:
    """One fetch into one folder; `run` it once."""

    def __init__(
        self,
        store: Store,
        pumps: Pumps,
        connect: Callable[[], Awaitable[Connection]],
        target: HashAndFormat,
        root: Root,
        overwrite: Overwrite,
    ) -> None:
        self._store = store
        self._pumps = pumps
        self._dial = connect
        self._connection: Connection | None = None
        self._target = target
        self._root = root
        self._overwrite = overwrite
        self._fetched = GetProgress()
        self._counters = FetchCounters()
        self._bytes_total: int | None = None
        self._files_total = 0
        self._started: FetchStarted | None = None

    async def run(self) -> AsyncIterator[FetchEvent]:
        """Fetch; the last event is `FetchDone`. Leaving early keeps what was proven."""
        begin = time.monotonic()
        fetching = asyncio.ensure_future(self._fetch())
        announced = False
        try:
            while not fetching.done():
                await asyncio.wait({fetching}, timeout=PROGRESS_INTERVAL_S)
                if self._started is not None:
                    if not announced:
                        announced = True
                        yield self._started
                    yield self._progress()
            fetching.result()
        finally:
            fetching.cancel()
            await asyncio.wait({fetching})
        yield FetchDone(
            hash=self._target.hash,
            files=self._files_total,
            bytes=self._counters.bytes_written,
            bytes_fetched=self._fetched.bytes_fetched,
            seconds=time.monotonic() - begin,
            destination=self._root.path,
        )

    def _progress(self) -> FetchProgress:
        path = None
        if self._connection is not None:
            selected = [each for each in self._connection.paths() if each.is_selected]
            if selected:
                path = "relayed" if selected[0].is_relay else "direct"
        return FetchProgress(
            files_done=self._counters.files_done,
            files_total=self._files_total,
            bytes_done=self._counters.bytes_local + self._fetched.bytes_fetched,
            bytes_total=self._bytes_total,
            bytes_fetched=self._fetched.bytes_fetched,
            path=path,
        )

    async def _connect(self) -> Connection:
        if self._connection is None:
            self._connection = await self._dial()
        return self._connection

    async def _fetch(self) -> None:
        async with await self._store.temp_tag(self._target) as temp:
            entries = await self._entries(temp)
            checked = await asyncio.to_thread(self._check_names, [name for name, _ in entries])
            first_element = 2 if self._target.format is BlobFormat.HASH_SEQ else 0
            files = [
                WantedFile(components, hash, first_element + i)
                for i, (components, (_, hash)) in enumerate(zip(checked, entries, strict=True))
            ]
            self._files_total = len(files)
            await self._store.set_tag(f"{TAG_PREFIX}{self._target.hash}", self._target)
            pending = await self._compare(files, temp)
            plan = await self._plan(pending)
            await self._announce(files, pending, plan)
            with FolderSink(
                self._store, self._root, plan, self._counters, temp, replace=self._may_replace
            ) as sink:
                await self._get(plan, sink)
            await self._copy_local(plan)
            await asyncio.to_thread(self._root.sync)

    # What is to be there

    async def _entries(self, temp: TempTag) -> list[tuple[str, Hash]]:
        """Names and hashes of all files; fetches root and names unless they are here."""
        target = self._target
        if target.format is BlobFormat.RAW:
            return [(target.hash.hex(), target.hash)]
        known = await self._store.stat(target.hash)
        if known is not None and known.is_complete:
            data = await self._store.read(target.hash)
            children = HashSeq.from_bytes(data)
            names = await self._store.stat(children[0]) if children else None
            if names is not None and names.is_complete:
                meta = await self._store.read(children[0])
                return list(decode_collection(target.hash, data, meta).entries)
        data, meta = await get_collection_head(await self._connect(), self._pumps, target.hash)
        collection = decode_collection(target.hash, data, meta)
        # The names first: whoever finds the root finds them too.
        await self._store.add_many([meta, data], temp=temp)
        return list(collection.entries)

    def _check_names(self, names: Sequence[str]) -> list[tuple[str, ...]]:
        """The components of each name; all are known as safe before anything is written.

        Finding out whether the folder folds names writes to it, so that comes second.
        """
        checked = check_names(names)
        return check_names(names, fold=True) if self._root.folds_names() else checked

    # What is there

    async def _compare(self, files: Sequence[WantedFile], temp: TempTag) -> list[WantedFile]:
        """The files that are yet to be written, after a look at the destination.

        Raises:
            TargetExistsError: something that may not be replaced is in the way; nothing was
                changed.
        """
        found = await asyncio.to_thread(
            lambda: [self._root.stat(each.components) for each in files]
        )
        pending: list[WantedFile] = []
        there: list[WantedFile] = []
        for file, status in zip(files, found, strict=True):
            if status is None:
                pending.append(file)
            elif stat.S_ISDIR(status.st_mode):
                raise TargetExistsError(f"{self._path(file)} is a folder; it was left as it is")
            elif self._overwrite is Overwrite.ALWAYS:
                pending.append(file)
            elif not stat.S_ISREG(status.st_mode):
                self._refuse_to_replace(file)
                pending.append(file)
            else:
                there.append(file)
        # What was imported before and did not change since is not read again.
        imported = await self._store.import_files([self._path(file) for file in there], temp=temp)
        large: list[WantedFile] = []
        for file, known in zip(there, imported, strict=True):
            if known.hash == file.hash:
                self._found(known.size)
                if known.size > INLINE_SIZE_MAX:
                    large.append(file)
            else:
                self._refuse_to_replace(file)
                pending.append(file)
        for file in await asyncio.to_thread(self._with_leftover, large):
            await self._remove_leftover(file)
        return pending

    def _with_leftover(self, files: Sequence[WantedFile]) -> list[WantedFile]:
        return [file for file in files if self._root.stat(_hidden(file)) is not None]

    async def _remove_leftover(self, file: WantedFile) -> None:
        """Remove what a fetch left unfinished to a place where the file is by now.

        Of two fetches at once, one finds that the other was first, and leaves its own there.
        """
        try:
            place = await asyncio.to_thread(
                self._root.open_partial, file.components, file.hash.hex()
            )
        except TargetBusyError:
            # Someone is writing it at this moment, and will see for himself.
            return
        with place:
            partial = await self._store.open_partial(file.hash, data_fd=place.fd, path=place.path)
            async with partial:
                await partial.discard()
            await asyncio.to_thread(self._root.remove_partial, file.components, file.hash.hex())

    def _refuse_to_replace(self, file: WantedFile) -> None:
        if self._overwrite is Overwrite.NEVER:
            raise TargetExistsError(
                f"{self._path(file)} is there with other content; nothing was changed "
                "(--overwrite if-changed replaces it)"
            )

    def _found(self, size: int) -> None:
        self._counters.count(size)
        self._counters.bytes_local += size

    def _path(self, file: WantedFile) -> Path:
        return self._root.path.joinpath(*file.components)

    # What to do

    async def _plan(self, pending: Sequence[WantedFile]) -> FetchPlan:
        places: dict[Hash, list[WantedFile]] = {}
        for file in pending:
            places.setdefault(file.hash, []).append(file)
        plan = FetchPlan(places)
        hashes = list(places)
        for hash, known in zip(hashes, await self._store.stat_many(hashes), strict=True):
            if known is not None and known.is_complete and await self._is_readable(known):
                plan.local[hash] = known.size
                continue
            ranges = ChunkRanges.all()
            if known is not None:
                # A complete blob whose file is gone or changed is fetched as any other.
                ranges = await self._missing_ranges(places[hash][0], plan)
            plan.remote.append(Element(places[hash][0].element, hash, ranges))
        plan.remote.sort(key=lambda element: element.index)
        return plan

    async def _is_readable(self, known: BlobStat) -> bool:
        """Whether a complete blob can be copied from: a referenced file may have changed."""
        if known.location is not Location.REFERENCED:
            return True
        try:
            with await self._store.open_reader(known.hash):
                return True
        except FileChangedError:
            return False

    async def _missing_ranges(self, file: WantedFile, plan: FetchPlan) -> ChunkRanges:
        """What an earlier fetch to this place left to do."""
        if await asyncio.to_thread(self._root.stat, _hidden(file)) is None:
            return ChunkRanges.all()
        with await asyncio.to_thread(
            self._root.open_partial, file.components, file.hash.hex()
        ) as place:
            async with await self._store.open_partial(
                file.hash, data_fd=place.fd, path=place.path
            ) as partial:
                have = partial.bitfield
                if partial.size is not None:
                    plan.resumed[file.hash] = have.bytes_within(partial.size) if have else 0
                    if partial.size_proven:
                        plan.sizes[file.hash] = partial.size
                        have = have.open_at_end(partial.size)
        return ChunkRanges.all() - have.full_groups()

    async def _announce(
        self, files: Sequence[WantedFile], pending: Sequence[WantedFile], plan: FetchPlan
    ) -> None:
        """Find out sizes where that is cheap, check for room, and say that it begins."""
        unknown = [each for each in plan.remote if each.hash not in plan.sizes]
        if len(unknown) <= SIZES_ASKED_MAX and await self._ask_sizes(unknown, plan):
            sizes_of = plan.sizes | plan.local
            to_write = sum(sizes_of[file.hash] for file in pending)
            self._bytes_total = self._counters.bytes_local + to_write
            room = await asyncio.to_thread(self._root.free_bytes)
            if to_write - sum(plan.resumed.values()) > room:
                raise DiskFullError(
                    f"{self._root.path} has room for {room} bytes, {to_write} are to be written; "
                    "nothing was changed"
                )
        self._counters.bytes_local += sum(plan.resumed.values())
        self._started = FetchStarted(
            hash=self._target.hash,
            files=len(files),
            bytes_total=self._bytes_total,
            destination=self._root.path,
        )

    async def _ask_sizes(self, elements: Sequence[Element], plan: FetchPlan) -> bool:
        """Ask for the sizes of blobs; False if the peer lacks the proof of one.

        It may hold other parts, which are worth fetching all the same.
        """
        if not elements:
            return True
        try:
            sizes = await get_sizes(
                await self._connect(),
                self._pumps,
                self._target.hash,
                [(element.index, element.hash) for element in elements],
            )
        except (NotFoundError, PeerFailedError) as error:
            logger.info("sizes are not known in advance: %s", error)
            return False
        plan.sizes.update(zip((each.hash for each in elements), sizes, strict=True))
        return True

    # Doing it

    async def _get(self, plan: FetchPlan, sink: FolderSink) -> None:
        whole = [element for element in plan.remote if not element.ranges]
        for element in whole:
            # Killed between the last byte and the end: all is proven, nothing is to be fetched.
            async with await sink.open_partial(element, plan.sizes[element.hash]) as partial:
                await sink.complete(element, partial)
        missing = [element for element in plan.remote if element.ranges]
        if missing:
            await get_elements(
                await self._connect(),
                self._pumps,
                self._target.hash,
                missing,
                sink,
                self._fetched,
                sizes=plan.sizes,
                dial=self._dial,
            )

    async def _copy_local(self, plan: FetchPlan) -> None:
        """Write what the store holds to the places that are still empty."""
        hashes = [hash for hash, files in plan.places.items() if files]
        for start in range(0, len(hashes), COPY_BATCH):
            batch = hashes[start : start + COPY_BATCH]
            for hash, data in zip(batch, await self._store.read_small(batch), strict=True):
                files = plan.places[hash]
                if data is None:
                    for file in files:
                        await self._copy_large(file)
                else:
                    await asyncio.to_thread(
                        self._root.write_files,
                        [(file.components, data) for file in files],
                        replace=self._may_replace,
                    )
                    for _ in files:
                        self._found(len(data))

    async def _copy_large(self, file: WantedFile) -> None:
        with await self._store.open_reader(file.hash) as reader:
            await asyncio.to_thread(self._write_copy, file, reader)
            self._found(reader.size)

    def _write_copy(self, file: WantedFile, reader: BlobReader) -> None:
        with self._root.open_partial(file.components, file.hash.hex()) as place:
            os.ftruncate(place.fd, 0)
            try:
                pybao.copy_verified(file.hash, reader.size, reader.data, reader.outboard, place.fd)
            except pybao.EncodeError as error:
                raise VerificationError(file.hash, error.chunk) from error
            os.fdatasync(place.fd)
            self._root.publish(place, replace=self._may_replace)

    @property
    def _may_replace(self) -> bool:
        return self._overwrite is not Overwrite.NEVER


def _hidden(file: WantedFile) -> tuple[str, ...]:
    """Where a file is until it is whole."""
    return (*file.components[:-1], partial_name(file.components[-1], file.hash.hex()))

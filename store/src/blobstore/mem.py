"""A store in memory: short and obvious, the model that the other one is tested against.

Nothing of it outlives the process. Imports copy, whatever the mode, so that a blob never depends
on a file of the user; partial blobs are written to real descriptors, as everywhere.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pybao
from blobstore.api import (
    INLINE_SIZE_MAX,
    BlobReader,
    BlobStat,
    GcReport,
    ImportedCollection,
    ImportedFile,
    ImportMode,
    Location,
    PartialBlob,
    Store,
    Tag,
    TempTag,
    WholeSource,
)
from blobstore.claims import Claim
from blobstore.codec.collection import Collection
from blobstore.codec.hash import EMPTY_HASH, HASH_SIZE, BlobFormat, Hash, HashAndFormat
from blobstore.codec.ranges import ChunkRanges
from blobstore.codec.tree import outboard_size
from blobstore.errors import (
    BlobError,
    BlobNotFoundError,
    FileChangedError,
    ImportFileError,
    PartialBusyError,
    ProtectedError,
    StoreClosedError,
    TagNotFoundError,
    VerificationError,
)
from blobstore.files import Files
from blobstore.reading import check_span, empty_stat
from blobstore.tags import tag_key
from blobstore.walking import FoundFile, resolve, unreadable, walk

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Sequence

    from blobstore.api import ImportProgress, VerifiedFile


@dataclass(slots=True)
class _Filled:
    """What stays of a partial blob between two times it is open."""

    path: Path | None
    outboard_fd: int
    data_fd: int
    """Our own duplicate of the caller's, or our own file."""
    device: int
    inode: int
    claim: Claim = field(default_factory=Claim)
    is_open: bool = True


class MemStore(Store):
    """All blobs in a dictionary."""

    def __init__(self) -> None:
        self._blobs: dict[Hash, tuple[bytes, bytes]] = {}
        self._partials: dict[tuple[Hash, Path | None], _Filled] = {}
        self._tags: dict[str, HashAndFormat] = {}
        self._session: set[HashAndFormat] = set()
        self._temps: list[set[HashAndFormat]] = []
        self._is_open = True

    def _check_open(self) -> None:
        if not self._is_open:
            raise StoreClosedError("the store is not open")

    # Adding

    async def add_bytes(self, data: bytes, *, temp: TempTag | None = None) -> Hash:
        return self._add(data, temp)

    def _add(self, data: bytes, temp: TempTag | None) -> Hash:
        self._check_open()
        kept = self._kept_by(temp)
        root, outboard = pybao.outboard(data)
        hash = Hash(root)
        if hash != EMPTY_HASH:
            self._blobs[hash] = (data, outboard)
            kept.add(HashAndFormat(hash))
        return hash

    def _kept_by(self, temp: TempTag | None) -> set[HashAndFormat]:
        if temp is None:
            return self._session
        if not isinstance(temp, MemTempTag) or temp.store is not self:
            raise ValueError("a temp tag of another store")
        return temp.targets

    async def add_many(self, blobs: Sequence[bytes], *, temp: TempTag | None = None) -> list[Hash]:
        return [self._add(data, temp) for data in blobs]

    async def add_stream(
        self, chunks: AsyncIterable[bytes], *, temp: TempTag | None = None
    ) -> Hash:
        return self._add(b"".join([chunk async for chunk in chunks]), temp)

    async def add_verified(
        self,
        small: Sequence[tuple[Hash, bytes]],
        files: Sequence[VerifiedFile] = (),
        *,
        temp: TempTag | None = None,
    ) -> None:
        self._kept_by(temp)
        for hash, data in small:
            if len(data) > INLINE_SIZE_MAX:
                raise ValueError(f"blob {hash} is too large for the database: {len(data)} bytes")
        datas = [data for _, data in small]
        for file in files:
            if len(file.outboard) != outboard_size(file.size):
                raise ValueError(f"the outboard of {file.hash} has {len(file.outboard)} bytes")
            there = Files().stat(file.path)
            if not os.path.samestat(there, os.fstat(file.fd)) or there.st_size != file.size:
                raise FileChangedError(f"not the file that was written: {file.path}")
            data = Files().read(file.fd, file.size, 0)
            if pybao.hash(data) != file.hash:
                raise VerificationError(file.hash, detail=f"in {file.path}")
            datas.append(data)
        for data in datas:
            self._add(data, temp)

    async def import_file(
        self,
        path: str | os.PathLike[str],
        *,
        mode: ImportMode = ImportMode.REFERENCE,
        temp: TempTag | None = None,
        progress: ImportProgress | None = None,
    ) -> ImportedFile:
        found = resolve(path)
        if progress is not None:
            progress.files_total += 1
            progress.walked = True
        imported = self._import(found, temp, progress)
        if progress is not None:
            progress.bytes_total += imported.size
        return imported

    async def import_files(
        self,
        paths: Sequence[str | os.PathLike[str]],
        *,
        mode: ImportMode = ImportMode.REFERENCE,
        temp: TempTag | None = None,
        progress: ImportProgress | None = None,
    ) -> list[ImportedFile]:
        return [
            await self.import_file(path, mode=mode, temp=temp, progress=progress) for path in paths
        ]

    def _import(
        self, found: FoundFile, temp: TempTag | None, progress: ImportProgress | None
    ) -> ImportedFile:
        path = Path(found.path)
        try:
            if path.exists() and not path.is_file():
                raise ImportFileError(f"not a regular file: {path}")
            data = path.read_bytes()
        except OSError as error:
            raise unreadable(error, found.path) from error
        if progress is not None:
            progress.files_done += 1
            progress.bytes_done += len(data)
        return ImportedFile(found.name, self._add(data, temp), len(data))

    async def import_collection(
        self,
        paths: Sequence[str | os.PathLike[str]],
        *,
        mode: ImportMode = ImportMode.REFERENCE,
        temp: TempTag | None = None,
        progress: ImportProgress | None = None,
    ) -> ImportedCollection:
        found = walk(Files(), paths, progress)
        files = tuple(self._import(file, temp, progress) for file in found.files())
        collection = Collection(tuple((file.name, file.hash) for file in files))
        meta = self._add(collection.encode_meta(), temp)
        root = self._add(bytes(collection.hash_seq(meta)), temp)
        self._kept_by(temp).add(HashAndFormat(root, BlobFormat.HASH_SEQ))
        return ImportedCollection(root, files, tuple(found.skipped))

    # Reading

    async def stat(self, hash: Hash) -> BlobStat | None:
        self._check_open()
        if hash == EMPTY_HASH:
            return empty_stat()
        if hash in self._blobs:
            size = len(self._blobs[hash][0])
            location = Location.INLINE if size <= INLINE_SIZE_MAX else Location.OWNED
            return BlobStat(hash, size, True, True, ChunkRanges.all(), location)
        best = self._best_partial(hash)
        if best is None:
            return None
        return BlobStat(
            hash,
            best.claim.size or 0,
            best.claim.size_proven,
            False,
            best.claim.bitfield,
            Location.OWNED if best.path is None else Location.REFERENCED,
            () if best.path is None else (best.path,),
        )

    def _best_partial(self, hash: Hash) -> _Filled | None:
        return max(
            (partial for (of, _), partial in self._partials.items() if of == hash),
            key=lambda partial: partial.claim.bitfield.bytes_within(partial.claim.size or 0),
            default=None,
        )

    async def stat_many(self, hashes: Sequence[Hash]) -> list[BlobStat | None]:
        return [await self.stat(hash) for hash in hashes]

    async def list_blobs(self) -> AsyncIterator[BlobStat]:
        for hash in sorted(self._blobs.keys() | {hash for hash, _ in self._partials}):
            stat = await self.stat(hash)
            if stat is not None:
                yield stat

    async def read(self, hash: Hash, start: int = 0, end: int | None = None) -> bytes:
        check_span(start, end)
        with await self.open_reader(hash) as reader:
            end = reader.size if end is None else min(end, reader.size)
            if start >= end:
                return b""
            wanted = ChunkRanges.of_bytes(start, end).round_up_to_groups().truncate(reader.size)
            if not wanted.issubset(reader.available):
                raise BlobNotFoundError(hash, "it holds only a part")
            try:
                return pybao.read_verified(
                    hash, reader.size, reader.data, reader.outboard, start, end
                )
            except pybao.EncodeError as error:
                raise VerificationError(hash, error.chunk) from error

    async def read_small(self, hashes: Sequence[Hash]) -> list[bytes | None]:
        self._check_open()
        found: list[bytes | None] = []
        for hash in hashes:
            data = b"" if hash == EMPTY_HASH else self._blobs.get(hash, (None, None))[0]
            found.append(None if data is None or len(data) > INLINE_SIZE_MAX else data)
        return found

    async def find_whole(
        self, hashes: Sequence[Hash], *, size_max: int, bytes_max: int
    ) -> list[WholeSource | None]:
        self._check_open()
        found: list[WholeSource | None] = []
        total = 0
        for hash in hashes:
            blob = (b"", b"") if hash == EMPTY_HASH else self._blobs.get(hash)
            if blob is None or len(blob[0]) > size_max:
                found.append(None)
            else:
                data, outboard = blob
                found.append(WholeSource(data, len(data), outboard))
                total += len(data)
            if total >= bytes_max:
                break
        return found

    async def open_reader(self, hash: Hash) -> BlobReader:
        self._check_open()
        return self._open_reader(hash)

    def _open_reader(self, hash: Hash) -> BlobReader:
        if hash == EMPTY_HASH:
            return BlobReader(hash, 0, ChunkRanges.all(), b"", b"")
        if hash in self._blobs:
            data, outboard = self._blobs[hash]
            return BlobReader(hash, len(data), ChunkRanges.all(), data, outboard)
        best = self._best_partial(hash)
        available = ChunkRanges.empty() if best is None else best.claim.whole_groups()
        if best is None or not available:
            raise BlobNotFoundError(hash)
        data_fd, outboard_fd = os.dup(best.data_fd), os.dup(best.outboard_fd)

        def close() -> None:
            os.close(data_fd)
            os.close(outboard_fd)

        return BlobReader(hash, best.claim.size or 0, available, data_fd, outboard_fd, close)

    async def export(
        self,
        hash: Hash,
        target: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        progress: ImportProgress | None = None,
    ) -> int:
        with await self.open_reader(hash) as reader:
            if not isinstance(reader.data, bytes):
                raise BlobNotFoundError(hash, "it holds only a part")
            path = Path(target)
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".blobstore-") as file:
                file.write(reader.data)
                file.flush()
                if overwrite and Files().exists(path):
                    Files().unlink(path)
                os.link(file.name, path)
        if progress is not None:
            progress.files_total += 1
            progress.files_done += 1
            progress.bytes_total += reader.size
            progress.bytes_done += reader.size
            progress.walked = True
        return reader.size

    # Partial blobs

    async def open_partial(
        self, hash: Hash, *, data_fd: int | None = None, path: Path | None = None
    ) -> PartialBlob:
        self._check_open()
        if (data_fd is None) != (path is None):
            raise ValueError("a file of the caller's has both a descriptor and a path")
        found = self._partials.get((hash, path))
        if found is not None and found.is_open:
            raise PartialBusyError(f"someone else is filling the partial blob {hash}")
        info = None if data_fd is None else os.fstat(data_fd)
        if found is not None and (
            info is None or (info.st_dev, info.st_ino) == (found.device, found.inode)
        ):
            found.is_open = True
            return MemPartial(self, hash, found)
        if found is not None:
            self.forget_partial(hash, found)
        own_fd = _anonymous_file() if data_fd is None else os.dup(data_fd)
        info = os.fstat(own_fd)
        fresh = _Filled(path, _anonymous_file(), own_fd, info.st_dev, info.st_ino)
        self._partials[hash, path] = fresh
        return MemPartial(self, hash, fresh)

    def finish_partial(self, hash: Hash, filled: _Filled, data: bytes) -> None:
        """It is complete."""
        self._add(data, None)
        self.forget_partial(hash, filled)

    def forget_partial(self, hash: Hash, filled: _Filled) -> None:
        """It was completed or discarded."""
        del self._partials[hash, filled.path]
        os.close(filled.data_fd)
        os.close(filled.outboard_fd)

    # Tags

    async def set_tag(self, name: str, target: HashAndFormat) -> None:
        self._check_open()
        tag_key(name)
        self._tags[name] = target

    async def get_tag(self, name: str) -> HashAndFormat | None:
        self._check_open()
        tag_key(name)
        return self._tags.get(name)

    async def delete_tag(self, name: str) -> None:
        tag_key(name)
        if name not in self._tags:
            raise TagNotFoundError(f"no tag {name!r}")
        del self._tags[name]

    async def rename_tag(self, old: str, new: str) -> None:
        tag_key(old)
        tag_key(new)
        if old not in self._tags:
            raise TagNotFoundError(f"no tag {old!r}")
        self._tags[new] = self._tags.pop(old)

    async def list_tags(self, prefix: str = "") -> list[Tag]:
        names = sorted((name for name in self._tags if name.startswith(prefix)), key=str.encode)
        return [Tag(name, self._tags[name]) for name in names]

    async def temp_tag(self, *targets: HashAndFormat) -> TempTag:
        self._check_open()
        self._temps.append(set(targets))
        return MemTempTag(self, self._temps[-1])

    def drop_temp(self, targets: set[HashAndFormat]) -> None:
        """A temp tag was closed."""
        self._temps = [other for other in self._temps if other is not targets]

    # Removing

    def _live(self, roots: Iterable[HashAndFormat]) -> set[Hash]:
        live: set[Hash] = set()
        for target in roots:
            live.add(target.hash)
            if target.format is BlobFormat.HASH_SEQ:
                live |= self._children(target.hash)
        return live | {hash for (hash, _), partial in self._partials.items() if partial.is_open}

    def _children(self, root: Hash) -> set[Hash]:
        """The children of a hash seq, as far as it is here."""
        children: set[Hash] = set()
        try:
            reader = self._open_reader(root)
        except BlobNotFoundError:
            return children
        with reader:
            for first, last in reader.available.intervals():
                start = first * pybao.CHUNK_SIZE
                end = reader.size if last is None else min(last * pybao.CHUNK_SIZE, reader.size)
                data = pybao.read_verified(
                    root, reader.size, reader.data, reader.outboard, start, end
                )
                for offset in range(0, len(data) - HASH_SIZE + 1, HASH_SIZE):
                    children.add(Hash(data[offset : offset + HASH_SIZE]))
        return children

    def _remove(self, hash: Hash) -> bool:
        partials = [partial for (of, _), partial in self._partials.items() if of == hash]
        for partial in partials:
            self.forget_partial(hash, partial)
        return self._blobs.pop(hash, None) is not None or bool(partials)

    async def delete(self, hashes: Sequence[Hash]) -> int:
        self._check_open()
        wanted = set(hashes) - {EMPTY_HASH}
        live = self._live((*self._tags.values(), *(one for temp in self._temps for one in temp)))
        if not live.isdisjoint(wanted):
            raise ProtectedError("needed by a tag or temp tag, or being filled")
        self._session = {target for target in self._session if target.hash not in wanted}
        return sum(self._remove(hash) for hash in wanted)

    async def gc(self, *, dry_run: bool = False) -> GcReport:
        self._check_open()
        temps = (one for temp in self._temps for one in temp)
        live = self._live((*self._tags.values(), *self._session, *temps))
        known = self._blobs.keys() | {hash for hash, _ in self._partials}
        garbage = known - live
        freed = sum(len(self._blobs[hash][0]) for hash in garbage if hash in self._blobs)
        if not dry_run:
            for hash in garbage:
                self._remove(hash)
        return GcReport(len(garbage), freed, 0, len(known) - len(garbage))

    async def verify(self, hash: Hash) -> ChunkRanges:
        for (known, _), partial in self._partials.items():
            if known == hash:
                # A piece of a group cannot be proven again, and is no longer claimed.
                whole = partial.claim.whole_groups()
                partial.claim = replace(partial.claim, bitfield=whole)
        stat = await self.stat(hash)
        if stat is None:
            raise BlobNotFoundError(hash)
        return stat.bitfield

    async def close(self) -> None:
        self._is_open = False
        for (hash, _), partial in tuple(self._partials.items()):
            self.forget_partial(hash, partial)
        self._blobs.clear()


class MemTempTag(TempTag):
    """A set of targets that counts while it is open."""

    def __init__(self, store: MemStore, targets: set[HashAndFormat]) -> None:
        self.store = store
        self._targets = targets
        self._is_open = True

    @property
    def targets(self) -> set[HashAndFormat]:
        """What it keeps, while it is open."""
        if not self._is_open:
            raise BlobError("the temp tag was closed")
        return self._targets

    async def protect(self, *targets: HashAndFormat) -> None:
        self.targets.update(targets)

    async def close(self) -> None:
        self._is_open = False
        self.store.drop_temp(self._targets)


class MemPartial(PartialBlob):
    """A partial blob over descriptors of a temporary file or of the caller's."""

    def __init__(self, store: MemStore, hash: Hash, filled: _Filled) -> None:
        self._store = store
        self._filled: _Filled | None = filled
        self.hash = hash
        self.data_fd = filled.data_fd
        self.outboard_fd = filled.outboard_fd
        self._take_over(filled)

    def _take_over(self, filled: _Filled) -> None:
        claim = filled.claim
        self.size, self.size_proven, self.bitfield = claim.size, claim.size_proven, claim.bitfield

    def _open_one(self) -> _Filled:
        if self._filled is None:
            raise BlobError(f"the partial blob {self.hash} was closed or completed already")
        return self._filled

    async def record(self, proven: ChunkRanges, size: int, *, size_proven: bool) -> None:
        filled = self._open_one()
        filled.claim = filled.claim.extend(self.hash, proven, size, size_proven=size_proven)
        self._take_over(filled)

    async def complete(self, publish: Callable[[], Path] | None = None) -> None:
        filled = self._open_one()
        size = filled.claim.whole_size(self.hash)
        os.ftruncate(filled.data_fd, size)
        data = Files().read(filled.data_fd, size, 0)
        if pybao.hash(data) != self.hash:
            raise VerificationError(self.hash, detail="its data changed")
        if publish is not None:
            publish()
        self._filled = None
        self._store.finish_partial(self.hash, filled, data)

    async def close(self) -> None:
        if self._filled is not None:
            self._filled.is_open = False
            self._filled = None

    async def discard(self) -> None:
        filled = self._open_one()
        self._filled = None
        self._store.forget_partial(self.hash, filled)


def _anonymous_file() -> int:
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())

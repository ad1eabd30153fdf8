"""Opening and reading blobs: where the bytes are, and that they are still what was recorded.

Every descriptor handed out is checked against the record by its identity; bytes are verified
against the hash on top of that, since a file may change under an unchanged identity.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import pybao
from blobstore import catalog
from blobstore.api import BlobReader, BlobStat, Location, WholeSource
from blobstore.codec.hash import EMPTY_HASH, Hash
from blobstore.codec.ranges import ChunkRanges
from blobstore.codec.tree import outboard_size
from blobstore.core import to_path
from blobstore.errors import (
    BlobNotFoundError,
    FileChangedError,
    StoreDamagedError,
    VerificationError,
)
from blobstore.files import Identity
from blobstore.folder import DATA, OUTBOARD
from blobstore.schema import OutboardPlace, Table

if TYPE_CHECKING:
    from collections.abc import Callable

    from blobstore.core import Core
    from blobstore.database import ReadTxn
    from blobstore.schema import BlobRecord, PartialRecord, Reference


class Found(NamedTuple):
    """What the database has of one blob."""

    record: BlobRecord | None
    data: bytes | None = None
    outboard: bytes | None = None
    partials: tuple[PartialRecord, ...] = ()


View: TypeAlias = "Callable[[Callable[[ReadTxn], Found]], Found]"
"""Runs a look in some transaction: `Database.read`, or one that is open already."""

_OPEN_ATTEMPTS = 5
"""Another process may replace or remove a blob's files between our look and our open."""


# Stat


def empty_stat() -> BlobStat:
    """Of the blob that is always there."""
    return BlobStat(EMPTY_HASH, 0, True, True, ChunkRanges.all(), Location.INLINE)


def stat_complete(hash: Hash, record: BlobRecord) -> BlobStat:
    """What a record of a complete blob says."""
    if record.is_inline:
        location = Location.INLINE
    else:
        location = Location.OWNED if record.owned is not None else Location.REFERENCED
    paths = tuple(to_path(reference.path) for reference in record.references)
    return BlobStat(hash, record.size, True, True, ChunkRanges.all(), location, paths)


def stat_many(core: Core, hashes: list[Hash]) -> list[BlobStat | None]:
    """What is known of each blob, as of one moment."""

    def job(txn: ReadTxn) -> list[BlobStat | list[PartialRecord]]:
        found: list[BlobStat | list[PartialRecord]] = []
        # Mostly there are none, and looking for those of a blob costs more than all the rest.
        has_partials = txn.count(Table.PARTIALS) > 0
        for hash in hashes:
            record = catalog.get_blob(txn, hash)
            if hash == EMPTY_HASH:
                found.append(empty_stat())
            elif record is not None:
                found.append(stat_complete(hash, record))
            elif has_partials:
                found.append([partial for _, partial in catalog.partials_of(txn, hash)])
            else:
                found.append([])
        return found

    known = core.database.read(job)
    core.database.bound_memory()
    return [
        _stat_partials(core, hash, one) if isinstance(one, list) else one
        for hash, one in zip(hashes, known, strict=True)
    ]


def _stat_partials(core: Core, hash: Hash, partials: list[PartialRecord]) -> BlobStat | None:
    best: BlobStat | None = None
    for partial in partials:
        # A size is only a hint until it is proven, and so is a claim that nobody can check.
        trusted = is_trusted(core, hash, partial)
        stat = BlobStat(
            hash,
            partial.claim.size or 0,
            partial.claim.size_proven,
            False,
            partial.claim.bitfield if trusted else ChunkRanges.empty(),
            Location.OWNED if partial.path is None else Location.REFERENCED,
            () if partial.path is None else (to_path(partial.path),),
        )
        if best is None or _rank(stat) > _rank(best):
            best = stat
    return best


def _rank(stat: BlobStat) -> tuple[int, bool, int]:
    return stat.bitfield.bytes_within(stat.size), stat.size_proven, stat.size


def data_path(core: Core, hash: Hash, partial: PartialRecord) -> str:
    """Where the data of a partial blob is."""
    if partial.path is not None:
        return os.fsdecode(partial.path)
    assert partial.data_token is not None
    return os.fspath(core.folder.file_path(DATA, hash, partial.data_token))


def is_trusted(core: Core, hash: Hash, partial: PartialRecord) -> bool:
    """Whether the bitfield can be believed without hashing, see `claims_hold`."""
    fd = open_data_of_partial(core, hash, partial)
    if fd is None:
        return False
    try:
        return claims_hold(core, partial, fd)
    finally:
        core.files.close(fd)


def open_data_of_partial(core: Core, hash: Hash, partial: PartialRecord) -> int | None:
    """A descriptor of the data file that was recorded, if that is still there."""
    try:
        fd = core.files.open(data_path(core, hash, partial), os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        # Gone, or out of our reach: either way nothing can be read from there.
        return None
    if is_same_file(core, partial, fd):
        return fd
    core.files.close(fd)
    return None


def is_same_file(core: Core, partial: PartialRecord, fd: int) -> bool:
    """Whether an open file is the one that a partial blob was written to."""
    found = core.files.fstat(fd)
    known = (partial.device, partial.inode, partial.generation)
    return (found.st_dev, found.st_ino, core.files.generation(fd)) == known


def claims_hold(core: Core, partial: PartialRecord, fd: int) -> bool:
    """Whether the bitfield can be believed: same boot, and the file has not been cut since.

    `fd` is the file that was recorded.
    """
    return partial.boot == core.boot and core.files.fstat(fd).st_size >= claimed_end(partial)


def claimed_end(partial: PartialRecord) -> int:
    """The first byte behind all that the bitfield claims."""
    boundaries = partial.claim.bitfield.boundaries
    if partial.claim.size is None or not boundaries:
        return 0
    return min(partial.claim.size, boundaries[-1] * pybao.CHUNK_SIZE)


# Opening


def open_reader(core: Core, hash: Hash, view: View | None = None) -> BlobReader:
    """Open what is there of a blob.

    Raises:
        BlobNotFoundError: unknown, or nothing of it is there.
        FileChangedError: every referenced file is gone or changed.
    """
    if hash == EMPTY_HASH:
        return BlobReader(hash, 0, ChunkRanges.all(), b"", b"")
    look = view or core.database.read
    for _ in range(_OPEN_ATTEMPTS):
        found = look(lambda txn: _find(txn, hash))
        record = found.record
        if record is None:
            return _open_partials(core, hash, found.partials)
        if found.data is not None:
            return BlobReader(hash, record.size, ChunkRanges.all(), found.data, b"")
        try:
            return _open_complete(core, hash, record, found.outboard)
        except FileNotFoundError:
            # Replaced or deleted by another process: look again.
            continue
    raise StoreDamagedError(f"the store's files of blob {hash} are gone")


def _find(txn: ReadTxn, hash: Hash) -> Found:
    record = catalog.get_blob(txn, hash)
    if record is None:
        partials = catalog.partials_of(txn, hash)
        return Found(None, partials=tuple(partial for _, partial in partials))
    data = outboard = None
    if record.is_inline:
        data = txn.get(Table.DATA, hash)
    elif record.outboard is OutboardPlace.INLINE:
        outboard = txn.get(Table.OUTBOARDS, hash)
    due = (data, record.size) if record.is_inline else (outboard, outboard_size(record.size))
    if record.outboard is not OutboardPlace.FILE and (due[0] is None or len(due[0]) != due[1]):
        raise StoreDamagedError(f"the store's data of blob {hash} is damaged")
    return Found(record, data, outboard)


def _open_complete(
    core: Core, hash: Hash, record: BlobRecord, outboard: bytes | None
) -> BlobReader:
    tree: bytes | int | None = outboard
    if tree is None:
        assert record.outboard_token is not None
        path = core.folder.file_path(OUTBOARD, hash, record.outboard_token)
        tree = core.files.open(path, os.O_RDONLY)
    try:
        data = open_data(core, hash, record)
    except BaseException:
        if isinstance(tree, int):
            core.files.close(tree)
        raise
    return reader_of(core, hash, record.size, ChunkRanges.all(), data, tree)


def reader_of(
    core: Core, hash: Hash, size: int, available: ChunkRanges, data: int, tree: bytes | int
) -> BlobReader:
    """A reader that closes the descriptors given."""

    def close() -> None:
        core.files.close(data)
        if isinstance(tree, int):
            core.files.close(tree)

    return BlobReader(hash, size, available, data, tree, close)


def open_data(core: Core, hash: Hash, record: BlobRecord) -> int:
    """A descriptor of a complete blob's data: its own file, or the first that is unchanged.

    Raises:
        FileNotFoundError: the store's own file is not there, nor any other.
        FileChangedError: every referenced file is gone or changed.
    """
    if record.owned is not None:
        try:
            return core.files.open(core.folder.file_path(DATA, hash, record.owned), os.O_RDONLY)
        except FileNotFoundError:
            if not record.references:
                raise
    for reference in record.references:
        fd = open_unchanged(core, reference)
        if fd is not None:
            return fd
    paths = ", ".join(str(to_path(reference.path)) for reference in record.references)
    raise FileChangedError(f"blob {hash}: gone or changed since it was imported: {paths}")


def open_unchanged(core: Core, reference: Reference) -> int | None:
    """A descriptor of a user's file, if it is the one that was recorded."""
    try:
        fd = core.files.open(os.fsdecode(reference.path), os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        # Gone or no longer ours to read: not the file that was recorded, either way.
        return None
    if Identity.of(core.files.fstat(fd)) == reference.identity:
        return fd
    core.files.close(fd)
    return None


def _open_partials(core: Core, hash: Hash, partials: tuple[PartialRecord, ...]) -> BlobReader:
    best: PartialRecord | None = None
    for partial in partials:
        if not partial.claim.whole_groups() or not is_trusted(core, hash, partial):
            continue
        if best is None or _servable_bytes(partial) > _servable_bytes(best):
            best = partial
    if best is None:
        raise BlobNotFoundError(hash)
    data = open_data_of_partial(core, hash, best)
    if data is None:
        raise BlobNotFoundError(hash)
    try:
        if not claims_hold(core, best, data):
            raise BlobNotFoundError(hash)
        path = core.folder.file_path(OUTBOARD, hash, best.outboard_token)
        tree = core.files.open(path, os.O_RDONLY)
    except FileNotFoundError:
        core.files.close(data)
        raise BlobNotFoundError(hash) from None
    except BaseException:
        core.files.close(data)
        raise
    return reader_of(core, hash, best.claim.size or 0, best.claim.whole_groups(), data, tree)


def _servable_bytes(partial: PartialRecord) -> int:
    return partial.claim.whole_groups().bytes_within(partial.claim.size or 0)


# Reading


def read(core: Core, hash: Hash, start: int = 0, end: int | None = None) -> bytes:
    """The bytes `[start, end)` of a blob, verified.

    Raises:
        ValueError: a negative offset.
        BlobNotFoundError, FileChangedError, VerificationError: see `Store.read`.
    """
    check_span(start, end)
    with open_reader(core, hash) as reader:
        return read_from(core, reader, start, end)


def check_span(start: int, end: int | None) -> None:
    """Refuse offsets that Python would count from the end."""
    if start < 0 or (end is not None and end < 0):
        raise ValueError("byte offsets are not negative")


def read_from(core: Core, reader: BlobReader, start: int, end: int | None) -> bytes:
    """`read`, from an open blob."""
    end = reader.size if end is None else min(end, reader.size)
    if start >= end:
        return b""
    if isinstance(reader.data, bytes):
        if pybao.hash(reader.data) != reader.hash:
            raise VerificationError(reader.hash, detail="the store's copy is damaged")
        return reader.data[start:end]
    wanted = ChunkRanges.of_bytes(start, end).round_up_to_groups().truncate(reader.size)
    if not wanted.issubset(reader.available):
        raise BlobNotFoundError(reader.hash, "it holds only a part")
    try:
        return pybao.read_verified(
            reader.hash, reader.size, reader.data, reader.outboard, start, end
        )
    except pybao.EncodeError as error:
        raise damage(core, reader, error) from error


def damage(core: Core, reader: BlobReader, error: pybao.EncodeError) -> Exception:
    """The error for data that does not match: a changed file of the user, or damage."""
    record = core.database.read(lambda txn: catalog.get_blob(txn, reader.hash))
    if record is not None and isinstance(reader.data, int) and record.references:
        identity = Identity.of(core.files.fstat(reader.data))
        if not any(reference.identity == identity for reference in record.references):
            owned = record.owned is not None and identity.size == record.size
            if not owned:
                return FileChangedError(f"blob {reader.hash}: its file changed while it was read")
    return VerificationError(reader.hash, error.chunk, error.kind.replace("_", " "))


def read_small(core: Core, hashes: list[Hash]) -> list[bytes | None]:
    """The data of blobs that live in the database; None for others."""

    def job(txn: ReadTxn) -> list[bytes | None]:
        return [b"" if hash == EMPTY_HASH else txn.get(Table.DATA, hash) for hash in hashes]

    return core.database.read(job)


def find_whole(
    core: Core, hashes: list[Hash], size_max: int, bytes_max: int
) -> list[WholeSource | None]:
    """See `Store.find_whole`."""

    def look(txn: ReadTxn) -> list[Found | WholeSource]:
        # No further than is read: callers come again with the rest.
        found: list[Found | WholeSource] = []
        total = 0
        for hash in hashes:
            # Of most blobs the data is here, and then it says all that the record does.
            data = b"" if hash == EMPTY_HASH else txn.get(Table.DATA, hash)
            if data is not None and len(data) <= size_max:
                found.append(WholeSource(data, len(data), b""))
                total += len(data)
            else:
                found.append(each := _find(txn, hash))
                size = 0 if each.record is None else each.record.size
                total += size if size <= size_max else 0
            if total >= bytes_max:
                break
        return found

    found = core.database.read(look)
    core.database.bound_memory()
    return [
        each if isinstance(each, WholeSource) else _source_of(core, hash, each, size_max)
        for hash, each in zip(hashes, found, strict=False)
    ]


def _source_of(core: Core, hash: Hash, found: Found, size_max: int) -> WholeSource | None:
    record = found.record
    if record is None or record.size > size_max:
        return None
    if found.data is not None:
        return WholeSource(found.data, record.size, b"")
    if found.outboard is None:
        return None
    if record.owned is not None:
        path = os.fspath(core.folder.file_path(DATA, hash, record.owned))
        return WholeSource(path, record.size, found.outboard)
    for reference in record.references:
        path = os.fsdecode(reference.path)
        # Whoever opens one that is gone or changed is told what happened to it.
        with contextlib.suppress(OSError):
            if Identity.of(core.files.stat(path)) == reference.identity:
                return WholeSource(path, record.size, found.outboard)
    return None


class Page(NamedTuple):
    """Some blobs in the order of their hashes."""

    stats: list[BlobStat]
    next_start: bytes | None
    """Where to go on; None at the end."""


def list_page(core: Core, start: bytes, count: int) -> Page:
    """The first blobs from the hash `start` on."""
    hashes = core.database.read(lambda txn: catalog.hashes_from(txn, start, count))
    # Another process may remove some between the two looks.
    stats = [stat for stat in stat_many(core, hashes) if stat is not None]
    return Page(stats, hashes[-1] + b"\0" if len(hashes) == count else None)

"""The database's tables, key layouts and record formats, and the steps between versions.

Decoders are strict: any bytes give a record that encodes to the same bytes, or
`StoreDamagedError`. All numbers are little endian but the keys', which sort as their numbers do.
The layouts are drawn in docs/format/store.md.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pybao
from blobstore.api import INLINE_SIZE_MAX
from blobstore.claims import Claim
from blobstore.codec.hash import HASH_SIZE, BlobFormat, Hash, HashAndFormat
from blobstore.codec.ranges import ChunkRanges
from blobstore.codec.tree import BLOB_SIZE_MAX, chunk_count, outboard_size
from blobstore.errors import StoreDamagedError, StoreFormatError
from blobstore.files import IDENTITY_SIZE, Identity

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from blobstore.database import ReadTxn, WriteTxn

FORMAT_VERSION = 2
"""Version of the tables and records below."""

REFERENCES_MAX = 8
"""User files that we remember for one blob."""

FOLDER_FILES_MAX = 1024
"""Files in one row of FOLDERS: a row of the database is written as a whole."""

TOKEN_SIZE = 8
"""Random bytes in the name of an owned file: unique for each add."""

SESSION_SIZE = 16
LEASE_SIZE = SESSION_SIZE + 4
"""A lease is a session (16 random bytes) and a number in it, big endian."""

BOOT_SIZE = 16
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_RUN_NUMBER = struct.Struct(">Q")
_FOLDER_HEAD = struct.Struct("<QII")


class Table(enum.Enum):
    """The tables, by their names in the database."""

    META = b"meta"
    BLOBS = b"blobs"
    DATA = b"data"
    OUTBOARDS = b"outboards"
    PARTIALS = b"partials"
    PATHS = b"paths"
    """Of version 1, empty since: what FOLDERS holds."""
    TAGS = b"tags"
    LEASES = b"leases"
    RUNS = b"runs"
    FOLDERS = b"folders"


LATER_TABLES = frozenset((Table.RUNS, Table.FOLDERS))
"""Tables that version 1 did not have."""

VERSION_KEY = b"version"
PROTECTIONS_KEY = b"protections"
"""How many times something was protected so far: GC sees by it what is new."""


REMOVALS_KEY = b"removals"
"""How many complete blobs were removed so far: who saw a blob before sees by it if it is still
there."""


class OutboardPlace(enum.IntEnum):
    """Where the outboard of a complete blob is."""

    NONE = 0
    """Blobs of one chunk group have none."""
    INLINE = 1
    FILE = 2


@dataclass(frozen=True, slots=True)
class Reference:
    """A user's file that holds a blob."""

    path: bytes
    identity: Identity


@dataclass(frozen=True, slots=True)
class BlobRecord:
    """A complete blob: its data is inline, or owned, or referenced, or the latter two."""

    size: int
    owned: bytes | None = None
    """Token of the store's own data file."""
    references: tuple[Reference, ...] = ()
    """The newest first."""
    outboard: OutboardPlace = OutboardPlace.NONE
    outboard_token: bytes | None = None

    @property
    def is_inline(self) -> bool:
        return self.size <= INLINE_SIZE_MAX


@dataclass(frozen=True, slots=True)
class PartialRecord:
    """A blob being filled, in one place."""

    path: bytes | None
    """The user's file; None for one of the store's own, named by `data_token`."""
    data_token: bytes | None
    outboard_token: bytes
    device: int
    inode: int
    generation: int
    """Of the data file: another file at the same path holds nothing of ours."""
    boot: bytes
    """Under which boot the bitfield was last known to be true."""
    claim: Claim = Claim()  # noqa: RUF009 - immutable


class _Fields:
    """Takes a record apart; whatever does not fit is damage."""

    def __init__(self, data: bytes, what: str) -> None:
        self._data = data
        self._offset = 0
        self._what = what

    def fail(self) -> StoreDamagedError:
        return StoreDamagedError(f"a record of {self._what} in the store is damaged")

    def take(self, size: int) -> bytes:
        piece = self._data[self._offset : self._offset + size]
        if len(piece) != size:
            raise self.fail()
        self._offset += size
        return piece

    def byte(self) -> int:
        return self.take(1)[0]

    def u32(self) -> int:
        return _U32.unpack(self.take(4))[0]

    def u64(self) -> int:
        return _U64.unpack(self.take(8))[0]

    def size(self) -> int:
        value = self.u64()
        self.check(value <= BLOB_SIZE_MAX)
        return value

    def path(self) -> bytes:
        path = self.take(self.u32())
        self.check(path.startswith(b"/") and b"\0" not in path)
        return path

    def check(self, fits: bool) -> None:
        if not fits:
            raise self.fail()

    def end(self) -> None:
        self.check(self._offset == len(self._data))


_HAS_OWNED = 1
_HAS_PATH = 1
_HAS_SIZE = 2
_SIZE_PROVEN = 4


def encode_reference(path: bytes, identity: bytes) -> bytes:
    """A reference as it stands in the record of its blob."""
    return _U32.pack(len(path)) + path + identity


def encode_inline(size: int) -> bytes:
    """`encode_blob` of a blob whose data is in the database."""
    return b"\0\0\0" + _U64.pack(size)


def encode_blob(record: BlobRecord) -> bytes:
    """flags, outboard place, number of references (1 byte each), size, tokens, references."""
    parts = [
        bytes((_HAS_OWNED if record.owned else 0, int(record.outboard), len(record.references))),
        _U64.pack(record.size),
        record.owned or b"",
        record.outboard_token or b"",
    ]
    for reference in record.references:
        parts.append(encode_reference(reference.path, reference.identity.encode()))
    return b"".join(parts)


def decode_blob(data: bytes) -> BlobRecord:
    """The inverse of `encode_blob`.

    Raises:
        StoreDamagedError: not such a record, or one that contradicts itself.
    """
    fields = _Fields(data, "a blob")
    flags, place, count = fields.byte(), fields.byte(), fields.byte()
    size = fields.size()
    fields.check(flags <= _HAS_OWNED and place <= OutboardPlace.FILE and count <= REFERENCES_MAX)
    owned = fields.take(TOKEN_SIZE) if flags else None
    outboard = OutboardPlace(place)
    token = fields.take(TOKEN_SIZE) if outboard is OutboardPlace.FILE else None
    references: list[Reference] = []
    for _ in range(count):
        path = fields.path()
        identity = Identity.decode(fields.take(IDENTITY_SIZE))
        fields.check(identity.size == size)
        references.append(Reference(path, identity))
    fields.end()
    if size <= INLINE_SIZE_MAX:
        fields.check(not flags and not count and outboard is OutboardPlace.NONE)
    else:
        fields.check(bool(flags or count) and outboard is not OutboardPlace.NONE)
        if outboard is OutboardPlace.INLINE:
            fields.check(outboard_size(size) <= INLINE_SIZE_MAX)
    return BlobRecord(size, owned, tuple(references), outboard, token)


def encode_partial(record: PartialRecord) -> bytes:
    """flags, place of the data, outboard token, device, inode, generation, boot, size, bitfield."""
    flags = 0
    if record.path is not None:
        place = _U32.pack(len(record.path)) + record.path
        flags |= _HAS_PATH
    else:
        place = record.data_token or b""
    claim = record.claim
    if claim.size is not None:
        flags |= _HAS_SIZE | (_SIZE_PROVEN if claim.size_proven else 0)
    boundaries = claim.bitfield.boundaries
    return b"".join(
        (
            bytes((flags,)),
            place,
            record.outboard_token,
            struct.pack("<QQI", record.device, record.inode, record.generation),
            record.boot,
            _U64.pack(claim.size or 0),
            _U32.pack(len(boundaries)),
            struct.pack(f"<{len(boundaries)}Q", *boundaries),
        )
    )


def decode_partial(data: bytes) -> PartialRecord:
    """The inverse of `encode_partial`.

    Raises:
        StoreDamagedError: not such a record, or one that contradicts itself.
    """
    fields = _Fields(data, "a partial blob")
    flags = fields.byte()
    fields.check(flags <= _HAS_PATH | _HAS_SIZE | _SIZE_PROVEN)
    path = fields.path() if flags & _HAS_PATH else None
    data_token = None if flags & _HAS_PATH else fields.take(TOKEN_SIZE)
    outboard_token = fields.take(TOKEN_SIZE)
    device, inode, generation = fields.u64(), fields.u64(), fields.u32()
    boot = fields.take(BOOT_SIZE)
    size, count = fields.size(), fields.u32()
    boundaries = struct.unpack(f"<{count}Q", fields.take(8 * count))
    fields.end()
    fields.check(bool(flags & _HAS_SIZE) or (size == 0 and not count and not flags & _SIZE_PROVEN))
    fields.check(count % 2 == 0 and (not count or boundaries[-1] <= chunk_count(size)))
    try:
        bitfield = ChunkRanges(boundaries)
    except ValueError:
        raise fields.fail() from None
    return PartialRecord(
        path,
        data_token,
        outboard_token,
        device,
        inode,
        generation,
        boot,
        Claim(size if flags & _HAS_SIZE else None, bool(flags & _SIZE_PROVEN), bitfield),
    )


def encode_path(hash: Hash, identity: Identity) -> bytes:
    """Value of PATHS, of version 1: what a file held when it had this identity."""
    return hash + identity.encode()


def decode_path(data: bytes) -> tuple[Hash, Identity]:
    """The inverse of `encode_path`.

    Raises:
        StoreDamagedError: not such a value.
    """
    fields = _Fields(data, "a path")
    hash = Hash(fields.take(HASH_SIZE))
    identity = Identity.decode(fields.take(IDENTITY_SIZE))
    fields.end()
    return hash, identity


@dataclass(frozen=True, slots=True)
class FolderRow:
    """What files of one folder held when they had these identities; a part of it, if it is large.

    Files whose times were too young then are not in it.
    """

    removals: int
    """REMOVALS of a moment at which all their blobs were there."""
    parts: int
    """Rows that the folder has."""
    names: bytes
    """Sorted by their bytes, joined by NUL."""
    identities: bytes
    hashes: bytes


def folder_key(digest: bytes, part: int) -> bytes:
    """Key of FOLDERS: the BLAKE3 of the folder's path, then the number of the row."""
    return digest + part.to_bytes(4, "big")


def encode_folder(row: FolderRow) -> bytes:
    """removals, parts, number of files, identities, hashes, names."""
    count = len(row.hashes) // HASH_SIZE
    head = _FOLDER_HEAD.pack(row.removals, row.parts, count)
    return b"".join((head, row.identities, row.hashes, row.names))


def decode_folder(data: bytes) -> FolderRow | None:
    """The inverse of `encode_folder`; None for anything else, since it is only a cache."""
    if len(data) < _FOLDER_HEAD.size:
        return None
    removals, parts, count = _FOLDER_HEAD.unpack_from(data)
    hashes_at = _FOLDER_HEAD.size + count * IDENTITY_SIZE
    names_at = hashes_at + count * HASH_SIZE
    names = data[names_at:]
    # A name is never empty, and no row is without names.
    if not count or not parts or names.count(b"\0") != count - 1 or not names:
        return None
    return FolderRow(
        removals, parts, names, data[_FOLDER_HEAD.size : hashes_at], data[hashes_at:names_at]
    )


def encode_tag(target: HashAndFormat, generation: int) -> bytes:
    """Value of TAGS: when it was set (see PROTECTIONS_KEY), format, hash."""
    return _U64.pack(generation) + bytes((target.format,)) + target.hash


def decode_tag(data: bytes) -> tuple[HashAndFormat, int]:
    """The inverse of `encode_tag`.

    Raises:
        StoreDamagedError: not such a value.
    """
    fields = _Fields(data, "a tag")
    generation, format_, hash = fields.u64(), fields.byte(), Hash(fields.take(HASH_SIZE))
    fields.end()
    fields.check(format_ <= BlobFormat.HASH_SEQ)
    return HashAndFormat(hash, BlobFormat(format_)), generation


def lease_key(lease: bytes, target: HashAndFormat) -> bytes:
    """Key of LEASES: the lease, then what it keeps. The value is a number, see `encode_number`."""
    return lease + target.hash + bytes((target.format,))


def decode_lease_key(key: bytes) -> tuple[bytes, HashAndFormat]:
    """The inverse of `lease_key`.

    Raises:
        StoreDamagedError: not such a key.
    """
    fields = _Fields(key, "a lease")
    lease = fields.take(LEASE_SIZE)
    hash, format_ = Hash(fields.take(HASH_SIZE)), fields.byte()
    fields.end()
    fields.check(format_ <= BlobFormat.HASH_SEQ)
    return lease, HashAndFormat(hash, BlobFormat(format_))


def run_key(lease: bytes, generation: int) -> bytes:
    """Key of RUNS: the lease, then when it was protected, big endian. The value is hashes."""
    return lease + _RUN_NUMBER.pack(generation)


def decode_run_key(key: bytes) -> tuple[bytes, int]:
    """The inverse of `run_key`.

    Raises:
        StoreDamagedError: not such a key.
    """
    fields = _Fields(key, "a run")
    lease, number = fields.take(LEASE_SIZE), fields.take(_RUN_NUMBER.size)
    fields.end()
    return lease, _RUN_NUMBER.unpack(number)[0]


def split_hashes(data: bytes) -> list[bytes]:
    """Hashes that stand back to back, as in RUNS.

    Raises:
        StoreDamagedError: the last one is cut off.
    """
    if len(data) % HASH_SIZE:
        raise StoreDamagedError("a record of a run in the store is damaged")
    return [data[at : at + HASH_SIZE] for at in range(0, len(data), HASH_SIZE)]


def encode_number(value: int) -> bytes:
    """A u64, as in META and LEASES."""
    return _U64.pack(value)


def decode_number(data: bytes) -> int:
    """The inverse of `encode_number`.

    Raises:
        StoreDamagedError: not 8 bytes.
    """
    fields = _Fields(data, "a number")
    value = fields.u64()
    fields.end()
    return value


def _to_version_2(txn: WriteTxn) -> None:
    """What is known of files moves from a row for each path to a row for each folder."""
    folders: dict[bytes, list[tuple[bytes, bytes, bytes]]] = {}
    for hash, value in txn.scan(Table.BLOBS):
        for reference in decode_blob(value).references:
            known = txn.get(Table.PATHS, path_key(reference.path))
            if known == encode_path(Hash(hash), reference.identity):
                folder, _, name = reference.path.rpartition(b"/")
                file = (name, reference.identity.encode(), hash)
                folders.setdefault(folder, []).append(file)
    for folder, files in folders.items():
        files.sort()
        names, identities, hashes = zip(*files, strict=True)
        for part, row in enumerate(split_folder(0, names, identities, hashes)):
            txn.put(Table.FOLDERS, folder_key(path_key(folder), part), encode_folder(row))
    for key in list(txn.keys(Table.PATHS)):
        txn.delete(Table.PATHS, key)
    txn.put(Table.META, REMOVALS_KEY, encode_number(0))


def path_key(path: bytes) -> bytes:
    """Key of a path, which may be longer than a key can be."""
    return pybao.hash(path)


def split_folder(
    removals: int,
    names: Sequence[bytes],
    identities: Sequence[bytes],
    hashes: Sequence[bytes],
) -> list[FolderRow]:
    """The rows for the files of a folder, which are sorted by name."""
    starts = range(0, len(names), FOLDER_FILES_MAX)
    return [
        FolderRow(
            removals,
            len(starts),
            b"\0".join(names[start : start + FOLDER_FILES_MAX]),
            b"".join(identities[start : start + FOLDER_FILES_MAX]),
            b"".join(hashes[start : start + FOLDER_FILES_MAX]),
        )
        for start in starts
    ]


UPGRADES: Mapping[int, Callable[[WriteTxn], None]] = {1: _to_version_2}
"""Step from each older version to the next one; all run in one transaction."""


def create(txn: WriteTxn) -> None:
    """Make an empty database one of ours."""
    txn.put(Table.META, VERSION_KEY, encode_number(FORMAT_VERSION))
    txn.put(Table.META, PROTECTIONS_KEY, encode_number(0))
    txn.put(Table.META, REMOVALS_KEY, encode_number(0))


def check_version(
    txn: ReadTxn,
    newest: int = FORMAT_VERSION,
    steps: Mapping[int, Callable[[WriteTxn], None]] = UPGRADES,
) -> int:
    """Refuse versions that we cannot read, before anything is changed; returns the version.

    Raises:
        StoreFormatError: none, or newer than we are, or too old for any step to begin at it.
    """
    value = txn.get(Table.META, VERSION_KEY)
    if value is None:
        raise StoreFormatError("the database is not one of a blob store")
    version = decode_number(value)
    if version > newest:
        raise StoreFormatError(
            f"the store has format {version}, this program reads up to {newest}: use a newer one"
        )
    for step in range(version, newest):
        if step not in steps:
            raise StoreFormatError(f"the store has format {version}, which is no longer read")
    return version


def upgrade(
    txn: WriteTxn,
    newest: int = FORMAT_VERSION,
    steps: Mapping[int, Callable[[WriteTxn], None]] = UPGRADES,
) -> None:
    """Bring the database to the newest version, all steps in this one transaction.

    Raises:
        StoreFormatError: see `check_version`.
    """
    # Looked up in this transaction: another process may have done it meanwhile.
    version = check_version(txn, newest, steps)
    for step in range(version, newest):
        steps[step](txn)
    if version != newest:
        txn.put(Table.META, VERSION_KEY, encode_number(newest))

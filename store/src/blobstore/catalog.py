"""What the database says of blobs, as functions of a transaction; the only writer of its rows.

Functions that take something away return the owned files that nothing names any more, to be
unlinked after the commit: a record never names a file that is not there, while a file without a
record is only garbage.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import pybao
from blobstore.codec.hash import HASH_SIZE, Hash
from blobstore.codec.tree import outboard_size
from blobstore.folder import DATA, OUTBOARD
from blobstore.schema import (
    PROTECTIONS_KEY,
    REFERENCES_MAX,
    BlobRecord,
    OutboardPlace,
    PartialRecord,
    Reference,
    Table,
    decode_blob,
    decode_number,
    decode_partial,
    decode_path,
    encode_blob,
    encode_number,
    encode_partial,
    encode_path,
    lease_key,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from blobstore.codec.hash import HashAndFormat
    from blobstore.database import ReadTxn, WriteTxn
    from blobstore.files import Identity
    from blobstore.folder import Folder


class FileKey(NamedTuple):
    """One owned file."""

    kind: str
    hash: Hash
    token: bytes


@dataclass(frozen=True, slots=True)
class Complete:
    """A complete blob to be recorded: data inline, owned, referenced."""

    hash: Hash
    size: int
    data: bytes | None = None
    """Of blobs that live in the database."""
    owned: bytes | None = None
    reference: Reference | None = None
    reference_is_settled: bool = False
    """The file's times are old enough that any change since would show in them."""
    outboard: bytes | None = None
    """If it is small enough for the database."""
    outboard_token: bytes | None = None


# Complete blobs


def get_blob(txn: ReadTxn, hash: bytes) -> BlobRecord | None:
    """The record of a complete blob."""
    value = txn.get(Table.BLOBS, hash)
    return None if value is None else decode_blob(value)


def put_blob(txn: WriteTxn, hash: bytes, record: BlobRecord) -> None:
    txn.put(Table.BLOBS, hash, encode_blob(record))


def add_complete(txn: WriteTxn, blob: Complete, folder: Folder) -> list[FileKey]:
    """Record a complete blob beside what is known of it; returns files that are not needed."""
    old = get_blob(txn, blob.hash)
    if blob.data is not None:
        if old is None:
            txn.put(Table.DATA, blob.hash, blob.data)
            put_blob(txn, blob.hash, BlobRecord(blob.size))
        return []
    unused: list[FileKey] = []
    owned = blob.owned
    if old is not None and old.owned is not None:
        keep_old = owned is None or folder.has(DATA, blob.hash, old.owned, blob.size)
        dropped = owned if keep_old else old.owned
        if dropped is not None:
            unused.append(FileKey(DATA, blob.hash, dropped))
        owned = old.owned if keep_old else owned
    place, token = _place_outboard(txn, blob, old, folder, unused)
    references = old.references if old is not None else ()
    if blob.reference is not None:
        references = _add_reference(txn, blob, blob.reference, references)
    put_blob(txn, blob.hash, BlobRecord(blob.size, owned, references, place, token))
    return unused


def _place_outboard(
    txn: WriteTxn, blob: Complete, old: BlobRecord | None, folder: Folder, unused: list[FileKey]
) -> tuple[OutboardPlace, bytes | None]:
    if blob.outboard is not None:
        txn.put(Table.OUTBOARDS, blob.hash, blob.outboard)
        return OutboardPlace.INLINE, None
    token = blob.outboard_token
    if old is not None and old.outboard_token is not None:
        size = outboard_size(blob.size)
        keep_old = token is None or folder.has(OUTBOARD, blob.hash, old.outboard_token, size)
        dropped = token if keep_old else old.outboard_token
        if dropped is not None:
            unused.append(FileKey(OUTBOARD, blob.hash, dropped))
        token = old.outboard_token if keep_old else token
    return OutboardPlace.FILE, token


def _add_reference(
    txn: WriteTxn, blob: Complete, new: Reference, old: tuple[Reference, ...]
) -> tuple[Reference, ...]:
    references = (new, *(other for other in old if other.path != new.path))
    for dropped in references[REFERENCES_MAX:]:
        _forget_path(txn, blob.hash, dropped.path)
    if blob.reference_is_settled:
        txn.put(Table.PATHS, path_key(new.path), encode_path(blob.hash, new.identity))
    else:
        txn.delete(Table.PATHS, path_key(new.path))
    return references[:REFERENCES_MAX]


def keep_references(
    txn: WriteTxn, hash: Hash, record: BlobRecord, good: tuple[Reference, ...]
) -> BlobRecord:
    """The record with no other references than `good`."""
    for dropped in record.references:
        if dropped not in good:
            _forget_path(txn, hash, dropped.path)
    return replace(record, references=good)


def path_key(path: bytes) -> bytes:
    """Key of a path, which may be longer than a key can be."""
    return pybao.hash(path)


def find_path(txn: ReadTxn, path: bytes, identity: Identity) -> Hash | None:
    """The blob that this very file was imported as, if that is still recorded."""
    value = txn.get(Table.PATHS, path_key(path))
    if value is None:
        return None
    hash, known = decode_path(value)
    if known != identity:
        return None
    record = get_blob(txn, hash)
    if record is None or Reference(path, identity) not in record.references:
        return None
    return hash


def _forget_path(txn: WriteTxn, hash: Hash, path: bytes) -> None:
    key = path_key(path)
    value = txn.get(Table.PATHS, key)
    if value is not None and decode_path(value)[0] == hash:
        txn.delete(Table.PATHS, key)


def remove_complete(txn: WriteTxn, hash: Hash) -> list[FileKey]:
    """Forget a complete blob; returns its files."""
    record = get_blob(txn, hash)
    if record is None:
        return []
    for reference in record.references:
        _forget_path(txn, hash, reference.path)
    txn.delete(Table.BLOBS, hash)
    txn.delete(Table.DATA, hash)
    txn.delete(Table.OUTBOARDS, hash)
    return list(files_of_blob(hash, record))


def files_of_blob(hash: Hash, record: BlobRecord) -> Iterator[FileKey]:
    """The owned files that a complete blob names."""
    if record.owned is not None:
        yield FileKey(DATA, hash, record.owned)
    if record.outboard_token is not None:
        yield FileKey(OUTBOARD, hash, record.outboard_token)


# Partial blobs


def partial_key(hash: bytes, path: bytes | None) -> bytes:
    """Key of a partial blob: the hash, then 32 bytes that stand for the place of its data."""
    return hash + (bytes(HASH_SIZE) if path is None else path_key(path))


def get_partial(txn: ReadTxn, key: bytes) -> PartialRecord | None:
    value = txn.get(Table.PARTIALS, key)
    return None if value is None else decode_partial(value)


def put_partial(txn: WriteTxn, key: bytes, record: PartialRecord) -> None:
    txn.put(Table.PARTIALS, key, encode_partial(record))


def partials_of(txn: ReadTxn, hash: bytes) -> list[tuple[bytes, PartialRecord]]:
    """Key and record of each partial of a blob."""
    rows = txn.scan(Table.PARTIALS, prefix=hash)
    return [(key, decode_partial(value)) for key, value in rows]


def files_of_partial(hash: Hash, record: PartialRecord) -> list[FileKey]:
    """The owned files that a partial blob names."""
    files = [FileKey(OUTBOARD, hash, record.outboard_token)]
    if record.data_token is not None:
        files.append(FileKey(DATA, hash, record.data_token))
    return files


def remove_partials(txn: WriteTxn, hash: Hash) -> list[FileKey]:
    """Forget all partials of a blob; returns their files."""
    files: list[FileKey] = []
    for key, record in partials_of(txn, hash):
        txn.delete(Table.PARTIALS, key)
        files += files_of_partial(hash, record)
    return files


# Both


def is_known(txn: ReadTxn, hash: Hash) -> bool:
    """Whether there is any record of a blob."""
    return get_blob(txn, hash) is not None or bool(partials_of(txn, hash))


def is_named(txn: ReadTxn, file: FileKey) -> bool:
    """Whether a record names this owned file."""
    record = get_blob(txn, file.hash)
    if record is not None and file in files_of_blob(file.hash, record):
        return True
    return any(
        file in files_of_partial(file.hash, partial) for _, partial in partials_of(txn, file.hash)
    )


def hashes_from(txn: ReadTxn, start: bytes, count: int) -> list[Hash]:
    """The first hashes from `start` on, complete and partial, each once, in order."""
    found: set[Hash] = set()
    for table in (Table.BLOBS, Table.PARTIALS):
        taken: set[Hash] = set()
        for key in txn.keys(table, start):
            taken.add(Hash(key[:HASH_SIZE]))
            if len(taken) >= count:
                break
        found |= taken
    return sorted(found)[:count]


# What keeps blobs alive


def protections(txn: ReadTxn) -> int:
    """How many times something was protected so far."""
    value = txn.get(Table.META, PROTECTIONS_KEY)
    return 0 if value is None else decode_number(value)


def next_protection(txn: WriteTxn) -> int:
    """Count one more: what is protected in this transaction is newer than all before."""
    generation = protections(txn) + 1
    txn.put(Table.META, PROTECTIONS_KEY, encode_number(generation))
    return generation


def protect(txn: WriteTxn, lease: bytes, targets: Iterable[HashAndFormat]) -> None:
    """Add targets to a lease."""
    generation = encode_number(next_protection(txn))
    for target in targets:
        txn.put(Table.LEASES, lease_key(lease, target), generation)


def release(txn: WriteTxn, prefix: bytes) -> None:
    """Drop a lease, or all leases of a session."""
    for key in [key for key, _ in txn.scan(Table.LEASES, prefix=prefix)]:
        txn.delete(Table.LEASES, key)

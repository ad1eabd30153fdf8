"""What the database says of blobs, as functions of a transaction; the only writer of its rows.

Functions that take something away return the owned files that nothing names any more, to be
unlinked after the commit: a record never names a file that is not there, while a file without a
record is only garbage.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from blobstore.codec.hash import HASH_SIZE, Hash
from blobstore.codec.tree import outboard_size
from blobstore.folder import DATA, OUTBOARD
from blobstore.schema import (
    PROTECTIONS_KEY,
    REFERENCES_MAX,
    REMOVALS_KEY,
    BlobRecord,
    OutboardPlace,
    PartialRecord,
    Reference,
    Table,
    decode_blob,
    decode_number,
    decode_partial,
    encode_blob,
    encode_inline,
    encode_number,
    encode_partial,
    lease_key,
    path_key,
    run_key,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from blobstore.codec.hash import HashAndFormat
    from blobstore.database import ReadTxn, WriteTxn
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
    outboard: bytes | None = None
    """If it is small enough for the database."""
    outboard_token: bytes | None = None

    @property
    def is_referenced(self) -> bool:
        """A file of the user, and nothing of it in files of the store."""
        is_owned = self.owned is not None or self.outboard_token is not None
        return self.reference is not None and self.outboard is not None and not is_owned


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
        add_inline(txn, [(blob.hash, blob.data)])
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
        references = _add_reference(blob.reference, references)
    put_blob(txn, blob.hash, BlobRecord(blob.size, owned, references, place, token))
    return unused


def add_inline(txn: WriteTxn, blobs: Sequence[tuple[bytes, bytes]]) -> None:
    """Record blobs of up to 16 KiB: hash and data, best in the order of their hashes."""
    # There is one record that such a blob can have: what is there already is the same.
    txn.put_new(Table.BLOBS, [(hash, encode_inline(len(data))) for hash, data in blobs])
    txn.put_new(Table.DATA, blobs)


def add_references(txn: WriteTxn, blobs: Sequence[Complete], folder: Folder) -> None:
    """Record blobs of files of the user, with outboards for the database, best in order.

    Nothing becomes useless by it.
    """
    new: dict[bytes, Complete] = {}
    for blob in blobs:
        if blob.hash in new or txn.get(Table.BLOBS, blob.hash) is not None:
            add_complete(txn, blob, folder)
        elif blob.reference is not None and blob.outboard is not None:
            new[blob.hash] = blob
            record = BlobRecord(
                blob.size, references=(blob.reference,), outboard=OutboardPlace.INLINE
            )
            put_blob(txn, blob.hash, record)
    txn.put_new(Table.OUTBOARDS, [(hash, blob.outboard or b"") for hash, blob in new.items()])


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


def _add_reference(new: Reference, old: tuple[Reference, ...]) -> tuple[Reference, ...]:
    references = (new, *(other for other in old if other.path != new.path))
    return references[:REFERENCES_MAX]


def keep_references(
    txn: WriteTxn, hash: Hash, record: BlobRecord, good: tuple[Reference, ...]
) -> BlobRecord:
    """The record of `hash` with no other references than `good`; the others are hashed anew."""
    for dropped in record.references:
        if dropped not in good:
            folder, _, _ = dropped.path.rpartition(b"/")
            forget_folder(txn, path_key(folder))
    return replace(record, references=good)


def forget_folder(txn: WriteTxn, digest: bytes) -> None:
    """Forget what files of a folder held; `digest` is the key of its path."""
    for key in txn.keys_with(Table.FOLDERS, digest):
        txn.delete(Table.FOLDERS, key)


def remove_complete(txn: WriteTxn, hash: Hash) -> list[FileKey]:
    """Forget a complete blob; returns its files."""
    record = get_blob(txn, hash)
    if record is None:
        return []
    txn.put(Table.META, REMOVALS_KEY, encode_number(removals(txn) + 1))
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


def removals(txn: ReadTxn) -> int:
    """How many complete blobs were removed so far."""
    value = txn.get(Table.META, REMOVALS_KEY)
    return 0 if value is None else decode_number(value)


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


def protect_run(txn: WriteTxn, lease: bytes, hashes: bytes) -> bytes:
    """Add blobs to a lease, their hashes back to back, as one row; returns its key."""
    key = run_key(lease, next_protection(txn))
    txn.put(Table.RUNS, key, hashes)
    return key


def release(txn: WriteTxn, prefix: bytes) -> None:
    """Drop a lease, or all leases of a session."""
    for table in (Table.LEASES, Table.RUNS):
        for key in txn.keys_with(table, prefix):
            txn.delete(table, key)

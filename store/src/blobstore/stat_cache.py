"""What files held when they were last hashed, by folder: an unchanged file is not opened.

A row is a hint and not a record: whatever is odd about it, the file is hashed again. A file counts
as known if its identity is the one it had, and if its blob is still to be had: the blob of a small
file is in the database, that of a larger one refers to this very file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pybao
from blobstore.api import INLINE_SIZE_MAX
from blobstore.codec.hash import EMPTY_HASH, HASH_SIZE
from blobstore.files import IDENTITY_SIZE, Identity
from blobstore.schema import (
    FOLDER_FILES_MAX,
    REFERENCES_MAX,
    FolderRow,
    Table,
    decode_blob,
    decode_folder,
    encode_folder,
    encode_reference,
    folder_key,
    split_folder,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from blobstore.database import ReadTxn, WriteTxn
    from blobstore.walking import FoundFolder


_UNKNOWN = bytes(HASH_SIZE)


class Known(NamedTuple):
    """What the cache knows of the files of a folder that was found."""

    hashes: bytes
    """Of all files; zeros for those in `missing`."""
    missing: Sequence[int]
    """Files to be hashed."""
    is_current: bool
    """The row would be the same if it were written now."""


def find_keys(folders: Sequence[FoundFolder]) -> None:
    """Give folders the keys of their rows."""
    keys = pybao.hash_many([folder.path for folder in folders])
    for folder, key in zip(folders, keys, strict=True):
        folder.key = key


def get_folder(txn: ReadTxn, digest: bytes) -> FolderRow | None:
    """The row of a folder, its parts joined; None if there is none or it makes no sense."""
    parts: list[FolderRow] = []
    count = 1
    while len(parts) < count:
        value = txn.get(Table.FOLDERS, folder_key(digest, len(parts)))
        part = None if value is None else decode_folder(value)
        if part is None or (parts and (part.parts, part.removals) != (count, parts[0].removals)):
            return None
        parts.append(part)
        count = part.parts
    if count == 1:
        return parts[0]
    return FolderRow(
        parts[0].removals,
        count,
        b"\0".join(part.names for part in parts),
        b"".join(part.identities for part in parts),
        b"".join(part.hashes for part in parts),
    )


def look_up(
    txn: ReadTxn,
    found: FoundFolder,
    removals: int,
    *,
    small_only: bool,
    is_there: Callable[[bytes, Identity], bool],
) -> Known:
    """What is known of the files of a folder.

    `removals` is that counter in this transaction. With `small_only` larger files are not looked
    up. `is_there` says whether the file at a path still has an identity.
    """
    row = get_folder(txn, found.key)
    if row is None:
        return Known(_UNKNOWN * found.count, range(found.count), is_current=False)
    sizes = found.sizes()
    is_same = row.names == found.names and row.identities == bytes(found.identities)
    hashes = row.hashes if is_same else _match(row, found)
    missing: list[int] = []
    names: list[bytes] | None = None
    if is_same and row.removals == removals:
        # Their blobs were there and none was removed since.
        unsure = [index for index, size in enumerate(sizes) if size > INLINE_SIZE_MAX]
    else:
        unsure = list(range(len(sizes)))
    for index in unsure:
        hash = hashes[index * HASH_SIZE : (index + 1) * HASH_SIZE]
        if hash == _UNKNOWN:
            missing.append(index)
        elif sizes[index] > INLINE_SIZE_MAX:
            names = names or found.split_names()
            path = found.path + b"/" + names[index]
            if small_only or not _is_referenced(txn, hash, path, found.identity(index), is_there):
                missing.append(index)
        elif hash != EMPTY_HASH and txn.get(Table.BLOBS, hash) is None:
            missing.append(index)
    is_current = not found.is_whole or (is_same and row.removals == removals)
    return Known(hashes, missing, is_current=is_current)


def _match(row: FolderRow, found: FoundFolder) -> bytes:
    """Hashes of the files that are as they were; zeros for the others."""
    places = {name: index for index, name in enumerate(row.names.split(b"\0"))}
    hashes = bytearray(found.count * HASH_SIZE)
    for index, name in enumerate(found.split_names()):
        place = places.get(name)
        if place is None:
            continue
        at = place * IDENTITY_SIZE
        if row.identities[at : at + IDENTITY_SIZE] == found.identity(index):
            at = place * HASH_SIZE
            hashes[index * HASH_SIZE : (index + 1) * HASH_SIZE] = row.hashes[at : at + HASH_SIZE]
    return bytes(hashes)


def _is_referenced(
    txn: ReadTxn,
    hash: bytes,
    path: bytes,
    identity: bytes,
    is_there: Callable[[bytes, Identity], bool],
) -> bool:
    """Whether a blob of more than 16 KiB can be read from this file, or from others like it."""
    value = txn.get(Table.BLOBS, hash)
    if value is None:
        return False
    if encode_reference(path, identity) in value:
        return True
    references = decode_blob(value).references
    # Only so many are remembered; of a file beyond them one of the others must still be there.
    return len(references) == REFERENCES_MAX and any(
        is_there(reference.path, reference.identity) for reference in references
    )


class Rows(NamedTuple):
    """What is to be remembered of a folder."""

    digest: bytes
    """Key of its path."""
    rows: list[FolderRow]
    is_whole: bool
    """Nothing else of the folder is worth remembering."""


def rows_of(found: FoundFolder, removals: int, *, is_whole: bool) -> Rows:
    """What is to be remembered of the files that were found in a folder.

    That is all whose hash is known, and whose times are old enough. `removals` is that counter at
    a moment when all their blobs were there, or before.
    """
    digest = found.key
    hashes = bytes(found.hashes)
    if found.count <= FOLDER_FILES_MAX and not found.unsettled and is_whole:
        row = FolderRow(removals, 1, found.names, bytes(found.identities), hashes)
        return Rows(digest, [row], is_whole)
    files = [
        (name, found.identity(index), found.hash(index))
        for index, name in enumerate(found.split_names())
        if index not in found.unsettled
    ]
    files = [file for file in files if file[2] != _UNKNOWN]
    return Rows(digest, _split(removals, files), is_whole)


def _split(removals: int, files: list[tuple[bytes, bytes, bytes]]) -> list[FolderRow]:
    names, identities, hashes = zip(*files, strict=True) if files else ((), (), ())
    return split_folder(removals, names, identities, hashes)


def remember(txn: WriteTxn, folders: Iterable[Rows]) -> None:
    """Put the rows of folders, joined with what is there of those that are not whole."""
    for digest, rows, is_whole in folders:
        there = None if is_whole else get_folder(txn, digest)
        merged = rows
        if there is not None:
            files = _files_of(there)
            for row in rows:
                files |= _files_of(row)
            removals = min([there.removals, *(row.removals for row in rows)])
            merged = _split(removals, [(name, *files[name]) for name in sorted(files)])
        for part, row in enumerate(merged):
            txn.put(Table.FOLDERS, folder_key(digest, part), encode_folder(row))
        part = len(merged)
        while txn.delete(Table.FOLDERS, folder_key(digest, part)):
            part += 1


def _files_of(row: FolderRow) -> dict[bytes, tuple[bytes, bytes]]:
    return {
        name: (
            row.identities[index * IDENTITY_SIZE : (index + 1) * IDENTITY_SIZE],
            row.hashes[index * HASH_SIZE : (index + 1) * HASH_SIZE],
        )
        for index, name in enumerate(row.names.split(b"\0"))
    }

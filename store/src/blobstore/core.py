"""What every operation of the store works with, and the steps that several of them share.

The operations (`adding`, `importing`, `reading`, ...) are plain blocking functions of a `Core`,
run in worker threads; `LmdbStore` is their asyncio face.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING

from blobstore import catalog
from blobstore.codec.hash import BlobFormat, Hash, HashAndFormat
from blobstore.folder import Folder, owned_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from concurrent.futures import Future

    from blobstore.catalog import Complete, FileKey
    from blobstore.database import Database, WriteTxn
    from blobstore.files import Files
    from blobstore.session import Session


@dataclass(frozen=True, slots=True)
class Core:
    """An open store."""

    folder: Folder
    database: Database
    session: Session
    boot: bytes
    """Which boot this is, see `files.boot_id`."""

    @property
    def files(self) -> Files:
        return self.folder.files

    def record(self, lease: bytes, blobs: Sequence[Complete]) -> list[FileKey]:
        """Record complete blobs and their protection in one transaction, and wait for it.

        Their files are on disk already and locked by the caller.
        """
        return self.submit(lease, blobs).result()

    def submit(self, lease: bytes, blobs: Sequence[Complete]) -> Future[list[FileKey]]:
        """As `record`, without waiting. The result is the files that were not needed."""
        # LMDB writes sorted keys in half the time.
        ordered = sorted(blobs, key=lambda blob: blob.hash)

        def job(txn: WriteTxn) -> list[FileKey]:
            unused: list[FileKey] = []
            for blob in ordered:
                unused += catalog.add_complete(txn, blob, self.folder)
            catalog.protect(txn, lease, (raw(blob.hash) for blob in ordered))
            return unused

        return self.database.submit(job)

    def record_many(
        self, lease: bytes, inline: list[tuple[bytes, bytes]], blobs: list[Complete]
    ) -> list[FileKey]:
        """As `record`, for many: hash and data of those of up to 16 KiB, and the others."""
        inline.sort(key=itemgetter(0))
        blobs.sort(key=lambda blob: blob.hash)
        referenced = [blob for blob in blobs if blob.is_referenced]
        hashes = b"".join([hash for hash, _ in inline]) + b"".join([blob.hash for blob in blobs])

        def job(txn: WriteTxn) -> list[FileKey]:
            unused: list[FileKey] = []
            catalog.add_inline(txn, inline)
            catalog.add_references(txn, referenced, self.folder)
            for blob in blobs:
                if not blob.is_referenced:
                    unused += catalog.add_complete(txn, blob, self.folder)
            catalog.protect_run(txn, lease, hashes)
            return unused

        return self.database.write(job)

    def unlink(self, files: Iterable[FileKey]) -> int:
        """Remove files that no record names any more; returns how many there were."""
        removed = 0
        for kind, hash, token in files:
            path = self.folder.path / kind / owned_name(hash, token)
            removed += self.folder.unlink_if_there(path)
        return removed


def raw(hash: Hash) -> HashAndFormat:
    """A blob for itself."""
    return HashAndFormat(hash, BlobFormat.RAW)


def to_path(path: bytes) -> Path:
    """A path as records hold it."""
    return Path(os.fsdecode(path))

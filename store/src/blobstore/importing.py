"""Files of the user become blobs: hashed in place or copied, never while they change.

A file is compared by its identity before and after it was hashed; if that differs, it is tried
again and then refused. A file over 16 KiB that was imported before and has the identity it had
then is not opened for hashing, unless it was modified so shortly before that a change since
might not show in its times.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

import pybao
from blobstore import catalog
from blobstore.adding import Drafts, add_many, add_own_file, batches, hash_file, small_blobs
from blobstore.api import (
    INLINE_SIZE_MAX,
    ImportedCollection,
    ImportedFile,
    ImportMode,
    ImportProgress,
)
from blobstore.catalog import Complete
from blobstore.codec.collection import Collection
from blobstore.codec.hash import BlobFormat, Hash, HashAndFormat
from blobstore.core import raw
from blobstore.database import FULL_CODES
from blobstore.errors import ImportFileError
from blobstore.files import Identity
from blobstore.folder import DATA
from blobstore.schema import Reference
from blobstore.walking import FoundFile, resolve, unreadable, walk

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future

    from blobstore.catalog import FileKey
    from blobstore.core import Core
    from blobstore.database import ReadTxn, WriteTxn

ATTEMPTS = 3
"""How often a file that changes while it is hashed is tried."""

SETTLED_NS = 2_000_000_000
"""A file modified less than this before its import may change again without a trace: the times
of some file systems count in steps of two seconds."""

BATCH_LARGE = 256
"""Larger files recorded in one transaction."""

BATCHES_AHEAD = 4
"""Batches that wait for the database at once."""


class _Changed(Exception):  # noqa: N818 - a signal within this module
    """The file is not what it was when its import began."""


class Importer:
    """One import: where it goes and how far it is.

    `cancel` may be called from another thread; the import ends with `pybao.Cancelled`.
    """

    def __init__(
        self, core: Core, lease: bytes, mode: ImportMode, progress: ImportProgress | None
    ) -> None:
        self._core = core
        self._lease = lease
        self._mode = mode
        self._progress = progress or ImportProgress()
        self._hashing: pybao.Progress | None = None
        self._bytes_before = self._progress.bytes_done
        self._cancelled = False
        self._commits: deque[Future[list[FileKey]]] = deque()

    def cancel(self) -> None:
        """End the import soon."""
        self._cancelled = True
        hashing = self._hashing
        if hashing is not None:
            hashing.cancel()

    def tick(self) -> None:
        """Bring the counters up to date within a large file."""
        hashing = self._hashing
        if hashing is not None:
            self._progress.bytes_done = self._bytes_before + hashing.done

    def import_file(self, path: str | os.PathLike[str]) -> ImportedFile:
        """Import one file, links followed.

        Raises:
            ImportFileError: see `Store.import_file`.
        """
        found = resolve(path)
        try:
            size = self._core.files.stat(found.path).st_size
        except OSError as error:
            raise unreadable(error, found.path) from error
        self._progress.files_total += 1
        self._progress.bytes_total += size
        self._progress.walked = True
        known = self._find_known([found])[0]
        if known is None:
            return self._import_one(found)
        self._done(known.size)
        return known

    def import_collection(self, paths: Sequence[str | os.PathLike[str]]) -> ImportedCollection:
        """Import files and folders as a collection.

        Raises:
            ImportFileError: see `Store.import_collection`.
        """
        own = os.path.realpath(self._core.folder.path)
        found = walk(self._core.files, paths, self._progress, leave_out=own)
        imported = self._import_found(found.files)
        imported.sort(key=lambda file: file.name.encode())
        root = self._add_collection(imported)
        return ImportedCollection(root, tuple(imported), tuple(found.skipped))

    def import_files(self, paths: Sequence[str | os.PathLike[str]]) -> list[ImportedFile]:
        """Import files, links followed, in as few transactions as their number allows.

        Raises:
            ImportFileError: see `Store.import_file`.
        """
        found: dict[str, FoundFile] = {}
        order: list[str] = []
        for path in paths:
            real = resolve(path).path
            try:
                size = self._core.files.stat(real).st_size
            except OSError as error:
                raise unreadable(error, real) from error
            found[real] = FoundFile(real, real, size)
            order.append(real)
        self._progress.files_total += len(found)
        self._progress.bytes_total += sum(file.size for file in found.values())
        self._progress.walked = True
        imported = {file.name: file for file in self._import_found(list(found.values()))}
        return [replace(imported[path], name=os.path.basename(path)) for path in order]  # noqa: PTH119 - of a str

    def _import_found(self, files: list[FoundFile]) -> list[ImportedFile]:
        """Import files of any size, in batches; small ones come first."""
        imported: list[ImportedFile] = []
        large = [file for file in files if file.size > INLINE_SIZE_MAX]
        small = [file for file in files if file.size <= INLINE_SIZE_MAX]
        try:
            for batch in batches([file.size for file in small]):
                large += self._import_small(small[batch], imported)
                self._wait_for_commits(BATCHES_AHEAD)
            for index in range(0, len(large), BATCH_LARGE):
                self._import_large(large[index : index + BATCH_LARGE], imported)
                self._wait_for_commits(BATCHES_AHEAD)
            self._wait_for_commits(0)
        finally:
            # Nothing of this import runs on once it has ended, however it ended.
            for future in self._commits:
                future.exception()
        return imported

    def _add_collection(self, files: list[ImportedFile]) -> Hash:
        collection = Collection(tuple((file.name, file.hash) for file in files))
        try:
            meta = add_many(self._core, [collection.encode_meta()], self._lease)[0]
            hash_seq = bytes(collection.hash_seq(meta))
        except ValueError as error:
            raise ImportFileError(f"not to be made a collection: {error}") from error
        root = add_many(self._core, [hash_seq], self._lease)[0]
        target = HashAndFormat(root, BlobFormat.HASH_SEQ)
        self._core.database.write(lambda txn: catalog.protect(txn, self._lease, (target,)))
        return root

    def _wait_for_commits(self, ahead: int) -> None:
        """Until at most `ahead` batches are on their way to the database."""
        while len(self._commits) > ahead:
            self._commits.popleft().result()

    def _check_cancelled(self) -> None:
        if self._cancelled:
            raise pybao.Cancelled

    def _done(self, size: int) -> None:
        self._progress.files_done += 1
        self._bytes_before += size
        self._progress.bytes_done = self._bytes_before

    # Small files

    def _import_small(
        self, files: list[FoundFile], imported: list[ImportedFile]
    ) -> list[FoundFile]:
        """Import a batch of small files; returns those that have grown meanwhile."""
        grown: list[FoundFile] = []
        taken: list[FoundFile] = []
        datas: list[bytes] = []
        self._check_cancelled()
        for file in files:
            data = self._read_small(file)
            if data is None:
                grown.append(file)
            else:
                taken.append(file)
                datas.append(data)
        roots = pybao.hash_many(datas)
        self._commits.append(self._core.submit(self._lease, small_blobs(roots, datas)))
        for file, root, data in zip(taken, roots, datas, strict=True):
            imported.append(ImportedFile(file.name, Hash(root), len(data)))
            self._done(len(data))
        return grown

    def _read_small(self, file: FoundFile) -> bytes | None:
        """All bytes of a file; None if there are more than fit into the database."""
        for _ in range(ATTEMPTS):
            fd = self._open(file.path)
            try:
                before = self._identity(fd, file.path)
                if before.size > INLINE_SIZE_MAX:
                    return None
                data = self._core.files.read(fd, before.size, 0)
                after = Identity.of(self._core.files.fstat(fd))
            except OSError as error:
                raise unreadable(error, file.path) from error
            finally:
                self._core.files.close(fd)
            if before == after and len(data) == before.size:
                return data
        raise ImportFileError(f"it changes while it is imported: {file.path}")

    def _open(self, path: str) -> int:
        # A named pipe would block an open that waits for its writer. Links were resolved before:
        # one that is here now has come since.
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW
        try:
            return self._core.files.open(path, flags)
        except OSError as error:
            raise unreadable(error, path) from error

    def _identity(self, fd: int, path: str) -> Identity:
        info = self._core.files.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise ImportFileError(f"not a regular file: {path}")
        return Identity.of(info)

    # Files of any size

    def _import_large(self, files: list[FoundFile], imported: list[ImportedFile]) -> None:
        """Import a batch of files over 16 KiB, recorded together as far as they are referenced."""
        blobs: list[Complete] = []
        for file, known in zip(files, self._find_known(files), strict=True):
            if known is None:
                imported.append(self._import_one(file, blobs))
            else:
                imported.append(known)
                self._done(known.size)
        if blobs:
            self._commits.append(self._core.submit(self._lease, blobs))

    def _import_one(self, file: FoundFile, batch: list[Complete] | None = None) -> ImportedFile:
        """Import a file; what can wait for others to be recorded is added to `batch`."""
        for _ in range(ATTEMPTS):
            self._check_cancelled()
            fd = self._open(file.path)
            try:
                identity = self._identity(fd, file.path)
                hash = self._import_open(fd, identity, file.path, batch)
            except _Changed:
                continue
            except pybao.FileShorter:
                continue
            except OSError as error:
                if error.errno in FULL_CODES:
                    raise
                raise unreadable(error, file.path) from error
            finally:
                self._core.files.close(fd)
            self._done(identity.size)
            return ImportedFile(file.name, hash, identity.size)
        raise ImportFileError(f"it changes while it is imported: {file.path}")

    def _import_open(
        self, fd: int, identity: Identity, path: str, batch: list[Complete] | None
    ) -> Hash:
        if identity.size <= INLINE_SIZE_MAX:
            data = self._core.files.read(fd, INLINE_SIZE_MAX + 1, 0)
            self._check_unchanged(fd, identity, path)
            return add_many(self._core, [data], self._lease)[0]
        self._hashing = pybao.Progress()
        try:
            if self._mode is ImportMode.COPY:
                return self._copy(fd, identity, path)
            return self._reference(fd, identity, path, batch)
        finally:
            self._hashing = None

    def _check_unchanged(self, fd: int, identity: Identity, path: str) -> None:
        try:
            there = Identity.of(self._core.files.stat(path))
        except FileNotFoundError:
            raise _Changed from None
        if Identity.of(self._core.files.fstat(fd)) != identity or there != identity:
            raise _Changed

    def _copy(self, fd: int, identity: Identity, path: str) -> Hash:
        with Drafts(self._core) as drafts:
            file = drafts.create(DATA)
            self._core.files.copy(fd, file.fd)
            self._check_unchanged(fd, identity, path)
            if self._core.files.fstat(file.fd).st_size != identity.size:
                raise _Changed
            return add_own_file(self._core, drafts, file, identity.size, self._lease, self._hashing)

    def _reference(
        self, fd: int, identity: Identity, path: str, batch: list[Complete] | None
    ) -> Hash:
        begun_ns = time.time_ns()
        with Drafts(self._core) as drafts:
            hash, outboard, token = hash_file(self._core, drafts, fd, identity.size, self._hashing)
            self._check_unchanged(fd, identity, path)
            blob = Complete(
                hash,
                identity.size,
                reference=Reference(os.fsencode(path), identity),
                reference_is_settled=max(identity.mtime_ns, identity.ctime_ns)
                < begun_ns - SETTLED_NS,
                outboard=outboard,
                outboard_token=token,
            )
            if batch is not None and token is None:
                batch.append(blob)
            else:
                drafts.name_by_hash(hash)
                drafts.sync()
                drafts.record(self._lease, [blob])
        return hash

    def _find_known(self, files: list[FoundFile]) -> list[ImportedFile | None]:
        """Files that are as they were when they were imported, protected anew; not opened."""
        identities: list[Identity | None] = [None] * len(files)
        if self._mode is ImportMode.REFERENCE:
            for index, file in enumerate(files):
                # One that is gone by now is reported by whoever goes on to open it.
                with contextlib.suppress(OSError):
                    identities[index] = Identity.of(self._core.files.stat(file.path))

        def look(txn: ReadTxn) -> list[ImportedFile | None]:
            found: list[ImportedFile | None] = []
            for file, identity in zip(files, identities, strict=True):
                known: ImportedFile | None = None
                if identity is not None:
                    hash = catalog.find_path(txn, os.fsencode(file.path), identity)
                    if hash is not None:
                        known = ImportedFile(file.name, hash, identity.size)
                found.append(known)
            return found

        def protect(txn: WriteTxn) -> list[ImportedFile | None]:
            found = look(txn)
            targets = [raw(file.hash) for file in found if file is not None]
            catalog.protect(txn, self._lease, targets)
            return found

        found = self._core.database.read(look)
        return self._core.database.write(protect) if any(found) else found

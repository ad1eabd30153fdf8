"""Files of the user become blobs, whole folders at a time; what is known is not opened again.

First all is found (`walking`), then what the cache knows is looked up (`stat_cache`). The rest is
read and hashed in batches, one being read ahead while another is recorded. A file is compared by
its identity before and after it was hashed. It is remembered for the next time unless it was
modified so shortly before that a change since might not show in its times.

What is new is kept from GC by one row a batch. What was known before is not kept until the end,
where one transaction makes sure that all of it is still there and protects all that was asked for;
if another process has removed some of it, the import goes over it once more.
"""

from __future__ import annotations

import os
import struct
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

import pybao
from blobstore import catalog, stat_cache
from blobstore.adding import add_many
from blobstore.api import (
    INLINE_SIZE_MAX,
    ImportedCollection,
    ImportedFile,
    ImportMode,
    ImportProgress,
)
from blobstore.catalog import Complete
from blobstore.codec.hash import EMPTY_HASH, HASH_SIZE, BlobFormat, Hash, HashAndFormat
from blobstore.codec.hashseq import HASH_SEQ_SIZE_MAX
from blobstore.collecting import ImportedFiles
from blobstore.errors import ImportFileError
from blobstore.files import IDENTITY_SIZE, Identity
from blobstore.folder import DATA
from blobstore.one_file import OneFile
from blobstore.schema import Reference, Table
from blobstore.walking import FoundFolder, resolve_many, unreadable, walk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from blobstore.core import Core
    from blobstore.database import ReadTxn, WriteTxn
    from blobstore.stat_cache import Rows

    FileResult = tuple[bytes, bytes, bytes | None, bytes] | int

ATTEMPTS = 5
"""How often blobs that others remove meanwhile are looked up and added again."""

SETTLED_NS = 2_000_000_000
"""A file modified less than this before its import may change again without a trace: the times
of some file systems count in steps of two seconds."""

LOOK_UP_FOLDERS = 256
"""Folders looked up, or remembered, in one transaction."""

BATCH_FILES = 512
BATCH_MIN = 4
"""Fewer files than this are read one by one: there is nothing to share among cores."""
BATCH_SMALL_BYTES = 4 * 1024 * 1024
BATCH_BYTES = 64 * 1024 * 1024
"""A batch holds at most so many files, so many bytes that go into the database, and about so many
bytes at all."""
BATCH_FILE_MAX = 4 * 1024 * 1024
"""A file larger than this is hashed by itself, by all cores. Below, its outboard fits into the
database."""

BATCHES_AHEAD = 1
"""Batches that wait for the database at once, beside the one being written."""

PARTIAL_BYTES = 1 << 30
"""A folder that takes long is remembered in between, each time this much more was hashed."""

_TIMES = struct.Struct("<24xqq")


class _Span(NamedTuple):
    """Files of one folder that are to be hashed."""

    folder: FoundFolder
    indices: list[int]
    paths: list[bytes]


@dataclass(slots=True)
class _Batch:
    """Files that are recorded in one transaction."""

    together: list[_Span] = field(default_factory=list[_Span])
    """Read by one call."""
    alone: list[_Span] = field(default_factory=list[_Span])
    finished: list[FoundFolder] = field(default_factory=list[FoundFolder])
    """Folders of which nothing is left after this batch."""
    files: int = 0
    small_bytes: int = 0
    total_bytes: int = 0

    def is_full(self) -> bool:
        return (
            self.files >= BATCH_FILES
            or self.small_bytes >= BATCH_SMALL_BYTES
            or self.total_bytes >= BATCH_BYTES
        )

    def add(self, together: _Span, alone: _Span) -> None:
        """Add files of a folder."""
        if together.indices:
            self.together.append(together)
        if alone.indices:
            self.alone.append(alone)

    def paths(self) -> list[bytes]:
        """Of the files that are read together."""
        return [path for span in self.together for path in span.paths]


@dataclass(slots=True)
class _Record:
    """What is to be written of a batch."""

    inline: list[tuple[bytes, bytes]] = field(default_factory=list[tuple[bytes, bytes]])
    blobs: list[Complete] = field(default_factory=list[Complete])
    folders: list[Rows] = field(default_factory=list["Rows"])

    def sort(self) -> None:
        # LMDB writes sorted keys in half the time.
        self.inline += [(blob.hash, blob.data) for blob in self.blobs if blob.data is not None]
        self.inline = [blob for blob in self.inline if blob[0] != EMPTY_HASH]
        self.inline.sort(key=itemgetter(0))
        self.blobs = [blob for blob in self.blobs if blob.data is None]
        self.blobs.sort(key=lambda blob: blob.hash)
        self.folders.sort(key=itemgetter(0))

    def hashes(self) -> bytes:
        """Of all blobs, back to back."""
        inline = b"".join([hash for hash, _ in self.inline])
        return inline + b"".join([blob.hash for blob in self.blobs])


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
        self._one_file = OneFile(core, lease, mode, self._check_cancelled)
        self._bytes_before = self._progress.bytes_done
        self._cancelled = False
        self._commits: deque[Future[bytes]] = deque()
        self._runs: list[bytes] = []
        self._removals = 0
        self._bytes_since: dict[int, int] = {}

    def cancel(self) -> None:
        """End the import soon."""
        self._cancelled = True
        hashing = self._one_file.hashing
        if hashing is not None:
            hashing.cancel()

    def tick(self) -> None:
        """Bring the counters up to date within a large file."""
        hashing = self._one_file.hashing
        if hashing is not None:
            self._progress.bytes_done = self._bytes_before + hashing.done

    def import_file(self, path: str | os.PathLike[str]) -> ImportedFile:
        """Import one file, links followed.

        Raises:
            ImportFileError: see `Store.import_file`.
        """
        return self.import_files([path])[0]

    def import_files(self, paths: Sequence[str | os.PathLike[str]]) -> list[ImportedFile]:
        """Import files, links followed, in as few transactions as their number allows.

        Raises:
            ImportFileError: see `Store.import_file`.
        """
        order = [os.fsencode(path) for path in resolve_many(self._core.files, paths)]
        folders = self._group(order)
        self._progress.files_total += sum(folder.count for folder in folders)
        self._progress.bytes_total += sum(sum(folder.sizes()) for folder in folders)
        self._progress.walked = True
        if not folders:
            return []

        def finish() -> bool:
            hashes = b"".join(folder.hashes for folder in folders)
            return self._protect((hashes,), (), hashes)

        self._import(folders, finish)
        imported: dict[bytes, tuple[Hash, int]] = {}
        for folder in folders:
            for index, (name, size) in enumerate(
                zip(folder.split_names(), folder.sizes(), strict=True)
            ):
                imported[folder.path + b"/" + name] = Hash(folder.hash(index)), size
        return [
            ImportedFile(os.fsdecode(os.path.basename(path)), *imported[path])  # noqa: PTH119 - of bytes
            for path in order
        ]

    def _group(self, paths: Sequence[bytes]) -> list[FoundFolder]:
        """Files by their folders, with their identities."""
        by_folder: dict[bytes, dict[bytes, bytes]] = {}
        for path in paths:
            try:
                info = self._core.files.stat(os.fsdecode(path))
            except OSError as error:
                raise unreadable(error, os.fsdecode(path)) from error
            folder, _, name = path.rpartition(b"/")
            by_folder.setdefault(folder, {})[name] = Identity.of(info).encode()
        return [
            FoundFolder(
                folder,
                b"",
                b"\0".join(sorted(files)),
                bytearray(b"".join(files[name] for name in sorted(files))),
                is_whole=False,
            )
            for folder, files in by_folder.items()
        ]

    def import_collection(self, paths: Sequence[str | os.PathLike[str]]) -> ImportedCollection:
        """Import files and folders as a collection.

        Raises:
            ImportFileError: see `Store.import_collection`.
        """
        own = os.path.realpath(self._core.folder.path)
        found = walk(self._core.files, paths, self._progress, leave_out=own)
        made: list[tuple[Hash, ImportedFiles]] = []

        def finish() -> bool:
            try:
                files = ImportedFiles(found)
            except ValueError as error:
                raise ImportFileError(f"not to be made a collection: {error}") from error
            root, added = self._add_collection(files)
            made[:] = [(root, files)]
            target = HashAndFormat(root, BlobFormat.HASH_SEQ)
            return self._protect((added, files.hashes), [target])

        self._import(found.folders, finish)
        root, files = made[0]
        return ImportedCollection(root, files, tuple(found.skipped))

    def _add_collection(self, files: ImportedFiles) -> tuple[Hash, bytes]:
        """Root of a collection whose two blobs are in the store, and the hashes of both."""
        if (len(files) + 1) * HASH_SIZE > HASH_SEQ_SIZE_MAX:
            raise ImportFileError(f"not to be made a collection: {len(files)} entries are too many")
        meta = self._add_blob(files.meta)
        root = self._add_blob(meta + files.hashes)
        return root, meta + root

    def _add_blob(self, data: bytes) -> Hash:
        """Add a blob, unless the store has it already."""
        hash = Hash(pybao.hash(data))
        record = self._core.database.read(lambda txn: catalog.get_blob(txn, hash))
        if record is not None and (
            record.is_inline
            or (
                record.owned is not None
                and self._core.folder.has(DATA, hash, record.owned, record.size)
            )
        ):
            return hash
        return add_many(self._core, [data], self._lease)[0]

    # The whole of it

    def _import(self, folders: list[FoundFolder], finish: Callable[[], bool]) -> None:
        """Import the files of all folders, until `finish` says that none was lost meanwhile."""
        for attempt in range(ATTEMPTS):
            self._import_folders(folders, is_first=attempt == 0)
            if finish():
                return
        raise ImportFileError("what is imported is removed from the store at the same time")

    def _protect(
        self, hashes: Sequence[bytes], targets: Sequence[HashAndFormat], run: bytes = b""
    ) -> bool:
        """Protect what was asked for; False if one of the blobs is not there any more.

        `hashes` are those of all blobs, back to back; `run` those that no target keeps.
        """
        runs = tuple(self._runs)

        def job(txn: WriteTxn) -> bool:
            if catalog.removals(txn) != self._removals and not all(
                hash == EMPTY_HASH or txn.get(Table.BLOBS, hash) is not None
                for some in hashes
                for hash in _split(some)
            ):
                return False
            catalog.protect(txn, self._lease, targets)
            if run:
                catalog.protect_run(txn, self._lease, run)
            # What these kept is kept by those from now on.
            for key in runs:
                txn.delete(Table.RUNS, key)
            return True

        return self._core.database.write(job)

    def _import_folders(self, folders: list[FoundFolder], *, is_first: bool) -> None:
        stale: list[FoundFolder] = []
        todo: list[tuple[FoundFolder, Sequence[int]]] = []
        for start in range(0, len(folders), LOOK_UP_FOLDERS):
            self._check_cancelled()
            batch = folders[start : start + LOOK_UP_FOLDERS]
            stat_cache.find_keys(batch)
            known = self._look_up(batch, is_first=is_first, begins=start == 0)
            for folder, (hashes, missing, is_current) in zip(batch, known, strict=True):
                folder.hashes = bytearray(hashes)
                folder.unsettled.clear()
                if missing:
                    todo.append((folder, missing))
                elif not is_current:
                    stale.append(folder)
                if is_first:
                    self._done_known(folder, missing)
        try:
            self._import_missing(todo, is_first=is_first)
            for start in range(0, len(stale), LOOK_UP_FOLDERS):
                self._submit(_Record(folders=self._rows(stale[start : start + LOOK_UP_FOLDERS])))
                self._wait_for_commits(BATCHES_AHEAD)
            self._wait_for_commits(0)
        finally:
            # Nothing of this import runs on once it has ended, however it ended.
            for future in self._commits:
                future.exception()

    def _look_up(
        self, folders: list[FoundFolder], *, is_first: bool, begins: bool
    ) -> list[stat_cache.Known]:
        """What is known already; from the second attempt on it is protected at once."""
        small_only = self._mode is not ImportMode.REFERENCE

        def look(txn: ReadTxn) -> tuple[int, list[stat_cache.Known]]:
            removals = catalog.removals(txn)
            return removals, [
                stat_cache.look_up(
                    txn, folder, removals, small_only=small_only, is_there=self._is_there
                )
                for folder in folders
            ]

        def protect(txn: WriteTxn) -> tuple[int, list[stat_cache.Known], bytes]:
            removals, known = look(txn)
            hashes = b"".join(one.hashes for one in known)
            return removals, known, catalog.protect_run(txn, self._lease, hashes)

        if is_first:
            removals, known = self._core.database.read(look)
        else:
            removals, known, key = self._core.database.write(protect)
            self._runs.append(key)
        if begins:
            self._removals = removals
        self._core.database.bound_memory()
        return known

    def _is_there(self, path: bytes, identity: Identity) -> bool:
        try:
            return Identity.of(self._core.files.stat(os.fsdecode(path))) == identity
        except OSError:
            return False

    def _check_cancelled(self) -> None:
        if self._cancelled:
            raise pybao.Cancelled

    def _done_known(self, folder: FoundFolder, missing: Sequence[int]) -> None:
        sizes = folder.sizes()
        self._done(len(sizes) - len(missing), sum(sizes) - sum(sizes[index] for index in missing))

    def _done(self, count: int, size: int) -> None:
        self._progress.files_done += count
        self._bytes_before += size
        self._progress.bytes_done = self._bytes_before

    # What is not known

    def _import_missing(
        self, todo: list[tuple[FoundFolder, Sequence[int]]], *, is_first: bool
    ) -> None:
        """Read, hash and record files, a batch ahead of the database."""
        if not todo:
            return
        waiting: deque[tuple[_Batch, int, Future[list[FileResult]]]] = deque()

        def record_next() -> None:
            batch, begun_ns, reading = waiting.popleft()
            self._record(batch, begun_ns, reading.result(), is_first=is_first)

        with ThreadPoolExecutor(1, thread_name_prefix="blobstore-import") as reader:
            try:
                for batch in self._batches(todo):
                    self._check_cancelled()
                    begun_ns = time.time_ns()
                    reading = reader.submit(self._read, batch.paths())
                    waiting.append((batch, begun_ns, reading))
                    if len(waiting) > 1:
                        record_next()
                while waiting:
                    self._check_cancelled()
                    record_next()
            finally:
                for _, _, reading in waiting:
                    reading.cancel()

    def _read(self, paths: list[bytes]) -> list[FileResult]:
        if not paths:
            return []
        return self._core.files.read_files(
            paths, data_max=INLINE_SIZE_MAX, size_max=self._together_max()
        )

    def _together_max(self) -> int:
        """Bytes of the largest file that is read together with others."""
        return BATCH_FILE_MAX if self._mode is ImportMode.REFERENCE else INLINE_SIZE_MAX

    def _batches(self, todo: list[tuple[FoundFolder, Sequence[int]]]) -> Iterator[_Batch]:
        count = sum(len(missing) for _, missing in todo)
        together_max = self._together_max() if count >= BATCH_MIN else -1
        batch = _Batch()
        for folder, missing in todo:
            sizes, names = folder.sizes(), folder.split_names()
            above = folder.path + b"/"
            together, alone = _Span(folder, [], []), _Span(folder, [], [])
            for index in missing:
                if batch.is_full():
                    batch.add(together, alone)
                    yield batch
                    batch = _Batch()
                    together, alone = _Span(folder, [], []), _Span(folder, [], [])
                size = sizes[index]
                span = together if size <= together_max else alone
                span.indices.append(index)
                span.paths.append(above + names[index])
                batch.files += 1
                batch.total_bytes += size
                if size <= INLINE_SIZE_MAX:
                    batch.small_bytes += size
            batch.add(together, alone)
            batch.finished.append(folder)
        if batch.finished:
            yield batch

    def _record(
        self, batch: _Batch, begun_ns: int, results: list[FileResult], *, is_first: bool
    ) -> None:
        """Take what was read of a batch, read the rest of it, and have all of it recorded."""
        record = _Record()
        start = 0
        for span in batch.together:
            read = results[start : start + len(span.indices)]
            start += len(read)
            self._take_span(batch, record, span, read, begun_ns, is_first=is_first)
        for folder, indices, paths in batch.alone:
            for index, path in zip(indices, paths, strict=True):
                imported = self._one_file.import_file(os.fsdecode(path), record.blobs)
                identity = imported.identity.encode()
                self._take(folder, [index], [identity], [imported.hash], imported.begun_ns)
                if is_first:
                    self._done(1, imported.identity.size)
        record.folders = self._rows(batch.finished)
        last = {span.folder for span in batch.together[-1:] + batch.alone[-1:]}
        for folder in last.difference(batch.finished):
            if self._is_long(folder, batch.total_bytes):
                record.folders.append(stat_cache.rows_of(folder, self._removals, is_whole=False))
        self._submit(record)
        self._wait_for_commits(BATCHES_AHEAD)

    def _take_span(
        self,
        batch: _Batch,
        record: _Record,
        span: _Span,
        results: list[FileResult],
        begun_ns: int,
        *,
        is_first: bool,
    ) -> None:
        """Take what was read of one folder; files that failed are put off to be read alone."""
        folder, indices, paths = span
        read = [result for result in results if not isinstance(result, int)]
        if len(read) < len(results):
            failed = [at for at, result in enumerate(results) if isinstance(result, int)]
            # By itself each is tried again, or refused with a reason.
            again = _Span(folder, [indices[at] for at in failed], [paths[at] for at in failed])
            batch.alone.append(again)
            indices = [index for at, index in enumerate(indices) if at not in failed]
            paths = [path for at, path in enumerate(paths) if at not in failed]
        size = 0
        for (identity, root, data, outboard), path in zip(read, paths, strict=True):
            if data is not None:
                record.inline.append((root, data))
                size += len(data)
            else:
                known = Identity.decode(identity)
                size += known.size
                reference = Reference(path, known)
                record.blobs.append(
                    Complete(Hash(root), known.size, reference=reference, outboard=outboard)
                )
        identities, hashes = [one[0] for one in read], [one[1] for one in read]
        self._take(folder, indices, identities, hashes, begun_ns)
        if is_first:
            self._done(len(read), size)

    def _is_long(self, folder: FoundFolder, size: int) -> bool:
        """Whether so much of a folder was hashed since the last time that it is worth a row."""
        since = self._bytes_since.get(id(folder), 0) + size
        is_long = since >= PARTIAL_BYTES
        self._bytes_since[id(folder)] = 0 if is_long else since
        return is_long

    @staticmethod
    def _take(
        folder: FoundFolder,
        indices: list[int],
        identities: list[bytes],
        hashes: list[bytes],
        begun_ns: int,
    ) -> None:
        """Note what files were while they were hashed."""
        if not indices:
            return
        first, end = indices[0], indices[-1] + 1
        if end - first == len(indices):
            folder.identities[first * IDENTITY_SIZE : end * IDENTITY_SIZE] = b"".join(identities)
            folder.hashes[first * HASH_SIZE : end * HASH_SIZE] = b"".join(hashes)
        else:
            for index, identity, hash in zip(indices, identities, hashes, strict=True):
                at = index * IDENTITY_SIZE
                folder.identities[at : at + IDENTITY_SIZE] = identity
                folder.hashes[index * HASH_SIZE : (index + 1) * HASH_SIZE] = hash
        settled_ns = begun_ns - SETTLED_NS
        for index, identity in zip(indices, identities, strict=True):
            mtime_ns, ctime_ns = _TIMES.unpack(identity)
            if mtime_ns >= settled_ns or ctime_ns >= settled_ns:
                folder.unsettled.add(index)

    def _rows(self, folders: list[FoundFolder]) -> list[Rows]:
        return [
            stat_cache.rows_of(folder, self._removals, is_whole=folder.is_whole)
            for folder in folders
        ]

    def _submit(self, record: _Record) -> None:
        record.sort()
        hashes = record.hashes()

        def job(txn: WriteTxn) -> bytes:
            catalog.add_inline(txn, record.inline)
            catalog.add_references(txn, record.blobs, self._core.folder)
            stat_cache.remember(txn, record.folders)
            return catalog.protect_run(txn, self._lease, hashes) if hashes else b""

        self._commits.append(self._core.database.submit(job))

    def _wait_for_commits(self, ahead: int) -> None:
        """Until at most `ahead` batches are on their way to the database."""
        while len(self._commits) > ahead:
            key = self._commits.popleft().result()
            if key:
                self._runs.append(key)


def _split(hashes: bytes) -> list[bytes]:
    return [hashes[at : at + HASH_SIZE] for at in range(0, len(hashes), HASH_SIZE)]

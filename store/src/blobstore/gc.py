"""What is kept alive, and removing the rest; other processes add and protect meanwhile.

Marking runs beside everything else and may therefore be out of date when it is done. So every
transaction that removes blobs first takes in what was protected since, which it sees by a
counter (`catalog.protections`): each add protects its blob in the transaction that records it.
Files of the user are never touched.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pybao
from blobstore import catalog, reading
from blobstore.api import GcReport
from blobstore.codec.hash import EMPTY_HASH, HASH_SIZE, BlobFormat, Hash, HashAndFormat
from blobstore.codec.ranges import ChunkRanges
from blobstore.codec.tree import outboard_size
from blobstore.errors import (
    BlobNotFoundError,
    FileChangedError,
    ProtectedError,
    StoreDamagedError,
    VerificationError,
)
from blobstore.folder import DATA, INCOMING, LEASES, OUTBOARD, parse_owned_name
from blobstore.schema import (
    LEASE_SIZE,
    SESSION_SIZE,
    OutboardPlace,
    Table,
    decode_folder,
    decode_lease_key,
    decode_number,
    decode_run_key,
    decode_tag,
    lease_key,
    split_hashes,
)
from blobstore.session import lock_if_dead, parse_session_name, session_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from blobstore.api import BlobReader
    from blobstore.catalog import FileKey
    from blobstore.core import Core
    from blobstore.database import ReadTxn, WriteTxn
    from blobstore.reading import View

PAGE_HASHES = 1000
"""Hashes looked at in one read transaction."""

PAGE_FOLDERS = 1000
"""Rows of the stat cache looked at in one read transaction."""

BATCH_BLOBS = 256
"""Blobs removed in one transaction."""

WINDOW_SIZE = 1024 * 1024
"""Bytes of a hash seq in memory at once: whole chunk groups and whole hashes."""


class Marker:
    """The blobs that something keeps alive, as of the latest `refresh`.

    With `wanted`, only those are remembered. `exempt` is a lease that does not count.
    """

    def __init__(
        self, core: Core, wanted: frozenset[Hash] | None = None, exempt: bytes | None = None
    ) -> None:
        self._core = core
        self._wanted = wanted
        self._exempt = exempt
        self._seen = -1
        self._incomplete: set[Hash] = set()
        self.live: set[bytes] = set()
        self.unreadable: set[Hash] = set()

    def mark(self) -> None:
        """Take in what was protected since the last call; outside of any write transaction."""
        seen, roots = self._core.database.read(self._look)
        if seen != self._seen:
            self._expand(roots, self._core.database.read)
            self._seen = seen

    def refresh(self, txn: WriteTxn) -> None:
        """Take in what was protected since `mark`, in the transaction that is to remove.

        What it sees may still be undone with the transaction, so that it does not count as seen.
        """
        seen, roots = self._look(txn)
        if seen != self._seen:
            self._expand(roots, lambda job: job(txn))

    def _look(self, txn: ReadTxn) -> tuple[int, set[HashAndFormat]]:
        """How much was protected so far, and what is new of it; runs are kept at once."""
        seen = catalog.protections(txn)
        if seen == self._seen:
            return seen, set()
        for key in txn.keys(Table.RUNS):
            lease, generation = decode_run_key(key)
            if lease != self._exempt and generation > self._seen:
                for hash in split_hashes(txn.get(Table.RUNS, key) or b""):
                    self._keep(hash)
        return seen, self._new_roots(txn)

    def _new_roots(self, txn: ReadTxn) -> set[HashAndFormat]:
        roots: set[HashAndFormat] = set()
        for _, value in txn.scan(Table.TAGS):
            target, generation = decode_tag(value)
            if generation > self._seen:
                roots.add(target)
        for key, value in txn.scan(Table.LEASES):
            lease, target = decode_lease_key(key)
            if lease != self._exempt and decode_number(value) > self._seen:
                roots.add(target)
        return roots

    def _expand(self, roots: set[HashAndFormat], view: View) -> None:
        hash_seqs = set(self._incomplete)
        for target in roots:
            self._keep(target.hash)
            if target.format is BlobFormat.HASH_SEQ:
                hash_seqs.add(target.hash)
        for root in hash_seqs:
            if self._keep_children(root, view):
                self._incomplete.discard(root)
            else:
                # Its children may become known before we remove anything: look again then.
                self._incomplete.add(root)

    def _keep(self, hash: bytes) -> None:
        if self._wanted is None or hash in self._wanted:
            self.live.add(hash)

    def _keep_children(self, root: Hash, view: View) -> bool:
        """Keep the children of a hash seq that can be read; whether that was all of them."""
        self.unreadable.discard(root)
        try:
            reader = reading.open_reader(self._core, root, view)
        except BlobNotFoundError:
            return False
        except (FileChangedError, StoreDamagedError):
            self.unreadable.add(root)
            return False
        with reader:
            for window in self._windows(reader):
                for offset in range(0, len(window) - HASH_SIZE + 1, HASH_SIZE):
                    self._keep(window[offset : offset + HASH_SIZE])
            return reader.available.is_all and root not in self.unreadable

    def _windows(self, reader: BlobReader) -> Iterator[bytes]:
        if isinstance(reader.data, bytes):
            yield reader.data
            return
        for start in range(0, reader.size, WINDOW_SIZE):
            end = min(start + WINDOW_SIZE, reader.size)
            here = ChunkRanges.of_bytes(start, end) & reader.available
            for first, last in here.intervals():
                assert last is not None
                try:
                    yield reading.read_from(
                        self._core,
                        reader,
                        first * pybao.CHUNK_SIZE,
                        min(last * pybao.CHUNK_SIZE, end),
                    )
                except (VerificationError, FileChangedError):
                    self.unreadable.add(reader.hash)


def remove_dead_sessions(core: Core) -> None:
    """Drop the leases of processes that are gone, and their lock files."""
    ids = core.database.read(_session_ids)
    core.database.clear_stale_readers()
    for name in core.files.names(core.folder.path / LEASES):
        id = parse_session_name(name)
        if id is not None:
            ids.add(id)
    for id in sorted(ids - {core.session.id}):
        path = session_path(core.folder, id)
        fd = lock_if_dead(core.files, path)
        if fd is None:
            continue
        try:
            _release(core, id)
            core.folder.unlink_if_there(path)
        finally:
            if fd >= 0:
                core.files.close(fd)


def _release(core: Core, id: bytes) -> None:
    core.database.write(lambda txn: catalog.release(txn, id))


def _session_ids(txn: ReadTxn) -> set[bytes]:
    ids: set[bytes] = set()
    for table in (Table.LEASES, Table.RUNS):
        start = b""
        while (key := next(iter(txn.keys(table, start)), None)) is not None:
            ids.add(key[:SESSION_SIZE])
            start = key[:SESSION_SIZE] + b"\xff" * (LEASE_SIZE + HASH_SIZE)
    return ids


@dataclass(frozen=True, slots=True)
class _Garbage:
    """One blob to remove, with what it takes up."""

    hash: Hash
    files: tuple[FileKey, ...]
    inline_bytes: int


def _is_filled(core: Core, txn: ReadTxn, hash: Hash, locks: contextlib.ExitStack) -> bool:
    """Whether someone has a partial of this blob open. If not, nobody has until `locks` close."""
    for _, partial in catalog.partials_of(txn, hash):
        try:
            file = core.folder.lock_existing(OUTBOARD, hash, partial.outboard_token)
        except BlockingIOError:
            return True
        if file is not None:
            locks.callback(core.folder.close, file)
    return False


def _describe(txn: ReadTxn, hash: Hash) -> _Garbage:
    record = catalog.get_blob(txn, hash)
    files = list(catalog.files_of_blob(hash, record)) if record is not None else []
    for _, partial in catalog.partials_of(txn, hash):
        files += catalog.files_of_partial(hash, partial)
    inline = 0
    if record is not None and record.is_inline:
        inline = record.size
    elif record is not None and record.outboard is OutboardPlace.INLINE:
        inline = outboard_size(record.size)
    return _Garbage(hash, tuple(files), inline)


def _remove(txn: WriteTxn, garbage: Sequence[_Garbage]) -> None:
    for one in garbage:
        catalog.remove_complete(txn, one.hash)
        catalog.remove_partials(txn, one.hash)


def _remove_batch(
    core: Core, marker: Marker, batch: Sequence[Hash], *, dry_run: bool
) -> tuple[int, int, int]:
    """Remove those of a batch that still nothing needs: blobs, bytes, files."""
    with contextlib.ExitStack() as locks:

        def find(txn: ReadTxn) -> list[_Garbage]:
            return [
                _describe(txn, hash)
                for hash in batch
                if hash not in marker.live and not _is_filled(core, txn, hash, locks)
            ]

        def job(txn: WriteTxn) -> list[_Garbage]:
            # Locks of an earlier run of this job.
            locks.close()
            marker.refresh(txn)
            garbage = find(txn)
            _remove(txn, garbage)
            return garbage

        garbage = core.database.read(find) if dry_run else core.database.write(job)
        return _count_and_unlink(core, garbage, dry_run=dry_run)


def _count_and_unlink(
    core: Core, garbage: Sequence[_Garbage], *, dry_run: bool
) -> tuple[int, int, int]:
    freed = sum(one.inline_bytes for one in garbage)
    files = 0
    for file in (file for one in garbage for file in one.files):
        path = core.folder.file_path(*file)
        try:
            size = core.files.stat(path).st_size
        except FileNotFoundError:
            continue
        if dry_run or core.folder.unlink_if_there(path):
            files += 1
            freed += size
    return len(garbage), freed, files


def gc(core: Core, *, dry_run: bool, cancelled: Callable[[], bool]) -> GcReport:
    """Remove every blob that no tag, lease or open partial needs, and files without a record.

    Ends early, with what was removed so far, once `cancelled` says so.
    """
    remove_dead_sessions(core)
    marker = Marker(core)
    marker.mark()
    blobs = freed = files = seen = 0
    start = b""
    while not cancelled():
        page = core.database.read(lambda txn, at=start: catalog.hashes_from(txn, at, PAGE_HASHES))
        seen += len(page)
        candidates = [hash for hash in page if hash not in marker.live]
        for index in range(0, len(candidates), BATCH_BLOBS):
            marker.mark()
            batch = candidates[index : index + BATCH_BLOBS]
            removed = _remove_batch(core, marker, batch, dry_run=dry_run)
            blobs, freed, files = blobs + removed[0], freed + removed[1], files + removed[2]
        if len(page) < PAGE_HASHES:
            break
        start = page[-1] + b"\0"
    if blobs and not dry_run:
        _forget_folders(core)
    orphans, orphan_bytes = _remove_orphans(core, dry_run=dry_run)
    return GcReport(
        blobs=blobs,
        bytes_freed=freed + orphan_bytes,
        files_removed=files + orphans,
        kept=seen - blobs,
        unreadable=tuple(sorted(marker.unreadable)),
    )


def _forget_folders(core: Core) -> None:
    """Forget what the files of a folder held, where no blob of them is left."""
    start = b""
    while True:

        def look(txn: ReadTxn, at: bytes = start) -> tuple[list[bytes], bytes | None]:
            useless: list[bytes] = []
            for count, (key, value) in enumerate(txn.scan(Table.FOLDERS, at)):
                if count == PAGE_FOLDERS:
                    return useless, key
                row = decode_folder(value)
                if row is None or not any(
                    hash == EMPTY_HASH or txn.get(Table.BLOBS, hash) is not None
                    for hash in split_hashes(row.hashes)
                ):
                    useless.append(key)
            return useless, None

        useless, following = core.database.read(look)
        if useless:
            # Whoever adds such a blob again meanwhile has to hash its file once more.
            core.database.write(lambda txn, keys=tuple(useless): _delete_folders(txn, keys))
        if following is None:
            return
        start = following


def _delete_folders(txn: WriteTxn, keys: Sequence[bytes]) -> None:
    # The parts of a folder are of use together only.
    for key in keys:
        catalog.forget_folder(txn, key[:HASH_SIZE])


def _remove_orphans(core: Core, *, dry_run: bool) -> tuple[int, int]:
    """Remove owned files that no record names and nobody is writing: how many, and bytes."""
    count = freed = 0
    for kind in (DATA, OUTBOARD):
        for name in core.files.names(core.folder.path / kind):
            size = _remove_orphan(core, kind, name, dry_run=dry_run)
            if size is not None:
                count += 1
                freed += size
    return count, freed


def _remove_orphan(core: Core, kind: str, name: str, *, dry_run: bool) -> int | None:
    """Bytes of the file if it was an orphan, else None."""
    parsed = parse_owned_name(name)
    if parsed is None and not name.startswith(f"{INCOMING}."):
        return None
    if _is_named(core, kind, parsed):
        return None
    path = core.folder.path / kind / name
    try:
        fd = core.files.open(path, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        # Whoever writes it holds its lock until the record is there: look for that once more.
        if not core.files.try_lock(fd) or _is_named(core, kind, parsed):
            return None
        size = core.files.fstat(fd).st_size
        if not dry_run and not core.folder.unlink_if_there(path):
            return None
        return size
    finally:
        core.files.close(fd)


def _is_named(core: Core, kind: str, parsed: tuple[Hash, bytes] | None) -> bool:
    if parsed is None:
        return False
    file = catalog.FileKey(kind, *parsed)
    return core.database.read(lambda txn: catalog.is_named(txn, file))


def delete(core: Core, hashes: Sequence[Hash]) -> int:
    """Forget blobs that nothing but this store handle's own adds keeps alive.

    Raises:
        ProtectedError: a tag, a temp tag or another process needs one; nothing was deleted.
    """
    # The empty blob has no record and stays, whoever names it.
    wanted = frozenset(hashes) - {EMPTY_HASH}
    marker = Marker(core, wanted, core.session.default_lease)
    remove_dead_sessions(core)
    marker.mark()
    with contextlib.ExitStack() as locks:

        def job(txn: WriteTxn) -> list[_Garbage]:
            locks.close()
            marker.refresh(txn)
            if marker.live:
                raise ProtectedError(f"needed by a tag or temp tag: {Hash(min(marker.live))}")
            garbage: list[_Garbage] = []
            for hash in sorted(wanted):
                if _is_filled(core, txn, hash, locks):
                    raise ProtectedError(f"being filled: {hash}")
                if catalog.is_known(txn, hash):
                    garbage.append(_describe(txn, hash))
                for format_ in BlobFormat:
                    target = HashAndFormat(hash, format_)
                    txn.delete(Table.LEASES, lease_key(core.session.default_lease, target))
            _remove(txn, garbage)
            return garbage

        garbage = core.database.write(job)
        _count_and_unlink(core, garbage, dry_run=False)
        return len(garbage)

"""Partial blobs: filled in any order, resumable after anything, never claiming what is not there.

The record exists before the first byte. Its bitfield is written after the data and the pairs it
claims; it is believed as long as the machine has not been rebooted since, because until then the
page cache holds what was written, and hashed anew after that. The outboard file's lock says who
is filling: it is held from `open` to `close`, also against other tasks of the same process.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pybao
from blobstore import catalog
from blobstore.api import INLINE_SIZE_MAX
from blobstore.catalog import Complete, FileKey
from blobstore.codec.hash import EMPTY_HASH
from blobstore.codec.ranges import ChunkRanges
from blobstore.codec.tree import outboard_size
from blobstore.core import raw, to_path
from blobstore.errors import BlobError, FileChangedError, PartialBusyError, VerificationError
from blobstore.files import Identity
from blobstore.folder import DATA, OUTBOARD, OwnedFile
from blobstore.reading import claims_hold, is_same_file
from blobstore.schema import PartialRecord, Reference, Table

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from blobstore.codec.hash import Hash
    from blobstore.core import Core
    from blobstore.database import WriteTxn

_OPEN_ATTEMPTS = 16
"""Two processes that begin the same partial blob at once see each other's record."""


class FileBackedPartial:
    """A partial blob in this process: its open files and its record.

    The methods block; one at a time.
    """

    def __init__(
        self,
        core: Core,
        hash: Hash,
        record: PartialRecord,
        outboard: OwnedFile,
        data: OwnedFile | None,
        data_fd: int,
    ) -> None:
        self._core = core
        self._key = catalog.partial_key(hash, record.path)
        self.hash = hash
        self.known = record
        self._outboard = outboard
        self._data = data
        self.data_fd = data_fd
        self.outboard_fd = outboard.fd
        self._is_open = True
        self._is_complete = False

    # Opening

    @classmethod
    def open(
        cls,
        core: Core,
        hash: Hash,
        data_fd: int | None,
        path: Path | None,
        progress: pybao.Progress,
    ) -> FileBackedPartial:
        """Begin or go on. `data_fd` is ours from here on, also if this raises.

        Raises:
            PartialBusyError: someone else is filling it.
        """
        place = None if path is None else os.fsencode(os.path.abspath(path))  # noqa: PTH100 - no link is followed
        owner = _DataOwner(core, data_fd)
        try:
            for _ in range(_OPEN_ATTEMPTS):
                partial = cls._try_open(core, hash, owner, place, progress)
                if partial is not None:
                    owner.fd = None
                    return partial
        finally:
            owner.close()
        raise PartialBusyError(f"others keep beginning the same partial blob {hash}")

    @classmethod
    def _try_open(
        cls,
        core: Core,
        hash: Hash,
        owner: _DataOwner,
        place: bytes | None,
        progress: pybao.Progress,
    ) -> FileBackedPartial | None:
        """One attempt; None if the record changed while we looked."""
        key = catalog.partial_key(hash, place)
        found = core.database.read(lambda txn: catalog.get_partial(txn, key))
        outboard = lock_owned(core, hash, found, OUTBOARD)
        data: OwnedFile | None = None
        is_new_outboard = outboard is None
        is_new_data = False
        try:
            if outboard is None:
                outboard = core.folder.create(OUTBOARD, hash)
            if place is None:
                data = lock_owned(core, hash, found, DATA)
                if data is None:
                    data = core.folder.create(DATA, hash)
                    is_new_data = True
            fd = data.fd if data is not None else owner.fd
            assert fd is not None
            if found is None or is_new_outboard or is_new_data or not is_same_file(core, found, fd):
                record = _fresh(core, place, data, fd, outboard)
            else:
                record = _resume(core, hash, found, fd, outboard.fd, progress)
            if not _begin(core, key, found, record):
                _let_go(core, outboard, is_new_outboard, data, is_new_data)
                return None
        except BaseException:
            if outboard is not None:
                _let_go(core, outboard, is_new_outboard, data, is_new_data)
            raise
        _unlink_replaced(core, hash, found, record)
        return cls(core, hash, record, outboard, data, fd)

    # Filling

    def record(self, proven: ChunkRanges, size: int, size_proven: bool) -> None:
        """Add chunks to the bitfield.

        Raises:
            ValueError, VerificationError: see `Claim.extend`.
        """
        self._check_open()
        claim = self.known.claim.extend(self.hash, proven, size, size_proven=size_proven)
        new = replace(self.known, claim=claim)
        self._core.database.write(lambda txn: catalog.put_partial(txn, self._key, new))
        self.known = new

    def complete(self, publish: Callable[[], Path] | None) -> None:
        """Make everything durable, publish it, call it complete.

        Raises:
            VerificationError: the bitfield does not cover the blob or the size is not proven.
            FileChangedError: what `publish` returned is not the data file.
        """
        self._check_open()
        size = self.known.claim.whole_size(self.hash)
        if self._core.files.fstat(self.data_fd).st_size != size:
            self._core.files.truncate(self.data_fd, size)
        self._core.files.sync_data(self.data_fd)
        blob = self._complete_data(size, publish)
        unused = self._core.database.write(lambda txn: self._complete_job(txn, blob))
        self._is_complete = True
        self._core.unlink(unused)

    def _complete_data(self, size: int, publish: Callable[[], Path] | None) -> Complete:
        files = self._core.files
        data: bytes | None = None
        outboard: bytes | None = None
        token: bytes | None = None
        if size <= INLINE_SIZE_MAX:
            data = files.read(self.data_fd, size, 0)
            if pybao.hash(data) != self.hash:
                raise VerificationError(self.hash, detail="its data changed")
        elif outboard_size(size) <= INLINE_SIZE_MAX:
            outboard = files.read(self.outboard_fd, outboard_size(size), 0)
            if len(outboard) != outboard_size(size):
                raise VerificationError(self.hash, detail="its outboard was cut off")
        else:
            files.truncate(self.outboard_fd, outboard_size(size))
            self._core.folder.sync(self._outboard)
            token = self._outboard.token
        reference: Reference | None = None
        if publish is not None:
            reference = self._publish(publish)
        elif self.known.path is not None:
            reference = self._publish(lambda: to_path(self.known.path or b""))
        elif data is None:
            files.sync_folder(self._core.folder.path / DATA)
        if data is not None:
            return Complete(self.hash, size, data=data)
        owned = self._data.token if self._data is not None and reference is None else None
        return Complete(
            self.hash,
            size,
            owned=owned,
            reference=reference,
            outboard=outboard,
            outboard_token=token,
        )

    def _publish(self, publish: Callable[[], Path]) -> Reference:
        path = os.path.abspath(publish())  # noqa: PTH100 - no link is followed
        self._core.files.sync_folder(os.path.dirname(path))  # noqa: PTH120 - of a str
        identity = Identity.of(self._core.files.fstat(self.data_fd))
        if Identity.of(self._core.files.stat(path)) != identity:
            raise FileChangedError(f"not the file that was filled: {path}")
        return Reference(os.fsencode(path), identity)

    def _complete_job(self, txn: WriteTxn, blob: Complete) -> list[FileKey]:
        unused: list[FileKey] = []
        if self.hash != EMPTY_HASH:
            unused += catalog.add_complete(txn, blob, self._core.folder)
            catalog.protect(txn, self._core.session.default_lease, (raw(self.hash),))
        txn.delete(Table.PARTIALS, self._key)
        for file in catalog.files_of_partial(self.hash, self.known):
            kept = (DATA, blob.owned) if file.kind == DATA else (OUTBOARD, blob.outboard_token)
            if (file.kind, file.token) != kept or self.hash == EMPTY_HASH:
                unused.append(file)
        return unused

    # Letting go

    def discard(self) -> None:
        """Forget the record and the store's own files."""
        self._check_open()
        self._core.database.write(lambda txn: txn.delete(Table.PARTIALS, self._key))
        self._core.unlink(catalog.files_of_partial(self.hash, self.known))
        self.close()

    def close(self) -> None:
        """Let go of the files and the lock; may be called twice."""
        if not self._is_open:
            return
        self._is_open = False
        try:
            self._core.folder.close(self._outboard)
        finally:
            if self._data is not None:
                self._core.folder.close(self._data)
            else:
                self._core.files.close(self.data_fd)

    def _check_open(self) -> None:
        if not self._is_open or self._is_complete:
            raise BlobError(f"the partial blob {self.hash} was closed or completed already")


class _DataOwner:
    """Closes the caller's duplicated descriptor unless it was passed on."""

    def __init__(self, core: Core, fd: int | None) -> None:
        self._core = core
        self.fd = fd

    def close(self) -> None:
        if self.fd is not None:
            self._core.files.close(self.fd)


def lock_owned(core: Core, hash: Hash, record: PartialRecord | None, kind: str) -> OwnedFile | None:
    """The locked data or outboard file of a record, if both are there."""
    if record is None:
        return None
    token = record.outboard_token if kind == OUTBOARD else record.data_token
    if token is None:
        return None
    try:
        return core.folder.lock_existing(kind, hash, token)
    except BlockingIOError:
        raise PartialBusyError(f"someone else is filling the partial blob {hash}") from None


def _fresh(
    core: Core, place: bytes | None, data: OwnedFile | None, fd: int, outboard: OwnedFile
) -> PartialRecord:
    """The record of a partial blob that begins."""
    info = core.files.fstat(fd)
    return PartialRecord(
        place,
        None if data is None else data.token,
        outboard.token,
        info.st_dev,
        info.st_ino,
        core.files.generation(fd),
        core.boot,
    )


def _resume(
    core: Core,
    hash: Hash,
    found: PartialRecord,
    fd: int,
    outboard_fd: int,
    progress: pybao.Progress,
) -> PartialRecord:
    """What of a record found still counts, in the files that it was written to."""
    claim = found.claim
    if claims_hold(core, found, fd) or claim.size is None:
        return replace(found, boot=core.boot)
    # A file that was cut or a machine that was rebooted: what was claimed is hashed again.
    valid = pybao.valid_ranges(
        hash, claim.size, fd, outboard_fd, claim.bitfield.boundaries, progress=progress
    )
    bitfield = ChunkRanges(valid) & claim.bitfield
    return replace(found, boot=core.boot, claim=replace(claim, bitfield=bitfield))


def _begin(core: Core, key: bytes, found: PartialRecord | None, record: PartialRecord) -> bool:
    """Put the record, if it is still the one that was found."""

    def job(txn: WriteTxn) -> bool:
        if catalog.get_partial(txn, key) != found:
            return False
        if record != found:
            catalog.put_partial(txn, key, record)
        return True

    return core.database.write(job)


def _let_go(
    core: Core,
    outboard: OwnedFile,
    is_new_outboard: bool,
    data: OwnedFile | None,
    is_new_data: bool,
) -> None:
    try:
        (core.folder.drop if is_new_outboard else core.folder.close)(outboard)
    finally:
        if data is not None:
            (core.folder.drop if is_new_data else core.folder.close)(data)


def _unlink_replaced(
    core: Core, hash: Hash, found: PartialRecord | None, record: PartialRecord
) -> None:
    """Files of the old record that the new one no longer names."""
    if found is None:
        return
    named = catalog.files_of_partial(hash, record)
    core.unlink(file for file in catalog.files_of_partial(hash, found) if file not in named)

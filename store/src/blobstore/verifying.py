"""Hashing what is there once more, and no longer claiming what turns out bad."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pybao
from blobstore import catalog, reading
from blobstore.adding import Drafts, hash_file
from blobstore.catalog import FileKey
from blobstore.claims import Claim
from blobstore.codec.hash import EMPTY_HASH
from blobstore.codec.ranges import ChunkRanges
from blobstore.codec.tree import chunk_count, outboard_size
from blobstore.errors import BlobNotFoundError, StoreDamagedError
from blobstore.folder import DATA, OUTBOARD
from blobstore.partials import lock_owned
from blobstore.schema import OutboardPlace, PartialRecord, Reference, Table

if TYPE_CHECKING:
    from collections.abc import Generator

    from blobstore.codec.hash import Hash
    from blobstore.core import Core
    from blobstore.database import WriteTxn
    from blobstore.schema import BlobRecord

_ATTEMPTS = 5
"""Someone may change the record while its data is hashed."""


def verify(core: Core, hash: Hash, progress: pybao.Progress) -> ChunkRanges:
    """Hash a blob's data; returns the chunks that are good, all of them if all is well.

    Raises:
        BlobNotFoundError: unknown.
        PartialBusyError: someone is filling it.
    """
    if hash == EMPTY_HASH:
        return ChunkRanges.all()
    for _ in range(_ATTEMPTS):
        record = core.database.read(lambda txn: catalog.get_blob(txn, hash))
        if record is None:
            result = _verify_partials(core, hash, progress)
        elif record.is_inline:
            result = _verify_inline(core, hash)
        else:
            result = _Verification(core, hash, record, progress).run()
        if result is not None:
            return result
    raise StoreDamagedError(f"the record of blob {hash} keeps changing while it is verified")


def _verify_inline(core: Core, hash: Hash) -> ChunkRanges | None:
    data = core.database.read(lambda txn: txn.get(Table.DATA, hash))
    if data is not None and pybao.hash(data) == hash:
        return ChunkRanges.all()

    def job(txn: WriteTxn) -> bool:
        if txn.get(Table.DATA, hash) != data:
            return False
        catalog.remove_complete(txn, hash)
        return True

    return ChunkRanges.empty() if core.database.write(job) else None


class _Verification:
    """Of one complete blob over 16 KiB: each of its places against its outboard."""

    def __init__(
        self, core: Core, hash: Hash, record: BlobRecord, progress: pybao.Progress
    ) -> None:
        self._core = core
        self._hash = hash
        self._record = record
        self._progress = progress
        self._whole = ChunkRanges.of(0, chunk_count(record.size))
        own = () if record.owned is None else (record.owned,)
        self._places: tuple[bytes | Reference, ...] = (*own, *record.references)

    def run(self) -> ChunkRanges | None:
        """The good chunks; None if the record is another by now."""
        valid = {place: self._valid(place) for place in self._places}
        good = [place for place, ranges in valid.items() if ranges == self._whole]
        if not good:
            mended = self._mend_outboard()
            if mended is not None:
                return mended
            own = self._record.owned
            return self._give_up(ChunkRanges.empty() if own is None else valid[own])
        if len(good) < len(valid) and not self._keep(good):
            return None
        return ChunkRanges.all()

    def _open(self, place: bytes | Reference) -> int | None:
        if isinstance(place, Reference):
            return reading.open_unchanged(self._core, place)
        try:
            path = self._core.folder.file_path(DATA, self._hash, place)
            return self._core.files.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return None

    def _valid(self, place: bytes | Reference) -> ChunkRanges:
        fd = self._open(place)
        if fd is None:
            return ChunkRanges.empty()
        try:
            with self._outboard() as outboard:
                valid = pybao.valid_ranges(
                    self._hash, self._record.size, fd, outboard, progress=self._progress
                )
        finally:
            self._core.files.close(fd)
        return ChunkRanges(valid)

    @contextlib.contextmanager
    def _outboard(self) -> Generator[bytes | int]:
        """The outboard or what is left of it."""
        token = self._record.outboard_token
        if token is None:
            yield self._inline_outboard()
            return
        path = self._core.folder.file_path(OUTBOARD, self._hash, token)
        try:
            fd = self._core.files.open(path, os.O_RDONLY)
        except FileNotFoundError:
            yield b""
            return
        try:
            yield fd
        finally:
            self._core.files.close(fd)

    def _inline_outboard(self) -> bytes:
        row = self._core.database.read(lambda txn: txn.get(Table.OUTBOARDS, self._hash))
        return row if row is not None and len(row) == outboard_size(self._record.size) else b""

    def _is_current(self, txn: WriteTxn) -> bool:
        return catalog.get_blob(txn, self._hash) == self._record

    def _keep(self, good: list[bytes | Reference]) -> bool:
        """Forget the places that are not good."""
        owned = self._record.owned
        references = tuple(place for place in good if isinstance(place, Reference))

        def job(txn: WriteTxn) -> list[FileKey] | None:
            if not self._is_current(txn):
                return None
            record = catalog.keep_references(txn, self._hash, self._record, references)
            if owned is None or owned in good:
                catalog.put_blob(txn, self._hash, record)
                return []
            catalog.put_blob(txn, self._hash, replace(record, owned=None))
            return [FileKey(DATA, self._hash, owned)]

        unused = self._core.database.write(job)
        if unused is None:
            return False
        self._core.unlink(unused)
        return True

    def _mend_outboard(self) -> ChunkRanges | None:
        """The data may be good and only its outboard damaged: make a new one from it."""
        for place in self._places:
            fd = self._open(place)
            if fd is None:
                continue
            try:
                with Drafts(self._core) as drafts:
                    if self._core.files.fstat(fd).st_size != self._record.size:
                        continue
                    root, outboard, token = hash_file(
                        self._core, drafts, fd, self._record.size, self._progress
                    )
                    if root != self._hash:
                        continue
                    drafts.name_by_hash(root)
                    drafts.sync()
                    if self._put_outboard(drafts, place, outboard, token):
                        return ChunkRanges.all()
            finally:
                self._core.files.close(fd)
        return None

    def _put_outboard(
        self,
        drafts: Drafts,
        place: bytes | Reference,
        outboard: bytes | None,
        token: bytes | None,
    ) -> bool:
        """Record the new outboard, and `place` as the only one of the data."""
        old = self._record

        def job(txn: WriteTxn) -> list[FileKey] | None:
            if not self._is_current(txn):
                return None
            references = (place,) if isinstance(place, Reference) else ()
            record = catalog.keep_references(txn, self._hash, old, references)
            where = OutboardPlace.INLINE if token is None else OutboardPlace.FILE
            record = replace(
                record,
                owned=place if isinstance(place, bytes) else None,
                outboard=where,
                outboard_token=token,
            )
            if outboard is not None and token is None:
                txn.put(Table.OUTBOARDS, self._hash, outboard)
            catalog.put_blob(txn, self._hash, record)
            kept = list(catalog.files_of_blob(self._hash, record))
            return [key for key in catalog.files_of_blob(self._hash, old) if key not in kept]

        unused = self._core.database.write(job)
        if unused is None:
            return False
        drafts.keep()
        self._core.unlink(unused)
        return True

    def _give_up(self, valid: ChunkRanges) -> ChunkRanges | None:
        """No place is good: keep what is valid in the store's own file as a partial blob."""
        with Drafts(self._core) as drafts:
            partial = self._as_partial(drafts, valid) if valid else None
            drafts.sync()
            key = catalog.partial_key(self._hash, None)

            def job(txn: WriteTxn) -> list[FileKey] | None:
                if not self._is_current(txn):
                    return None
                unused = catalog.remove_complete(txn, self._hash)
                if partial is None or catalog.get_partial(txn, key) is not None:
                    return unused
                catalog.put_partial(txn, key, partial)
                kept = catalog.files_of_partial(self._hash, partial)
                return [file for file in unused if file not in kept]

            unused = self._core.database.write(job)
            if unused is None:
                return None
            # Unless the record took it up, a new outboard file is an orphan now: GC finds it.
            drafts.keep()
            self._core.unlink(unused)
        return valid

    def _as_partial(self, drafts: Drafts, valid: ChunkRanges) -> PartialRecord | None:
        fd = None if self._record.owned is None else self._open(self._record.owned)
        if fd is None:
            return None
        try:
            info = self._core.files.fstat(fd)
            generation = self._core.files.generation(fd)
        finally:
            self._core.files.close(fd)
        token = self._record.outboard_token
        if token is None:
            file = drafts.create(OUTBOARD, self._hash)
            self._core.files.write(file.fd, self._inline_outboard(), 0)
            token = file.token
        return PartialRecord(
            None,
            self._record.owned,
            token,
            info.st_dev,
            info.st_ino,
            generation,
            self._core.boot,
            Claim(self._record.size, True, valid),
        )


def _verify_partials(core: Core, hash: Hash, progress: pybao.Progress) -> ChunkRanges | None:
    partials = core.database.read(lambda txn: catalog.partials_of(txn, hash))
    if not partials:
        raise BlobNotFoundError(hash)
    best, best_bytes = ChunkRanges.empty(), -1
    for key, partial in partials:
        outboard = lock_owned(core, hash, partial, OUTBOARD)
        try:
            valid = ChunkRanges.empty()
            if outboard is not None:
                valid = _valid_of_partial(core, hash, partial, outboard.fd, progress)
            new = replace(partial, claim=replace(partial.claim, bitfield=valid), boot=core.boot)
            if not core.database.write(
                lambda txn, key=key, old=partial, new=new: _replace_partial(txn, key, old, new)
            ):
                return None
        finally:
            if outboard is not None:
                core.folder.close(outboard)
        held = valid.bytes_within(partial.claim.size or 0)
        if held > best_bytes:
            best, best_bytes = valid, held
    return best


def _replace_partial(txn: WriteTxn, key: bytes, old: PartialRecord, new: PartialRecord) -> bool:
    if catalog.get_partial(txn, key) != old:
        return False
    catalog.put_partial(txn, key, new)
    return True


def _valid_of_partial(
    core: Core, hash: Hash, partial: PartialRecord, outboard: int, progress: pybao.Progress
) -> ChunkRanges:
    claim = partial.claim
    if claim.size is None:
        return ChunkRanges.empty()
    fd = reading.open_data_of_partial(core, hash, partial)
    if fd is None:
        return ChunkRanges.empty()
    try:
        valid = pybao.valid_ranges(
            hash, claim.size, fd, outboard, claim.bitfield.boundaries, progress=progress
        )
    finally:
        core.files.close(fd)
    return ChunkRanges(valid) & claim.bitfield

"""Adding blobs whose bytes are at hand, and recording what others have verified."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import pybao
from blobstore.api import INLINE_SIZE_MAX
from blobstore.catalog import Complete
from blobstore.codec.hash import EMPTY_HASH, Hash
from blobstore.codec.tree import outboard_size
from blobstore.errors import FileChangedError, VerificationError
from blobstore.files import Identity, sync_all
from blobstore.folder import DATA, OUTBOARD, OwnedFile
from blobstore.schema import Reference

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from blobstore.api import VerifiedFile
    from blobstore.core import Core

BATCH_BLOBS = 512
BATCH_BYTES = 4 * 1024 * 1024
"""A batch of small blobs in one transaction holds at most so many, or so many bytes."""


class Drafts:
    """Owned files on their way to a record: removed again unless `kept`, unlocked in any case."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._files: list[OwnedFile] = []
        self._kept = False

    def create(self, kind: str, hash: bytes | None = None) -> OwnedFile:
        """A new file, locked."""
        file = self._core.folder.create(kind, hash)
        self._files.append(file)
        return file

    def name_by_hash(self, hash: bytes) -> None:
        """All files so far are of this blob."""
        for file in self._files:
            self._core.folder.name_by_hash(file, hash)

    def sync(self) -> None:
        """All files so far, and their names, are on disk afterwards."""
        if self._files:
            self._core.folder.sync(*self._files)

    def record(self, lease: bytes, blobs: Sequence[Complete]) -> None:
        """Record the blobs whose files these are; from then on the files stay."""
        unused = self._core.record(lease, blobs)
        self.keep()
        self._core.unlink(unused)

    def keep(self) -> None:
        """A record names the files now: they stay."""
        self._kept = True

    def __enter__(self) -> Drafts:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.ExitStack() as stack:
            # Each of them, even if one fails.
            for file in self._files:
                end = self._core.folder.close if self._kept else self._core.folder.drop
                stack.callback(end, file)


def batches(sizes: Sequence[int]) -> Iterator[slice]:
    """Cut a sequence of small blobs into batches for one transaction each."""
    begin = total = 0
    for index, size in enumerate(sizes):
        if index > begin and (index - begin >= BATCH_BLOBS or total + size > BATCH_BYTES):
            yield slice(begin, index)
            begin, total = index, 0
        total += size
    if begin < len(sizes):
        yield slice(begin, len(sizes))


def small_blobs(hashes: Sequence[bytes], blobs: Sequence[bytes]) -> list[Complete]:
    """To be recorded: blobs that live in the database. The empty one is there already."""
    return [
        Complete(Hash(hash), len(data), data=data)
        for hash, data in zip(hashes, blobs, strict=True)
        if hash != EMPTY_HASH
    ]


def add_many(core: Core, blobs: Sequence[bytes], lease: bytes) -> list[Hash]:
    """Add blobs of any size, the small ones in batches."""
    hashes: list[Hash | None] = [None] * len(blobs)
    small = [index for index, data in enumerate(blobs) if len(data) <= INLINE_SIZE_MAX]
    for batch in batches([len(blobs[index]) for index in small]):
        datas = [blobs[index] for index in small[batch]]
        roots = pybao.hash_many(datas)
        core.record(lease, small_blobs(roots, datas))
        for index, root in zip(small[batch], roots, strict=True):
            hashes[index] = Hash(root)
    for index, data in enumerate(blobs):
        if len(data) > INLINE_SIZE_MAX:
            hashes[index] = add_large(core, data, lease)
    return [hash for hash in hashes if hash is not None]


def add_large(core: Core, data: bytes, lease: bytes) -> Hash:
    """Add a blob in memory as a file of the store's own."""
    root, outboard = pybao.outboard(data)
    hash = Hash(root)
    with Drafts(core) as drafts:
        file = drafts.create(DATA, hash)
        core.files.write(file.fd, data, 0)
        token = write_outboard(core, drafts, hash, outboard)
        drafts.sync()
        inline = outboard if token is None else None
        drafts.record(
            lease,
            [Complete(hash, len(data), owned=file.token, outboard=inline, outboard_token=token)],
        )
    return hash


def write_outboard(core: Core, drafts: Drafts, hash: Hash, outboard: bytes) -> bytes | None:
    """Put an outboard that is too large for the database into a file; its token."""
    if len(outboard) <= INLINE_SIZE_MAX:
        return None
    file = drafts.create(OUTBOARD, hash)
    core.files.write(file.fd, outboard, 0)
    return file.token


def hash_file(
    core: Core, drafts: Drafts, fd: int, size: int, progress: pybao.Progress | None
) -> tuple[Hash, bytes | None, bytes | None]:
    """Hash a file of more than 16 KiB: root, inline outboard or token of its file."""
    if outboard_size(size) <= INLINE_SIZE_MAX:
        root, outboard = pybao.outboard_fd(fd, size, progress=progress)
        return Hash(root), outboard, None
    file = drafts.create(OUTBOARD)
    root, _ = pybao.outboard_fd(fd, size, outboard_fd=file.fd, progress=progress)
    return Hash(root), None, file.token


class Incoming:
    """A blob that arrives in pieces: in memory while it is small, then in a file."""

    def __init__(self, core: Core, lease: bytes) -> None:
        self._core = core
        self._lease = lease
        self._drafts = Drafts(core)
        self._start = bytearray()
        self._file: OwnedFile | None = None
        self._size = 0
        self.progress = pybao.Progress()

    def write(self, data: bytes) -> None:
        """Add bytes to the end."""
        if self._file is None and self._size + len(data) <= INLINE_SIZE_MAX:
            self._start += data
        else:
            if self._file is None:
                self._file = self._drafts.create(DATA)
                self._core.files.write(self._file.fd, bytes(self._start), 0)
            self._core.files.write(self._file.fd, data, self._size)
        self._size += len(data)

    def finish(self) -> Hash:
        """That was all: hash and record it."""
        if self._file is None:
            return add_many(self._core, [bytes(self._start)], self._lease)[0]
        return add_own_file(
            self._core, self._drafts, self._file, self._size, self._lease, self.progress
        )

    def close(self) -> None:
        """Remove what did not become a blob."""
        self._drafts.__exit__()


def add_own_file(
    core: Core,
    drafts: Drafts,
    file: OwnedFile,
    size: int,
    lease: bytes,
    progress: pybao.Progress | None,
    reference: Reference | None = None,
) -> Hash:
    """Hash and record an owned file of more than 16 KiB that was written without a hash."""
    hash, outboard, token = hash_file(core, drafts, file.fd, size, progress)
    drafts.name_by_hash(hash)
    drafts.sync()
    drafts.record(
        lease,
        [
            Complete(
                hash,
                size,
                owned=file.token,
                reference=reference,
                outboard=outboard,
                outboard_token=token,
            )
        ],
    )
    return hash


def add_verified(
    core: Core,
    small: Sequence[tuple[Hash, bytes]],
    files: Sequence[VerifiedFile],
    lease: bytes,
) -> None:
    """Record what the caller has verified, in one transaction.

    Raises:
        ValueError: a small blob that is not small, an outboard of the wrong length.
        FileChangedError: a path does not lead to its descriptor's file, or has another size.
        VerificationError: a file of up to 16 KiB, which moves into the database, does not match.
    """
    for hash, data in small:
        if len(data) > INLINE_SIZE_MAX:
            raise ValueError(f"blob {hash} is too large for the database: {len(data)} bytes")
    inline: list[tuple[bytes, bytes]] = [each for each in small if each[0] != EMPTY_HASH]
    with Drafts(core) as drafts:
        for file in files:
            if len(file.outboard) != outboard_size(file.size):
                raise ValueError(f"the outboard of {file.hash} has {len(file.outboard)} bytes")
        paths = [os.path.abspath(file.path) for file in files]  # noqa: PTH100 - no link is followed
        folders = {os.path.dirname(path) for path in paths}  # noqa: PTH120 - of strings
        synced = sync_all(core.files, [file.fd for file in files], folders) if files else []
        blobs: list[Complete] = []
        for file, path, found in zip(files, paths, synced, strict=True):
            if file.hash == EMPTY_HASH:
                continue
            blob = _verified(core, drafts, file, path, Identity.of(found))
            if blob.data is None:
                blobs.append(blob)
            else:
                inline.append((blob.hash, blob.data))
        drafts.sync()
        unused = core.record_many(lease, inline, blobs)
        drafts.keep()
        core.unlink(unused)


def _verified(
    core: Core, drafts: Drafts, file: VerifiedFile, path: str, identity: Identity
) -> Complete:
    if identity.size != file.size or Identity.of(core.files.stat(path)) != identity:
        raise FileChangedError(f"not the file that was written: {path}")
    if file.size <= INLINE_SIZE_MAX:
        data = core.files.read(file.fd, file.size, 0)
        if pybao.hash(data) != file.hash:
            raise VerificationError(file.hash, detail=f"in {path}")
        return Complete(file.hash, file.size, data=data)
    token = write_outboard(core, drafts, file.hash, file.outboard)
    return Complete(
        file.hash,
        file.size,
        reference=Reference(os.fsencode(path), identity),
        outboard=file.outboard if token is None else None,
        outboard_token=token,
    )

"""One file of the user becomes a blob: hashed in place or copied, never while it changes.

Its identity is compared before and after it was hashed; if that differs, it is tried again and
then refused.
"""

from __future__ import annotations

import os
import stat
import time
from typing import TYPE_CHECKING, NamedTuple

import pybao
from blobstore.adding import Drafts, add_own_file, hash_file
from blobstore.api import INLINE_SIZE_MAX, ImportMode
from blobstore.catalog import Complete
from blobstore.codec.hash import Hash
from blobstore.database import FULL_CODES
from blobstore.errors import ImportFileError
from blobstore.files import Identity
from blobstore.folder import DATA
from blobstore.schema import Reference
from blobstore.walking import unreadable

if TYPE_CHECKING:
    from collections.abc import Callable

    from blobstore.core import Core

ATTEMPTS = 3
"""How often a file that changes while it is hashed is tried."""


class _Changed(Exception):  # noqa: N818 - a signal within this module
    """The file is not what it was when its import began."""


class Imported(NamedTuple):
    """What a file was while it was hashed."""

    hash: Hash
    identity: Identity
    begun_ns: int
    """The clock before."""


class OneFile:
    """Imports files one after the other.

    Attributes:
        hashing: how far the file is that is being hashed; another thread may cancel it.
    """

    def __init__(
        self, core: Core, lease: bytes, mode: ImportMode, check_cancelled: Callable[[], None]
    ) -> None:
        self._core = core
        self._lease = lease
        self._mode = mode
        self._check_cancelled = check_cancelled
        self.hashing: pybao.Progress | None = None

    def import_file(self, path: str, batch: list[Complete]) -> Imported:
        """Import a file; what can wait for others to be recorded is added to `batch`.

        Raises:
            ImportFileError: see `Store.import_file`.
        """
        for _ in range(ATTEMPTS):
            self._check_cancelled()
            fd = self._open(path)
            begun_ns = time.time_ns()
            try:
                identity = self._identity(fd, path)
                hash = self._import_open(fd, identity, path, batch)
            except (_Changed, pybao.FileShorter):
                continue
            except OSError as error:
                if error.errno in FULL_CODES:
                    raise
                raise unreadable(error, path) from error
            finally:
                self._core.files.close(fd)
            return Imported(hash, identity, begun_ns)
        raise ImportFileError(f"it changes while it is imported: {path}")

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

    def _import_open(self, fd: int, identity: Identity, path: str, batch: list[Complete]) -> Hash:
        if identity.size <= INLINE_SIZE_MAX:
            data = self._core.files.read(fd, INLINE_SIZE_MAX + 1, 0)
            self._check_unchanged(fd, identity, path)
            hash = Hash(pybao.hash(data))
            batch.append(Complete(hash, len(data), data=data))
            return hash
        self.hashing = pybao.Progress()
        try:
            if self._mode is ImportMode.COPY:
                return self._copy(fd, identity, path)
            return self._reference(fd, identity, path, batch)
        finally:
            self.hashing = None

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
            return add_own_file(self._core, drafts, file, identity.size, self._lease, self.hashing)

    def _reference(self, fd: int, identity: Identity, path: str, batch: list[Complete]) -> Hash:
        with Drafts(self._core) as drafts:
            hash, outboard, token = hash_file(self._core, drafts, fd, identity.size, self.hashing)
            self._check_unchanged(fd, identity, path)
            blob = Complete(
                hash,
                identity.size,
                reference=Reference(os.fsencode(path), identity),
                outboard=outboard,
                outboard_token=token,
            )
            if token is None:
                batch.append(blob)
            else:
                drafts.name_by_hash(hash)
                drafts.sync()
                drafts.record(self._lease, [blob])
        return hash

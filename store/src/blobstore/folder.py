"""The store's own folder: data and outboard files with names of their own, and who holds them.

A file is called `<hash>.<token>`, with a random token for each add, so that removing what one
process knows can never remove what another has just added. Whoever writes a file holds its lock
from before its first byte until the record that names it is committed; GC removes files that no
record names and whose lock it can take.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blobstore.codec.hash import HASH_SIZE, Hash
from blobstore.errors import StoreFormatError
from blobstore.schema import TOKEN_SIZE

if TYPE_CHECKING:
    from pathlib import Path

    from blobstore.files import Files

DATA = "data"
OUTBOARD = "outboard"
LEASES = "leases"
DATABASE = "blobs.lmdb"
CREATING = "creating.lmdb"
OPEN_LOCK = "lock"
INCOMING = "incoming"
"""Stands in for the hash in a name as long as that is not known."""

_LOCK_SUFFIX = "-lock"
_OURS = frozenset(
    (DATA, OUTBOARD, LEASES, OPEN_LOCK, CREATING, CREATING + _LOCK_SUFFIX, DATABASE + _LOCK_SUFFIX)
)


def owned_name(hash: bytes, token: bytes) -> str:
    """The name of an owned file."""
    return f"{hash.hex()}.{token.hex()}"


def parse_owned_name(name: str) -> tuple[Hash, bytes] | None:
    """Hash and token of an owned file's name; None for any other name."""
    head, _, tail = name.partition(".")
    if len(head) != 2 * HASH_SIZE or len(tail) != 2 * TOKEN_SIZE:
        return None
    try:
        hash, token = Hash(bytes.fromhex(head)), bytes.fromhex(tail)
    except ValueError:
        return None
    return (hash, token) if name == owned_name(hash, token) else None


@dataclass(slots=True)
class OwnedFile:
    """A file of the store, open for writing and locked until closed.

    Attributes:
        kind: `DATA` or `OUTBOARD`, the folder it is in.
        token: what the record will name it by.
    """

    kind: str
    token: bytes
    path: Path
    fd: int


class Folder:
    """The folder of one store."""

    def __init__(self, path: Path, files: Files) -> None:
        self.path = path
        self.files = files

    # Opening

    @property
    def database(self) -> Path:
        return self.path / DATABASE

    def check_is_ours(self) -> None:
        """Refuse a folder that holds something else, before anything is put into it.

        Raises:
            StoreFormatError: not a folder, or with other things in it and no database.
        """
        if not self.files.exists(self.path):
            return
        if not self.path.is_dir():
            raise StoreFormatError(f"not a blob store, not even a folder: {self.path}")
        names = self.files.names(self.path)
        if DATABASE not in names and not _OURS.issuperset(names):
            raise StoreFormatError(f"not a blob store, and not empty: {self.path}")

    def prepare(self) -> int:
        """Make the folder and its parts; returns the lock under which a store is opened."""
        self.files.make_folder(self.path)
        fd = self.files.open(self.path / OPEN_LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            self.files.lock(fd)
            for name in (DATA, OUTBOARD, LEASES):
                self.files.make_folder(self.path / name)
        except BaseException:
            self.files.close(fd)
            raise
        return fd

    def remove_unfinished_database(self) -> None:
        """What a process left that died while it made the database."""
        for name in (CREATING, CREATING + _LOCK_SUFFIX):
            self.unlink_if_there(self.path / name)

    def publish_database(self) -> None:
        """Give the database that was made its name: from now on this is a store."""
        self.unlink_if_there(self.path / (CREATING + _LOCK_SUFFIX))
        self.files.sync_folder(self.path)
        self.files.rename(self.path / CREATING, self.database)
        self.files.sync_folder(self.path)

    # Owned files

    def file_path(self, kind: str, hash: bytes, token: bytes) -> Path:
        return self.path / kind / owned_name(hash, token)

    def create(self, kind: str, hash: bytes | None = None) -> OwnedFile:
        """A new, empty, locked file, for `hash` if that is known already."""
        while True:
            token = secrets.token_bytes(TOKEN_SIZE)
            name = owned_name(hash, token) if hash is not None else f"{INCOMING}.{token.hex()}"
            path = self.path / kind / name
            fd = self.files.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            if self._lock_and_check(fd, path):
                return OwnedFile(kind, token, path, fd)

    def _lock_and_check(self, fd: int, path: Path) -> bool:
        """Lock a file just opened. A GC may have come between: False if its name is gone."""
        try:
            if self.files.try_lock(fd) and self._is_at(fd, path):
                return True
        except BaseException:
            self.files.close(fd)
            raise
        self.files.close(fd)
        return False

    def _is_at(self, fd: int, path: Path) -> bool:
        try:
            there = self.files.stat(path)
        except FileNotFoundError:
            return False
        mine = self.files.fstat(fd)
        return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)

    def name_by_hash(self, file: OwnedFile, hash: bytes) -> None:
        """Give a file that was created without a hash its final name."""
        path = self.file_path(file.kind, hash, file.token)
        self.files.rename(file.path, path)
        file.path = path

    def sync(self, *written: OwnedFile) -> None:
        """Owned files and their names reach the disk before this returns."""
        for file in written:
            self.files.sync_data(file.fd)
        for kind in sorted({file.kind for file in written}):
            self.files.sync_folder(self.path / kind)

    def close(self, file: OwnedFile) -> None:
        """Close and unlock; what no record names is garbage from now on."""
        if file.fd >= 0:
            fd, file.fd = file.fd, -1
            self.files.close(fd)

    def drop(self, file: OwnedFile) -> None:
        """Remove a file that came to nothing."""
        try:
            self.unlink_if_there(file.path)
        finally:
            self.close(file)

    def lock_existing(self, kind: str, hash: bytes, token: bytes) -> OwnedFile | None:
        """Open and lock a file that a record names; None if it is gone.

        Raises:
            BlockingIOError: someone else holds the lock.
        """
        path = self.file_path(kind, hash, token)
        try:
            fd = self.files.open(path, os.O_RDWR)
        except FileNotFoundError:
            return None
        try:
            if not self.files.try_lock(fd):
                raise BlockingIOError(f"locked: {path}")
            there = self._is_at(fd, path)
        except BaseException:
            self.files.close(fd)
            raise
        if not there:
            self.files.close(fd)
            return None
        return OwnedFile(kind, token, path, fd)

    def has(self, kind: str, hash: bytes, token: bytes, size: int) -> bool:
        """Whether an owned file is there, with at least `size` bytes."""
        try:
            return self.files.stat(self.file_path(kind, hash, token)).st_size >= size
        except FileNotFoundError:
            return False

    def unlink_if_there(self, path: Path) -> bool:
        """Remove a name; False if another was faster."""
        try:
            self.files.unlink(path)
        except FileNotFoundError:
            return False
        return True

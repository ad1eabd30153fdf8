"""Sessions: what a running process holds, let go by its death.

Each store handle is a session: a lock file in `leases/`, locked as long as the process lives.
The leases of a session are rows in the database (see `catalog.protect`); whoever can take the
lock of a session knows that it is dead and removes its rows.
"""

from __future__ import annotations

import os
import secrets
import threading
from typing import TYPE_CHECKING

from blobstore.folder import LEASES
from blobstore.schema import SESSION_SIZE

if TYPE_CHECKING:
    from pathlib import Path

    from blobstore.files import Files
    from blobstore.folder import Folder


class Session:
    """The session of one store handle.

    Attributes:
        id: 16 random bytes.
        default_lease: keeps what is added without a temp tag until the store is closed.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._count = 0
        self.id, self._fd = self._create()
        self.default_lease = self.id + bytes(4)

    def _create(self) -> tuple[bytes, int]:
        files = self._folder.files
        while True:
            id = secrets.token_bytes(SESSION_SIZE)
            path = session_path(self._folder, id)
            fd = files.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            # GC may take a file that is not locked yet for one of the dead.
            if files.try_lock(fd) and files.exists(path):
                return id, fd
            files.close(fd)

    def new_lease(self) -> bytes:
        """A lease of its own for a temp tag."""
        with self._lock:
            self._count += 1
            return self.id + self._count.to_bytes(4, "big")

    def close(self) -> None:
        """The session is over; its rows are removed by the caller, before."""
        self._folder.unlink_if_there(session_path(self._folder, self.id))
        self._folder.files.close(self._fd)


def session_path(folder: Folder, id: bytes) -> Path:
    """The lock file of a session."""
    return folder.path / LEASES / id.hex()


def parse_session_name(name: str) -> bytes | None:
    """The session that a lock file is of; None for any other name."""
    try:
        id = bytes.fromhex(name)
    except ValueError:
        return None
    # A shorter id would stand for all sessions that begin with it.
    return id if len(id) == SESSION_SIZE and id.hex() == name else None


def lock_if_dead(files: Files, path: Path) -> int | None:
    """Take the lock of a session whose process is gone: its descriptor, -1 without a lock file.

    None means that it lives.
    """
    try:
        fd = files.open(path, os.O_RDWR)
    except FileNotFoundError:
        return -1
    try:
        if files.try_lock(fd):
            return fd
    except BaseException:
        files.close(fd)
        raise
    files.close(fd)
    return None

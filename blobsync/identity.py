"""The key of a home folder, and the right to use it: one process at a time.

The key file holds the secret key as 64 hex digits and a newline, readable by its owner alone. The
port that was bound last is kept beside it, so that a ticket stays good after a restart.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from typing import TYPE_CHECKING, Self

from nacl.signing import SigningKey

from blobsync.address import EndpointId
from blobsync.errors import BlobsyncError, ExitCode

if TYPE_CHECKING:
    from pathlib import Path

KEY_SIZE = 32


class KeyFileError(BlobsyncError):
    """The key file cannot be used."""

    exit_code = ExitCode.STORE


class Identity:
    """A secret key, held by this process alone if `is_temporary` is not set."""

    def __init__(self, secret_key: bytes, *, port_path: Path | None, lock_fd: int | None) -> None:
        self.secret_key = secret_key
        self._port_path = port_path
        self._lock_fd = lock_fd

    @classmethod
    def claim(cls, home: Path) -> Self:
        """The key of this home; a temporary one while another process uses it."""
        secret_key = load_key(home)
        lock_fd = os.open(home / "key.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock_fd)
            return cls(secrets.token_bytes(KEY_SIZE), port_path=None, lock_fd=None)
        return cls(secret_key, port_path=home / "port", lock_fd=lock_fd)

    @property
    def is_temporary(self) -> bool:
        return self._port_path is None

    def last_port(self) -> int:
        """The UDP port of the last time, 0 if there is none."""
        if self._port_path is None:
            return 0
        try:
            port = int(self._port_path.read_text())
        except (FileNotFoundError, ValueError):
            return 0
        return port if 0 < port < 1 << 16 else 0

    def keep_port(self, port: int) -> None:
        """Remember the port for the next time."""
        if self._port_path is not None:
            self._port_path.write_text(f"{port}\n")

    def release(self) -> None:
        """Let other processes use the key. Idempotent."""
        fd, self._lock_fd = self._lock_fd, None
        if fd is not None:
            os.close(fd)


def load_key(home: Path) -> bytes:
    """The 32 secret bytes of this home, made at first use.

    Raises:
        KeyFileError: the file is there but does not hold a key.
    """
    path = home / "key"
    try:
        secret_key = bytes.fromhex(path.read_text().strip())
    except FileNotFoundError:
        return _make_key(path)
    except ValueError:
        secret_key = b""
    if len(secret_key) != KEY_SIZE:
        raise KeyFileError(f"{path} does not hold a secret key; move it away to get a new one")
    return secret_key


def _make_key(path: Path) -> bytes:
    secret_key = secrets.token_bytes(KEY_SIZE)
    # Written aside and linked: of two processes at once both end up with the same key.
    aside = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "w") as file:
            file.write(secret_key.hex() + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(aside, path)
        except FileExistsError:
            return load_key(path.parent)
    finally:
        aside.unlink()
    return secret_key


def public_id(secret_key: bytes) -> EndpointId:
    """The endpoint id of a secret key."""
    return EndpointId(bytes(SigningKey(secret_key).verify_key))

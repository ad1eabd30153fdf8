"""Folders below a root, reached one component at a time and held by descriptor.

Each folder is opened relative to the one above it without following a symlink, so whatever others
rename or plant meanwhile, a descriptor held here was a folder below the root when it was opened.
The descriptors are kept for the next file, at most `HELD_MAX` that nobody uses; one is taken up
again only if its name still leads to it.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections import OrderedDict
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from blobsync.errors import BlobsyncError, DiskFullError, ExitCode

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

HELD_MAX = 128
"""Most descriptors of folders kept open while unused."""

_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_KINDS = (
    (stat.S_ISLNK, "a symlink"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISREG, "a file"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
)


class TargetError(BlobsyncError):
    """A file or folder of the destination cannot be read or written."""


class TargetMissingError(TargetError, FileNotFoundError):
    """What was to be read at the destination is not there."""

    exit_code = ExitCode.NOT_FOUND


class UnsafeTargetError(TargetError):
    """Something else stands where a file or folder of ours was to be: a symlink, a FIFO, ..."""

    exit_code = ExitCode.CONFLICT


class Folder:
    """An open folder; valid while held."""

    __slots__ = ("components", "fd", "identity", "is_kept", "users")

    def __init__(self, components: tuple[str, ...], fd: int) -> None:
        found = os.fstat(fd)
        self.components = components
        self.fd = fd
        self.identity = (found.st_dev, found.st_ino)
        self.users = 0
        self.is_kept = True


class Folders:
    """The open folders below a root; safe to use from several threads at once."""

    def __init__(self, fd: int, path: Path) -> None:
        """Take over `fd`, the descriptor of the root; `path` is for messages only."""
        self._path = path
        self._lock = threading.Lock()
        self._top = Folder((), fd)
        self._top.users = 1
        self._kept: OrderedDict[tuple[str, ...], Folder] = OrderedDict()
        self._devices = {self._top.identity[0]: os.dup(fd)}
        self._is_closed = False

    def path_of(self, components: tuple[str, ...]) -> Path:
        """The path of a file or folder, for messages and records; never opened."""
        return self._path.joinpath(*components)

    def acquire(
        self,
        components: tuple[str, ...],
        *,
        create: bool,
        entered: set[Folder] | None = None,
    ) -> Folder:
        """Open a folder, and with `create` make what is missing of it; `release` it in the end.

        Of several that are acquired for one piece of work, those in `entered`, which grows, are not
        looked at again.

        Raises:
            FileNotFoundError: it is not there, and `create` is not set.
            UnsafeTargetError: a component is a symlink or otherwise not a folder.
            OSError: anything else; not translated.
        """
        with self._lock:
            if self._is_closed:
                raise ValueError("the root is closed")
            folder = self._top
            folder.users += 1
            try:
                for depth in range(1, len(components) + 1):
                    below = self._enter(folder, components[:depth], create, entered)
                    below.users += 1
                    self._let_go(folder)
                    folder = below
            except BaseException:
                self._let_go(folder)
                raise
            return folder

    def acquire_existing(
        self, components: tuple[str, ...]
    ) -> tuple[Folder | None, tuple[str, ...]]:
        """Open a folder if it is there; else None, and the first folder above it that is not."""
        try:
            return self.acquire(components, create=False), ()
        except FileNotFoundError:
            for depth in range(1, len(components)):
                try:
                    self.release(self.acquire(components[:depth], create=False))
                except FileNotFoundError:
                    return None, components[:depth]
            return None, components

    def release(self, folder: Folder) -> None:
        """Give back what `acquire` gave."""
        with self._lock:
            self._let_go(folder)

    @contextmanager
    def hold(self, components: tuple[str, ...], *, create: bool) -> Generator[Folder]:
        """`acquire` for the length of a block."""
        folder = self.acquire(components, create=create)
        try:
            yield folder
        finally:
            self.release(folder)

    def device_fds(self) -> list[int]:
        """A descriptor on each file system that a folder was opened on."""
        with self._lock:
            return list(self._devices.values())

    def close(self) -> None:
        """Close all that is unused now, and what is in use when it is released."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            for folder in list(self._kept.values()):
                self._forget(folder)
            for fd in self._devices.values():
                os.close(fd)
            self._devices.clear()
            self._top.is_kept = False
            self._let_go(self._top)

    def _enter(
        self,
        above: Folder,
        components: tuple[str, ...],
        create: bool,
        entered: set[Folder] | None,
    ) -> Folder:
        kept = self._kept.get(components)
        if kept is not None:
            if entered is not None and kept in entered:
                return kept
            if _leads_to(above.fd, components[-1], kept):
                self._kept.move_to_end(components)
                if entered is not None:
                    entered.add(kept)
                return kept
            self._forget(kept)
        fd = self._open(above, components, create)
        try:
            folder = Folder(components, fd)
        except BaseException:
            os.close(fd)
            raise
        self._kept[components] = folder
        if entered is not None:
            entered.add(folder)
        device = folder.identity[0]
        if device not in self._devices:
            self._devices[device] = os.dup(fd)
        while len(self._kept) > HELD_MAX:
            self._forget(next(iter(self._kept.values())))
        return folder

    def _open(self, above: Folder, components: tuple[str, ...], create: bool) -> int:
        name = components[-1]
        try:
            try:
                return os.open(name, _FOLDER_FLAGS, dir_fd=above.fd)
            except FileNotFoundError:
                if not create:
                    raise
            # Whoever else makes it first is welcome: what counts is what is opened next.
            with suppress(FileExistsError):
                os.mkdir(name, dir_fd=above.fd)
            return os.open(name, _FOLDER_FLAGS, dir_fd=above.fd)
        except OSError as error:
            # Which of these it is for a symlink differs between systems.
            if error.errno in {errno.ENOTDIR, errno.ELOOP, errno.EMLINK}:
                kind = kind_at(above.fd, name)
                path = self.path_of(components)
                raise UnsafeTargetError(f"{path} is {kind}, not a folder") from error
            raise

    def _forget(self, folder: Folder) -> None:
        del self._kept[folder.components]
        folder.is_kept = False
        if not folder.users:
            os.close(folder.fd)

    def _let_go(self, folder: Folder) -> None:
        # The number of a closed descriptor may be another folder's next: close after all use.
        folder.users -= 1
        if not folder.users and not folder.is_kept:
            os.close(folder.fd)


def kind_at(folder_fd: int, name: str) -> str:
    """What has this name, for a message."""
    try:
        mode = os.stat(name, dir_fd=folder_fd, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return "gone"
    return next((kind for test, kind in _KINDS if test(mode)), "a device")


def translated(error: OSError, path: Path, doing: str) -> BlobsyncError:
    """The error of ours for one of the system; `doing` is a verb such as `write`."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return DiskFullError(f"no room left to {doing} {path}: {error.strerror}")
    if isinstance(error, FileNotFoundError):
        return TargetMissingError(f"cannot {doing} {path}: it is not there")
    return TargetError(f"cannot {doing} {path}: {error.strerror or error}")


def _leads_to(folder_fd: int, name: str, folder: Folder) -> bool:
    try:
        found = os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == folder.identity

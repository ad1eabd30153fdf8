"""A folder of the user that is reached only through held directory descriptors.

Whatever a peer names and whatever others plant or swap in the folder meanwhile, nothing is
created, written or read outside of it: each component is opened relative to the one above without
following a symlink, and the last one is created new, renamed over, or checked after it was opened.
A file has its final name only when it is whole; until then its name is hidden and ends in
`HIDDEN_SUFFIX`.

Durability: `write_file` and `write_files` do not wait for the disk; after a power cut before
`sync` returned a new file may have its name but not its content. A file that replaces another is
synced before it does so, so that one of the two is always whole. `publish` only renames: sync the
partial before it, and the folder's names with `sync`.

All methods block, so call them in worker threads; they may run in several at once. `components`
is a path below the root as `check_names` gives it. Errors of the system come out as `TargetError`
and its subclasses, or `DiskFullError`.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import secrets
import stat
import sys
import unicodedata
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

import pybao
from blobsync.errors import BlobsyncError, ExitCode, HostileCollectionError, TargetExistsError
from blobsync.sync.folders import Folder, Folders, TargetError, UnsafeTargetError, kind_at
from blobsync.sync.folders import translated as _translated
from blobsync.sync.names import HIDDEN_SUFFIX, partial_name
from blobsync.sync.syscalls import HAS_SYNCFS, rename_exclusive, sync_file_system

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence

_FILE_MODE = 0o666
# Never follow a link, never wait for the other end of a FIFO, never leak to a child process.
_SAFE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_CREAT | os.O_EXCL | _SAFE
# How opening something that is not a plain file fails, besides succeeding.
_NOT_A_FILE = frozenset({errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.EISDIR, errno.ENOTDIR})
_OPEN_TRIES = 16
# Files written in one call, and so the most folders held for it.
_NEW_MAX = 64
# In place of a hash in the hidden name of a file that is written whole.
_WHOLE_MARK = "0" * 10


class TargetBusyError(TargetError):
    """Someone else is writing the same file at this moment."""

    exit_code = ExitCode.CONFLICT
    is_permanent = False


@dataclass(slots=True, eq=False)
class Partial:
    """A file that grows under a hidden name beside its final one; locked until closed."""

    fd: int
    """Open for reading and writing. A duplicate keeps the lock as well."""
    path: Path
    """Where it is now."""
    components: tuple[str, ...]
    """Where it belongs when whole."""

    def close(self) -> None:
        """Close `fd`; the file stays, under whichever name it has. May be called twice."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Contents(Protocol):
    """What is to be written to several files, by position."""

    def data(self, position: int) -> bytes:
        """All of one."""
        ...

    def write_files(
        self,
        folder_fds: Sequence[int],
        files: Sequence[tuple[int, int, bytes, bytes]],
        keep_open_over: int,
    ) -> list[int | None]:
        """Write some to new files: position, then as for `pybao.write_files`."""
        ...


class BytesContents:
    """Contents that are bytes."""

    def __init__(self, contents: Sequence[bytes]) -> None:
        self._contents = contents

    def data(self, position: int) -> bytes:
        return self._contents[position]

    def write_files(
        self,
        folder_fds: Sequence[int],
        files: Sequence[tuple[int, int, bytes, bytes]],
        keep_open_over: int,
    ) -> list[int | None]:
        entries = [(folder, hidden, name, self.data(i)) for i, folder, hidden, name in files]
        return pybao.write_files(folder_fds, entries, keep_open_over)


class Root:
    """A destination folder, open until closed."""

    def __init__(self, fd: int, path: Path) -> None:
        """Take over `fd`, a descriptor of the folder at the absolute `path`; see `open`."""
        self.path = path
        self._fd = fd
        self._folders = Folders(fd, path)
        self._token = secrets.token_hex(8)
        self._counter = itertools.count()

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, create: bool = True) -> Self:
        """Open a folder that the user chose; with `create` make it and what is above it.

        A symlink in this path is the user's own and is followed, here and never again.
        """
        real = Path(os.path.realpath(path))
        try:
            if create:
                real.mkdir(parents=True, exist_ok=True)
            fd = os.open(real, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileExistsError, NotADirectoryError) as error:
            raise UnsafeTargetError(f"{real} is not a folder") from error
        except OSError as error:
            raise _translated(error, real, "open") from error
        return cls(fd, real)

    def close(self) -> None:
        """Let go of the folder; may be called twice. Partials stay open."""
        self._folders.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def path_of(self, components: tuple[str, ...]) -> str:
        """The path of a file, for records and messages; not to be opened."""
        return f"{self.path}/{'/'.join(components)}"

    # Folders and looking

    def ensure_dir(self, components: tuple[str, ...]) -> None:
        """Make a folder and those above it, unless they are there.

        Raises:
            UnsafeTargetError: one of them is a symlink, a file or something else.
        """
        _check(components)
        with self._translating(components, "make"), self._folders.hold(components, create=True):
            pass

    def stat(self, components: tuple[str, ...]) -> os.stat_result | None:
        """`lstat` of a file, folder or symlink; None if it is not there.

        Raises:
            UnsafeTargetError: a component above it is a symlink or a file.
        """
        _check(components)
        with self._translating(components, "look at"):
            try:
                if not components:
                    with self._folders.hold((), create=False) as folder:
                        return os.fstat(folder.fd)
                with self._folders.hold(components[:-1], create=False) as folder:
                    return os.stat(components[-1], dir_fd=folder.fd, follow_symlinks=False)
            except FileNotFoundError:
                return None

    def stat_many(self, files: Iterable[tuple[str, ...]]) -> list[os.stat_result | None]:
        """`stat` of many, fastest if those of one folder follow each other.

        Raises:
            UnsafeTargetError: a component above one of them is a symlink or a file.
        """
        found: list[os.stat_result | None] = []
        folder: Folder | None = None
        above: tuple[str, ...] | None = None
        missing: tuple[str, ...] = ()
        try:
            for components in files:
                name = _check_file(components)
                with self._translating(components, "look at"):
                    if components[:-1] != above:
                        above = components[:-1]
                        if folder is not None:
                            self._folders.release(folder)
                            folder = None
                        # Below a folder that is missing there is nothing to ask for.
                        if not missing or above[: len(missing)] != missing:
                            folder, missing = self._folders.acquire_existing(above)
                    found.append(None if folder is None else _stat_at(folder.fd, name))
        finally:
            if folder is not None:
                self._folders.release(folder)
        return found

    def open_read(self, components: tuple[str, ...]) -> int:
        """A descriptor of a regular file, for reading; the caller closes it.

        Raises:
            TargetMissingError: it is not there.
            UnsafeTargetError: it is a symlink or otherwise not a regular file.
        """
        name = _check_file(components)
        with (
            self._translating(components, "read"),
            self._folders.hold(components[:-1], create=False) as folder,
        ):
            fd = self._open_existing(folder, name, os.O_RDONLY)
            try:
                self._check_regular(folder, name, os.fstat(fd))
                os.set_blocking(fd, True)
            except BaseException:
                os.close(fd)
                raise
            return fd

    # Large files: a partial that grows, then its final name

    def open_partial(self, components: tuple[str, ...], hash_hex: str) -> Partial:
        """Open or create the hidden file in which the content of this hash grows, and lock it.

        Folders above it are made. What an earlier try left in it is there, proven by nothing.

        Raises:
            TargetBusyError: it is open already, here or in another process.
            UnsafeTargetError: it is not a regular file of this user with a single link.
        """
        name = partial_name(_check_file(components), hash_hex)
        with (
            self._translating(components, "write"),
            self._folders.hold(components[:-1], create=True) as folder,
        ):
            path = self._folders.path_of((*folder.components, name))
            for _ in range(_OPEN_TRIES):
                fd = self._open_or_create(folder, name)
                if fd is None:
                    continue
                try:
                    if self._claim(folder, name, fd):
                        os.set_blocking(fd, True)
                        return Partial(fd, path, components)
                except BaseException:
                    os.close(fd)
                    raise
                os.close(fd)
            raise TargetBusyError(f"{path} is being replaced again and again by someone else")

    def publish(self, partial: Partial, *, replace: bool = False) -> Path:
        """Give a partial its final name; returns the path. It stays open and locked.

        With `replace` a file or symlink of that name is replaced (a symlink itself, not what it
        points to); without, nothing is. Not synced, neither before nor after.

        Raises:
            TargetExistsError: the name is taken; the partial stays.
            UnsafeTargetError: the hidden name no longer leads to the file that is open.
        """
        name = _check_file(partial.components)
        hidden = partial.path.name
        with (
            self._translating(partial.components, "write"),
            self._folders.hold(partial.components[:-1], create=False) as folder,
        ):
            if not _is_at(folder.fd, hidden, os.fstat(partial.fd)):
                raise UnsafeTargetError(f"{partial.path} is not the file that was written")
            self._finish(folder, hidden, name, replace=replace, sync=False)
        return self._folders.path_of(partial.components)

    def remove_partial(self, components: tuple[str, ...], hash_hex: str) -> bool:
        """Remove what `open_partial` made, whatever it is now; False if there is nothing.

        Close the `Partial` first, or whoever resumes may make a second one beside it.
        """
        name = partial_name(_check_file(components), hash_hex)
        with self._translating(components, "remove"):
            try:
                with self._folders.hold(components[:-1], create=False) as folder:
                    os.unlink(name, dir_fd=folder.fd)
            except FileNotFoundError:
                return False
        return True

    # Small files, whole

    def write_file(
        self, components: tuple[str, ...], data: bytes, *, replace: bool = False
    ) -> None:
        """Write a whole file; `replace` as for `publish`. On an error nothing is left of it."""
        self.write_files([(components, data)], replace=replace)

    def write_files(
        self,
        files: Iterable[tuple[tuple[str, ...], bytes]],
        *,
        replace: bool = False,
        keep_open_over: int | None = None,
    ) -> list[int | None]:
        """Write whole files, fastest if those of one folder follow each other.

        With `keep_open_over` the files with more bytes stay open: their descriptors come back, in
        the places of the files, and are the caller's. On an error the files before the one that
        failed stay, and of that one nothing.

        Raises:
            TargetExistsError: a name is taken.
            DiskFullError: no room left.
        """
        files = list(files)
        contents = BytesContents([data for _, data in files])
        places = [(components,) for components, _ in files]
        return self.write_contents(places, contents, replace=replace, keep_open_over=keep_open_over)

    def write_contents(
        self,
        places: Sequence[Sequence[tuple[str, ...]]],
        contents: Contents,
        *,
        replace: bool = False,
        keep_open_over: int | None = None,
    ) -> list[int | None]:
        """As `write_files`, each of `contents` to all of its places; they need not be Python's.

        Of several places of one, the file at the first stays open.
        """
        keep_over = sys.maxsize if keep_open_over is None else keep_open_over
        files = [(position, each) for position, some in enumerate(places) for each in some]
        kept: list[int | None] = [None] * len(places)
        written = 0
        try:
            while written < len(files):
                window = files[written : written + _NEW_MAX]
                descriptors = self._write_new(window, contents, keep_over) if HAS_SYNCFS else []
                for (position, _), fd in zip(window, descriptors, strict=False):
                    _keep_first(kept, position, fd)
                written += len(descriptors)
                if len(descriptors) < len(window):
                    position, components = files[written]
                    data = contents.data(position)
                    fd = self._write_one(components, data, replace=replace)
                    if len(data) > keep_over:
                        _keep_first(kept, position, fd)
                    else:
                        os.close(fd)
                    written += 1
        except BaseException:
            for fd in kept:
                if fd is not None:
                    os.close(fd)
            raise
        return kept

    def _write_new(
        self,
        window: Iterable[tuple[int, tuple[str, ...]]],
        contents: Contents,
        keep_over: int,
    ) -> list[int | None]:
        """Write the first files as far as they go the common way: nothing is there in their place.

        Whatever is in the way of the next one, `_write_one` deals with it or says what it is.
        """
        folders: list[Folder] = []
        entered: set[Folder] = set()
        numbers: dict[tuple[str, ...], int] = {}
        files: list[tuple[int, int, bytes, bytes]] = []
        try:
            for position, components in window:
                name = _check_file(components)
                above = components[:-1]
                number = numbers.get(above)
                if number is None:
                    try:
                        folder = self._folders.acquire(above, create=True, entered=entered)
                        folders.append(folder)
                    except (BlobsyncError, OSError):
                        # Those before it are written; then `_write_one` meets the same and tells.
                        break
                    number = numbers[above] = len(folders) - 1
                hidden = partial_name(name, _WHOLE_MARK)
                files.append((position, number, os.fsencode(hidden), os.fsencode(name)))
            return contents.write_files([folder.fd for folder in folders], files, keep_over)
        except OSError:
            # No descriptor left to work with: one file at a time needs fewer, or tells.
            return []
        finally:
            for folder in folders:
                self._folders.release(folder)

    def _write_one(self, components: tuple[str, ...], data: bytes, *, replace: bool) -> int:
        """Write a whole file, whatever is there already; returns its descriptor."""
        name = _check_file(components)
        with (
            self._translating(components, "write"),
            self._folders.hold(components[:-1], create=True) as folder,
        ):
            return self._write_whole(folder, name, data, replace=replace)

    def sync(self) -> None:
        """Wait until every file written and every name given so far survives a power cut."""
        with self._translating((), "sync"):
            for fd in self._folders.device_fds():
                sync_file_system(fd)

    # The file system

    def free_bytes(self) -> int:
        """Room left for this user, in bytes; quotas may leave less."""
        with self._translating((), "look at"), self._folders.hold((), create=False) as folder:
            found = os.fstatvfs(folder.fd)
        return found.f_bavail * found.f_frsize

    def is_empty(self) -> bool:
        """Whether nothing at all is in the folder."""
        with (
            self._translating((), "look at"),
            self._folders.hold((), create=False) as folder,
            os.scandir(folder.fd) as entries,
        ):
            return next(entries, None) is None

    def folds_names(self) -> bool:
        """Whether names that differ in case or Unicode normalisation alone are one here.

        Found out with two hidden files that are removed again.
        """
        with self._translating((), "write"), self._folders.hold((), create=False) as folder:
            return any(
                self._is_one(folder, self._hidden_name(one), other)
                for one, other in (("a", str.swapcase), ("\u00e9", _decomposed))
            )

    # Within one held folder

    def _is_one(self, folder: Folder, name: str, respell: Callable[[str], str]) -> bool:
        fd = os.open(name, os.O_WRONLY | _NEW, 0o600, dir_fd=folder.fd)
        try:
            return _is_at(folder.fd, respell(name), os.fstat(fd))
        finally:
            os.close(fd)
            os.unlink(name, dir_fd=folder.fd)

    def _write_whole(self, folder: Folder, name: str, data: bytes, *, replace: bool) -> int:
        """Write a file under its hidden name, then name it; returns its descriptor."""
        # One hidden name for each final one: what a killed process left is found and written anew.
        hidden = partial_name(name, _WHOLE_MARK)
        fd = self._open_whole(folder, hidden)
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(fd, rest) :]
            if not HAS_SYNCFS:
                os.fsync(fd)
            # Some file systems report a full disk only when a descriptor is closed. Ours has to
            # stay open: its lock keeps others from the hidden name until the file has its own.
            os.close(os.dup(fd))
            self._finish(folder, hidden, name, replace=replace, sync=True)
        except BaseException:
            # The error that led here is the one to report; a hidden file may have to stay.
            with suppress(OSError):
                os.unlink(hidden, dir_fd=folder.fd)
            os.close(fd)
            raise
        return fd

    def _open_whole(self, folder: Folder, hidden: str) -> int:
        """A locked descriptor of the empty hidden file that a small file is written to."""
        for _ in range(_OPEN_TRIES):
            try:
                fd = os.open(hidden, os.O_RDWR | _NEW, _FILE_MODE, dir_fd=folder.fd)
                is_new = True
            except FileExistsError:
                try:
                    fd = self._open_existing(folder, hidden, os.O_RDWR)
                except FileNotFoundError:
                    continue
                is_new = False
            try:
                if is_new:
                    # Nobody else writes to a file that he has not locked.
                    self._lock(folder, hidden, fd)
                    return fd
                if self._claim(folder, hidden, fd):
                    os.ftruncate(fd, 0)
                    os.set_blocking(fd, True)
                    return fd
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)
        path = self._folders.path_of((*folder.components, hidden))
        raise TargetBusyError(f"{path} is being replaced again and again by someone else")

    def _finish(self, folder: Folder, hidden: str, name: str, *, replace: bool, sync: bool) -> None:
        """Rename to the final name; with `sync` a file that replaces another is synced first."""
        try:
            rename_exclusive(folder.fd, hidden, name)
        except FileExistsError:
            path = self._folders.path_of((*folder.components, name))
            kind = kind_at(folder.fd, name)
            if not replace or kind == "a folder":
                raise TargetExistsError(f"{path} exists: it is {kind}") from None
            if kind not in {"a file", "a symlink", "gone"}:
                raise UnsafeTargetError(f"{path} is {kind}, not replaced") from None
            if sync:
                fd = self._open_existing(folder, hidden, os.O_RDONLY)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)
            os.rename(hidden, name, src_dir_fd=folder.fd, dst_dir_fd=folder.fd)

    def _open_or_create(self, folder: Folder, name: str) -> int | None:
        """A descriptor of a file new or old; None if it came or went meanwhile."""
        with suppress(FileExistsError):
            return os.open(name, os.O_RDWR | _NEW, _FILE_MODE, dir_fd=folder.fd)
        with suppress(FileNotFoundError):
            return self._open_existing(folder, name, os.O_RDWR)
        return None

    def _open_existing(self, folder: Folder, name: str, access: int) -> int:
        try:
            return os.open(name, access | _SAFE, dir_fd=folder.fd)
        except OSError as error:
            if error.errno in _NOT_A_FILE:
                raise self._not_regular(folder, name) from error
            raise

    def _claim(self, folder: Folder, name: str, fd: int) -> bool:
        """Lock an open partial and check it; False if the name leads elsewhere by now."""
        self._lock(folder, name, fd)
        path = self._folders.path_of((*folder.components, name))
        found = os.fstat(fd)
        self._check_regular(folder, name, found)
        # Before the lock was ours another process may have finished and renamed it.
        if not _is_at(folder.fd, name, found):
            return False
        if found.st_nlink != 1:
            raise UnsafeTargetError(f"{path} has other names (hard links); remove it")
        if found.st_uid != os.geteuid():
            raise UnsafeTargetError(f"{path} belongs to another user; remove it")
        return True

    def _lock(self, folder: Folder, name: str, fd: int) -> None:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            path = self._folders.path_of((*folder.components, name))
            raise TargetBusyError(f"{path} is being written by someone else") from error
        except OSError as error:
            # Some network file systems have no locks: there, one process at a time is up to users.
            if error.errno not in {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}:
                raise

    def _check_regular(self, folder: Folder, name: str, found: os.stat_result) -> None:
        if not stat.S_ISREG(found.st_mode):
            raise self._not_regular(folder, name)

    def _not_regular(self, folder: Folder, name: str) -> UnsafeTargetError:
        path = self._folders.path_of((*folder.components, name))
        return UnsafeTargetError(f"{path} is {kind_at(folder.fd, name)}, not a regular file")

    def _hidden_name(self, mark: str = "") -> str:
        return f".{self._token}-{next(self._counter)}{mark}{HIDDEN_SUFFIX}"

    @contextmanager
    def _translating(self, components: tuple[str, ...], doing: str) -> Generator[None]:
        try:
            yield
        except BlobsyncError:
            # Some of ours are an OSError as well.
            raise
        except OSError as error:
            raise _translated(error, self._folders.path_of(components), doing) from error


def _keep_first(kept: list[int | None], position: int, fd: int | None) -> None:
    if kept[position] is None:
        kept[position] = fd
    elif fd is not None:
        os.close(fd)


def _check(components: tuple[str, ...]) -> None:
    """Whatever callers forgot to check, each component is one step down and nothing else."""
    for component in components:
        if component in {"", ".", ".."} or "/" in component or "\0" in component:
            raise HostileCollectionError(f"not a name of a file or folder: {component!r}")


def _check_file(components: tuple[str, ...]) -> str:
    """As `_check`; returns the last component."""
    _check(components)
    if not components:
        raise ValueError("the root itself is not a file")
    return components[-1]


def _is_at(folder_fd: int, name: str, file: os.stat_result) -> bool:
    found = _stat_at(folder_fd, name)
    return found is not None and os.path.samestat(found, file)


def _stat_at(folder_fd: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _decomposed(name: str) -> str:
    return unicodedata.normalize("NFD", name)

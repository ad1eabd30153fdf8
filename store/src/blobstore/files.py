"""The few file verbs the store needs: one seam, so that tests can make each of them fail.

Every method is one system call, or the shortest loop around one, and raises plain `OSError`; two
take a whole batch to pybao, where what fails fails alone. Nothing else in this package touches a
file system, apart from LMDB and pybao, which read and write through descriptors that came from
here.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

import pybao

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

COPY_SIZE = 1024 * 1024
"""Bytes moved by one call where the kernel cannot copy by itself."""

SYNC_EACH_MAX = 8
"""Up to this many files are synced one by one, more of them by syncing their file system."""

IDENTITY_SIZE = 40
_IDENTITY = struct.Struct("<QQQqq")
_FICLONE = 0x40049409
_FS_IOC_GETVERSION = 0x80087601
_IS_LINUX = sys.platform == "linux"


class Identity(NamedTuple):
    """What tells one state of a file from another without reading it."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, stat: os.stat_result) -> Self:
        """The identity within a stat result."""
        return cls(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """The inverse of `encode`, of exactly `IDENTITY_SIZE` bytes."""
        return cls(*_IDENTITY.unpack(data))

    def encode(self) -> bytes:
        """The fields in their order, little endian; as pybao has them, and the database."""
        return _IDENTITY.pack(*self)


class FolderContent(NamedTuple):
    """What is in a folder: names joined by NUL, sorted by their bytes."""

    files: bytes
    """Regular files."""
    identities: bytes
    """Of the files, `IDENTITY_SIZE` bytes each."""
    folders: bytes
    links: bytes
    others: bytes


class Files:
    """The file verbs of the real file system."""

    def open(self, path: str | os.PathLike[str], flags: int, mode: int = 0o666) -> int:
        """Open without passing the descriptor on to child processes."""
        return os.open(path, flags | os.O_CLOEXEC, mode)

    def close(self, fd: int) -> None:
        os.close(fd)

    def dup(self, fd: int) -> int:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 0)

    def read(self, fd: int, size: int, offset: int) -> bytes:
        """Up to `size` bytes from `offset`; fewer only at the end of the file."""
        pieces: list[bytes] = []
        while size > 0:
            piece = os.pread(fd, size, offset)
            if not piece:
                break
            pieces.append(piece)
            size -= len(piece)
            offset += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def write(self, fd: int, data: bytes, offset: int) -> None:
        """All of `data` at `offset`."""
        view = memoryview(data)
        while view:
            written = os.pwrite(fd, view, offset)
            view = view[written:]
            offset += written

    def truncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)

    def fstat(self, fd: int) -> os.stat_result:
        return os.fstat(fd)

    def generation(self, fd: int) -> int:
        """Tells files apart that had the same inode number one after another.

        ext4 hands out the number of a removed file at once. 0 where the file system knows none,
        which is mostly where it does not reuse numbers either.
        """
        if not _IS_LINUX:
            return 0
        try:
            answer = fcntl.ioctl(fd, _FS_IOC_GETVERSION, bytes(8))
        except OSError as error:
            if error.errno in (errno.ENOTTY, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                return 0
            raise
        # The kernel writes an int, whatever the request's number says of a long.
        return int.from_bytes(answer[:4], sys.byteorder)

    def stat(self, path: str | os.PathLike[str]) -> os.stat_result:
        """Of what `path` leads to, links followed."""
        return os.stat(path)  # noqa: PTH116 - one system call on a str or a path

    def exists(self, path: str | os.PathLike[str]) -> bool:
        """Whether there is anything at `path`, were it a link to nowhere."""
        return os.path.lexists(path)

    def is_link(self, path: str | os.PathLike[str]) -> bool:
        """Whether there is a symlink at `path`."""
        return os.path.islink(path)  # noqa: PTH114 - one system call on a str or a path

    def sync(self, fd: int) -> None:
        """Data and metadata of a file or folder reach the disk before this returns."""
        os.fsync(fd)

    def sync_data(self, fd: int) -> None:
        """As `sync`, without times that nobody needs after a crash, where there is such a call."""
        if _IS_LINUX:
            os.fdatasync(fd)
        else:
            os.fsync(fd)

    def sync_file_system(self, fd: int) -> bool:
        """Sync the whole file system of `fd`; False where the platform cannot."""
        if not _IS_LINUX:
            return False
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syncfs(fd) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return True

    def sync_folder(self, path: str | os.PathLike[str]) -> None:
        """The names in a folder reach the disk before this returns."""
        fd = self.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self.sync(fd)
        finally:
            self.close(fd)

    def rename(self, old: str | os.PathLike[str], new: str | os.PathLike[str]) -> None:
        """Atomic; replaces `new`."""
        os.replace(old, new)  # noqa: PTH105 - one system call on a str or a path

    def link(self, old: str | os.PathLike[str], new: str | os.PathLike[str]) -> None:
        """A second name for a file; raises FileExistsError rather than replace one."""
        os.link(old, new)

    def unlink(self, path: str | os.PathLike[str]) -> None:
        os.unlink(path)  # noqa: PTH108 - one system call on a str or a path

    def make_folder(self, path: Path) -> None:
        """With its parents; fine if it is there."""
        path.mkdir(parents=True, exist_ok=True)

    def names(self, path: str | os.PathLike[str]) -> list[str]:
        """What is in a folder, in no order."""
        return os.listdir(path)  # noqa: PTH208 - names alone are wanted

    def scan_folders(self, paths: Sequence[bytes]) -> list[FolderContent | int]:
        """What is in each folder, links not followed; an errno for one that fails."""
        return [
            found if isinstance(found, int) else FolderContent(*found)
            for found in pybao.scan_folders(paths)
        ]

    def read_files(
        self, paths: Sequence[bytes], *, data_max: int, size_max: int
    ) -> list[tuple[bytes, bytes, bytes | None, bytes] | int]:
        """Read and hash many files, see `pybao.read_files`; a number for one that fails."""
        return pybao.read_files(paths, data_max=data_max, size_max=size_max)

    def try_lock(self, fd: int) -> bool:
        """Take the lock of an open file for as long as it is open; False if another has it."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def lock(self, fd: int) -> None:
        """Wait for the lock of an open file."""
        fcntl.flock(fd, fcntl.LOCK_EX)

    def copy(self, source: int, target: int) -> None:
        """All bytes of one file into an empty one: shared extents where the file system can."""
        if _IS_LINUX:
            with contextlib.suppress(OSError):
                fcntl.ioctl(target, _FICLONE, source)
                return
        offset = 0
        while True:
            copied = self._copy_piece(source, target, offset)
            if copied == 0:
                return
            offset += copied

    def _copy_piece(self, source: int, target: int, offset: int) -> int:
        if _IS_LINUX:
            try:
                return os.copy_file_range(source, target, 64 * COPY_SIZE, offset, offset)
            except OSError as error:
                # Across file systems, or one of them cannot: copy by hand.
                if error.errno not in (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                    raise
        piece = self.read(source, COPY_SIZE, offset)
        self.write(target, piece, offset)
        return len(piece)


def sync_all(files: Files, fds: Sequence[int], folders: Iterable[str]) -> list[os.stat_result]:
    """Sync files and the folders that name them, with as few system calls as their number asks.

    Returns what each file is like after that.
    """
    if len(fds) > SYNC_EACH_MAX:
        found: list[os.stat_result] = []
        synced: set[int] = set()
        for fd in fds:
            one = files.fstat(fd)
            if one.st_dev not in synced:
                if not files.sync_file_system(fd):
                    break
                synced.add(one.st_dev)
                one = files.fstat(fd)
            found.append(one)
        else:
            return found
    for fd in fds:
        files.sync_data(fd)
    for folder in sorted(folders):
        files.sync_folder(folder)
    return [files.fstat(fd) for fd in fds]


def boot_id() -> bytes:
    """16 bytes that are others after a reboot: what only the page cache held is gone then."""
    if _IS_LINUX:
        text = Path("/proc/sys/kernel/random/boot_id").read_text()
    else:
        text = subprocess.run(
            ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    return bytes.fromhex(text.strip().replace("-", ""))

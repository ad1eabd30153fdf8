"""Two calls of the operating system that Python lacks: rename without replacing, sync of a disk.

Linux has `renameat2(2)` and `syncfs(2)`, macOS `renameatx_np(2)`. Where one is missing, in the
system or in a file system, the next best that keeps the same promise is used.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os

_RENAME_NOREPLACE = 1
_RENAME_EXCL = 4
# Answers of a system or a file system that does not know the call or its flag.
_UNSUPPORTED = frozenset({errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP})

_libc = ctypes.CDLL(None, use_errno=True)
_syncfs = getattr(_libc, "syncfs", None)
_rename_at, _rename_flag = (
    (_libc.renameat2, _RENAME_NOREPLACE)
    if hasattr(_libc, "renameat2")
    else (getattr(_libc, "renameatx_np", None), _RENAME_EXCL)
)

HAS_SYNCFS = _syncfs is not None
"""`sync_file_system` waits for every file; without it each file has to be synced by itself."""


def rename_exclusive(folder_fd: int, old: str, new: str) -> None:
    """Rename within a folder; whatever already has the new name is left alone, also in a race.

    Without support for that in one call it is a hard link and then the removal of the old name:
    a crash between the two leaves both names.

    Raises:
        FileExistsError: the new name is taken, be it by a dangling symlink.
        OSError: anything else; nothing was renamed.
    """
    if _rename_at is not None:
        failed = _rename_at(
            folder_fd, os.fsencode(old), folder_fd, os.fsencode(new), ctypes.c_uint(_rename_flag)
        )
        if not failed:
            return
        code = ctypes.get_errno()
        if code not in _UNSUPPORTED:
            raise OSError(code, os.strerror(code), old, None, new)
    os.link(old, new, src_dir_fd=folder_fd, dst_dir_fd=folder_fd, follow_symlinks=False)
    os.unlink(old, dir_fd=folder_fd)


def sync_file_system(fd: int) -> None:
    """Wait until what was written to the file system of `fd` is on disk.

    With `syncfs` that is everything, files and names. Elsewhere the kernel is only told to begin,
    so files were synced one by one before (`HAS_SYNCFS`) and the drive is then told to empty its
    cache, where there is a call for it.

    Raises:
        OSError: something could not be written.
    """
    if _syncfs is not None:
        if _syncfs(fd):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return
    os.sync()
    full_sync = getattr(fcntl, "F_FULLFSYNC", None)
    if full_sync is None:
        os.fsync(fd)
    else:
        fcntl.fcntl(fd, full_sync)

"""A blob becomes a file: whole, verified and on disk under its name, or not at all.

The bytes go to a hidden file in the target's folder first. Without `overwrite` that file is
given the target's name as a link, which fails when there is something of that name, however late
it came.
"""

from __future__ import annotations

import errno
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

import pybao
from blobstore import reading
from blobstore.errors import BlobNotFoundError, VerificationError

if TYPE_CHECKING:
    from blobstore.api import BlobReader
    from blobstore.codec.hash import Hash
    from blobstore.core import Core

_NO_LINKS = frozenset((errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK))
"""What file systems without hard links say when asked for one."""


def export(
    core: Core,
    hash: Hash,
    target: str | os.PathLike[str],
    *,
    overwrite: bool,
    progress: pybao.Progress,
) -> int:
    """Write a complete blob to `target`; returns its size.

    Raises:
        FileExistsError: the target exists and `overwrite` is not set.
    """
    path = Path(target)
    if not overwrite and core.files.exists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    with reading.open_reader(core, hash) as reader:
        if not reader.available.is_all:
            raise BlobNotFoundError(hash, "it holds only a part")
        hidden = path.with_name(f".blobstore-{secrets.token_hex(8)}")
        fd = core.files.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        try:
            _fill(core, reader, fd, progress)
            core.files.sync(fd)
            _publish(core, hidden, path, overwrite=overwrite)
        except BaseException:
            core.folder.unlink_if_there(hidden)
            raise
        finally:
            core.files.close(fd)
    core.files.sync_folder(path.parent)
    return reader.size


def _fill(core: Core, reader: BlobReader, fd: int, progress: pybao.Progress) -> None:
    if isinstance(reader.data, bytes):
        if pybao.hash(reader.data) != reader.hash:
            raise VerificationError(reader.hash, detail="the store's copy is damaged")
        core.files.write(fd, reader.data, 0)
        return
    try:
        pybao.copy_verified(
            reader.hash, reader.size, reader.data, reader.outboard, fd, progress=progress
        )
    except pybao.EncodeError as error:
        raise reading.damage(core, reader, error) from error


def _publish(core: Core, hidden: Path, path: Path, *, overwrite: bool) -> None:
    if overwrite:
        core.files.rename(hidden, path)
        return
    try:
        core.files.link(hidden, path)
    except FileExistsError:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # Take the name with an empty file of our own, which the rename then replaces.
        core.files.close(core.files.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        core.files.rename(hidden, path)
        return
    core.files.unlink(hidden)

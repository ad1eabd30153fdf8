"""Which files a collection is made of, and their names: as sendme gives them.

Names start with the last component of each path, links of the path itself followed. Below a
folder only regular files count; everything else is left out, and said so. A name that is not
UTF-8 or holds a backslash refuses the whole import, since no peer could make a file of it.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from blobstore.errors import ImportFileError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blobstore.api import ImportProgress
    from blobstore.files import Files


class FoundFile(NamedTuple):
    """One file to import."""

    name: str
    path: str
    size: int


@dataclass(slots=True)
class Walk:
    """What a walk found."""

    files: list[FoundFile] = field(default_factory=list[FoundFile])
    skipped: list[str] = field(default_factory=list[str])


def walk(
    files: Files,
    paths: Sequence[str | os.PathLike[str]],
    progress: ImportProgress | None = None,
    *,
    leave_out: str | None = None,
) -> Walk:
    """Find the files of a collection, sorted by the bytes of their names.

    `leave_out` is a folder that is not entered: that of the store itself.

    Raises:
        ImportFileError: see `Store.import_collection`.
    """
    found = Walk()
    roots: dict[str, str] = {}
    for path in paths:
        real = os.path.realpath(path)
        name = _check_name(os.path.basename(real), real)  # noqa: PTH119 - of a str
        if name in roots:
            raise ImportFileError(f"two paths are named {name}: {roots[name]} and {real}")
        roots[name] = real
        try:
            info = files.stat(real)
            if stat.S_ISDIR(info.st_mode):
                _walk_folder(files, real, name, found, progress, leave_out)
            elif stat.S_ISREG(info.st_mode):
                _take(found, FoundFile(name, real, info.st_size), progress)
            else:
                raise ImportFileError(f"not a regular file or folder: {real}")
        except OSError as error:
            raise unreadable(error, real) from error
    found.files.sort(key=lambda file: file.name.encode())
    found.skipped.sort()
    if progress is not None:
        progress.walked = True
    return found


def resolve(path: str | os.PathLike[str]) -> FoundFile:
    """One file named by the user: links are followed, its name is the one they lead to."""
    real = os.path.realpath(path)
    return FoundFile(os.path.basename(real), real, 0)  # noqa: PTH119 - of a str


def _walk_folder(
    files: Files,
    folder: str,
    folder_name: str,
    found: Walk,
    progress: ImportProgress | None,
    leave_out: str | None,
) -> None:
    pending = [(folder, folder_name)]
    while pending:
        path, name = pending.pop()
        if path == leave_out:
            found.skipped.append(f"{path}: the store itself")
            continue
        for entry in files.scan(path):
            entry_name = f"{name}/{_check_name(entry.name, entry.path)}"
            if entry.is_dir(follow_symlinks=False):
                pending.append((entry.path, entry_name))
            elif entry.is_file(follow_symlinks=False):
                size = entry.stat(follow_symlinks=False).st_size
                _take(found, FoundFile(entry_name, entry.path, size), progress)
            else:
                kind = "a symlink" if entry.is_symlink() else "not a regular file"
                found.skipped.append(f"{entry.path}: {kind}")


def _take(found: Walk, file: FoundFile, progress: ImportProgress | None) -> None:
    found.files.append(file)
    if progress is not None:
        progress.files_total += 1
        progress.bytes_total += file.size


def _check_name(name: str, path: str) -> str:
    if not name:
        raise ImportFileError(f"a path without a name cannot be imported: {path}")
    if "\\" in name:
        raise ImportFileError(f"a name with a backslash cannot be imported: {path}")
    if not name.isascii():
        try:
            name.encode()
        except UnicodeEncodeError:
            raise ImportFileError(
                f"a name that is not UTF-8 cannot be imported: {path!r}"
            ) from None
    return name


def unreadable(error: OSError, path: str) -> ImportFileError:
    """The error for a file of the user's that the system refuses."""
    return ImportFileError(f"cannot import {path}: {error.strerror or error}")

"""Which files a collection is made of, and their names: as sendme gives them.

Names start with the last component of each path, links of the path itself followed. Below a
folder only regular files count; everything else is left out, and said so. A name that is not
UTF-8 or holds a backslash refuses the whole import, since no peer could make a file of it.

What was found is kept by folder, names and identities of its files as bytes: a million files take
tens of MiB here, and a folder that has not changed is known by comparing it as a whole.
"""

from __future__ import annotations

import os
import stat
import struct
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from blobstore.codec.hash import HASH_SIZE
from blobstore.errors import ImportFileError
from blobstore.files import IDENTITY_SIZE, Identity

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from blobstore.api import ImportProgress
    from blobstore.files import Files, FolderContent

SCAN_BATCH = 256
"""Folders looked into by one call."""

_SIZE = struct.Struct("<16xQ16x")


class FoundFile(NamedTuple):
    """One file to import."""

    name: str
    path: str
    size: int


@dataclass(slots=True, eq=False)
class FoundFolder:
    """Files of one folder that are to be imported, and what became of them."""

    path: bytes
    prefix: bytes
    """What stands before the names of its files in a collection: empty, or it ends with `/`."""
    names: bytes
    """Of its files, sorted, joined by NUL."""
    identities: bytearray
    """Of its files, `IDENTITY_SIZE` bytes each."""
    is_whole: bool
    """All regular files of the folder are here."""
    folders: list[FoundFolder] = field(default_factory=list["FoundFolder"])
    """Those in it, in the order of their names with a `/` behind them."""
    hashes: bytearray = field(default_factory=bytearray)
    """Of its files, once they are known."""
    key: bytes = b""
    """Under which the stat cache has it."""
    unsettled: set[int] = field(default_factory=set[int])
    """Files that may change again without a trace."""

    @property
    def count(self) -> int:
        """How many files."""
        return len(self.identities) // IDENTITY_SIZE

    def split_names(self) -> list[bytes]:
        """The names of its files."""
        return self.names.split(b"\0") if self.names else []

    def sizes(self) -> list[int]:
        """Bytes of its files."""
        return [size for (size,) in _SIZE.iter_unpack(self.identities)]

    def identity(self, index: int) -> bytes:
        """Of one file."""
        return bytes(self.identities[index * IDENTITY_SIZE : (index + 1) * IDENTITY_SIZE])

    def hash(self, index: int) -> bytes:
        """Of one file."""
        return bytes(self.hashes[index * HASH_SIZE : (index + 1) * HASH_SIZE])

    def sort_key(self) -> bytes:
        """Where it stands among files and folders of the folder above: as its files' names do."""
        return self.prefix or self.names


class Run(NamedTuple):
    """Files `[start, end)` of a folder."""

    folder: FoundFolder
    start: int
    end: int


@dataclass(slots=True)
class Walk:
    """What a walk found."""

    roots: list[FoundFolder] = field(default_factory=list[FoundFolder])
    """In the order of their names; a file of its own is a folder of one file, with no prefix."""
    folders: list[FoundFolder] = field(default_factory=list[FoundFolder])
    """All folders with files, in no order."""
    skipped: list[str] = field(default_factory=list[str])

    def runs(self) -> Iterator[Run]:
        """All files, in the order of the bytes of their names."""
        pending: list[FoundFolder | Run] = [*reversed(self.roots)]
        while pending:
            item = pending.pop()
            if isinstance(item, Run):
                yield item
            elif not item.folders:
                yield Run(item, 0, item.count)
            else:
                pending.extend(reversed(_in_order(item)))

    def names(self) -> Iterator[bytes]:
        """The name of each file in a collection, in the same order."""
        for folder, start, end in self.runs():
            prefix = folder.prefix
            for name in folder.split_names()[start:end]:
                yield prefix + name

    def files(self) -> Iterator[FoundFile]:
        """Each file, in the same order."""
        for folder, start, end in self.runs():
            names, sizes = folder.split_names(), folder.sizes()
            for index in range(start, end):
                name = os.fsdecode(folder.prefix + names[index])
                path = os.fsdecode(folder.path + b"/" + names[index])
                yield FoundFile(name, path, sizes[index])


def _in_order(folder: FoundFolder) -> list[FoundFolder | Run]:
    """Files and folders of a folder: a folder's name counts with the `/` behind it."""
    names = folder.split_names()
    order: list[FoundFolder | Run] = []
    start = 0
    for inner in folder.folders:
        end = bisect_left(names, inner.prefix[len(folder.prefix) :], start)
        order += (Run(folder, start, end), inner)
        start = end
    order.append(Run(folder, start, len(names)))
    return order


def walk(
    files: Files,
    paths: Sequence[str | os.PathLike[str]],
    progress: ImportProgress | None = None,
    *,
    leave_out: str | None = None,
) -> Walk:
    """Find the files of a collection.

    `leave_out` is a folder that is not entered: that of the store itself.

    Raises:
        ImportFileError: see `Store.import_collection`.
    """
    found = Walk()
    roots: dict[str, str] = {}
    for path in paths:
        real = os.path.realpath(path)
        name = os.path.basename(real)  # noqa: PTH119 - of a str
        if not name:
            raise ImportFileError(f"a path without a name cannot be imported: {real}")
        _check_names(os.fsencode(name), real)
        if name in roots:
            raise ImportFileError(f"two paths are named {name}: {roots[name]} and {real}")
        roots[name] = real
        try:
            info = files.stat(real)
        except OSError as error:
            raise unreadable(error, real) from error
        if stat.S_ISDIR(info.st_mode):
            root = _folder(os.fsencode(real), os.fsencode(name) + b"/")
            _walk_folder(files, root, found, progress, leave_out)
        elif stat.S_ISREG(info.st_mode):
            root = single_file(real, Identity.of(info))
            _take(found, root, progress)
        else:
            raise ImportFileError(f"not a regular file or folder: {real}")
        found.roots.append(root)
    found.roots.sort(key=FoundFolder.sort_key)
    found.skipped.sort()
    if progress is not None:
        progress.walked = True
    return found


def resolve(path: str | os.PathLike[str]) -> FoundFile:
    """One file named by the user: links are followed, its name is the one they lead to."""
    real = os.path.realpath(path)
    return FoundFile(os.path.basename(real), real, 0)  # noqa: PTH119 - of a str


def resolve_many(files: Files, paths: Iterable[str | os.PathLike[str]]) -> list[str]:
    """Where files named by the user are, links followed; once for each folder they are in."""
    folders: dict[str, str] = {}
    found: list[str] = []
    for path in paths:
        folder, slash, name = os.fspath(path).rpartition("/")
        if name in {"", ".", ".."}:
            found.append(os.path.realpath(path))
            continue
        real = folders.get(folder)
        if real is None:
            real = folders[folder] = os.path.realpath(folder + slash)
        place = f"{real.rstrip('/')}/{name}"
        found.append(os.path.realpath(place) if files.is_link(place) else place)
    return found


def single_file(path: str, identity: Identity) -> FoundFolder:
    """A file as the only one that is wanted of its folder."""
    folder, name = os.path.split(os.fsencode(path))
    return FoundFolder(folder.rstrip(b"/"), b"", name, bytearray(identity.encode()), False)


def _folder(path: bytes, prefix: bytes) -> FoundFolder:
    return FoundFolder(path.rstrip(b"/"), prefix, b"", bytearray(), True)


def _walk_folder(
    files: Files,
    root: FoundFolder,
    found: Walk,
    progress: ImportProgress | None,
    leave_out: str | None,
) -> None:
    own = None if leave_out is None else os.fsencode(leave_out)
    pending = [root]
    while pending:
        batch, pending = pending[-SCAN_BATCH:], pending[:-SCAN_BATCH]
        if any(folder.path == own for folder in batch):
            found.skipped.append(f"{leave_out}: the store itself")
            batch = [folder for folder in batch if folder.path != own]
        contents = files.scan_folders([folder.path or b"/" for folder in batch])
        for folder, content in zip(batch, contents, strict=True):
            path = os.fsdecode(folder.path) or "/"
            if isinstance(content, int):
                raise unreadable(OSError(content, os.strerror(content)), path)
            _check_names(content.files, path)
            _check_names(content.folders, path)
            _add_content(folder, content, found, progress)
            pending += folder.folders


def _add_content(
    folder: FoundFolder, content: FolderContent, found: Walk, progress: ImportProgress | None
) -> None:
    folder.names = content.files
    folder.identities = bytearray(content.identities)
    if content.files:
        _take(found, folder, progress)
    if content.folders:
        folder.folders = [
            _folder(folder.path + b"/" + name, folder.prefix + name + b"/")
            for name in content.folders.split(b"\0")
        ]
        folder.folders.sort(key=FoundFolder.sort_key)
    for names, kind in ((content.links, "a symlink"), (content.others, "not a regular file")):
        for name in names.split(b"\0") if names else ():
            found.skipped.append(f"{os.fsdecode(folder.path + b'/' + name)}: {kind}")


def _take(found: Walk, folder: FoundFolder, progress: ImportProgress | None) -> None:
    found.folders.append(folder)
    if progress is not None:
        progress.files_total += folder.count
        progress.bytes_total += sum(folder.sizes())


def _check_names(names: bytes, path: str) -> None:
    """Refuse names, joined by NUL, that no collection may have; `path` is where they were found."""
    if b"\\" in names:
        raise ImportFileError(f"a name with a backslash cannot be imported: {_first(names, path)}")
    try:
        names.decode()
    except UnicodeDecodeError:
        raise ImportFileError(
            f"a name that is not UTF-8 cannot be imported: {_first(names, path)!r}"
        ) from None


def _first(names: bytes, folder: str) -> str:
    """The path of the first name that `_check_names` refuses."""
    for name in names.split(b"\0"):
        text = os.fsdecode(name)
        if "\\" in text or not _is_utf8(name):
            return folder if folder.endswith(text) else os.path.join(folder, text)  # noqa: PTH118 - of strs
    return folder


def _is_utf8(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


def unreadable(error: OSError, path: str) -> ImportFileError:
    """The error for a file of the user's that the system refuses."""
    return ImportFileError(f"cannot import {path}: {error.strerror or error}")

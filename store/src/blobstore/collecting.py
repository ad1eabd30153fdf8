"""The collection that imported files become: names and hashes joined, nothing kept by file.

A million files are some tens of MiB here: the two blobs of the collection and a few numbers.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, cast, overload

from blobstore.api import FileList, ImportedFile
from blobstore.codec.hash import HASH_SIZE, Hash
from blobstore.codec.names import Names

if TYPE_CHECKING:
    from blobstore.walking import Walk


class ImportedFiles(FileList):
    """The files of a collection in its order, each made when it is asked for.

    Equal to any sequence of the same files.
    """

    def __init__(self, found: Walk) -> None:
        """Raises ValueError: the names are too long for a collection."""
        self._sizes = array("Q")
        # Hands its bytes over without a copy, unlike a bytearray.
        hashes = BytesIO()
        for folder, start, end in found.runs():
            if end - start == folder.count:
                hashes.write(folder.hashes)
                self._sizes.extend(folder.sizes())
            elif end > start:
                hashes.write(folder.hashes[start * HASH_SIZE : end * HASH_SIZE])
                self._sizes.extend(folder.sizes()[start:end])
        self._hashes = hashes.getvalue()
        del hashes
        self._names = Names.encode(len(self._sizes), found.names())

    @property
    def meta(self) -> bytes:
        """The metadata blob of the collection."""
        return self._names.meta

    @property
    def hashes(self) -> bytes:
        """The hashes of all files, back to back."""
        return self._hashes

    @property
    def size(self) -> int:
        return sum(self._sizes)

    def names(self) -> Sequence[str]:
        return self._names

    def __len__(self) -> int:
        return len(self._sizes)

    @overload
    def __getitem__(self, index: int) -> ImportedFile: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[ImportedFile, ...]: ...
    def __getitem__(self, index: int | slice) -> ImportedFile | tuple[ImportedFile, ...]:
        if isinstance(index, slice):
            return tuple(self[each] for each in range(*index.indices(len(self))))
        index = range(len(self))[index]
        hash = Hash(self._hashes[index * HASH_SIZE : (index + 1) * HASH_SIZE])
        return ImportedFile(self._names[index], hash, self._sizes[index])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        files = cast("Sequence[object]", other)
        return len(self) == len(files) and all(
            mine == theirs for mine, theirs in zip(self, files, strict=True)
        )

    __hash__ = None  # pyright: ignore[reportAssignmentType] - as of any sequence that may be long

    def __repr__(self) -> str:
        return f"<{len(self)} files of {self.size} bytes>"

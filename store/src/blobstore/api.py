"""The contract that every store keeps.

A store holds blobs by hash: complete, or partial with a bitfield of the chunks that are proven.
It keeps alive what a tag (for good) or a temp tag (for a running process) needs; GC removes the
rest and never touches files of the user. Nothing unverified is handed out: data that is read is
checked against its hash on the way.

Write order, kept by every implementation that survives a restart: data and outboard are written
before the record that claims them; what is called complete was synced before; the record of a
partial blob exists before its first byte.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterable, AsyncIterator, Callable
    from pathlib import Path
    from types import TracebackType

    from blobstore.codec.hash import Hash, HashAndFormat
    from blobstore.codec.ranges import ChunkRanges

INLINE_SIZE_MAX = 16 * 1024
"""Blobs up to this size live in the database, larger ones in files."""


class ImportMode(enum.Enum):
    """What becomes of a file over 16 KiB that is imported."""

    REFERENCE = "reference"
    """It stays where it is and is served from there; the store notices when it changes."""
    COPY = "copy"
    """The store takes its own copy, a reflink where the file system can."""


class Location(enum.Enum):
    """Where the data of a blob lives."""

    INLINE = "inline"
    OWNED = "owned"
    REFERENCED = "referenced"


@dataclass(frozen=True, slots=True)
class BlobStat:
    """What the store knows of one blob."""

    hash: Hash
    size: int
    """Bytes. A claim by a peer until `size_proven`."""
    size_proven: bool
    is_complete: bool
    bitfield: ChunkRanges
    """Chunks that are proven: `ChunkRanges.all()` for a complete blob. Of a partial blob only what
    can be believed without hashing: nothing after a reboot, until it is opened or verified."""
    location: Location
    paths: tuple[Path, ...] = ()
    """User files that hold the data, for `Location.REFERENCED`."""


@dataclass(frozen=True, slots=True)
class Tag:
    """A name that keeps a blob, or a hash seq with all its children, alive for good."""

    name: str
    target: HashAndFormat


@dataclass(slots=True)
class ImportProgress:
    """Counters of a running import; the importer writes them, anyone may read them any time."""

    files_total: int = 0
    bytes_total: int = 0
    """Grow while the folder is walked; final once `walked`."""
    walked: bool = False
    files_done: int = 0
    bytes_done: int = 0


@dataclass(frozen=True, slots=True)
class ImportedFile:
    """One file of an import."""

    name: str
    """As in a collection: relative, components joined by `/`."""
    hash: Hash
    size: int


class FileList(Sequence[ImportedFile]):
    """Files of a collection that are made when they are asked for."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Bytes of all files."""

    @abstractmethod
    def names(self) -> Sequence[str]:
        """The name of each file, which costs less than to make the files."""


@dataclass(frozen=True, slots=True)
class ImportedCollection:
    """Files that became the children of one collection."""

    hash: Hash
    """Root of the collection (a hash seq)."""
    files: Sequence[ImportedFile]
    """In the order of the bytes of their names; a `LmdbStore` makes each when it is asked for."""
    skipped: tuple[str, ...] = ()
    """Paths left out, each with the reason: symlinks, sockets, ..."""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        if isinstance(self.files, FileList):
            return self.files.size
        return sum(file.size for file in self.files)

    def names(self) -> Sequence[str]:
        """Names of all files, in order."""
        if isinstance(self.files, FileList):
            return self.files.names()
        return [file.name for file in self.files]


@dataclass(frozen=True, slots=True)
class VerifiedFile:
    """A file that the caller has just written with verified data and keeps in place.

    The store syncs it through `fd` and then records it as the data of `hash`, by reference.
    """

    hash: Hash
    size: int
    outboard: bytes
    path: str | os.PathLike[str]
    fd: int


@dataclass(frozen=True, slots=True)
class GcReport:
    """What a collection of garbage removed, or would remove."""

    blobs: int
    bytes_freed: int
    files_removed: int
    """Files of the store's own."""
    kept: int
    """Blobs that are still there."""
    unreadable: tuple[Hash, ...] = ()
    """Protected hash seqs that are damaged or changed: not all their children could be kept."""


class WholeSource(NamedTuple):
    """Where all of a blob was found."""

    data: bytes | str
    """The bytes, or the path of a file, which may be one of the user."""
    size: int
    outboard: bytes


@dataclass(slots=True)
class BlobReader:
    """One blob opened for reading or serving, valid until closed whatever happens to the record.

    Whoever encodes or copies from it must verify: `data` may be a file of the user.
    """

    hash: Hash
    size: int
    available: ChunkRanges
    """Chunks that can be encoded: whole chunk groups, `ChunkRanges.all()` for a complete blob."""
    data: bytes | int
    """The bytes, or a descriptor to read with `pread`."""
    outboard: bytes | int
    """The pre-order outboard, or a descriptor of it."""
    _on_close: Callable[[], None] | None = field(default=None, repr=False)

    def close(self) -> None:
        """Close the descriptors; may be called twice."""
        on_close, self._on_close = self._on_close, None
        if on_close is not None:
            on_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class PartialBlob(ABC):
    """A blob being filled, by this task alone, until closed or completed.

    Write verified data to `data_fd` and pairs to `outboard_fd` at their places, then `record`.
    """

    hash: Hash
    data_fd: int
    outboard_fd: int
    size: int | None
    """The size claimed so far, None if never recorded."""
    size_proven: bool
    bitfield: ChunkRanges

    @abstractmethod
    async def record(self, proven: ChunkRanges, size: int, *, size_proven: bool) -> None:
        """Add chunks to the bitfield. Call it at least every 16 MiB or second of progress.

        The caller has written them already. On return a SIGKILL no longer loses them.
        """

    @abstractmethod
    async def complete(self, publish: Callable[[], Path] | None = None) -> None:
        """All chunks are there: make data and outboard durable, then call the blob complete.

        `publish`, run in a worker thread after the sync, gives the data file its final name (of
        a user's file) and returns its path; without it the data stays in the file that it is in.
        The blob is kept until the store is closed, as one added without a temp tag.

        Raises:
            VerificationError: the bitfield does not cover the blob or the size is not proven.
            FileChangedError: what `publish` returned is not the data file.
        """

    @abstractmethod
    async def close(self) -> None:
        """Let go; what was recorded stays for the next `open_partial`."""

    @abstractmethod
    async def discard(self) -> None:
        """Forget the record and the outboard, and an owned data file; never a user's file."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


class TempTag(ABC):
    """Keeps what was added to it alive, also from a GC in another process, until closed.

    A process that dies lets go of its temp tags by dying.
    """

    @abstractmethod
    async def protect(self, *targets: HashAndFormat) -> None:
        """Keep these too; a hash seq keeps its children."""

    @abstractmethod
    async def close(self) -> None: ...

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


class Store(ABC):
    """Blobs by hash. All methods may be called from many tasks of one loop at once.

    Every add takes `temp`, the temp tag that keeps the new blob from its first moment; without
    one it is kept until this store is closed. Unknown hashes raise `BlobNotFoundError`. The empty
    blob is always there.
    """

    # Adding

    @abstractmethod
    async def add_bytes(self, data: bytes, *, temp: TempTag | None = None) -> Hash: ...

    @abstractmethod
    async def add_many(self, blobs: Sequence[bytes], *, temp: TempTag | None = None) -> list[Hash]:
        """Add blobs of any size in as few transactions as their number allows."""

    @abstractmethod
    async def add_stream(
        self, chunks: AsyncIterable[bytes], *, temp: TempTag | None = None
    ) -> Hash:
        """Add a blob that arrives in pieces of any size; never held in memory as a whole."""

    @abstractmethod
    async def add_verified(
        self,
        small: Sequence[tuple[Hash, bytes]],
        files: Sequence[VerifiedFile] = (),
        *,
        temp: TempTag | None = None,
    ) -> None:
        """Record received blobs that the caller has verified: one transaction, durable on return.

        `small` are blobs up to 16 KiB; `files` stay where they are, by reference.
        """

    @abstractmethod
    async def import_file(
        self,
        path: str | os.PathLike[str],
        *,
        mode: ImportMode = ImportMode.REFERENCE,
        temp: TempTag | None = None,
        progress: ImportProgress | None = None,
    ) -> ImportedFile:
        """Add one regular file; a symlink is followed.

        Raises:
            ImportFileError: it cannot be read, is not a regular file, or changed meanwhile.
        """

    @abstractmethod
    async def import_files(
        self,
        paths: Sequence[str | os.PathLike[str]],
        *,
        mode: ImportMode = ImportMode.REFERENCE,
        temp: TempTag | None = None,
        progress: ImportProgress | None = None,
    ) -> list[ImportedFile]:
        """`import_file` for many, in as few transactions as their number allows.

        Raises:
            ImportFileError: as `import_file`, for the first that fails.
        """

    @abstractmethod
    async def import_collection(
        self,
        paths: Sequence[str | os.PathLike[str]],
        *,
        mode: ImportMode = ImportMode.REFERENCE,
        temp: TempTag | None = None,
        progress: ImportProgress | None = None,
    ) -> ImportedCollection:
        """Add files and folders as one collection, with the names that sendme would give.

        Names start with the last component of each path and are sorted by their bytes; regular
        files only, links below a folder are skipped and reported.

        Raises:
            ImportFileError: as `import_file`; two paths with the same last component; a name
                that is not UTF-8 or holds a backslash.
        """

    # Reading

    @abstractmethod
    async def stat(self, hash: Hash) -> BlobStat | None: ...

    @abstractmethod
    async def stat_many(self, hashes: Sequence[Hash]) -> list[BlobStat | None]:
        """`stat` of many in one read transaction."""

    @abstractmethod
    def list_blobs(self) -> AsyncIterator[BlobStat]:
        """All blobs, by hash, as of some moment during the iteration."""

    @abstractmethod
    async def read(self, hash: Hash, start: int = 0, end: int | None = None) -> bytes:
        """The bytes `[start, end)` of a blob, verified; `end` beyond the blob is its end.

        Raises:
            BlobNotFoundError: the store does not hold all of them.
            FileChangedError: a referenced file changed.
            VerificationError: the data is damaged.
        """

    @abstractmethod
    async def read_small(self, hashes: Sequence[Hash]) -> list[bytes | None]:
        """The data of those that are complete and inline; None for the others. Not re-hashed."""

    @abstractmethod
    async def find_whole(
        self, hashes: Sequence[Hash], *, size_max: int, bytes_max: int
    ) -> list[WholeSource | None]:
        """Where complete blobs are; not re-hashed, so whoever uses them must.

        None stands for a blob that is not complete, has more than `size_max` bytes or is not there
        just now: `open_reader` tells which. After about `bytes_max` bytes it stops: the list is
        for the first of `hashes`, at least one of them.
        """

    @abstractmethod
    async def open_reader(self, hash: Hash) -> BlobReader:
        """Open a complete or partial blob for serving.

        Raises:
            BlobNotFoundError: unknown, or nothing of it is there.
            FileChangedError: every referenced file is gone or changed.
        """

    @abstractmethod
    async def export(
        self,
        hash: Hash,
        target: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        progress: ImportProgress | None = None,
    ) -> int:
        """Write a complete blob to a file, verified, whole or not at all; returns its size.

        Raises:
            FileExistsError: the target exists and `overwrite` is not set.
        """

    # Partial blobs

    @abstractmethod
    async def open_partial(
        self, hash: Hash, *, data_fd: int | None = None, path: Path | None = None
    ) -> PartialBlob:
        """Begin or go on filling a blob.

        With `data_fd` (duplicated) and `path` the data goes to a file of the caller's, else to
        one of the store's. Each path has a bitfield of its own: the record of an interrupted
        fetch is found again by the same hash and path, and counts for nothing if the file behind
        `data_fd` is not the one that was recorded. That file may have another name by now.

        Raises:
            PartialBusyError: someone else is filling it.
        """

    # Tags

    @abstractmethod
    async def set_tag(self, name: str, target: HashAndFormat) -> None:
        """Set or replace a tag.

        Raises:
            ValueError: the name does not have 1 to 511 bytes of UTF-8.
        """

    @abstractmethod
    async def get_tag(self, name: str) -> HashAndFormat | None: ...

    @abstractmethod
    async def delete_tag(self, name: str) -> None:
        """Raises TagNotFoundError: there is none."""

    @abstractmethod
    async def rename_tag(self, old: str, new: str) -> None:
        """Raises TagNotFoundError: there is no `old`. A tag named `new` is replaced."""

    @abstractmethod
    async def list_tags(self, prefix: str = "") -> list[Tag]:
        """Tags whose name starts with `prefix`, sorted by name."""

    @abstractmethod
    async def temp_tag(self, *targets: HashAndFormat) -> TempTag:
        """A new temp tag that keeps `targets`."""

    # Removing

    @abstractmethod
    async def delete(self, hashes: Sequence[Hash]) -> int:
        """Forget blobs; returns how many there were. The empty blob is always there and stays.

        That this store handle added one without a temp tag does not protect it from this.

        Raises:
            ProtectedError: one is needed by a tag or temp tag, by another process, or is being
                filled; nothing was deleted.
        """

    @abstractmethod
    async def gc(self, *, dry_run: bool = False) -> GcReport:
        """Remove every blob that no tag, temp tag or open partial needs."""

    @abstractmethod
    async def verify(self, hash: Hash) -> ChunkRanges:
        """Re-hash a blob's data; returns the chunks that are good (all of them: all is well).

        An outboard that is damaged beside good data is made anew.
        A blob that turns out damaged becomes partial: what is bad is no longer claimed.
        """

    # Lifetime

    @abstractmethod
    async def close(self) -> None:
        """Wait for what runs and let go of everything; may be called twice."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

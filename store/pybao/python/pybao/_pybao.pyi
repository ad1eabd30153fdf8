"""BLAKE3 verified-streaming trees in chunk groups of 16 KiB: hash, encode, decode, re-validate.

Ranges are given as their boundaries in chunks of 1024 bytes: a strictly increasing sequence
of u64 at which membership flips, starting outside; `[0]` is everything, `[0, 64]` the first
64 chunks, `[]` nothing. Offsets and sizes are bytes. A `fd` is duplicated by the call that
takes it and read with `pread` or written with `pwrite`: its position does not move, and the
caller may close its own at any time. Every call lets go of the GIL. `threads=0` means as many
as there are cores. Numbers that are negative or beyond u64, sizes of 2^63 and more, boundaries
that do not increase and roots that are not 32 bytes raise `ValueError`.
"""

from collections.abc import Sequence
from typing import Self, final

__all__ = [
    "CHANGED",
    "CHUNK_SIZE",
    "GROUP_SIZE",
    "NOT_REGULAR",
    "TOO_LARGE",
    "Decoder",
    "Encoder",
    "Progress",
    "copy_verified",
    "full_groups",
    "hash",
    "hash_many",
    "outboard",
    "outboard_fd",
    "outboard_size",
    "read_files",
    "read_verified",
    "round_up_to_groups",
    "scan_folders",
    "truncate_ranges",
    "valid_ranges",
    "write_files",
]

CHUNK_SIZE: int
GROUP_SIZE: int
NOT_REGULAR: int
"""Of `read_files`: not a regular file."""
CHANGED: int
"""Of `read_files`: it changed while it was read, or its path leads to another one by now."""
TOO_LARGE: int
"""Of `read_files`: it has more bytes than were to be read."""

@final
class Progress:
    """Bytes done so far by a long call in another thread, and a way to end that call early."""

    def __new__(cls) -> Self: ...
    @property
    def done(self) -> int:
        """Bytes worked through so far."""
    def cancel(self) -> None:
        """Make the call raise `Cancelled` at its next piece."""

def hash(data: bytes) -> bytes:
    """The root of a blob: 32 bytes. Plain BLAKE3, one thread."""

def hash_many(blobs: Sequence[bytes], *, threads: int = 0) -> list[bytes]:
    """The roots of many blobs, in order, hashed in parallel."""

def outboard(data: bytes, *, threads: int = 0) -> tuple[bytes, bytes]:
    """Root and pre-order outboard of a blob in memory (empty up to 16 KiB)."""

def outboard_fd(
    fd: int,
    size: int,
    *,
    outboard_fd: int | None = None,
    threads: int = 0,
    progress: Progress | None = None,
) -> tuple[bytes, bytes]:
    """Root and pre-order outboard of the first `size` bytes of a file, in bounded memory.

    With `outboard_fd` the outboard is written there from offset 0, in no particular order, and
    `b""` is returned for it.

    Raises:
        OSError: reading or writing failed.
        FileShorter: the file ended before `size` bytes.
        Cancelled: `progress.cancel()` was called.
    """

@final
class Encoder:
    """The encoding of ranges of one blob, checked against its root as it is made.

    `data` and `outboard` are bytes or descriptors. With `header` the encoding starts with the
    size (8 bytes, little endian), as on the wire.

    Raises:
        ValueError: ranges, size or the length of bytes given do not fit together.
    """

    def __new__(
        cls,
        root: bytes,
        size: int,
        ranges: Sequence[int],
        data: bytes | int,
        outboard: bytes | int,
        *,
        header: bool = True,
    ) -> Self: ...
    @property
    def encoded_size(self) -> int:
        """Bytes of the whole encoding, known from the start."""
    def next(self, max_bytes: int = 1 << 20) -> bytes:
        """The next whole items, at most `max_bytes` of them but at least one; `b""` at the end.

        Raises:
            EncodeError: data or outboard do not match the root; nothing of the bad item leaves.
                Items before it are given out first. Every later call raises the same again.
            OSError: reading failed, likewise.
        """

@final
class Decoder:
    """A push decoder for the encoding of ranges of one blob: feed it bytes as they come.

    Without `size` the encoding starts with the size header. Only verified data is handed on:
    written to `data_fd` at its place, or, without one, kept for `take_pieces`. Verified pairs
    go to `outboard_fd` at their place in the pre-order outboard, or wait for `take_pairs`.
    At most one item (16 KiB) waits unverified.

    Raises:
        DecodeError: `size` is larger than `size_max` (kind `size_invalid`).
    """

    def __new__(
        cls,
        root: bytes,
        ranges: Sequence[int],
        *,
        size: int | None = None,
        size_max: int = ...,
        data_fd: int | None = None,
        outboard_fd: int | None = None,
    ) -> Self: ...
    def feed(self, data: bytes) -> None:
        """Take bytes of any number. What follows the end of the encoding lands in `unused`.

        Raises:
            DecodeError: an item does not match its parent; what came before it stays valid and
                stays recorded in `proven`. Every later call raises the same again.
            OSError: writing failed; the decoder is unusable from then on.
        """
    def finish(self) -> None:
        """The stream has ended.

        Raises:
            DecodeError: more was due. `kind` is `size_not_found`, `parent_not_found` or
                `leaf_not_found` at an item's boundary, `truncated` within an item.
        """
    def take_pieces(self) -> list[tuple[int, bytes]]:
        """Verified data since the last call: (offset, bytes), ascending. Empty with `data_fd`."""
    def take_pairs(self) -> list[tuple[int, bytes]]:
        """Verified pairs since the last call: (offset in the outboard, 64 bytes)."""
    def take_unused(self) -> bytes:
        """Bytes fed beyond the end of the encoding, handed over once."""
    @property
    def size(self) -> int | None:
        """The claimed size, once known."""
    @property
    def size_proven(self) -> bool:
        """Whether the last chunk was verified, which binds the size to the root."""
    @property
    def is_done(self) -> bool: ...
    @property
    def proven(self) -> list[int]:
        """Boundaries of the chunks verified (and, with `data_fd`, written) so far.

        The empty blob counts as its one empty chunk: `[0, 1]`.
        """
    @property
    def needed(self) -> int:
        """Bytes still missing to the end of the current item; 0 when done."""
    @property
    def remaining(self) -> int | None:
        """Bytes still missing to the end of the encoding; None before the size is known."""

def write_files(
    folder_fds: Sequence[int],
    files: Sequence[tuple[int, bytes, bytes, bytes]],
    keep_open_over: int,
) -> list[int | None]:
    """Write new files: (place in `folder_fds`, name until it is whole, name, data) of each.

    Both names must be free, in a folder that is open. A file is locked (`flock`) as long as it is
    open. Those with more than `keep_open_over` bytes stay open: their descriptors, which are the
    caller's, stand in the places of the files, and None for the others. Nothing is synced.

    The list is shorter than `files` if one could not be written: the files before it are there,
    nothing of it is, and why is for the caller to find out, who may have another way.

    Raises:
        ValueError: a name holds a zero byte.
        OSError: a descriptor is not open.
    """

def valid_ranges(
    root: bytes,
    size: int,
    data: bytes | int,
    outboard: bytes | int,
    ranges: Sequence[int] = ...,
    *,
    threads: int = 0,
    progress: Progress | None = None,
) -> list[int]:
    """The whole chunk groups touched by `ranges` whose data and path to the root verify.

    All groups are looked at by default. Data or outboard that are too short count as not valid;
    only real read errors raise.

    Raises:
        OSError: reading failed.
        Cancelled: `progress.cancel()` was called.
    """

def read_verified(
    root: bytes, size: int, data: bytes | int, outboard: bytes | int, start: int, end: int
) -> bytes:
    """The bytes `[start, end)` of a blob, verified; `end` beyond the blob is its end.

    Raises:
        EncodeError: data or outboard do not match the root.
        OSError: reading failed.
    """

def copy_verified(
    root: bytes,
    size: int,
    data: bytes | int,
    outboard: bytes | int,
    out_fd: int,
    *,
    progress: Progress | None = None,
) -> None:
    """Write the whole blob to `out_fd` from offset 0, each piece verified before it is written.

    Raises:
        EncodeError: data or outboard do not match the root; what was written is all verified.
        OSError: reading or writing failed.
        Cancelled: `progress.cancel()` was called.
    """

def scan_folders(
    paths: Sequence[bytes], *, threads: int = 0
) -> list[tuple[bytes, bytes, bytes, bytes, bytes] | int]:
    """What is in each folder, links not followed; a folder that fails is an errno.

    Names of regular files, their identities, names of folders, of symlinks, of everything else.
    Names are sorted by their bytes and joined by NUL. An identity is device, inode, size, mtime
    and ctime in ns: 8 bytes each, little endian, the times signed.
    """

def read_files(
    paths: Sequence[bytes], *, data_max: int, size_max: int, threads: int = 0
) -> list[tuple[bytes, bytes, bytes | None, bytes] | int]:
    """Read and hash files of up to `size_max` bytes, links not followed.

    Of each: its identity (see `scan_folders`), which it had before and after, its root, its data
    if it has at most `data_max` bytes, its outboard. One that fails is an errno, or one of
    `NOT_REGULAR`, `CHANGED` and `TOO_LARGE`, which are negative. Those of more than `data_max`
    bytes still have their path when they were hashed.
    """

def outboard_size(size: int) -> int:
    """Bytes of outboard of a blob of `size` bytes."""

def truncate_ranges(ranges: Sequence[int], size: int) -> list[int]:
    """The chunks that `ranges` selects in a blob of `size` bytes (past the end = the last)."""

def round_up_to_groups(ranges: Sequence[int]) -> list[int]:
    """The smallest set of whole chunk groups around `ranges`."""

def full_groups(ranges: Sequence[int]) -> list[int]:
    """The chunk groups that lie in `ranges` as a whole."""

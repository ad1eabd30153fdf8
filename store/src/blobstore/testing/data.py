"""Blobs to test with, and filling a partial blob from one."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pybao
from blobstore.codec.hash import Hash
from blobstore.codec.ranges import ChunkRanges

if TYPE_CHECKING:
    from pathlib import Path

    from blobstore.api import PartialBlob

INTERESTING_SIZES = (
    0,  # the empty blob, always there
    1,
    1024,  # one whole chunk
    16 * 1024 - 1,
    16 * 1024,  # one whole group: the last that lives in the database
    16 * 1024 + 1,  # the first with an outboard
    100_000,
    1024 * 1024,
    4 * 1024 * 1024 + 16 * 1024,  # the last with an outboard of 16 KiB
    4 * 1024 * 1024 + 16 * 1024 + 1,  # the first with an outboard in a file
)


def pattern(size: int, seed: int = 0) -> bytes:
    """Bytes that differ from chunk to chunk; seed 0 is the data of the test vectors."""
    period = 251 * 256
    block = bytes((i * 31 + i // 251 + seed) % 256 for i in range(min(size, period)))
    return (block * (size // period + 1))[:size]


ABSENT = Hash(b"\x01" * 32)
"""A hash of nothing that any test adds."""

LARGE = pattern(100_000)
LARGE_HASH = Hash(pybao.hash(LARGE))


def names_in(folder: Path) -> list[str]:
    """What is in a folder, sorted."""
    return sorted(os.listdir(folder))  # noqa: PTH208 - names alone are wanted


def make_file(folder: Path, name: bytes) -> bool:
    """Make a file of any name; False where the file system (APFS) holds no such name."""
    try:
        fd = os.open(os.fsencode(folder) + b"/" + name, os.O_WRONLY | os.O_CREAT)
    except OSError as error:
        if error.errno != errno.EILSEQ:
            raise
        return False
    os.close(fd)
    return True


async def fill(
    partial: PartialBlob, data: bytes, ranges: ChunkRanges | None = None, *, record: bool = True
) -> ChunkRanges:
    """Write ranges of `data` into a partial blob as a getter does; returns what was proven."""
    root, outboard = pybao.outboard(data)
    boundaries = (ranges or ChunkRanges.all()).boundaries
    encoder = pybao.Encoder(root, len(data), boundaries, data, outboard)
    decoder = pybao.Decoder(
        root, boundaries, data_fd=partial.data_fd, outboard_fd=partial.outboard_fd
    )
    while piece := encoder.next():
        decoder.feed(piece)
    decoder.finish()
    proven = ChunkRanges(decoder.proven)
    if record:
        assert decoder.size is not None
        await partial.record(proven, decoder.size, size_proven=decoder.size_proven)
    return proven

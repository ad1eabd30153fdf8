"""Reading a range of a remote blob, verified, without keeping it."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

from blobstore import ChunkRanges
from blobstore.codec.tree import CHUNK_SIZE, CHUNKS_PER_GROUP
from blobsync.protocols.blobs.getter import open_answer
from blobsync.protocols.blobs.pumps import BlobBody, Element
from blobsync.wire.range_spec import ChunkRangesSeq
from blobsync.wire.requests import GetRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from blobstore import Hash
    from blobsync.protocols.blobs.pumps import Pumps
    from blobsync.transports import Connection

STEP_CHUNKS = 512 * CHUNKS_PER_GROUP
"""Chunks of one request, 8 MiB: what is on this machine at a time."""

PIECE_SIZE = 1 << 20


async def read_range(
    connection: Connection,
    pumps: Pumps,
    root: Hash,
    element: int,
    hash: Hash,
    *,
    start: int = 0,
    end: int | None = None,
) -> AsyncIterator[bytes]:
    """The bytes `[start, end)` of one element of a root, in pieces; `end` None is the blob's end.

    Only the chunk groups around the range cross the wire.

    Raises:
        All of `get_elements`.
    """
    position = start
    size: int | None = None
    with tempfile.TemporaryFile() as file:
        while (end is None or position < end) and (size is None or position < size):
            first = position // CHUNK_SIZE
            stop = first + STEP_CHUNKS
            if end is not None:
                stop = min(stop, -(-end // CHUNK_SIZE))
            ranges = ChunkRanges.of(first, stop).round_up_to_groups()
            request = GetRequest(root, ChunkRangesSeq.from_elements([(element, ranges)]))
            async with open_answer(connection, pumps, request) as answer:
                async for body in answer.blobs([Element(element, hash, ranges)]):
                    assert isinstance(body, BlobBody), "a part of a blob always comes as a body"
                    body.open(file.fileno(), None)
                    try:
                        await body.run()
                    finally:
                        await body.settle()
                    size = body.size
                await answer.end()
            assert size is not None
            step_end = min(stop * CHUNK_SIZE, size if end is None else min(size, end))
            while position < step_end:
                piece = os.pread(file.fileno(), min(PIECE_SIZE, step_end - position), position)
                position += len(piece)
                yield piece
            file.truncate(0)
            if size <= stop * CHUNK_SIZE:
                return

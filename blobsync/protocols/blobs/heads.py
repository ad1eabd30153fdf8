"""What a peer holds of a collection, without its data: the hash seq, the names, the sizes."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

from blobstore import ChunkRanges, Collection, HashSeq
from blobstore.codec.hashseq import HASH_SEQ_SIZE_MAX
from blobstore.codec.names import COLLECTION_HEADER, COLLECTION_META_SIZE_MAX, Names
from blobsync.errors import RemoteProtocolError
from blobsync.protocols.blobs.getter import open_answer
from blobsync.protocols.blobs.pumps import BlobBody, Element
from blobsync.wire.range_spec import ChunkRangesSeq
from blobsync.wire.requests import GetRequest, split_request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blobstore import Hash
    from blobsync.protocols.blobs.pumps import BlobReceiver, Pumps
    from blobsync.transports import Connection

META_CHUNKS_FIRST = 4096
"""Chunks of the first child asked for together with the root: the names of most collections."""


async def get_collection_head(
    connection: Connection, pumps: Pumps, root: Hash
) -> tuple[bytes, bytes]:
    """The root blob of a collection and its metadata blob, both verified.

    Mostly one round trip: the root and the beginning of its first child in one request.

    Raises:
        RemoteProtocolError: it is a hash seq but no collection, or one over our limits.
        All of `get_elements`.
    """
    first = ChunkRanges.of(0, META_CHUNKS_FIRST)
    request = GetRequest(root, ChunkRangesSeq.from_elements([(0, ChunkRanges.all()), (1, first)]))
    with tempfile.TemporaryFile() as meta:
        async with open_answer(connection, pumps, request) as answer:
            data = await _receive_root(answer, root)
            children = _children(root, data)
            size = await _receive_meta(answer, Element(1, children[0], first), meta.fileno(), root)
            await answer.end()
        if size > META_CHUNKS_FIRST * 1024:
            rest = ChunkRanges.of(META_CHUNKS_FIRST)
            request = GetRequest(root, ChunkRangesSeq.from_elements([(1, rest)]))
            async with open_answer(connection, pumps, request) as answer:
                await _receive_meta(answer, Element(1, children[0], rest), meta.fileno(), root)
                await answer.end()
        return data, os.pread(meta.fileno(), size, 0)


async def _receive_root(answer: BlobReceiver, root: Hash) -> bytes:
    element = Element(0, root, ChunkRanges.all())
    data = b""
    async for item in answer.blobs([element], whole_max=HASH_SEQ_SIZE_MAX):
        if isinstance(item, BlobBody):
            raise RemoteProtocolError(f"the hash seq {root} is too large: {item.size} bytes")
        data = item[0].data
    return data


def _children(root: Hash, data: bytes) -> HashSeq:
    try:
        children = HashSeq.from_bytes(data)
    except ValueError as error:
        raise RemoteProtocolError(f"{root} is not a collection: {error}") from error
    if not children:
        raise RemoteProtocolError(f"{root} is not a collection: it has no children")
    return children


async def _receive_meta(answer: BlobReceiver, element: Element, fd: int, root: Hash) -> int:
    """Receive a part of the metadata blob into a file; returns its size."""
    size = 0
    async for body in answer.blobs([element]):
        assert isinstance(body, BlobBody), "a part of a blob always comes as a body"
        size = body.size
        if size > COLLECTION_META_SIZE_MAX:
            raise RemoteProtocolError(f"the names in {root} are too long: {size} bytes")
        body.open(fd, None)
        try:
            await body.run()
        finally:
            await body.settle()
        if os.pread(fd, len(COLLECTION_HEADER), 0) != COLLECTION_HEADER:
            raise RemoteProtocolError(f"{root} is a hash seq, but no collection: it has no names")
    return size


def decode_collection(root: Hash, data: bytes, meta: bytes) -> Collection:
    """Join names and hashes of a collection.

    Raises:
        RemoteProtocolError: they do not fit together.
    """
    try:
        return Collection.decode(meta, HashSeq.from_bytes(data))
    except ValueError as error:
        raise RemoteProtocolError(f"{root} is not a collection: {error}") from error


def decode_names(root: Hash, data: bytes, meta: bytes) -> tuple[Names, HashSeq]:
    """Names and hashes of the files of a collection, as compact as they came.

    Raises:
        RemoteProtocolError: they do not fit together.
    """
    try:
        children = HashSeq.from_bytes(data)
        return Names.decode(meta, len(children) - 1), children[1:]
    except ValueError as error:
        raise RemoteProtocolError(f"{root} is not a collection: {error}") from error


async def get_sizes(
    connection: Connection, pumps: Pumps, root: Hash, children: Sequence[tuple[int, Hash]]
) -> list[int]:
    """The proven sizes of some elements of a root: the last chunk of each is fetched.

    `children` are (element, hash), ascending.
    """
    last = ChunkRanges.last()
    hashes = dict(children)
    sizes: list[int] = []
    null_fd = os.open(os.devnull, os.O_WRONLY)
    try:
        seq = ChunkRangesSeq.from_elements((index, last) for index, _ in children)
        for request in split_request(GetRequest(root, seq)):
            assert isinstance(request, GetRequest)
            elements = [Element(i, hashes[i], last) for i, _ in request.ranges.elements()]
            async with open_answer(connection, pumps, request) as answer:
                async for body in answer.blobs(elements):
                    assert isinstance(body, BlobBody), "a part of a blob always comes as a body"
                    body.open(null_fd, None)
                    try:
                        await body.run()
                    finally:
                        await body.settle()
                    if not body.size_proven:
                        raise RemoteProtocolError(
                            f"no proof of its size came for {body.element.hash}"
                        )
                    sizes.append(body.size)
                await answer.end()
    finally:
        os.close(null_fd)
    return sizes

"""Hypothesis strategies for the values and records of the store."""

from __future__ import annotations

from hypothesis import strategies as st

from blobstore.api import INLINE_SIZE_MAX
from blobstore.claims import Claim
from blobstore.codec.hash import BlobFormat, Hash, HashAndFormat
from blobstore.codec.ranges import ChunkRanges
from blobstore.codec.tree import BLOB_SIZE_MAX, chunk_count, outboard_size
from blobstore.files import Identity
from blobstore.schema import (
    REFERENCES_MAX,
    BlobRecord,
    OutboardPlace,
    PartialRecord,
    Reference,
)

_u64 = st.integers(0, 2**64 - 1)
_i64 = st.integers(-(2**63), 2**63 - 1)

hashes = st.binary(min_size=32, max_size=32).map(Hash)
targets = st.builds(HashAndFormat, hashes, st.sampled_from(BlobFormat))
tokens = st.binary(min_size=8, max_size=8)
paths = st.binary(max_size=40).filter(lambda path: b"\0" not in path).map(lambda path: b"/" + path)


def identities(size: int | None = None) -> st.SearchStrategy[Identity]:
    """Identities of files, of any size or of one."""
    sizes = _u64 if size is None else st.just(size)
    return st.builds(Identity, _u64, _u64, sizes, _i64, _i64)


def chunk_ranges(end: int) -> st.SearchStrategy[ChunkRanges]:
    """Sets of chunks in `[0, end)`."""
    intervals = st.tuples(st.integers(0, end), st.integers(0, end))
    return st.lists(intervals, max_size=4).map(ChunkRanges.union_of)


@st.composite
def blob_records(draw: st.DrawFn) -> BlobRecord:
    """Records of complete blobs."""
    size = draw(st.one_of(st.integers(0, 4 * INLINE_SIZE_MAX), st.integers(0, BLOB_SIZE_MAX)))
    if size <= INLINE_SIZE_MAX:
        return BlobRecord(size)
    owned = draw(st.none() | tokens)
    references = draw(
        st.lists(
            st.builds(Reference, paths, identities(size)),
            min_size=0 if owned else 1,
            max_size=REFERENCES_MAX,
        )
    )
    fits = outboard_size(size) <= INLINE_SIZE_MAX
    place = draw(st.sampled_from([OutboardPlace.INLINE] * fits + [OutboardPlace.FILE]))
    token = draw(tokens) if place is OutboardPlace.FILE else None
    return BlobRecord(size, owned, tuple(references), place, token)


@st.composite
def partial_records(draw: st.DrawFn) -> PartialRecord:
    """Records of partial blobs."""
    path = draw(st.none() | paths)
    size = draw(st.none() | st.integers(0, BLOB_SIZE_MAX))
    return PartialRecord(
        path,
        draw(tokens) if path is None else None,
        draw(tokens),
        draw(_u64),
        draw(_u64),
        draw(st.integers(0, 2**32 - 1)),
        draw(st.binary(min_size=16, max_size=16)),
        Claim(
            size,
            size is not None and draw(st.booleans()),
            ChunkRanges.empty() if size is None else draw(chunk_ranges(chunk_count(size))),
        ),
    )

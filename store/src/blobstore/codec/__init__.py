"""Values and pure functions of the store: no files, no clock, no event loop, no database."""

from blobstore.codec.collection import Collection
from blobstore.codec.hash import EMPTY_HASH, BlobFormat, Hash, HashAndFormat
from blobstore.codec.hashseq import HASH_SEQ_SIZE_MAX, HashSeq
from blobstore.codec.names import COLLECTION_META_SIZE_MAX
from blobstore.codec.ranges import ChunkNum, ChunkRanges

__all__ = [
    "COLLECTION_META_SIZE_MAX",
    "EMPTY_HASH",
    "HASH_SEQ_SIZE_MAX",
    "BlobFormat",
    "ChunkNum",
    "ChunkRanges",
    "Collection",
    "Hash",
    "HashAndFormat",
    "HashSeq",
]

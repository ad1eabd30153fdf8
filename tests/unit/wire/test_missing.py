"""What a getter asks for when it goes on, against the Rust peer."""

import json
from itertools import islice
from pathlib import Path

import blake3
import pytest

from blobstore.codec.hash import EMPTY_HASH, HASH_SIZE
from blobstore.codec.ranges import ChunkRanges
from blobstore.codec.tree import CHUNK_SIZE, chunk_count
from blobsync.wire.missing import missing
from blobsync.wire.range_spec import ChunkRangesSeq
from blobsync.wire.requests import GetRequest, decode_request, encode_request

VECTORS = json.loads((Path(__file__).parents[2] / "vectors/resume.json").read_text())
ALL = ChunkRanges.all()
EMPTY = ChunkRanges.empty()


def blake3_of(data: bytes) -> bytes:
    return blake3.blake3(data).digest()


def hash_seqs() -> dict[bytes, list[bytes]]:
    """The children of each hash seq of the vectors, by its root."""
    seqs = [
        [blake3_of(bytes([i]) * (2000 + i)) for i in range(70)],
        [blake3_of(i.to_bytes(4, "little")) for i in range(600)],
    ]
    for name in ("hash_seq_small", "hash_seq_duplicates"):
        data = bytes.fromhex(VECTORS[name])
        seqs.append([data[at : at + HASH_SIZE] for at in range(0, len(data), HASH_SIZE)])
    return {blake3_of(b"".join(children)): children for children in seqs}


HASH_SEQS = hash_seqs()


def bitfields_of(case) -> dict[bytes, ChunkRanges]:
    here: dict[bytes, ChunkRanges] = {EMPTY_HASH: ALL}
    sizes: dict[bytes, int] = {EMPTY_HASH: 0}
    for entry in case["local"]:
        hash = bytes.fromhex(entry["hash"])
        imported = ChunkRanges.union_of((start, end) for start, end in entry["imported"])
        sizes[hash] = entry["size"]
        here[hash] = here.get(hash, EMPTY) | imported.truncate(entry["size"])
    return {hash: ranges.open_at_end(sizes[hash]) for hash, ranges in here.items()}


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["name"])
def test_the_next_request_of_the_rust_peer(case):
    request = decode_request(bytes.fromhex(case["request"]))
    assert isinstance(request, GetRequest)
    here = bitfields_of(case)
    root_bitfield = here.get(request.hash, EMPTY)
    children = HASH_SEQS.get(request.hash, [])
    child_count = None
    child_bitfields: list[ChunkRanges] = []
    if not request.ranges.is_blob:
        root_size = HASH_SIZE * len(children)
        if chunk_count(root_size) - 1 in root_bitfield:
            child_count = len(children)
        # Hashes can be read where the chunk group around them is here as a whole.
        readable = root_bitfield.truncate(root_size).open_at_end(root_size).full_groups()
        child_bitfields = [
            here.get(hash, EMPTY) if HASH_SIZE * i // CHUNK_SIZE in readable else EMPTY
            for i, hash in enumerate(children)
        ]
    result = missing(request.ranges, root_bitfield, child_bitfields, child_count)
    assert encode_request(GetRequest(request.hash, result)).hex() == case["missing_request"]
    assert result.is_infinite == case["missing_infinite"]
    assert bool(result) != case["complete"]
    first = [
        (index, ChunkRanges.union_of((start, end) for start, end in ranges))
        for index, ranges in case["missing_first_12"]
    ]
    assert list(islice(result.elements(), 12)) == first


def test_nothing_is_missing_from_nothing():
    assert missing(ChunkRangesSeq.empty(), EMPTY) == ChunkRangesSeq.empty()
    assert missing(ChunkRangesSeq.empty(), EMPTY, [EMPTY], 1) == ChunkRangesSeq.empty()


def test_children_are_asked_for_without_the_root():
    request = ChunkRangesSeq.from_elements([(2, ChunkRanges.of(0, 10)), (3, ALL)])
    assert missing(request, EMPTY, [ALL, ChunkRanges.of(4, 6), ALL]).runs == (
        (2, ChunkRanges((0, 4, 6, 10))),
        (3, EMPTY),
    )


def test_bitfields_may_end_early_or_go_on_beyond_the_children():
    request = ChunkRangesSeq.all()
    assert missing(request, ALL, [ALL, ALL]).runs == ((3, ALL),)
    assert missing(request, ALL, [ALL, ALL], 4).runs == ((3, ALL), (5, EMPTY))
    assert missing(request, ALL, [ALL, EMPTY, EMPTY], 1) == ChunkRangesSeq.empty()


def test_many_children():
    """A million children that are here, but for one, make a short request."""
    bitfields = [ALL] * 1_000_000
    bitfields[700_000] = ChunkRanges.of(0, 16)
    result = missing(ChunkRangesSeq.all(), ALL, bitfields, len(bitfields))
    assert result.runs == ((700_001, ChunkRanges.of(16)), (700_002, EMPTY))

"""Encodings of one blob: pybao's errors become ours, at the right chunk."""

import json
import os
import tempfile
from pathlib import Path

import blake3
import pytest

from blobstore.codec.bao import (
    SIZE_HEADER_SIZE,
    BlobDecoder,
    BlobEncoder,
    EncodingEndedError,
    hash_bytes,
    outboard,
)
from blobstore.codec.hash import EMPTY_HASH, Hash
from blobstore.codec.ranges import ChunkRanges
from blobstore.errors import VerificationError

VECTORS = Path(__file__).parents[3] / "vectors"
BLOBS = json.loads((VECTORS / "blobs.json").read_text())["blobs"]
ENCODINGS = [
    (blob["size"], case)
    for blob in json.loads((VECTORS / "encodings.json").read_text())["blobs"]
    for case in blob["cases"]
]
DAMAGED = [
    (blob, case)
    for blob in json.loads((VECTORS / "decode_errors.json").read_text())["blobs"]
    for case in blob["cases"]
]
ALL = ChunkRanges.all()


def vector_data(size: int) -> bytes:
    """Byte i is (i * 31 + i div 251) mod 256, which comes round after 251 * 256 bytes."""
    period = bytes((i * 31 + i // 251) % 256 for i in range(min(size, 251 * 256)))
    return (period * (size // (251 * 256) + 1))[:size]


def ranges_of(intervals) -> ChunkRanges:
    return ChunkRanges.union_of((start, end) for start, end in intervals)


def encode(data: bytes, ranges: ChunkRanges) -> bytes:
    hash, pairs = outboard(data)
    encoder = BlobEncoder(hash, len(data), ranges, data, pairs)
    result = b""
    while part := encoder.next():
        result += part
    assert encoder.encoded_size == len(result)
    return result


@pytest.mark.parametrize("blob", BLOBS, ids=lambda blob: blob["size"])
def test_hash_and_outboard_of_the_rust_peer(blob):
    data = vector_data(blob["size"])
    hash, pairs = outboard(data)
    assert hash == hash_bytes(data) == Hash.from_text(blob["root"])
    assert blake3.blake3(pairs).hexdigest() == blob["preorder_outboard_blake3"]


@pytest.mark.parametrize(
    ("size", "case"), ENCODINGS, ids=lambda v: v if isinstance(v, int) else v["name"]
)
def test_encodings_of_the_rust_peer(size: int, case):
    data = vector_data(size)
    ranges = ranges_of(case["ranges"])
    encoded = encode(data, ranges)
    assert len(encoded) == case["len"]
    assert blake3.blake3(encoded).hexdigest() == case["blake3"]
    decoder = BlobDecoder(hash_bytes(data), size, ranges)
    decoder.feed(encoded[SIZE_HEADER_SIZE:] + b"next")
    decoder.finish()
    assert decoder.is_done
    assert decoder.remaining == 0
    assert decoder.take_unused() == b"next"
    assert decoder.proven == ranges.truncate(size)
    # The crate says that the empty blob has no chunk; to us it has one, which is empty.
    assert size == 0 or decoder.proven == ranges_of(case["chunks_received"])
    for offset, piece in decoder.take_pieces():
        assert data[offset : offset + len(piece)] == piece
    stored = outboard(data)[1]
    for offset, pair in decoder.take_pairs():
        assert stored[offset : offset + 64] == pair


def damaged(encoded: bytes, change: str) -> bytes:
    """The payload with the change that a vector names."""
    payload = bytearray(encoded[SIZE_HEADER_SIZE:])
    words = change.split()
    if change.startswith("xor byte"):
        payload[int(words[2])] ^= int(words[-1])
    elif change.startswith("payload truncated"):
        del payload[int(words[3]) :]
    else:
        assert change in ("none", "wrong size header")
    return bytes(payload)


@pytest.mark.parametrize(
    ("blob", "case"),
    DAMAGED,
    ids=lambda v: v.get("ranges_name") or f"{v['change']}, {v['claimed_size']}",
)
def test_damage_is_found_where_the_rust_peer_finds_it(blob, case):
    ranges = ranges_of(blob["ranges"])
    payload = damaged(encode(vector_data(blob["size"]), ranges), case["change"])
    decoder = BlobDecoder(Hash.from_text(blob["root"]), case["claimed_size"], ranges)
    if case["error"] is None:
        decoder.feed(payload)
        decoder.finish()
    else:
        with pytest.raises((VerificationError, EncodingEndedError)) as caught:
            decoder.feed(payload)
            decoder.finish()
        is_mismatch = case["error"]["kind"].endswith("hash_mismatch")
        assert isinstance(caught.value, VerificationError) == is_mismatch
        if "chunk" in case["error"]:
            assert caught.value.chunk == case["error"]["chunk"]
        else:
            node = case["error"]["node"]
            level = (node ^ (node + 1)).bit_length() - 1
            assert caught.value.chunk == node + 1 - 2**level
    got = sum(len(piece) for _, piece in decoder.take_pieces())
    assert got == case["leaf_bytes_ok"]


def test_an_encoding_that_ends_early():
    data = vector_data(65537)
    payload = encode(data, ALL)[SIZE_HEADER_SIZE:]
    for cut, is_within in ((0, False), (63, True), (64, False), (192, False), (256, True)):
        decoder = BlobDecoder(hash_bytes(data), len(data), ALL)
        decoder.feed(payload[:cut])
        with pytest.raises(EncodingEndedError) as caught:
            decoder.finish()
        assert caught.value.is_within_item == is_within
        assert caught.value.chunk == 0
        assert caught.value.hash == hash_bytes(data)
    # Three pairs above the first group; then it, and 5 bytes of the second.
    for cut, is_within in ((192 + 16384, False), (192 + 16384 + 5, True)):
        decoder = BlobDecoder(hash_bytes(data), len(data), ALL)
        decoder.feed(payload[:cut])
        with pytest.raises(EncodingEndedError) as caught:
            decoder.finish()
        assert caught.value.is_within_item == is_within
        assert decoder.proven == ChunkRanges.of(0, 16)
        assert not decoder.size_proven


def test_decoding_to_descriptors():
    data = vector_data(100_000)
    hash, pairs = outboard(data)
    with tempfile.TemporaryFile() as data_file, tempfile.TemporaryFile() as outboard_file:
        decoder = BlobDecoder(
            hash, len(data), ALL, data_fd=data_file.fileno(), outboard_fd=outboard_file.fileno()
        )
        decoder.feed(encode(data, ALL)[SIZE_HEADER_SIZE:])
        assert decoder.is_done
        assert decoder.size_proven
        assert not decoder.take_pieces()
        assert os.pread(data_file.fileno(), 200_000, 0) == data
        assert os.pread(outboard_file.fileno(), 200_000, 0) == pairs


@pytest.mark.parametrize("damage", ["data", "outboard"])
def test_damaged_local_data_does_not_leave(damage: str):
    data = bytearray(vector_data(65537))
    hash, pairs = outboard(bytes(data))
    stored = bytearray(pairs)
    if damage == "data":
        data[40_000] ^= 1
    else:
        stored[64 * 2] ^= 1
    encoder = BlobEncoder(hash, len(data), ALL, bytes(data), bytes(stored))
    good = b""
    with pytest.raises(VerificationError) as caught:
        while part := encoder.next():
            good += part
    whole = encode(vector_data(65537), ALL)
    assert whole.startswith(good)
    assert len(good) == (8 + 4 * 64 + 2 * 16384 if damage == "data" else 8 + 2 * 64)
    assert caught.value.chunk == (32 if damage == "data" else 0)


def test_a_file_that_ends_early():
    data = vector_data(40_000)
    hash, pairs = outboard(data)
    with tempfile.TemporaryFile() as file:
        os.pwrite(file.fileno(), data[:-1], 0)
        encoder = BlobEncoder(hash, len(data), ALL, file.fileno(), pairs)
        with pytest.raises(VerificationError, match="end early"):
            while encoder.next():
                pass


def test_the_empty_blob():
    assert outboard(b"") == (EMPTY_HASH, b"")
    assert encode(b"", ALL) == bytes(8)
    assert encode(b"", ChunkRanges.last()) == bytes(8)

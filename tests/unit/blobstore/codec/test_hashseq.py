"""Hash seqs: bytes and sequence behaviour."""

import json
from pathlib import Path

import pytest

from blobstore.codec.hash import Hash
from blobstore.codec.hashseq import HashSeq

VECTORS = json.loads((Path(__file__).parents[3] / "vectors/collections.json").read_text())
HASHES = [Hash(bytes([i]) * 32) for i in range(5)]


@pytest.mark.parametrize("case", VECTORS["hash_seqs"], ids=lambda case: len(case["children"]))
def test_bytes_of_the_rust_peer(case):
    children = [Hash.from_text(text) for text in case["children"]]
    seq = HashSeq.from_bytes(bytes.fromhex(case["bytes"]))
    assert list(seq) == children
    assert HashSeq(children) == seq
    assert bytes(seq).hex() == case["bytes"]
    assert (len(seq), seq.size) == (len(children), 32 * len(children))


@pytest.mark.parametrize(("size", "is_valid"), [*VECTORS["length_is_valid"], (0, True), (64, True)])
def test_length_is_a_multiple_of_32(size: int, is_valid: bool):
    if is_valid:
        assert len(HashSeq.from_bytes(bytes(size))) == size // 32
    else:
        with pytest.raises(ValueError, match="multiple of 32"):
            HashSeq.from_bytes(bytes(size))


def test_indexing():
    seq = HashSeq(HASHES)
    assert seq[0] == HASHES[0]
    assert seq[-1] == HASHES[4]
    assert isinstance(seq[0], Hash)
    for index in (5, -6):
        with pytest.raises(IndexError):
            seq[index]
    for part in (slice(1, 3), slice(None), slice(3, 1), slice(None, None, -1), slice(-2, 99)):
        assert list(seq[part]) == HASHES[part]
        assert isinstance(seq[part], HashSeq)


def test_find_sees_whole_children_only():
    middle = bytes(16) + bytes([1]) * 16
    seq = HashSeq(HASHES)
    assert bytes(seq).find(middle) == 16
    assert middle not in seq
    assert seq.find(middle) == -1
    assert [seq.find(hash) for hash in HASHES] == [0, 1, 2, 3, 4]
    assert HashSeq([*HASHES, HASHES[2]]).find(HASHES[2], 3) == 5
    # Found across two children first, then as a child.
    assert HashSeq([*HASHES, Hash(middle)]).find(middle) == 5
    assert seq.find(b"short") == -1
    assert "text" not in seq


def test_is_a_value():
    assert HashSeq(HASHES) == HashSeq(iter(HASHES))
    assert hash(HashSeq(HASHES)) == hash(HashSeq(HASHES))
    assert HashSeq(HASHES) != HASHES
    assert not HashSeq()
    assert repr(HashSeq(HASHES)) == "HashSeq(5 hashes)"

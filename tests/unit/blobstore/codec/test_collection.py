"""Collections: names and bytes of the Rust peer, and everything that is not one."""

import json
from pathlib import Path

import blake3
import pytest

from blobstore.codec import collection as collection_module
from blobstore.codec import names as names_module
from blobstore.codec.collection import Collection
from blobstore.codec.hash import Hash
from blobstore.codec.hashseq import HashSeq

VECTORS = json.loads((Path(__file__).parents[3] / "vectors/collections.json").read_text())
META_HASH = Hash(bytes(32))
TWO = Collection((("a", Hash(b"1" * 32)), ("b", Hash(b"2" * 32))))


def blake3_hash(data: bytes) -> Hash:
    return Hash(blake3.blake3(data).digest())


def names_of(case) -> list[str]:
    if isinstance(case["names"], str):
        assert case["names"] == "dir{i div 10:03}/file-{i:05}.bin for i in 0..700"
        return [f"dir{i // 10:03}/file-{i:05}.bin" for i in range(700)]
    return case["names"]


@pytest.mark.parametrize("case", VECTORS["collections"], ids=lambda case: case["name"])
def test_bytes_of_the_rust_peer(case):
    names = names_of(case)
    collection = Collection(
        tuple((name, blake3_hash(f"content {i}".encode())) for i, name in enumerate(names))
    )
    meta = collection.encode_meta()
    assert len(meta) == case["meta_len"]
    assert blake3_hash(meta).hex() == case["meta_blake3"]
    assert case["meta"] in (None, meta.hex())
    seq = collection.hash_seq(blake3_hash(meta))
    assert case["hash_seq"] in (None, bytes(seq).hex())
    assert blake3_hash(bytes(seq)).hex() == case["root"]
    assert Collection.decode(meta, seq) == collection


def test_every_cut_is_refused():
    meta = TWO.encode_meta()
    seq = TWO.hash_seq(META_HASH)
    for size in range(len(meta)):
        with pytest.raises(ValueError, match="collection"):
            Collection.decode(meta[:size], seq)


@pytest.mark.parametrize(
    ("meta", "children", "reason"),
    [
        (b"CollectionV0.\x02\x01a\x01b\x00", 3, "bytes too many"),
        (b"CollectionV1.\x02\x01a\x01b", 3, "not the metadata"),
        (b"CollectionV0.\x02\x01a\x01b", 2, "1 files but 2 names"),
        (b"CollectionV0.\x02\x01a\x01b", 4, "3 files but 2 names"),
        (b"CollectionV0.\x00", 0, "no child"),
        (b"CollectionV0.\x02\x01a\x01\xff", 3, "UTF-8"),
        (b"CollectionV0.\x02\x01a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01b", 3, "within a name"),
        (b"CollectionV0." + b"\xff" * 10, 3, "64 bits"),
    ],
)
def test_refused(meta: bytes, children: int, reason: str):
    with pytest.raises(ValueError, match=reason):
        Collection.decode(meta, HashSeq([META_HASH] * children))


def test_a_name_that_utf8_cannot_hold():
    with pytest.raises(ValueError, match="UTF-8"):
        Collection((("\udc80", META_HASH),)).encode_meta()


def test_sizes_that_no_peer_takes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(names_module, "COLLECTION_META_SIZE_MAX", 17)
    monkeypatch.setattr(collection_module, "HASH_SEQ_SIZE_MAX", 95)
    with pytest.raises(ValueError, match="too long"):
        TWO.encode_meta()
    with pytest.raises(ValueError, match="too large"):
        TWO.hash_seq(META_HASH)

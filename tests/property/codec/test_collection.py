"""Collections and hash texts: round trips, and any input gives a value or a clear refusal."""

from hypothesis import given
from hypothesis import strategies as st

from blobstore.codec.collection import Collection
from blobstore.codec.hash import BlobFormat, Hash, HashAndFormat
from blobstore.codec.hashseq import HashSeq
from blobstore.codec.names import COLLECTION_HEADER
from blobstore.codec.varint import decode_varint, encode_varint

hashes = st.binary(min_size=32, max_size=32).map(Hash)
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
collections = st.lists(st.tuples(names, hashes), max_size=8).map(lambda e: Collection(tuple(e)))


@given(collections, hashes)
def test_collection_round_trip(collection: Collection, meta_hash: Hash):
    seq = HashSeq.from_bytes(bytes(collection.hash_seq(meta_hash)))
    assert seq[0] == meta_hash
    assert Collection.decode(collection.encode_meta(), seq) == collection


@given(
    st.binary(max_size=64) | st.binary(max_size=64).map(lambda tail: COLLECTION_HEADER + tail),
    st.lists(hashes, max_size=4),
)
def test_any_bytes_are_a_collection_or_refused(meta: bytes, children: list[Hash]):
    try:
        collection = Collection.decode(meta, HashSeq(children))
    except ValueError:
        return
    assert Collection.decode(collection.encode_meta(), HashSeq(children)) == collection


@given(st.binary(max_size=200))
def test_any_bytes_are_a_hash_seq_or_refused(data: bytes):
    try:
        seq = HashSeq.from_bytes(data)
    except ValueError:
        assert len(data) % 32
        return
    assert bytes(HashSeq(seq)) == data
    assert [seq[i] for i in range(len(seq))] == list(seq)
    for hash in seq:
        assert hash in seq
        assert seq[seq.find(hash)] == hash


@given(hashes, st.sampled_from(BlobFormat))
def test_hash_text_round_trip(hash: Hash, format: BlobFormat):
    assert Hash.from_text(str(hash)) == hash
    assert Hash.from_text(hash.to_base32()) == hash
    value = HashAndFormat(hash, format)
    assert HashAndFormat.from_text(str(value)) == value


@given(st.text(max_size=70) | st.text("abcdef234567=s", min_size=52, max_size=65))
def test_any_text_is_a_hash_or_refused(text: str):
    try:
        hash = Hash.from_text(text)
    except ValueError:
        return
    assert text in (str(hash), hash.to_base32())


@given(st.integers(0, 2**64 - 1), st.binary(max_size=3))
def test_varint_round_trip(value: int, tail: bytes):
    data = encode_varint(value)
    assert decode_varint(data + tail) == (value, len(data))
    assert len(data) == max(1, -(-value.bit_length() // 7))


@given(st.binary(max_size=12))
def test_any_bytes_are_a_varint_or_refused(data: bytes):
    try:
        value, end = decode_varint(data)
    except (ValueError, IndexError):
        return
    assert 0 <= value < 2**64
    assert len(encode_varint(value)) <= end <= len(data)

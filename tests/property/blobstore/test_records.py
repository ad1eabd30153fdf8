"""Records come back as they were, and any other bytes are damage, not an exception of Python's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blobstore.errors import StoreDamagedError
from blobstore.schema import (
    BlobRecord,
    decode_blob,
    decode_folder,
    decode_lease_key,
    decode_number,
    decode_partial,
    decode_path,
    decode_run_key,
    decode_tag,
    encode_blob,
    encode_folder,
    encode_inline,
    encode_number,
    encode_partial,
    encode_path,
    encode_tag,
    lease_key,
    run_key,
    split_folder,
)
from blobstore.testing.strategies import (
    blob_records,
    hashes,
    identities,
    partial_records,
    targets,
)

if TYPE_CHECKING:
    from collections.abc import Callable

Codec = tuple["Callable[[Any], bytes]", "Callable[[bytes], Any]", st.SearchStrategy[Any]]

u64 = st.integers(0, 2**64 - 1)
CODECS: dict[str, Codec] = {
    "blob": (encode_blob, decode_blob, blob_records()),
    "partial": (encode_partial, decode_partial, partial_records()),
    "path": (lambda value: encode_path(*value), decode_path, st.tuples(hashes, identities())),
    "tag": (lambda value: encode_tag(*value), decode_tag, st.tuples(targets, u64)),
    "lease": (
        lambda value: lease_key(*value),
        decode_lease_key,
        st.tuples(st.binary(min_size=20, max_size=20), targets),
    ),
    "run": (
        lambda value: run_key(*value),
        decode_run_key,
        st.tuples(st.binary(min_size=20, max_size=20), u64),
    ),
    "number": (encode_number, decode_number, u64),
}


@pytest.mark.parametrize("name", CODECS)
@given(data=st.data())
def test_round_trip(name: str, data: st.DataObject) -> None:
    encode, decode, values = CODECS[name]
    value = data.draw(values)
    encoded = encode(value)
    assert decode(encoded) == value
    for wrong in (encoded[:-1], encoded + b"\0"):
        with pytest.raises(StoreDamagedError):
            decode(wrong)


@pytest.mark.parametrize("name", CODECS)
@given(data=st.data())
def test_any_bytes_are_a_record_or_damage(name: str, data: st.DataObject) -> None:
    """Random bytes, and records with a few bytes changed, which come further."""
    encode, decode, values = CODECS[name]
    raw = bytearray(data.draw(st.one_of(st.binary(max_size=200), values.map(encode))))
    for offset, byte in data.draw(st.dictionaries(st.integers(0, 60), st.integers(0, 255))).items():
        if offset < len(raw):
            raw[offset] = byte
    try:
        value = decode(bytes(raw))
    except StoreDamagedError:
        return
    assert encode(value) == bytes(raw)


names = st.binary(min_size=1, max_size=20).map(lambda name: name.replace(b"\0", b"0"))


@given(
    files=st.dictionaries(names, st.tuples(identities(), hashes), min_size=1, max_size=30),
    removals=u64,
)
def test_folders_round_trip(files: dict[bytes, tuple[Any, Any]], removals: int) -> None:
    order = sorted(files)
    rows = split_folder(
        removals,
        order,
        [files[name][0].encode() for name in order],
        [files[name][1] for name in order],
    )
    assert len(rows) == rows[0].parts == 1
    encoded = encode_folder(rows[0])
    assert decode_folder(encoded) == rows[0]
    # A cache: whatever is cut off is no row, but its names do not say how long they are.
    for size in range(len(encoded) - len(rows[0].names) + 1):
        assert decode_folder(encoded[:size]) is None


@given(data=st.binary(max_size=400))
def test_any_bytes_are_a_folder_or_none(data: bytes) -> None:
    row = decode_folder(data)
    assert row is None or encode_folder(row) == data


@given(size=st.integers(0, 16384))
def test_inline_blobs_have_one_record(size: int) -> None:
    assert encode_inline(size) == encode_blob(BlobRecord(size))

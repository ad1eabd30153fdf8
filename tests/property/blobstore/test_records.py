"""Records come back as they were, and any other bytes are damage, not an exception of Python's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blobstore.errors import StoreDamagedError
from blobstore.schema import (
    decode_blob,
    decode_lease_key,
    decode_number,
    decode_partial,
    decode_path,
    decode_tag,
    encode_blob,
    encode_number,
    encode_partial,
    encode_path,
    encode_tag,
    lease_key,
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

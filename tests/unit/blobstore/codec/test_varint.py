"""Varints: value and bytes, read whole, cut and with trailing bytes."""

import json
from pathlib import Path

import pytest

from blobstore.codec.varint import decode_varint, encode_varint

VECTORS = json.loads((Path(__file__).parents[3] / "vectors/range_specs.json").read_text())


@pytest.mark.parametrize(("value", "wire"), VECTORS["varint_u64"])
def test_value_and_bytes(value: int, wire: str):
    data = bytes.fromhex(wire)
    assert encode_varint(value) == data
    assert decode_varint(data) == (value, len(data))
    assert decode_varint(b"\xff" + data + b"\xff", 1) == (value, 1 + len(data))
    for size in range(len(data)):
        with pytest.raises(IndexError):
            decode_varint(data[:size])


@pytest.mark.parametrize("case", VECTORS["varint_edge"], ids=lambda case: case["what"])
def test_edges(case):
    data = bytes.fromhex(case["wire"])
    if case["u64"] is None:
        with pytest.raises((ValueError, IndexError)):
            decode_varint(data)
    else:
        assert decode_varint(data) == (case["u64"], len(data))


@pytest.mark.parametrize("value", [-1, 2**64])
def test_only_u64(value: int):
    with pytest.raises(ValueError, match="u64"):
        encode_varint(value)

"""Readers and writers of postcard values: value and bytes, whole, cut and with trailing bytes."""

import pytest

from blobsync.errors import RemoteProtocolError
from blobsync.wire.postcard import Reader, Writer

CASES = [
    ("varint", 0, "00"),
    ("varint", 127, "7f"),
    ("varint", 128, "8001"),
    ("varint", 2**64 - 1, "ffffffffffffffffff01"),
    ("u16", 0, "00"),
    ("u16", 65535, "ffff03"),
    ("text", "", "00"),
    ("text", "grün", "056772c3bc6e"),
    ("text", "x" * 128, "8001" + "78" * 128),
]


@pytest.mark.parametrize(("kind", "value", "wire"), CASES)
def test_value_and_bytes(kind: str, value, wire: str):
    data = bytes.fromhex(wire)
    writer = Writer()
    getattr(writer, "varint" if kind == "u16" else kind)(value)
    assert bytes(writer) == data
    assert len(writer) == len(data)
    reader = Reader(data)
    assert getattr(reader, kind)() == value
    reader.finish()
    for size in range(len(data)):
        with pytest.raises(RemoteProtocolError, match="ends within"):
            getattr(Reader(data[:size]), kind)()
    longer = Reader(data + b"\x00")
    assert getattr(longer, kind)() == value
    with pytest.raises(RemoteProtocolError, match="1 bytes too many"):
        longer.finish()


@pytest.mark.parametrize(
    ("kind", "wire", "reason"),
    [
        ("varint", "80" * 10 + "01", "64 bits"),
        ("varint", "ff" * 9 + "02", "64 bits"),
        ("u16", "808004", "u16"),
        ("u16", "80808000", "u16"),
        ("text", "01ff", "UTF-8"),
        ("text", "ffffffffffffffffff01", "ends within"),
        ("option", "02", "option"),
        ("option", "", "ends within"),
    ],
)
def test_refused(kind: str, wire: str, reason: str):
    with pytest.raises(RemoteProtocolError, match=reason):
        getattr(Reader(bytes.fromhex(wire)), kind)()


def test_longer_forms_of_a_number_are_read():
    assert Reader(bytes.fromhex("8000")).varint() == 0
    assert Reader(bytes.fromhex("81808000")).varint() == 1
    assert Reader(bytes.fromhex("818000")).u16() == 1


def test_option_and_fixed():
    reader = Reader(b"\x00\x01abc")
    assert (reader.option(), reader.option(), reader.fixed(2)) == (False, True, b"ab")
    assert reader.remaining == 1
    with pytest.raises(RemoteProtocolError, match="2 bytes"):
        reader.fixed(2)


def test_a_count_is_compared_with_what_is_left():
    assert Reader(b"\x03abc").count(1) == 3
    assert Reader(b"\x00").count(32) == 0
    for data, size in ((b"\x04abc", 1), (b"\x02abc", 2), (b"\xff" * 9 + b"\x01", 32)):
        with pytest.raises(RemoteProtocolError, match="no room"):
            Reader(data).count(size)


@pytest.mark.parametrize("value", [-1, 2**64])
def test_only_u64_is_written(value: int):
    with pytest.raises(ValueError, match="u64"):
        Writer().varint(value)

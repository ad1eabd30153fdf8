"""Unsigned integers of seven bits a byte, low group first, as postcard writes them.

They live below the wire because the metadata blob of a collection is made of them too.
"""

from __future__ import annotations

U64_MAX = 2**64 - 1
VARINT_SIZE_MAX = 10
"""Bytes of the longest u64."""


def encode_varint(value: int) -> bytes:
    """The shortest form of a u64: 1 to 10 bytes.

    Raises:
        ValueError: not a u64.
    """
    if not 0 <= value <= U64_MAX:
        raise ValueError(f"not a u64: {value}")
    result = bytearray()
    while value > 0x7F:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    result.append(value)
    return bytes(result)


def decode_varint(data: bytes, offset: int = 0) -> tuple[int, int]:
    """The u64 at `offset` and the offset behind it. Longer forms than needed are accepted.

    Raises:
        IndexError: `data` ends within the number.
        ValueError: more than 64 bits.
    Source: postcard 1.1, varint u64: at most ten bytes, the tenth at most 1.
    """
    value = 0
    for index in range(VARINT_SIZE_MAX):
        byte = data[offset + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            if value > U64_MAX:
                break
            return value, offset + index + 1
    raise ValueError("a varint has more than 64 bits")

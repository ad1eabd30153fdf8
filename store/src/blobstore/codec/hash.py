"""Hashes of blobs, and what a hash stands for: one blob, or a sequence of them.

A `Hash` is the 32-byte BLAKE3 root of a blob. It is a `bytes` underneath, so it can be
a dictionary key, an LMDB key or part of a message without conversion.
"""

from __future__ import annotations

import base64
import binascii
import enum
from typing import NamedTuple, Self

HASH_SIZE = 32
_HEX_DIGITS = frozenset("0123456789abcdef")


class Hash(bytes):
    """The BLAKE3 root of a blob: exactly 32 bytes.

    Text forms are those of iroh: 64 lower-case hex digits, or 52 base32 characters
    (RFC 4648 alphabet, any case, no padding).

    Raises:
        ValueError: not 32 bytes.
    """

    __slots__ = ()

    def __new__(cls, value: bytes) -> Self:
        if len(value) != HASH_SIZE:
            raise ValueError(f"a hash has 32 bytes, not {len(value)}")
        return super().__new__(cls, value)

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Parse 64 lower-case hex digits or 52 base32 characters.

        Raises:
            ValueError: anything else.
        """
        if len(text) == 2 * HASH_SIZE:
            if not _HEX_DIGITS.issuperset(text):
                raise ValueError(f"not a hash (hex digits are 0-9a-f): {text}")
            return cls(bytes.fromhex(text))
        if len(text) == 52 and text.isascii():
            try:
                value = base64.b32decode(text.upper() + "====")
            except binascii.Error as error:
                raise ValueError(f"not a hash (bad base32): {text}") from error
            result = cls(value)
            if result.to_base32() != text.lower():
                raise ValueError(f"not a hash (base32 has stray bits at its end): {text}")
            return result
        raise ValueError(f"a hash is 64 hex digits or 52 base32 characters, not {len(text)}")

    def to_base32(self) -> str:
        """52 lower-case base32 characters."""
        return base64.b32encode(self).decode().rstrip("=").lower()

    def short(self) -> str:
        """The first ten hex digits, for people."""
        return self[:5].hex()

    def __str__(self) -> str:
        return self.hex()

    def __repr__(self) -> str:
        return f"Hash({self.hex()})"


EMPTY_HASH = Hash(bytes.fromhex("af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"))
"""The hash of the empty blob, which every store has without storing it."""


class BlobFormat(enum.IntEnum):
    """What a hash names. The values are those of tickets and tags."""

    RAW = 0
    HASH_SEQ = 1


class HashAndFormat(NamedTuple):
    """A hash and what it names. Text form: hex, with an `s` in front for a hash seq."""

    hash: Hash
    format: BlobFormat = BlobFormat.RAW

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Parse the text form.

        Raises:
            ValueError: neither a hash nor an `s` and a hash.
        """
        if len(text) in (65, 53) and text[0] == "s":
            return cls(Hash.from_text(text[1:]), BlobFormat.HASH_SEQ)
        return cls(Hash.from_text(text), BlobFormat.RAW)

    def __str__(self) -> str:
        return ("s" if self.format is BlobFormat.HASH_SEQ else "") + self.hash.hex()

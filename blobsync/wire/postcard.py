"""The little of postcard that the messages of the peers are made of.

A `Writer` collects, a `Reader` takes apart. The reader meets any bytes: it returns a value or
raises `RemoteProtocolError`, and a length is compared with what is left before it is used.

Numbers are varints (see `blobstore.codec.varint`), longer forms than needed included; text and
byte strings have their length in front; an option is 0, or 1 and the value; an enum is the number
of its variant. Fixed arrays, structs and tuples are their parts and nothing else.
Source: the postcard wire format, 1.x.
"""

from __future__ import annotations

from blobstore.codec.varint import decode_varint, encode_varint
from blobsync.errors import RemoteProtocolError


class Writer:
    """Collects values; `bytes(writer)` is the message so far."""

    __slots__ = ("_data",)

    def __init__(self) -> None:
        self._data = bytearray()

    def varint(self, value: int) -> None:
        """A u64.

        Raises:
            ValueError: it is not.
        """
        if 0 <= value < 0x80:
            self._data.append(value)
        else:
            self._data += encode_varint(value)

    def fixed(self, data: bytes) -> None:
        """An array whose length both sides know."""
        self._data += data

    def text(self, value: str) -> None:
        """A string: byte length, then UTF-8."""
        encoded = value.encode()
        self.varint(len(encoded))
        self._data += encoded

    def __len__(self) -> int:
        return len(self._data)

    def __bytes__(self) -> bytes:
        return bytes(self._data)


class Reader:
    """Takes values from the front of a message."""

    __slots__ = ("_data", "_offset")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._offset = 0

    @property
    def remaining(self) -> int:
        """Bytes not read yet."""
        return len(self._data) - self._offset

    def varint(self) -> int:
        """A u64."""
        try:
            value = self._data[self._offset]
            if value < 0x80:
                self._offset += 1
                return value
            value, self._offset = decode_varint(self._data, self._offset)
        except IndexError:
            raise RemoteProtocolError("a message ends within a number") from None
        except ValueError as error:
            raise RemoteProtocolError(str(error)) from None
        return value

    def u16(self) -> int:
        """A u16, at most three bytes of varint."""
        start = self._offset
        value = self.varint()
        if value > 0xFFFF or self._offset - start > 3:
            raise RemoteProtocolError(f"not a u16: {value}")
        return value

    def count(self, element_size_min: int) -> int:
        """The number of elements that follow, each of at least `element_size_min` bytes."""
        value = self.varint()
        if value * element_size_min > self.remaining:
            raise RemoteProtocolError(f"a message has no room for the {value} elements it claims")
        return value

    def fixed(self, size: int) -> bytes:
        """An array of `size` bytes."""
        if size > self.remaining:
            raise RemoteProtocolError(f"a message ends within {size} bytes that are due")
        data = self._data[self._offset : self._offset + size]
        self._offset += size
        return data

    def text(self) -> str:
        """A string."""
        try:
            return self.fixed(self.varint()).decode()
        except UnicodeDecodeError:
            raise RemoteProtocolError("a text in a message is not UTF-8") from None

    def option(self) -> bool:
        """Whether an optional value follows."""
        tag = self.fixed(1)[0]
        if tag > 1:
            raise RemoteProtocolError(f"not an option: {tag}")
        return tag == 1

    def finish(self) -> None:
        """Nothing may be left."""
        if self.remaining:
            raise RemoteProtocolError(f"{self.remaining} bytes too many in a message")

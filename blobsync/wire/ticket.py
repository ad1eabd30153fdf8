"""Blob tickets: one line of text that says who provides a blob, where, and what it is.

`blob`, then base32 of: variant 0, endpoint id (32 bytes), optional relay URL (text), direct
addresses (count, then each 0 and 4 bytes or 1 and 16 bytes, and the port), format (0 raw, 1 hash
seq), hash (32 bytes). The prefix is lower case, base32 is read in any case and has no padding.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Self

from blobstore.codec.hash import HASH_SIZE, BlobFormat, Hash, HashAndFormat
from blobsync.address import ENDPOINT_ID_SIZE, EndpointAddr, EndpointId, RelayUrl, SocketAddr
from blobsync.errors import RemoteProtocolError, TicketError
from blobsync.wire.postcard import Reader, Writer

TICKET_PREFIX = "blob"

TICKET_TEXT_SIZE_MAX = 64 * 1024
"""Characters of the longest ticket that we read: some 3000 addresses."""

_IPV4 = 0
_IPV6 = 1
_ADDR_SIZE_MIN = 6


@dataclass(frozen=True, slots=True)
class BlobTicket:
    """Who provides a blob, and which."""

    addr: EndpointAddr
    hash: Hash
    format: BlobFormat = BlobFormat.RAW

    @property
    def target(self) -> HashAndFormat:
        """What the ticket is for."""
        return HashAndFormat(self.hash, self.format)

    def to_text(self) -> str:
        """The ticket. Of several relay URLs it holds the first."""
        encoded = base64.b32encode(self._encode()).decode()
        return TICKET_PREFIX + encoded.rstrip("=").lower()

    def __str__(self) -> str:
        return self.to_text()

    def _encode(self) -> bytes:
        writer = Writer()
        writer.varint(0)
        writer.fixed(self.addr.id)
        writer.varint(1 if self.addr.relay_urls else 0)
        for url in self.addr.relay_urls[:1]:
            writer.text(url)
        writer.varint(len(self.addr.ip_addrs))
        for addr in self.addr.ip_addrs:
            writer.varint(_IPV4 if isinstance(addr.ip, IPv4Address) else _IPV6)
            writer.fixed(addr.ip.packed)
            writer.varint(addr.port)
        writer.varint(self.format)
        writer.fixed(self.hash)
        return bytes(writer)

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Read a ticket. Whole bytes after its end are ignored, as other readers do.

        Raises:
            TicketError: it is not one; the message says where it fails.
        """
        if not text.startswith(TICKET_PREFIX):
            raise TicketError(f"a ticket for a blob starts with {TICKET_PREFIX!r}")
        if len(text) > TICKET_TEXT_SIZE_MAX:
            raise TicketError(f"a ticket of {len(text)} characters is too long")
        data = _decode_base32(text[len(TICKET_PREFIX) :])
        try:
            return cls._decode(Reader(data))
        except (RemoteProtocolError, ValueError) as error:
            raise TicketError(f"not a ticket for a blob: {error}") from error

    @classmethod
    def _decode(cls, reader: Reader) -> Self:
        if (variant := reader.varint()) != 0:
            raise ValueError(f"unknown variant {variant}")
        id = EndpointId(reader.fixed(ENDPOINT_ID_SIZE))
        relay_urls = (RelayUrl(reader.text()),) if reader.option() else ()
        ip_addrs = tuple(_read_addr(reader) for _ in range(reader.count(_ADDR_SIZE_MIN)))
        format = BlobFormat(reader.varint())
        hash = Hash(reader.fixed(HASH_SIZE))
        return cls(EndpointAddr(id, relay_urls, ip_addrs), hash, format)


def _read_addr(reader: Reader) -> SocketAddr:
    match reader.varint():
        case 0:
            ip = IPv4Address(reader.fixed(4))
        case 1:
            ip = IPv6Address(reader.fixed(16))
        case kind:
            raise ValueError(f"unknown kind of address {kind}")
    return SocketAddr(ip, reader.u16())


def _decode_base32(text: str) -> bytes:
    """Base32 without padding, of any case; every bit behind the last whole byte is 0."""
    if not re.fullmatch(r"[A-Za-z2-7]*", text, re.ASCII):
        raise TicketError("a ticket holds letters and the digits 2 to 7 only")
    if len(text) % 8 in (1, 3, 6):
        raise TicketError("a ticket is cut off: no base32 has this length")
    data = base64.b32decode(text.upper() + "=" * (-len(text) % 8))
    if base64.b32encode(data).decode().rstrip("=") != text.upper():
        raise TicketError("a ticket is cut off: stray bits at its end")
    return data

"""Who and where a peer is: values of iroh 1.x that transports and tickets both stand on.

Pure values: nothing here opens a socket or resolves a name. All text comes from people or peers,
so every constructor from text raises `ValueError` for what it does not understand.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import Self
from urllib.parse import urlsplit

ENDPOINT_ID_SIZE = 32
RELAY_URL_SIZE_MAX = 2048
"""Characters of the longest relay URL that we take."""

_HEX_DIGITS = frozenset("0123456789abcdef")
_FIELD_PRIME = 2**255 - 19
_EDWARDS_D = -121665 * pow(121666, -1, _FIELD_PRIME) % _FIELD_PRIME

_ORDER_8 = bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a")
_WEAK_Y = frozenset(
    (
        *(0, 1, _FIELD_PRIME - 1, _FIELD_PRIME, _FIELD_PRIME + 1),
        int.from_bytes(_ORDER_8, "little"),
        _FIELD_PRIME - int.from_bytes(_ORDER_8, "little"),
    )
)
"""The y of every point of small order, also where it is not reduced: 14 keys with either sign."""

_BASE32 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_TO_Z32 = bytes.maketrans(_BASE32, b"ybndrfg8ejkmcpqxot1uwisza345h769")


@lru_cache(maxsize=4096)
def _is_curve_point(key: bytes) -> bool:
    """Whether `key` decompresses to a point of edwards25519: x² = (y² - 1) / (d y² + 1).

    As in curve25519-dalek, y need not be reduced and the sign of x is not looked at. The quotient
    is a square exactly when the product is, which one power tells (Euler's criterion).
    """
    y = int.from_bytes(key, "little") & (2**255 - 1)
    y_squared = y * y % _FIELD_PRIME
    product = (y_squared - 1) * (_EDWARDS_D * y_squared + 1) % _FIELD_PRIME
    return pow(product, (_FIELD_PRIME - 1) // 2, _FIELD_PRIME) in (0, 1)


class EndpointId(bytes):
    """The ed25519 public key of an endpoint: 32 bytes that are a curve point.

    Raises:
        ValueError: not 32 bytes, or no curve point.
    """

    __slots__ = ()

    def __new__(cls, value: bytes) -> Self:
        if len(value) != ENDPOINT_ID_SIZE:
            raise ValueError(f"an endpoint id has 32 bytes, not {len(value)}")
        self = super().__new__(cls, value)
        if not _is_curve_point(bytes(value)):
            raise ValueError(f"not an endpoint id (no point of the curve): {self.hex()}")
        return self

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Parse 64 lower-case hex digits, or 52 base32 characters of any case.

        Raises:
            ValueError: anything else.
        """
        if len(text) == 2 * ENDPOINT_ID_SIZE:
            if not _HEX_DIGITS.issuperset(text):
                raise ValueError(f"not an endpoint id (hex digits are 0-9a-f): {text}")
            return cls(bytes.fromhex(text))
        if len(text) == 52 and text.isascii():
            try:
                value = base64.b32decode(text.upper() + "====")
            except binascii.Error as error:
                raise ValueError(f"not an endpoint id (bad base32): {text}") from error
            if base64.b32encode(value).decode().rstrip("=") != text.upper():
                raise ValueError(f"not an endpoint id (stray bits at its end): {text}")
            return cls(value)
        raise ValueError(
            f"an endpoint id is 64 hex digits or 52 base32 characters, not {len(text)}"
        )

    @property
    def is_weak(self) -> bool:
        """Whether it is a point of small order: an id all the same, but nobody can prove to be it.

        Signatures of such a key can be made without any secret, so it must be refused before one
        is verified.
        """
        return int.from_bytes(self, "little") & (2**255 - 1) in _WEAK_Y

    def short(self) -> str:
        """The first ten hex digits, for people."""
        return self[:5].hex()

    def base32(self) -> str:
        """52 lower-case characters, which `from_text` takes as well."""
        return base64.b32encode(self).rstrip(b"=").decode().lower()

    def z32(self) -> str:
        """The form of DNS and pkarr names. Not one that is parsed as an id: see `from_text`."""
        return base64.b32encode(self).rstrip(b"=").translate(_TO_Z32).decode()

    def __str__(self) -> str:
        return self.hex()

    def __repr__(self) -> str:
        return f"EndpointId({self.hex()})"


@dataclass(frozen=True, slots=True)
class SocketAddr:
    """An IP address and a UDP port. Text: `1.2.3.4:5` or `[::1]:5`.

    The scope of an IPv6 address has no place on the wire and is dropped.

    Raises:
        ValueError: the port is not a u16.
    """

    ip: IPv4Address | IPv6Address
    port: int

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 0xFFFF:
            raise ValueError(f"not a port: {self.port}")
        if isinstance(self.ip, IPv6Address) and self.ip.scope_id is not None:
            object.__setattr__(self, "ip", IPv6Address(self.ip.packed))

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Parse the text form.

        Raises:
            ValueError: anything else; a host name too.
        """
        match = re.fullmatch(r"(?:\[([^\]]+)\]|([0-9.]+)):([0-9]{1,5})", text, re.ASCII)
        if match is None:
            raise ValueError(f"not an address like 1.2.3.4:5 or [::1]:5: {text}")
        v6, v4, port = match.groups()
        return cls(IPv6Address(v6) if v6 is not None else IPv4Address(v4), int(port))

    @property
    def sort_key(self) -> tuple[int, int, int]:
        """IPv4 first, then by address, then by port."""
        return self.ip.version, int(self.ip), self.port

    def __str__(self) -> str:
        if isinstance(self.ip, IPv4Address):
            return f"{self.ip}:{self.port}"
        mapped = self.ip.ipv4_mapped
        host = str(self.ip) if mapped is None else f"::ffff:{mapped}"
        return f"[{host}]:{self.port}"


class RelayUrl(str):
    """The URL of a relay, normalised: scheme and host in lower case, a path, no default port.

    A final dot of the host is kept, and makes another URL.

    Raises:
        ValueError: not an absolute http or https URL in ASCII.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        if len(text) > RELAY_URL_SIZE_MAX:
            raise ValueError(f"a relay URL of {len(text)} characters is too long")
        # What a parser would strip, escape or read as another character is refused instead.
        if not re.fullmatch(r"[!#-;=?-\[\]_a-z~]+", text):
            raise ValueError(f"not a relay URL: {text!r}")
        parts = urlsplit(text)
        scheme = parts.scheme.lower()
        if scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"not an http or https URL of a relay: {text}")
        if parts.username is not None or parts.password is not None:
            raise ValueError("a relay URL holds no user name")
        host = parts.hostname
        if "[" in parts.netloc:
            host = f"[{IPv6Address(host)}]"
        if not re.fullmatch(r"[a-z0-9._-]+|\[[0-9a-f:]+\]", host):
            raise ValueError(f"not a host of a relay: {host}")
        port = parts.port
        is_default = port is None or port == (80 if scheme == "http" else 443)
        authority = host if is_default else f"{host}:{port}"
        query = f"?{parts.query}" if parts.query else ""
        fragment = f"#{parts.fragment}" if parts.fragment else ""
        return super().__new__(cls, f"{scheme}://{authority}{parts.path or '/'}{query}{fragment}")


@dataclass(frozen=True, slots=True)
class EndpointAddr:
    """Who an endpoint is and where it may be reached, best effort; duplicates are dropped."""

    id: EndpointId
    relay_urls: tuple[RelayUrl, ...] = ()
    """Sorted by their text."""
    ip_addrs: tuple[SocketAddr, ...] = ()
    """Sorted: IPv4 first, then by address, then by port."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "relay_urls", tuple(sorted(set(self.relay_urls))))
        ip_addrs = sorted(set(self.ip_addrs), key=lambda addr: addr.sort_key)
        object.__setattr__(self, "ip_addrs", tuple(ip_addrs))

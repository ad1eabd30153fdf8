"""Endpoints that break one rule of the handshake each, for either role."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

from aioquic import tls
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

from blobsync.transports.quic.raw_connection import Identity, RawKeyConnection
from blobsync.transports.quic.raw_keys import (
    CLIENT_CERTIFICATE_TYPE,
    SERVER_CERTIFICATE_TYPE,
    SPKI_PREFIX,
    RawKeyContext,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from aioquic.buffer import Buffer

    from blobsync.address import EndpointId

ALPN = b"blobsync-test/1"


def identity(seed: int) -> Identity:
    return Identity.from_bytes(bytes([seed]) * 32)


class Shown:
    """What stands in the Certificate message."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def public_bytes(self, encoding: object) -> bytes:
        return self.data


class ForgingKey(Ed25519PrivateKey):
    """Not a key: what it returns as a signature is fixed."""

    def __init__(self, signature: bytes) -> None:
        self._signature = signature

    def sign(self, data: bytes) -> bytes:
        return self._signature

    def public_key(self) -> Any: ...
    def private_bytes_raw(self) -> bytes: ...
    def private_bytes(self, encoding, format, encryption_algorithm) -> bytes: ...
    def __copy__(self) -> Any: ...
    def __deepcopy__(self, memo) -> Any: ...


class WrongContextKey(ForgingKey):
    """Signs, but under the context string of the other side."""

    def __init__(self, real: Ed25519PrivateKey) -> None:
        self._real = real

    def sign(self, data: bytes) -> bytes:
        server, client = b"TLS 1.3, server Certifi", b"TLS 1.3, client Certifi"
        other = data.replace(server, client) if server in data else data.replace(client, server)
        assert other != data
        return self._real.sign(other)


class BadSignatureKey(ForgingKey):
    """A real signature with one bit changed."""

    def __init__(self, real: Ed25519PrivateKey) -> None:
        self._real = real

    def sign(self, data: bytes) -> bytes:
        signature = bytearray(self._real.sign(data))
        signature[0] ^= 1
        return bytes(signature)


def certificate(key: Ed25519PrivateKey) -> bytes:
    """An ordinary self-signed certificate of this key."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, None)
        .public_bytes(tls.Encoding.DER)
    )


class ContentContext(RawKeyContext):
    """A client that does not mind not to be asked for its key."""

    def _client_handle_certificate(self, input_buf: Buffer) -> None:
        super(RawKeyContext, self)._client_handle_certificate(input_buf)


class HostileConnection(RawKeyConnection):
    """Changes its TLS object once it is made; `twist` says how."""

    def __init__(self, *args: Any, twist: Callable[[RawKeyConnection], None], **kwargs: Any):
        self.twist = twist
        super().__init__(*args, **kwargs)

    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        self.twist(self)

    def _alpn_handler(self, alpn_protocol: str) -> None:
        # Only what aioquic itself checks.
        super(RawKeyConnection, self)._alpn_handler(alpn_protocol)


def x509_certificate(connection: RawKeyConnection) -> None:
    connection.tls.certificate = Shown(certificate(connection._identity.secret_key))


def chain(connection: RawKeyConnection) -> None:
    connection.tls.certificate_chain = [connection.tls.certificate]


def other_algorithm(connection: RawKeyConnection) -> None:
    # The OID of X25519 in front of the same bytes.
    prefix = bytearray(SPKI_PREFIX)
    prefix[8] = 0x6E
    connection.tls.certificate = Shown(bytes(prefix) + connection._identity.id)


def truncated_key(connection: RawKeyConnection) -> None:
    connection.tls.certificate = Shown((SPKI_PREFIX + connection._identity.id)[:-1])


def no_point(connection: RawKeyConnection) -> None:
    connection.tls.certificate = Shown(SPKI_PREFIX + b"\x02" + bytes(31))


def bad_signature(connection: RawKeyConnection) -> None:
    connection.tls.certificate_private_key = BadSignatureKey(connection._identity.secret_key)


def wrong_context(connection: RawKeyConnection) -> None:
    connection.tls.certificate_private_key = WrongContextKey(connection._identity.secret_key)


def other_signer(connection: RawKeyConnection) -> None:
    connection.tls.certificate_private_key = Ed25519PrivateKey.from_private_bytes(bytes([99]) * 32)


def without(*dropped: int) -> Callable[[RawKeyConnection], None]:
    def twist(connection: RawKeyConnection) -> None:
        connection.tls.handshake_extensions = [
            extension
            for extension in connection.tls.handshake_extensions
            if extension[0] not in dropped
        ]

    return twist


def x509_types(connection: RawKeyConnection) -> None:
    """Says that it would show, and wants to see, X.509 certificates."""
    without(CLIENT_CERTIFICATE_TYPE, SERVER_CERTIFICATE_TYPE)(connection)
    value = b"\x01\x00" if connection.is_client else b"\x00"
    for type in (CLIENT_CERTIFICATE_TYPE, SERVER_CERTIFICATE_TYPE):
        connection.tls.handshake_extensions.append((type, value))


def no_key(connection: RawKeyConnection) -> None:
    """A client that answers the request with an empty Certificate."""
    connection.tls.certificate = None


def no_request(connection: RawKeyConnection) -> None:
    """A server that does not ask for the client's key."""
    connection.tls._request_client_certificate = False


def content(connection: RawKeyConnection) -> None:
    """A client that does not mind not to be asked for its key."""
    connection.tls.__class__ = ContentContext


def weak(point: bytes) -> Callable[[RawKeyConnection], None]:
    """Claims to be a point of small order: the signature (point, 0) needs no secret."""

    def twist(connection: RawKeyConnection) -> None:
        connection.tls.certificate = Shown(SPKI_PREFIX + point)
        connection.tls.certificate_private_key = ForgingKey(point + bytes(32))

    return twist


WEAK_POINTS = [
    point[:31] + bytes([point[31] | sign])
    for sign in (0, 0x80)
    for point in (
        bytes(32),
        b"\x01" + bytes(31),
        b"\xec" + b"\xff" * 30 + b"\x7f",
        b"\xed" + b"\xff" * 30 + b"\x7f",
        b"\xee" + b"\xff" * 30 + b"\x7f",
        bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
        bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
    )
]


def honest(connection: RawKeyConnection) -> None:
    pass


# What either role may do wrong, and the alerts that answer it: ours, and what iroh says.
EITHER_ROLE: dict[str, tuple[Callable[[RawKeyConnection], None], int]] = {
    "X.509 certificate": (x509_certificate, 42),
    "two keys": (chain, 48),
    "key of another algorithm": (other_algorithm, 43),
    "truncated key": (truncated_key, 42),
    "key that is no point": (no_point, 42),
    "bad signature": (bad_signature, 51),
    "context string of the other side": (wrong_context, 51),
    "signature of another key": (other_signer, 51),
    "no client certificate type": (without(CLIENT_CERTIFICATE_TYPE), 40),
    "no server certificate type": (without(SERVER_CERTIFICATE_TYPE), 40),
    "neither certificate type": (without(CLIENT_CERTIFICATE_TYPE, SERVER_CERTIFICATE_TYPE), 40),
    "certificate types of X.509": (x509_types, 40),
}


def client(server_id: EndpointId, twist: Callable[[RawKeyConnection], None] = honest, seed=1):
    return HostileConnection(identity(seed), [ALPN], expected_id=server_id, twist=twist)


def server(original_cid: bytes, twist: Callable[[RawKeyConnection], None] = honest, seed=2):
    return HostileConnection(identity(seed), [ALPN], original_cid=original_cid, twist=twist)

"""Ed25519 keys in place of certificates (RFC 7250), in the one way in which iroh uses them.

Both sides of a handshake show a bare public key and sign with it. The client knows which key it
dialled; the server takes any key that signs, and learns from it who is there. aioquic signs and
verifies Ed25519 and can ask clients for a certificate; what is added here is the other form of the
certificate, and every refusal that goes with it. Codes of the alerts are those that iroh sends.
"""

# Not all types of aioquic are written down, and `Buffer` is public in one of its modules only.
# pyright: reportUnknownMemberType=false, reportPrivateImportUsage=false

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any, cast

from aioquic import tls
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from blobsync.address import EndpointId

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aioquic.buffer import Buffer
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

CLIENT_CERTIFICATE_TYPE = 19
SERVER_CERTIFICATE_TYPE = 20
RAW_PUBLIC_KEY = 2
"""The certificate type, in the extensions of both roles."""

SPKI_PREFIX = bytes.fromhex("302a300506032b6570032100")
"""What stands before the 32 bytes of a key in its SubjectPublicKeyInfo. Compared as it is: DER has
one form only, and a parser that knew more forms would have more to get wrong."""


class UnknownCaAlert(tls.Alert):
    """Another key than the one that was dialled."""

    description = tls.AlertDescription.unknown_ca


class CertificateRequiredAlert(tls.Alert):
    """The client shows no key."""

    description = tls.AlertDescription.certificate_required


class RawKey:
    """A public key where aioquic keeps an X.509 certificate."""

    def __init__(self, id: EndpointId) -> None:
        self.id = id

    def public_bytes(self, encoding: object) -> bytes:
        """The SubjectPublicKeyInfo, which goes into the Certificate message."""
        return SPKI_PREFIX + self.id

    def public_key(self) -> Ed25519PublicKey:
        """What signatures are checked with."""
        return Ed25519PublicKey.from_public_bytes(bytes(self.id))


def decode_raw_key(certificates: Sequence[tuple[bytes, bytes]]) -> EndpointId:
    """The key in the entries of a Certificate message.

    Raises:
        tls.Alert: they are not exactly one good Ed25519 key.
    """
    if len(certificates) != 1:
        raise UnknownCaAlert("a raw public key comes alone")
    data, extensions = certificates[0]
    if len(data) != len(SPKI_PREFIX) + 32 or extensions:
        raise tls.AlertBadCertificate("not a raw public key")
    if not data.startswith(SPKI_PREFIX):
        raise tls.AlertUnsupportedCertificate("not an Ed25519 key")
    try:
        id = EndpointId(data[len(SPKI_PREFIX) :])
    except ValueError as error:
        raise tls.AlertBadCertificate("not a point of the curve") from error
    if id.is_weak:
        # OpenSSL would accept signatures that nobody needs a secret for.
        raise tls.AlertBadCertificate("a weak key")
    return id


class RawKeyContext(tls.Context):
    """The TLS side of a connection between endpoints of iroh.

    Args:
        expected_id: whom the client dialled; None for a server.
    """

    def __init__(
        self,
        *,
        is_client: bool,
        alpn_protocols: list[str] | None,
        id: EndpointId,
        secret_key: Ed25519PrivateKey,
        expected_id: EndpointId | None,
        logger: Any = None,
    ) -> None:
        super().__init__(
            is_client=is_client,
            alpn_protocols=alpn_protocols,
            logger=logger,
            # There is no chain to verify; the key is compared instead.
            verify_mode=ssl.CERT_NONE,
        )
        if is_client == (expected_id is None):
            raise ValueError("a client expects an id, a server does not")
        self._expected_id = expected_id
        self._signature_algorithms = [int(tls.SignatureAlgorithm.ED25519)]
        # With one group there is one key share and never a HelloRetryRequest, which aioquic lacks.
        self._supported_groups = [tls.Group.X25519]
        self._request_client_certificate = not is_client
        self.certificate = cast("Any", RawKey(id))
        self.certificate_private_key = secret_key

    @property
    def certificate_type_extensions(self) -> list[tuple[int, bytes]]:
        """What we say in ClientHello or EncryptedExtensions."""
        value = bytes([1, RAW_PUBLIC_KEY] if self._is_client else [RAW_PUBLIC_KEY])
        return [(CLIENT_CERTIFICATE_TYPE, value), (SERVER_CERTIFICATE_TYPE, value)]

    def check_certificate_types(self) -> None:
        """Both certificate types of the peer's hello must allow raw public keys.

        Raises:
            tls.Alert: one of them is missing, or something else.
        """
        received = self.received_extensions or []
        for wanted in (CLIENT_CERTIFICATE_TYPE, SERVER_CERTIFICATE_TYPE):
            values = [value for type, value in received if type == wanted]
            if len(values) != 1 or not self._allows_raw_keys(values[0]):
                raise tls.AlertHandshakeFailure("the peer does not use raw public keys")

    def _allows_raw_keys(self, value: bytes) -> bool:
        if self._is_client:
            return value == bytes([RAW_PUBLIC_KEY])
        offered = value[1:]
        return value[:1] == bytes([len(offered)]) and RAW_PUBLIC_KEY in offered

    @property
    def shown_id(self) -> EndpointId | None:
        """The key that the peer showed; proven once the handshake is complete."""
        shown = cast("RawKey | None", self._peer_certificate)
        return None if shown is None else shown.id

    def _set_peer_certificate(self, certificate: tls.Certificate) -> None:
        if certificate.request_context:
            raise tls.AlertIllegalParameter("a context that was not asked for")
        id = decode_raw_key(certificate.certificates)
        if self._expected_id is not None and id != self._expected_id:
            raise UnknownCaAlert("another key than the one that was dialled")
        self._peer_certificate = cast("Any", RawKey(id))

    def _client_handle_certificate(self, input_buf: Buffer) -> None:
        if self._certificate_request is None:
            # It would never learn who we are. Endpoints of iroh always ask.
            raise tls.AlertHandshakeFailure("the server does not ask for our key")
        super()._client_handle_certificate(input_buf)

    def _server_handle_certificate(self, input_buf: Buffer) -> None:
        start = input_buf.tell()
        is_empty = not tls.pull_certificate(input_buf).certificates
        input_buf.seek(start)
        if is_empty:
            raise CertificateRequiredAlert("the client shows no key")
        super()._server_handle_certificate(input_buf)

"""The handshake, in memory: who is let in, and every way not to be."""

from __future__ import annotations

import random

import pytest

from blobsync.address import EndpointId
from blobsync.errors import LocalProtocolError
from blobsync.transports.quic.raw_connection import RawKeyConnection
from tests.unit.transports.quic import hostile
from tests.unit.transports.quic.hostile import ALPN, client, identity, server
from tests.unit.transports.quic.wire import HandshakeCompleted, Wire

CRYPTO_ERROR = 0x100
CERTIFICATE_REQUIRED = 116
UNKNOWN_CA = 48
NO_APPLICATION_PROTOCOL = 120


def strict_client(server_id=None, seed=1, alpns=(ALPN,)):
    server_id = server_id or identity(2).id
    return RawKeyConnection(identity(seed), alpns, expected_id=server_id)


def strict_server(original_cid, alpns=(ALPN,)):
    return RawKeyConnection(identity(2), alpns, original_cid=original_cid)


def test_both_sides_know_each_other():
    wire = Wire(strict_client(), strict_server)
    wire.run()
    for ours, theirs in ((wire.client, identity(2)), (wire.server, identity(1))):
        assert ours.close_event is None
        assert ours.is_handshake_complete
        assert ours.is_confirmed
        assert ours.remote_id == theirs.id
        assert ours.alpn == ALPN


def test_nothing_is_known_before_the_handshake_is_complete():
    wire = Wire(strict_client(), strict_server)
    assert wire.client.remote_id is None
    assert wire.server.remote_id is None
    wire.round()
    assert wire.server.remote_id is None


def test_a_client_is_connected_before_it_is_accepted():
    """Its handshake is complete once it has seen the server's key; the server's, later."""
    wire = Wire(client(identity(2).id, hostile.bad_signature), strict_server)
    wire.round()
    assert wire.client.is_handshake_complete
    assert not wire.client.is_confirmed
    wire.run()
    assert not wire.client.is_confirmed
    assert wire.client.close_event.error_code == CRYPTO_ERROR + 51


@pytest.mark.parametrize("name", hostile.EITHER_ROLE)
def test_a_hostile_server_is_refused(name: str):
    twist, alert = hostile.EITHER_ROLE[name]
    wire = Wire(strict_client(), lambda cid: server(cid, twist))
    wire.run()
    assert_refused(wire.client, wire.server, alert)


@pytest.mark.parametrize("name", hostile.EITHER_ROLE)
def test_a_hostile_client_is_refused(name: str):
    twist, alert = hostile.EITHER_ROLE[name]
    wire = Wire(client(identity(2).id, twist), strict_server)
    wire.run()
    assert_refused(wire.server, wire.client, alert)


def assert_refused(honest: RawKeyConnection, hostile: RawKeyConnection, alert: int):
    assert honest.close_event is not None
    assert honest.close_event.error_code == CRYPTO_ERROR + alert
    assert not honest.is_handshake_complete
    assert honest.remote_id is None
    assert not hostile.is_confirmed
    # The other side learns why.
    assert hostile.close_event.error_code == CRYPTO_ERROR + alert


def test_a_client_without_a_key_is_refused():
    wire = Wire(client(identity(2).id, hostile.no_key), strict_server)
    wire.run()
    assert_refused(wire.server, wire.client, CERTIFICATE_REQUIRED)


def test_a_server_that_does_not_ask_for_our_key_is_refused():
    wire = Wire(strict_client(), lambda cid: server(cid, hostile.no_request))
    wire.run()
    assert_refused(wire.client, wire.server, 40)


def test_a_server_that_asks_for_no_key_knows_nobody():
    """Should a server of ours ever leave out the request, no connection may come of it."""
    wire = Wire(
        client(identity(2).id, hostile.content), lambda cid: server(cid, hostile.no_request)
    )
    wire.run()
    assert wire.server.is_handshake_complete
    assert wire.server.remote_id is None


def test_another_key_than_the_dialled_one_is_refused():
    wire = Wire(strict_client(server_id=identity(3).id), strict_server)
    wire.run()
    assert_refused(wire.client, wire.server, UNKNOWN_CA)


@pytest.mark.parametrize("point", hostile.WEAK_POINTS, ids=lambda point: point.hex()[:6])
def test_a_weak_key_is_refused_in_either_role(point: bytes):
    """OpenSSL takes these signatures for good: a peer without any secret would be let in."""
    wire = Wire(client(identity(2).id, hostile.weak(point)), strict_server)
    wire.run()
    assert_refused(wire.server, wire.client, 42)
    wire = Wire(
        strict_client(server_id=EndpointId(point)), lambda cid: server(cid, hostile.weak(point))
    )
    wire.run()
    assert_refused(wire.client, wire.server, 42)


def test_without_a_common_protocol_there_is_no_connection():
    wire = Wire(strict_client(alpns=[b"other/1"]), strict_server)
    wire.run()
    assert_refused(wire.server, wire.client, NO_APPLICATION_PROTOCOL)


@pytest.mark.parametrize("alpn", [b"", b"\xff", b"x" * 256])
def test_alpns_that_aioquic_would_drop_are_refused(alpn: bytes):
    with pytest.raises(LocalProtocolError, match="ALPN"):
        strict_client(alpns=[alpn])


def test_no_session_is_resumed():
    """A resumed session has no certificate, so no key would be proven."""
    wire = Wire(strict_client(), strict_server)
    wire.run()
    for connection in (wire.client, wire.server):
        [event] = wire.seen(connection, HandshakeCompleted)
        assert not event.session_resumed
        assert connection.tls.new_session_ticket_cb is None
        assert connection.tls.get_session_ticket_cb is None


def test_the_key_is_shown_as_iroh_wants_it():
    """The 44 bytes of SubjectPublicKeyInfo for the secret key of 32 zero bytes."""
    wire = Wire(strict_client(), strict_server)
    shown = wire.client.tls.certificate.public_bytes(None)
    assert shown == bytes.fromhex("302a300506032b6570032100") + identity(1).id
    assert len(shown) == 44


def test_a_lost_handshake_packet_is_sent_again():
    for number in range(6):
        count = iter(range(1000))
        wire = Wire(
            strict_client(),
            strict_server,
            lost=lambda _, count=count, number=number: next(count) == number,
        )
        wire.run()
        assert wire.client.is_confirmed, number
        assert wire.server.remote_id == identity(1).id


@pytest.mark.parametrize("seed", range(20))
def test_any_change_of_a_handshake_packet_harms_nobody(seed: int):
    """Bytes that were changed under way are dropped, or end the handshake; nothing else happens."""
    source = random.Random(seed)
    wire = Wire(strict_client(), strict_server)
    genuine = wire.server.receive_datagram

    def receive(data: bytes, addr, now) -> None:
        changed = bytearray(data)
        changed[source.randrange(len(changed))] ^= 1 << source.randrange(8)
        genuine(bytes(changed), addr, now)

    wire.server.receive_datagram = receive
    wire.run(rounds=8)
    if wire.server.is_handshake_complete:
        assert wire.server.remote_id == identity(1).id

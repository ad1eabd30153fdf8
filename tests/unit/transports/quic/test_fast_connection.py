"""The shortcuts give what aioquic's own way gives, also where packets are lost or odd."""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING

import pytest
from aioquic.quic.connection import QuicConnectionError, QuicReceiveContext
from aioquic.quic.packet import QuicErrorCode, decode_packet_number
from aioquic.quic.stream import StreamFinishedError
from aioquic.tls import CipherSuite, Epoch

from blobsync.transports.quic.fast_connection import (
    PROBED_SIZES,
    FastConnection,
    _encode_varint,
    _full_number,
    _varint,
)
from blobsync.transports.quic.raw_connection import DATAGRAM_SIZE_MIN, RawKeyConnection
from tests.unit.transports.quic.hostile import ALPN, identity
from tests.unit.transports.quic.wire import StreamDataReceived, Wire

if TYPE_CHECKING:
    from collections.abc import Callable

KINDS = {"fast": FastConnection, "plain": RawKeyConnection}


def joined(
    client: str = "fast",
    server: str = "fast",
    *,
    suites: list[CipherSuite] | None = None,
    lost: Callable[[bytes], bool] = lambda datagram: False,
) -> Wire:
    """Both ends of an established connection."""

    class Client(KINDS[client]):
        def _initialize(self, peer_cid: bytes) -> None:
            super()._initialize(peer_cid)
            if suites:
                self.tls._cipher_suites = suites

    wire = Wire(
        Client(identity(1), [ALPN], expected_id=identity(2).id),
        lambda cid: KINDS[server](identity(2), [ALPN], original_cid=cid),
        lost=lost,
    )
    wire.run()
    assert wire.client.is_confirmed
    return wire


def transfer(wire: Wire, data: bytes, *, rounds: int = 20_000, each_round=lambda: None) -> None:
    """Send `data` from client to server and compare."""
    stream = wire.client.open_stream()
    stream.sender.write(data, end_stream=True)
    received, size, has_ended = hashlib.sha256(), 0, False
    for _ in range(rounds):
        count = wire.round()
        each_round()
        for event in wire.seen(wire.server, StreamDataReceived):
            received.update(event.data)
            size += len(event.data)
            has_ended = has_ended or event.end_stream
            if (theirs := wire.server.stream(stream.stream_id)) is not None:
                wire.server.grant(theirs, len(event.data))
        wire.events[wire.server].clear()
        if has_ended:
            break
        if not count:
            # Time passes until somebody's timer is due.
            timers = [each.get_timer() for each in (wire.client, wire.server)]
            wire.now = max(wire.now, min(timer for timer in timers if timer is not None))
        for each in (wire.client, wire.server):
            if (timer := each.get_timer()) is not None and timer <= wire.now:
                each.handle_timer(wire.now)
        assert wire.client.close_event is None, wire.client.close_event
        assert wire.server.close_event is None, wire.server.close_event
    assert has_ended
    assert size == len(data)
    assert received.digest() == hashlib.sha256(data).digest()


@pytest.mark.parametrize("server", KINDS)
@pytest.mark.parametrize("client", KINDS)
def test_bulk_data(client: str, server: str):
    wire = joined(client, server)
    transfer(wire, random.Random(1).randbytes(6 << 20))
    if client == "fast":
        assert wire.client.packets_sent_fast > 100
    if server == "fast":
        assert wire.server.packets_received_fast > 100


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("server", KINDS)
@pytest.mark.parametrize("client", KINDS)
def test_losses_reordering_and_copies(client: str, server: str, seed: int):
    """3 % lost, 2 % late, 1 % twice."""
    source = random.Random(seed)
    wire = joined(client, server)
    for connection in (wire.client, wire.server):
        genuine = connection.receive_datagram
        late: list = []

        def receive(data, addr, now, genuine=genuine, late=late) -> None:
            fate = source.random()
            if fate < 0.03:
                return
            if fate < 0.05:
                late.append((data, addr))
                return
            genuine(data, addr, now)
            if fate < 0.06:
                genuine(data, addr, now)
            if late and fate > 0.5:
                genuine(*late.pop(0), now)

        connection.receive_datagram = receive
    transfer(wire, source.randbytes(1 << 20))


@pytest.mark.parametrize("who", ["client", "server"])
def test_key_updates_in_the_middle(who: str):
    wire = joined()
    count = iter(range(10**6))

    def update() -> None:
        if next(count) % 5 == 4:
            getattr(wire, who).request_key_update()

    secret = wire.client._cryptos[Epoch.ONE_RTT].send.secret
    transfer(wire, random.Random(2).randbytes(3 << 20), each_round=update)
    assert wire.client._cryptos[Epoch.ONE_RTT].send.secret != secret
    assert wire.server.packets_received_fast > 100


@pytest.mark.parametrize(
    "suite", [suite for suite in CipherSuite if suite.name.startswith(("AES", "CHACHA"))]
)
def test_every_cipher_suite(suite: CipherSuite):
    """ChaCha20 takes aioquic's own way."""
    wire = joined(suites=[suite])
    transfer(wire, random.Random(3).randbytes(1 << 20))
    assert wire.client._cryptos[Epoch.ONE_RTT].send.cipher_suite is suite
    is_aes = suite is not CipherSuite.CHACHA20_POLY1305_SHA256
    assert bool(wire.client.packets_sent_fast) is is_aes
    assert bool(wire.server.packets_received_fast) is is_aes


def test_several_streams_share_a_connection():
    wire = joined()
    streams = [wire.client.open_stream() for _ in range(5)]
    contents = {
        each.stream_id: random.Random(each.stream_id).randbytes(900_000) for each in streams
    }
    for stream in streams:
        stream.sender.write(contents[stream.stream_id], end_stream=True)
    received = dict.fromkeys(contents, b"")
    for _ in range(3000):
        wire.round()
        for each in (wire.client, wire.server):
            if (timer := each.get_timer()) is not None and timer <= wire.now:
                each.handle_timer(wire.now)
        for event in wire.seen(wire.server, StreamDataReceived):
            received[event.stream_id] += event.data
        wire.events[wire.server].clear()
    assert received == contents


@pytest.mark.parametrize("server", KINDS)
def test_a_client_that_moves_is_followed(server: str):
    """Behind a router that gave it another port: the server proves the new path and goes on."""
    wire = joined("fast", server)
    transfer(wire, bytes(1 << 20))
    wire.client_addr = ("192.0.2.1", 3333)
    transfer(wire, random.Random(8).randbytes(3 << 20))
    assert wire.server.remote_addr == ("192.0.2.1", 3333)
    assert wire.server._network_paths[0].is_validated


# The size of datagrams


def test_datagrams_grow_as_the_path_allows():
    wire = joined()
    assert wire.client.udp_payload_max == wire.server.udp_payload_max == PROBED_SIZES[-1]


@pytest.mark.parametrize(("path", "size"), [(1300, DATAGRAM_SIZE_MIN), (1500, 1452)])
def test_datagrams_stay_within_the_path(path: int, size: int):
    wire = joined(lost=lambda datagram: len(datagram) > path)
    transfer(wire, random.Random(4).randbytes(1 << 20))
    assert wire.client.udp_payload_max == wire.server.udp_payload_max == size


def test_datagrams_stay_within_what_the_peer_takes():
    """As iroh says 1472."""

    class Small(FastConnection):
        def _parse_transport_parameters(self, data, from_session_ticket=False) -> None:
            super()._parse_transport_parameters(data, from_session_ticket)
            self.peer_udp_payload_max = 1472

    wire = Wire(
        Small(identity(1), [ALPN], expected_id=identity(2).id),
        lambda cid: FastConnection(identity(2), [ALPN], original_cid=cid),
    )
    wire.run()
    assert wire.client.udp_payload_max == 1452


def test_a_path_that_becomes_narrow_is_noticed():
    narrow = False
    wire = joined(lost=lambda datagram: narrow and len(datagram) > 1300)
    transfer(wire, bytes(1 << 20))
    narrow = True
    transfer(wire, random.Random(5).randbytes(1 << 20))
    assert wire.client.udp_payload_max == DATAGRAM_SIZE_MIN


def test_a_lost_probe_is_no_sign_of_congestion():
    wire = joined(lost=lambda datagram: len(datagram) > 1300)
    before = wire.client._loss.congestion_window
    transfer(wire, bytes(100_000))
    assert wire.client._loss._cc.ssthresh is None
    assert wire.client._loss.congestion_window >= before


# Frames


def test_packet_numbers_as_aioquic_reads_them():
    source = random.Random(6)
    for _ in range(20_000):
        size = source.randrange(1, 5)
        expected = source.choice((0, 1, 100, 255, 256, 65_535, source.randrange(1 << 40)))
        truncated = source.randrange(1 << (8 * size))
        assert _full_number(truncated, size, expected) == decode_packet_number(
            truncated, 8 * size, expected
        )


def test_numbers_of_variable_length():
    for value in (0, 63, 64, 16383, 16384, (1 << 30) - 1, 1 << 30, (1 << 62) - 1):
        encoded = _encode_varint(value)
        assert _varint(b"x" + encoded, 1) == (value, 1 + len(encoded))
        for cut in range(len(encoded)):
            with pytest.raises(IndexError):
                _varint(encoded[:cut], 0)


def frame_of(source: random.Random, offset: int) -> bytes:
    """A payload with one STREAM frame in it, the next of its stream; sometimes something odd."""

    def odd(usual: int, *others: int) -> int:
        return usual if source.random() < 0.93 else source.choice(others)

    kind = 0x0C | odd(0, 1) | source.choice((0, 2))
    kind &= ~odd(0, 4)
    data = source.randbytes(odd(source.choice((1, 20, 1000)), 0))
    frame = bytes((kind,)) + _encode_varint(odd(0, 4, 8, 1, 2, 3, 400))
    if kind & 0x04:
        frame += _encode_varint(odd(offset, offset + 1, max(offset - 1, 0), 5 << 20))
    if kind & 0x02:
        frame += _encode_varint(max(len(data) + odd(0, 1, -1), 0))
    frame += data + bytes(odd(0, 1, 2))
    return frame[: odd(len(frame), 0, 1, 2, 3)]


def state_of(connection: RawKeyConnection) -> list:
    events = []
    while (event := connection.next_event()) is not None:
        events.append(event)
    return [
        events,
        connection._local_max_data.used,
        {
            stream_id: (stream.receiver._buffer_start, stream.receiver.highest_offset)
            for stream_id, stream in connection._streams.items()
        },
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_a_packet_that_holds_nothing_ends_the_connection(kind: str):
    wire = joined(server=kind)
    number = wire.client._packet_number
    keys = wire.client._cryptos[Epoch.ONE_RTT]
    first = 0x43 | keys.key_phase << 2
    header = bytes((first,)) + wire.client._peer_cid.cid + number.to_bytes(4, "big")
    packet = keys.encrypt_packet(header, b"", number)
    wire.server.receive_datagram(packet, wire.client_addr, now=wire.now)
    wire.server.datagrams_to_send(wire.now)
    assert wire.server.close_event is not None
    assert wire.server.close_event.error_code == QuicErrorCode.PROTOCOL_VIOLATION


def test_frames_mean_what_they_mean_to_aioquic():
    """Any payload has the same effect on both: taken by the shortcut, or left to aioquic."""
    source = random.Random(7)
    shortcuts = 0
    for _ in range(60):
        fast, plain = joined().server, joined(server="plain").server
        for connection in (fast, plain):
            state_of(connection)
        offset = 0
        for _ in range(30):
            payload = frame_of(source, offset)
            outcomes = []
            for connection in (fast, plain):
                context = QuicReceiveContext(
                    epoch=Epoch.ONE_RTT,
                    host_cid=connection.host_cid,
                    network_path=connection._network_paths[0],
                    quic_logger_frames=None,
                    time=0.0,
                    version=None,
                )
                try:
                    if connection is fast and fast._take_stream_frame(payload):
                        shortcuts += 1
                    else:
                        connection._payload_received(context, payload)
                except (QuicConnectionError, StreamFinishedError) as error:
                    outcomes.append(str(error))
                else:
                    outcomes.append("")
            states = [state_of(connection) for connection in (fast, plain)]
            assert outcomes[0] == outcomes[1]
            assert states[0] == states[1]
            if outcomes[0]:
                break
            offset = states[0][2].get(0, (0, 0))[1]
    assert shortcuts > 50

"""Beyond the contract of transports: windows, datagrams, keys, faults, floods."""

from __future__ import annotations

import asyncio
import hashlib
import random
import socket
from functools import partial
from typing import TYPE_CHECKING, cast

import pytest
from aioquic.tls import Epoch

from blobsync.address import EndpointAddr, RelayUrl, SocketAddr
from blobsync.errors import LocalProtocolError, UnreachableError
from blobsync.transports import BindError, ConnectionClosedError, NoAddressError
from blobsync.transports.quic import endpoint as endpoint_module
from blobsync.transports.quic.endpoint import AioquicEndpoint
from blobsync.transports.quic.fast_connection import FastConnection
from blobsync.transports.quic.raw_connection import STREAM_WINDOW, RawKeyConnection
from blobsync.transports.quic.streams import UNACKNOWLEDGED_MAX, AioquicRecvStream
from tests.unit.transports.quic.hostile import ALPN, identity
from tests.unit.transports.quic.loopback import LOOPBACK, Endpoints, echo, join, until

if TYPE_CHECKING:
    from blobsync.transports import Connection
    from blobsync.transports.quic.connection import AioquicConnection

KINDS = ["iroh", "aioquic"]


def unread(stream) -> int:
    recv = cast("AioquicRecvStream", stream)
    return sum(map(len, recv._chunks)) - recv._offset


@pytest.mark.parametrize("sender", KINDS)
async def test_four_mib_unread_stop_the_sender(endpoints: Endpoints, sender: str):
    """aioquic's own windows grow whether or not anybody reads: 64 of 64 MiB were in memory."""
    ours, theirs = await join(await endpoints.aioquic(), await endpoints.open(sender))
    asking = await ours.open_bi()
    await asking.send.write(b"?")
    answering = await theirs.accept_bi()
    data = random.Random(1).randbytes(12 << 20)

    async def answer() -> None:
        await answering.send.write(data)
        await answering.send.finish()

    async with asyncio.TaskGroup() as tasks:
        writing = tasks.create_task(answer())
        await until(lambda: unread(asking.recv) == STREAM_WINDOW)
        for _ in range(20):
            await echo(ours, theirs)
        assert unread(asking.recv) == STREAM_WINDOW
        assert not writing.done()
        received = hashlib.sha256()
        while piece := await asking.recv.read(1 << 20):
            received.update(piece)
            assert unread(asking.recv) <= STREAM_WINDOW
    assert received.digest() == hashlib.sha256(data).digest()


async def test_a_writer_waits_for_acknowledgements(endpoints: Endpoints):
    """aioquic takes any amount and never blocks."""
    ours, theirs = await join(await endpoints.aioquic(), await endpoints.aioquic())
    stream = await ours.open_bi()
    writing = asyncio.ensure_future(stream.send.write(bytes(32 << 20)))
    answering = await theirs.accept_bi()
    await until(lambda: unread(answering.recv) == STREAM_WINDOW)
    sender = stream.send._stream.sender
    assert sender._buffer_stop - sender._buffer_start <= UNACKNOWLEDGED_MAX
    writing.cancel()
    await asyncio.wait({writing})


async def test_unread_data_of_a_reset_stream_frees_its_window(endpoints: Endpoints):
    """Else a connection would end up with no window at all."""
    ours, theirs = await join(await endpoints.aioquic(), await endpoints.aioquic())
    for _ in range(20):
        stream = await ours.open_bi()
        await stream.send.write(bytes(900_000))
        await theirs.accept_bi()
        stream.send.reset(1)
    await echo(ours, theirs, bytes(1 << 20))
    quic = cast("AioquicConnection", theirs).quic
    assert quic._local_max_data.value - quic._local_max_data.used == quic._connection_window


async def test_data_after_a_stop_frees_its_window(endpoints: Endpoints):
    ours, theirs = await join(await endpoints.aioquic(), await endpoints.aioquic())
    for _ in range(20):
        stream = await ours.open_bi()
        await stream.send.write(bytes(900_000))
        answering = await theirs.accept_bi()
        answering.recv.stop(3)
        assert await stream.send.wait_stopped() == 3
        answering.send.reset(0)
    await echo(ours, theirs, bytes(1 << 20))
    quic = cast("AioquicConnection", theirs).quic
    assert quic._local_max_data.value - quic._local_max_data.used == quic._connection_window


class Unrouted(AioquicEndpoint):
    """Counts packets of established connections that find no way."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.unrouted = 0

    def _take_first(self, datagram, now) -> None:
        self.unrouted += not datagram.data[0] & 0x80
        super()._take_first(datagram, now)


@pytest.mark.parametrize("dialler", KINDS)
async def test_new_connection_ids_lead_here_at_once(endpoints: Endpoints, dialler: str):
    """iroh uses a new id as soon as it has it. aioquic tells of it with the next packet, which
    was too late: the first answer took 38 ms."""
    listener = await Unrouted.bind(alpns=[ALPN], bind=[LOOPBACK])
    async with listener:
        for _ in range(10):
            ours, theirs = await join(await endpoints.open(dialler), listener)
            await echo(ours, theirs)
            quic = cast("AioquicConnection", theirs).quic
            assert set(quic.host_cids) <= set(listener._routes)
            await ours.close()
        assert listener.unrouted == 0


async def test_connection_ids_that_are_retired_lead_nowhere(endpoints: Endpoints):
    """A peer may ask for new ones without end."""
    listener = await endpoints.aioquic()
    ours, theirs = await join(await endpoints.aioquic(), listener)
    for _ in range(50):
        cast("AioquicConnection", ours).quic.change_connection_id()
        await echo(ours, theirs)
    quic = cast("AioquicConnection", theirs).quic
    assert quic._host_cid_seq > 20
    assert set(quic.host_cids) <= set(listener._routes)
    assert len(listener._routes) <= 9


async def test_routes_end_with_their_connection(endpoints: Endpoints):
    ours, theirs = await endpoints.aioquic(), await endpoints.aioquic()
    for _ in range(3):
        connection, other = await join(ours, theirs)
        await connection.close()
        await other.wait_closed()
    await until(lambda: not ours._connections and not theirs._connections)
    assert not ours._routes
    assert not theirs._routes
    assert not theirs._attempts


@pytest.mark.parametrize("peer", KINDS)
async def test_datagrams(endpoints: Endpoints, peer: str):
    ours, theirs = await join(await endpoints.aioquic(), await endpoints.open(peer))
    native = theirs if peer == "aioquic" else theirs._connection
    size = ours.max_datagram_size
    assert size is not None
    assert size >= 1170
    ours.send_datagram(b"x" * size)
    assert await native.read_datagram() == b"x" * size
    native.send_datagram(b"y" * 1000)
    assert await ours.read_datagram() == b"y" * 1000


async def test_a_datagram_that_is_too_long_is_refused(endpoints: Endpoints):
    """In aioquic's queue it would hold up all later ones for ever."""
    ours, theirs = await join(await endpoints.aioquic(), await endpoints.aioquic())
    with pytest.raises(LocalProtocolError, match="bytes"):
        ours.send_datagram(bytes(ours.max_datagram_size + 1))
    ours.send_datagram(b"short")
    assert await theirs.read_datagram() == b"short"


async def test_datagrams_that_nobody_reads_are_dropped(endpoints: Endpoints):
    ours, theirs = await join(await endpoints.aioquic(), await endpoints.aioquic())
    for i in range(2000):
        ours.send_datagram(b"%d" % i)
        if i % 50 == 0:
            await echo(ours, theirs)
    await echo(ours, theirs)
    assert len(theirs._datagrams) <= 256


@pytest.mark.parametrize("peer", KINDS)
async def test_more_streams_than_the_limit(endpoints: Endpoints, peer: str):
    """Both allow 100 at a time; later ones wait until earlier ones are over."""
    ours, theirs = await join(await endpoints.aioquic(), await endpoints.open(peer))

    async def serve() -> None:
        while (stream := await theirs.accept_bi()) is not None:
            await stream.send.write(await stream.recv.read_to_end(100) or b"")
            await stream.send.finish()

    async def ask(i: int) -> None:
        stream = await ours.open_bi()
        await stream.send.write(b"%d" % i)
        await stream.send.finish()
        assert await stream.recv.read_to_end(100) == b"%d" % i

    serving = asyncio.ensure_future(serve())
    async with asyncio.TaskGroup() as tasks:
        for i in range(300):
            tasks.create_task(ask(i))
    # What is over is not remembered.
    await until(lambda: not cast("AioquicConnection", ours)._streams)
    await ours.close()
    await serving


@pytest.mark.parametrize("peer", KINDS)
async def test_key_updates(endpoints: Endpoints, peer: str):
    ours, theirs = await join(await endpoints.aioquic(), await endpoints.open(peer))
    quic = cast("AioquicConnection", ours).quic
    phases = []
    for _ in range(3):
        quic.request_key_update()
        await echo(ours, theirs, bytes(100_000))
        await echo(theirs, ours, bytes(100_000))
        phases.append(quic._cryptos[Epoch.ONE_RTT].recv.key_phase)
    assert len(set(phases)) == 2


async def test_keys_are_updated_by_number_of_packets(
    endpoints: Endpoints, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("blobsync.transports.quic.raw_connection.KEY_UPDATE_PACKETS", 30)
    ours, theirs = await join(await endpoints.aioquic(), await endpoints.aioquic())
    secrets = set()
    for _ in range(10):
        await echo(ours, theirs, bytes(300_000))
        secrets.add(cast("AioquicConnection", ours).quic._cryptos[Epoch.ONE_RTT].send.secret)
    assert len(secrets) >= 3


class Faulty(RawKeyConnection):
    """Breaks at the given call."""

    def __init__(self, *args, method: str, after: int, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.method, self.left = method, after

    def _count(self, method: str) -> None:
        if method == self.method:
            self.left -= 1
            if self.left == 0:
                raise ZeroDivisionError

    def receive_datagram(self, data, addr, now) -> None:
        self._count("receive")
        super().receive_datagram(data, addr, now)

    def datagrams_to_send(self, now):
        self._count("send")
        return super().datagrams_to_send(now)

    def handle_timer(self, now) -> None:
        self._count("timer")
        super().handle_timer(now)

    def next_event(self):
        self._count("event")
        return super().next_event()


@pytest.mark.parametrize("method", ["receive", "send", "timer", "event"])
async def test_a_fault_of_ours_ends_the_connection_at_once(
    endpoints: Endpoints, method: str, caplog: pytest.LogCaptureFixture
):
    """By itself aioquic loses the packet and hangs until the idle timeout."""
    make = partial(Faulty, method=method, after=4 if method == "timer" else 40)
    ours, theirs = await join(
        await endpoints.aioquic(), await endpoints.aioquic(make_connection=make)
    )

    async def talk() -> None:
        while True:
            await echo(theirs, ours, bytes(50_000))

    talking = asyncio.ensure_future(talk())
    lost = await theirs.wait_closed()
    talking.cancel()
    await asyncio.wait({talking})
    assert "fault of our own" in str(lost)
    assert "ZeroDivisionError" in caplog.text
    if method != "send":
        lost = await ours.wait_closed()
        assert "internal error" in str(lost)


async def test_a_silent_port_takes_a_bounded_time(
    endpoints: Endpoints, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(endpoint_module, "CONNECT_TIMEOUT_S", 0.5)
    ours = await endpoints.aioquic()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        addr = EndpointAddr(
            identity(9).id, ip_addrs=(SocketAddr.from_text(f"127.0.0.1:{silent.getsockname()[1]}"),)
        )
        with pytest.raises(UnreachableError, match="no answer in time"):
            await ours.connect(addr, ALPN)
    assert not any(connection.lost_error() is None for connection in ours._connections)


async def test_of_several_addresses_the_one_that_answers_is_taken(endpoints: Endpoints):
    ours, theirs = await endpoints.aioquic(), await endpoints.iroh()
    wrong = await endpoints.aioquic()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        addr = EndpointAddr(
            theirs.id,
            ip_addrs=(
                SocketAddr.from_text(f"127.0.0.1:{silent.getsockname()[1]}"),
                *theirs.addr().ip_addrs,
                *wrong.addr().ip_addrs,
            ),
        )

        async def accept(endpoint) -> None:
            while (incoming := await endpoint.accept()) is not None:
                try:
                    await incoming.accept()
                except UnreachableError:
                    continue

        async with asyncio.TaskGroup() as tasks:
            accepting = [tasks.create_task(accept(each)) for each in (theirs, wrong)]
            connection = await ours.connect(addr, ALPN)
            assert connection.remote_id == theirs.id
            for task in accepting:
                task.cancel()


async def test_an_address_that_cannot_be_sent_to_fails_at_once(endpoints: Endpoints):
    ours = await endpoints.aioquic()
    addr = EndpointAddr(identity(9).id, ip_addrs=(SocketAddr.from_text("127.0.0.1:0"),))
    with pytest.raises(UnreachableError, match="refuses to send"):
        await ours.connect(addr, ALPN)


@pytest.mark.parametrize(
    ("addr", "said"),
    [
        (EndpointAddr(identity(9).id), "no address at all"),
        (
            EndpointAddr(identity(9).id, relay_urls=(RelayUrl("https://relay.example.org"),)),
            "only the URL of a relay",
        ),
        (
            EndpointAddr(identity(9).id, ip_addrs=(SocketAddr.from_text("[::1]:5"),)),
            "the other address family",
        ),
    ],
)
async def test_without_a_usable_address_it_is_said_what_to_do(
    endpoints: Endpoints, addr: EndpointAddr, said: str
):
    ours = await endpoints.aioquic()
    with pytest.raises(NoAddressError, match=said) as caught:
        await ours.connect(addr, ALPN)
    assert caught.value.is_permanent


async def test_a_taken_port_is_an_error(endpoints: Endpoints):
    first = await endpoints.aioquic()
    with pytest.raises(BindError, match="cannot bind"):
        await endpoints.aioquic(bind=first.addr().ip_addrs)
    with pytest.raises(BindError, match="at most one"):
        await endpoints.aioquic(bind=[LOOPBACK, LOOPBACK])


async def test_without_alpns_nobody_gets_in(endpoints: Endpoints):
    ours, theirs = await endpoints.aioquic(), await endpoints.aioquic(alpns=())
    with pytest.raises(UnreachableError, match="refused"):
        await ours.connect(theirs.addr(), ALPN)


async def test_all_interfaces_are_bound_by_default(endpoints: Endpoints):
    """The answer leaves from the address that was dialled, which the peer insists on."""
    theirs = await endpoints.aioquic(bind=())
    assert theirs.addr().ip_addrs
    port = theirs.bound_ports()[0]
    for host in ("127.0.0.1", "127.0.0.2"):
        ours = await endpoints.aioquic()
        addr = EndpointAddr(theirs.id, ip_addrs=(SocketAddr.from_text(f"{host}:{port}"),))

        async def accept() -> Connection:
            incoming = await theirs.accept()
            assert incoming is not None
            return await incoming.accept()

        async with asyncio.TaskGroup() as tasks:
            accepting = tasks.create_task(accept())
            connection = await ours.connect(addr, ALPN)
        assert connection.paths()[0].remote == f"{host}:{port}"
        await echo(connection, accepting.result())


async def test_garbage_harms_nobody(endpoints: Endpoints):
    """Bytes of any kind, before and within a connection."""
    ours, theirs = await endpoints.aioquic(), await endpoints.aioquic()
    connection, other = await join(ours, theirs)
    target = ("127.0.0.1", theirs.bound_ports()[0])
    quic = cast("AioquicConnection", other).quic
    source = random.Random(5)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for i in range(600):
            size = source.choice((0, 1, 5, 7, 20, 100, 1200, 1400))
            data = bytearray(source.randbytes(size))
            if size > 20:
                match i % 4:
                    case 0:
                        # A short header for a connection that exists.
                        data[0] = 0x40
                        data[1:9] = source.choice(quic.host_cids)
                    case 1:
                        # A first packet, with anything in it.
                        data[:6] = b"\xc0\0\0\0\x01\x08"
                    case 2:
                        # Another version.
                        data[:6] = b"\xc0\xff\0\0\x1d\x08"
            sock.sendto(data, target)
            if i % 50 == 0:
                await echo(connection, other)
    await echo(connection, other)
    assert len(theirs._attempts) <= endpoint_module.ATTEMPTS_MAX


async def test_a_flood_of_first_packets_is_bounded(endpoints: Endpoints):
    theirs = await endpoints.aioquic()
    target = ("127.0.0.1", theirs.bound_ports()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for i in range(1000):
            client = RawKeyConnection(identity(1), [ALPN], expected_id=theirs.id)
            client.connect(target, now=0.0)
            for data, _ in client.datagrams_to_send(0.0):
                sock.sendto(data, target)
            if i % 20 == 0:
                await asyncio.sleep(0)
    await until(lambda: len(theirs._attempts) == endpoint_module.ATTEMPTS_MAX)
    assert len(theirs._waiting) <= endpoint_module.ATTEMPTS_MAX
    assert len(theirs._connections) == 0


async def test_a_peer_that_opens_and_gives_up_streams_is_bounded(endpoints: Endpoints):
    """Streams that are over before they are accepted make room for others without end."""
    ours, theirs = await join(await endpoints.aioquic(), await endpoints.aioquic())
    connection = cast("AioquicConnection", theirs)
    for i in range(1000):
        stream = await ours.open_bi()
        stream.send.reset(1)
        stream.recv.stop(1)
        if i % 20 == 0:
            await asyncio.sleep(0)
    assert len(connection._opened) <= 201
    assert len(connection._streams) <= 201


class Boundless(FastConnection):
    """Believes that it may send anything."""

    def _parse_transport_parameters(self, data, from_session_ticket=False) -> None:
        super()._parse_transport_parameters(data, from_session_ticket)
        self._remote_max_data = self._remote_max_stream_data_bidi_remote = 1 << 60


@pytest.mark.parametrize("make", [FastConnection, RawKeyConnection])
async def test_a_peer_that_ignores_its_windows_is_cut_off(endpoints: Endpoints, make):
    ours, theirs = await join(
        await endpoints.aioquic(make_connection=Boundless),
        await endpoints.aioquic(make_connection=make),
    )
    stream = await ours.open_bi()
    with pytest.raises(ConnectionClosedError, match="flow control error"):
        await stream.send.write(bytes(32 << 20))
    assert "flow control error" in str(await theirs.wait_closed())
    assert sum(unread(recv) for _, recv in theirs._streams.values()) <= STREAM_WINDOW


async def test_a_close_that_is_lost_is_said_again(endpoints: Endpoints):
    ours, theirs = await endpoints.aioquic(), await endpoints.aioquic()
    connection, other = await join(ours, theirs)
    genuine, dropped = ours.send, []

    def drop(sender, datagrams):
        dropped.extend(datagrams)

    ours.send = drop
    await connection.close(5, b"gone")
    ours.send = genuine
    assert dropped
    stream = await other.open_bi()
    await stream.send.write(b"are you there?")
    lost = await other.wait_closed()
    assert (lost.code, lost.reason) == (5, "gone")


async def test_a_long_reason_of_a_close_is_cut(endpoints: Endpoints):
    ours, theirs = await join(await endpoints.aioquic(), await endpoints.aioquic())
    await ours.close(1, "é".encode() * 5000)
    assert (await theirs.wait_closed()).reason == "é" * 256


async def test_an_idle_connection_is_kept_alive(
    endpoints: Endpoints, monkeypatch: pytest.MonkeyPatch
):
    """aioquic sends no pings by itself: two endpoints of it lost each other when idle."""
    monkeypatch.setattr("blobsync.transports.quic.connection.PING_S", 0.1)
    make = partial(RawKeyConnection, idle_timeout_s=0.5)
    ours, theirs = await join(
        await endpoints.aioquic(make_connection=make), await endpoints.aioquic(make_connection=make)
    )
    await asyncio.sleep(1.5)
    await echo(ours, theirs)


async def test_a_peer_that_vanishes_is_noticed(endpoints: Endpoints):
    make = partial(RawKeyConnection, idle_timeout_s=0.5)
    theirs_endpoint = await endpoints.aioquic(make_connection=make)
    ours, theirs = await join(await endpoints.aioquic(make_connection=make), theirs_endpoint)
    await echo(ours, theirs)
    stream = await ours.open_bi()
    await stream.send.write(b"x")
    theirs_endpoint._close_sockets()
    with pytest.raises(ConnectionClosedError, match="nothing came"):
        await stream.recv.read(1)


async def test_one_of_our_keys_may_have_many_connections(endpoints: Endpoints):
    """One socket dials and accepts."""
    one, two = await endpoints.aioquic(), await endpoints.aioquic()
    there, back = await join(one, two), await join(two, one)
    await echo(*there)
    await echo(*back)
    assert len(one.bound_ports()) == 1

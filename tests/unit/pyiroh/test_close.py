"""Closing an endpoint frees its sockets at once, whatever Python still holds of it."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import TYPE_CHECKING

import pytest

import pyiroh
from pyiroh import Endpoint, EndpointAddr, SecretKey
from tests.unit.pyiroh.ends import ALPN, Ends, bind, connect, connected, open_bi, open_uni

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

TIMES = 5
PIECE = b"arrived" * 100


async def bind_again(address: str) -> None:
    """Takes the address; one attempt must do."""
    again = await Endpoint.bind(bind_ipv4=address, bind_ipv6=None)
    assert again.bound_sockets() == (address,)
    await again.close()


async def nothing(_ours: Endpoint, _other: Endpoint) -> list[object]:
    return []


async def watchers(ours: Endpoint, _other: Endpoint) -> list[object]:
    watcher = ours.watch_addr()
    await anext(watcher)
    return [watcher, ours.watch_addr()]


async def waiting(ours: Endpoint, _other: Endpoint) -> list[object]:
    operations = [ours.accept(), ours.closed(), ours.online(60)]
    tasks = [asyncio.ensure_future(operation) for operation in operations]
    await asyncio.sleep(0)
    return [*tasks]


async def never_started(ours: Endpoint, other: Endpoint) -> list[object]:
    return [ours.accept(), ours.closed(), ours.online(1), ours.connect(other.addr(), ALPN)]


async def dialled(ours: Endpoint, other: Endpoint) -> list[object]:
    return [*await connect(ours, other)]


async def accepted(ours: Endpoint, other: Endpoint) -> list[object]:
    return [*await connect(other, ours)]


async def left_by_the_peer(ours: Endpoint, other: Endpoint) -> list[object]:
    mine, theirs = await connect(ours, other)
    theirs.close(3)
    await mine.closed()
    return [mine, theirs]


async def streams(ours: Endpoint, other: Endpoint) -> list[object]:
    mine, theirs = await connect(ours, other)
    bi = await open_bi(Ends(mine, theirs, ours, other))
    uni = await open_uni(Ends(mine, theirs, ours, other))
    other_way = await open_uni(Ends(theirs, mine, other, ours))
    return [bi, uni, other_way]


async def operations_of_streams(ours: Endpoint, other: Endpoint) -> list[object]:
    mine, theirs = await connect(ours, other)
    (send, recv), _ = await open_bi(Ends(mine, theirs, ours, other))
    operations = [
        *(mine.accept_bi(), mine.accept_uni(), mine.read_datagram(), mine.closed()),
        *(recv.read(5), send.acked(), send.stopped(), anext(mine.watch_paths())),
    ]
    tasks = [asyncio.ensure_future(operation) for operation in operations]
    await asyncio.sleep(0)
    return [*tasks, mine.open_bi(), mine.accept_bi(), recv.read(5), send.write(b"x"), send.acked()]


async def pumps(ours: Endpoint, other: Endpoint) -> list[object]:
    mine, theirs = await connect(ours, other)
    _, recv = await open_uni(Ends(theirs, mine, other, ours))
    pump = recv.batch_pump([bytes(32)], 1 << 20)
    task = asyncio.ensure_future(pump.next())
    await asyncio.sleep(0)
    return [pump, task]


async def watched_paths(ours: Endpoint, other: Endpoint) -> list[object]:
    mine, _theirs = await connect(ours, other)
    watcher = mine.watch_paths()
    await anext(watcher)
    return [watcher, mine.watch_paths()]


async def undecided(ours: Endpoint, other: Endpoint) -> list[object]:
    dial = asyncio.ensure_future(other.connect(ours.addr(), ALPN))
    return [await ours.accept(), dial]


async def accepting_never_started(ours: Endpoint, other: Endpoint) -> list[object]:
    dial = asyncio.ensure_future(other.connect(ours.addr(), ALPN))
    incoming = await ours.accept()
    assert incoming is not None
    return [incoming.accept(), dial]


@pytest.mark.parametrize(
    "hold",
    [
        *(nothing, watchers, waiting, never_started, dialled, accepted, left_by_the_peer),
        *(streams, operations_of_streams, pumps, watched_paths, undecided),
        accepting_never_started,
    ],
)
async def test_the_port_is_free_at_once(
    hold: Callable[[Endpoint, Endpoint], Awaitable[list[object]]],
):
    held: list[list[object]] = []
    ours = await bind()
    (address,) = ours.bound_sockets()
    for _ in range(TIMES):
        async with await bind() as other:
            held.append([ours, *await hold(ours, other)])
            await ours.close()
            await bind_again(address)
        ours = await Endpoint.bind(alpns=[ALPN], bind_ipv4=address, bind_ipv6=None)
    await ours.close()
    for item in held:
        tasks: list[asyncio.Future[object]] = [
            one for one in item if isinstance(one, asyncio.Future)
        ]
        await asyncio.gather(*tasks, return_exceptions=True)
        del item[0]


async def test_a_dial_under_way_ends_and_frees_the_port():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        nobody = EndpointAddr(SecretKey.generate().public(), ip_addrs=[f"127.0.0.1:{port}"])
        endpoint = await bind()
        (address,) = endpoint.bound_sockets()
        dial = asyncio.ensure_future(endpoint.connect(nobody, ALPN))
        # The first packet is out.
        await asyncio.get_running_loop().run_in_executor(None, silent.recv, 2048)
        await endpoint.close(60)
        with pytest.raises(pyiroh.EndpointClosed):
            await dial
        await bind_again(address)


async def test_who_closes_too_waits_for_the_same_end(ends: Ends):
    (address,) = ends.dialling.bound_sockets()
    others = [asyncio.ensure_future(ends.dialling.close()) for _ in range(3)]
    await asyncio.wait(others, return_when=asyncio.FIRST_COMPLETED)
    await bind_again(address)
    await asyncio.gather(*others)


async def test_closing_goes_on_when_nobody_waits(ends: Ends):
    (address,) = ends.dialling.bound_sockets()
    await ends.dialling.close(0)
    await ends.dialling.close()
    await bind_again(address)
    assert ends.dialling.is_closed


async def test_closed_by_another_thread(ends: Ends):
    (address,) = ends.dialling.bound_sockets()
    _send, recv = await open_uni(ends)
    reading = asyncio.ensure_future(recv.read(1))
    thread = threading.Thread(target=lambda: asyncio.run(close(ends.dialling)))
    thread.start()
    with pytest.raises(pyiroh.ConnectionClosedByPeer):
        await reading
    await asyncio.get_running_loop().run_in_executor(None, thread.join)
    await bind_again(address)


async def close(endpoint: Endpoint) -> None:
    await endpoint.close()


async def test_what_is_kept_of_a_connection(ends: Ends):
    connection = ends.dialled
    before = (connection.remote_id, connection.alpn, connection.side, connection.stable_id)
    text = repr(connection)
    await ends.dialling.close()
    assert before == (
        *(connection.remote_id, connection.alpn, connection.side, connection.stable_id),
    )
    assert repr(connection) == text
    assert isinstance(connection.close_reason, pyiroh.LocallyClosed)
    assert isinstance(await connection.closed(), pyiroh.LocallyClosed)
    assert connection.stats().bytes_sent > 0
    assert connection.paths() == []
    assert [paths async for paths in connection.watch_paths()] == []
    assert connection.rtt() is None
    assert connection.max_datagram_size is None
    connection.set_receive_window(1 << 20)
    connection.set_max_streams(bi=3)
    connection.close(5)
    for operation in (
        *(connection.open_bi, connection.open_uni, connection.accept_bi, connection.accept_uni),
        connection.read_datagram,
    ):
        with pytest.raises(pyiroh.LocallyClosed):
            await operation()
    with pytest.raises(pyiroh.LocallyClosed):
        connection.send_datagram(b"x")
    with pytest.raises(pyiroh.LocallyClosed):
        await connection.send_datagram_wait(b"x")


async def test_operations_of_streams_give_the_same_error_again(ends: Ends):
    (send, recv), _theirs = await open_bi(ends)
    await ends.dialling.close()
    for operation in (
        *(lambda: recv.read(1), lambda: recv.read_to_end(1), lambda: send.write(b"x")),
        *(lambda: send.write_all(b"x"), send.acked, send.stopped),
    ):
        for _ in range(2):
            with pytest.raises(pyiroh.LocallyClosed):
                await operation()


async def test_what_had_arrived_can_still_be_read(ends: Ends):
    send, recv = await open_uni(ends)
    cut, cut_recv = await open_uni(ends)
    await send.write_all(PIECE)
    send.finish()
    await send.acked()
    await cut.write_all(PIECE)
    assert await cut_recv.read_exact(len(PIECE) - 1) == PIECE[:-1]
    await ends.accepting.close()
    assert await recv.read_to_end(len(PIECE)) == PIECE
    assert await recv.read(1) == b""
    assert await cut_recv.read(10) == PIECE[-1:]
    with pytest.raises(pyiroh.ConnectionLost):
        await cut_recv.read(10)
    cut_recv.stop()
    with pytest.raises(pyiroh.StreamClosed):
        await cut_recv.read(10)


async def test_what_is_kept_of_a_sending_stream(ends: Ends):
    done, done_recv = await open_uni(ends)
    stopped, stopped_recv = await open_uni(ends)
    open_, _open_recv = await open_uni(ends)
    done.finish()
    assert await done_recv.read(1) == b""
    await done.acked()
    stopped_recv.stop(9)
    assert await stopped.stopped() == 9
    await ends.dialling.close()
    await done.acked()
    assert await stopped.stopped() == 9
    with pytest.raises(pyiroh.LocallyClosed):
        await open_.write(b"x")
    with pytest.raises(pyiroh.LocallyClosed):
        await open_.acked()
    with pytest.raises(pyiroh.LocallyClosed):
        _ = open_.priority
    open_.finish()
    with pytest.raises(pyiroh.StreamClosed):
        open_.finish()
    with pytest.raises(pyiroh.StreamClosed):
        await open_.write(b"x")
    stopped.reset()


async def test_nobody_is_accepted_after_the_end():
    async with await bind() as other:
        endpoint = await bind()
        dial = asyncio.ensure_future(other.connect(endpoint.addr(), ALPN))
        incoming = await endpoint.accept()
        assert incoming is not None
        await endpoint.close()
        for decide in (incoming.accept, incoming.refuse, incoming.ignore, incoming.retry):
            with pytest.raises(pyiroh.EndpointClosed):
                decide()
        assert incoming.alpns == (ALPN,)
        dial.cancel()
        await asyncio.wait([dial])


async def test_streams_that_are_gone_cost_nothing_at_the_end():
    """More streams than are remembered before those that are gone are forgotten."""
    async with connected() as ends:
        (address,) = ends.dialling.bound_sockets()
        kept = await open_uni(ends)
        for _ in range(300):
            send, recv = await open_uni(ends)
            send.finish()
            assert await recv.read(1) == b""
        await ends.dialling.close()
        await bind_again(address)
        with pytest.raises(pyiroh.LocallyClosed):
            await kept[0].write(b"x")

"""Connections: how they end, datagrams, paths, numbers."""

from __future__ import annotations

import asyncio
import gc

import pytest

import pyiroh
from pyiroh import TransportConfig
from tests.unit.pyiroh.ends import Ends, bind, connect, connected, open_bi


async def test_close_code_and_reason_reach_the_peer(ends: Ends):
    assert ends.accepted.close_reason is None
    waiting = asyncio.ensure_future(ends.accepted.accept_bi())
    ends.dialled.close(4321, b"that is \xff all")
    reason = await ends.accepted.closed()
    assert isinstance(reason, pyiroh.ConnectionClosedByPeer)
    assert (reason.code, reason.reason) == (4321, b"that is \xff all")
    assert str(reason) == "connection closed by peer: that is \\xff all (code 4321)"
    with pytest.raises(pyiroh.ConnectionClosedByPeer) as caught:
        await waiting
    assert (caught.value.code, caught.value.reason) == (4321, b"that is \xff all")
    assert isinstance(ends.accepted.close_reason, pyiroh.ConnectionClosedByPeer)
    assert isinstance(await ends.dialled.closed(), pyiroh.LocallyClosed)
    assert isinstance(ends.dialled.close_reason, pyiroh.LocallyClosed)


async def test_every_operation_tells_that_the_connection_is_lost(ends: Ends):
    (our_send, our_recv), _theirs = await open_bi(ends)
    ends.accepted.close(5)
    await ends.dialled.closed()
    for operation in (
        ends.dialled.open_bi(),
        ends.dialled.open_uni(),
        ends.dialled.accept_bi(),
        ends.dialled.accept_uni(),
        ends.dialled.read_datagram(),
        ends.dialled.send_datagram_wait(b"x"),
        our_send.write(b"x"),
        our_send.write_all(b"x"),
        our_send.stopped(),
        our_recv.read(1),
        our_recv.read(1),
        our_recv.read_exact(1),
        our_recv.read_to_end(1),
    ):
        with pytest.raises(pyiroh.ConnectionClosedByPeer) as caught:
            await operation
        assert caught.value.code == 5
    with pytest.raises(pyiroh.ConnectionClosedByPeer):
        ends.dialled.send_datagram(b"x")


@pytest.mark.parametrize("code", [0, 2**62 - 1])
async def test_codes_have_62_bits(ends: Ends, code: int):
    ends.dialled.close(code)
    reason = await ends.accepted.closed()
    assert isinstance(reason, pyiroh.ConnectionClosedByPeer)
    assert (reason.code, reason.reason) == (code, b"")


async def test_larger_codes_are_refused(ends: Ends):
    with pytest.raises(ValueError, match="below 2"):
        ends.dialled.close(2**62)
    assert ends.dialled.close_reason is None


async def test_dropped_connection_closes_with_code_zero():
    async with await bind() as one, await bind() as two:
        dialled, accepted = await connect(one, two)
        del dialled
        gc.collect()
        reason = await accepted.closed()
        assert isinstance(reason, pyiroh.ConnectionClosedByPeer)
        assert reason.code == 0


async def test_a_stream_keeps_its_connection():
    async with connected() as ends, await bind() as third:
        dialled, accepted = await connect(third, ends.accepting)
        send = await dialled.open_uni()
        del dialled
        gc.collect()
        await send.write_all(b"still here")
        recv = await accepted.accept_uni()
        assert await recv.read_exact(10) == b"still here"


async def test_silence_times_out():
    hasty = TransportConfig(idle_timeout_s=0.3, keep_alive_s=100)
    async with connected(hasty) as ends:
        reason = await ends.dialled.closed()
        assert isinstance(reason, pyiroh.ConnectionTimedOut)
        assert isinstance(reason, TimeoutError)


async def test_keep_alive_outlives_the_idle_time():
    lively = TransportConfig(idle_timeout_s=0.5, keep_alive_s=0.1)
    async with connected(lively) as ends:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ends.dialled.closed(), 1.5)
        assert ends.dialled.close_reason is None


async def test_datagrams(ends: Ends):
    assert (ends.dialled.max_datagram_size or 0) >= 1100
    ends.dialled.send_datagram(b"one")
    assert await ends.accepted.read_datagram() == b"one"
    await ends.dialled.send_datagram_wait(b"two")
    assert await ends.accepted.read_datagram() == b"two"
    with pytest.raises(pyiroh.DatagramTooLarge):
        ends.dialled.send_datagram(bytes(70_000))


async def test_datagrams_switched_off():
    async with connected(TransportConfig(datagram_receive_buffer=0)) as ends:
        assert ends.dialled.max_datagram_size is None
        with pytest.raises(pyiroh.DatagramsUnsupported):
            ends.dialled.send_datagram(b"x")


async def test_the_one_path_on_loopback(ends: Ends):
    (path,) = ends.dialled.paths()
    assert path.kind == "ip"
    assert path.remote_addr == ends.accepting.bound_sockets()[0]
    assert path.is_selected
    assert 0 < path.rtt_s < 60
    assert path.bytes_sent > 0
    assert path.bytes_received > 0
    assert path.mtu >= 1200
    assert path.congestion_window > 0
    assert ends.dialled.rtt() == pytest.approx(path.rtt_s, abs=60)


async def test_watch_paths_begins_with_the_present_and_ends_with_the_connection(ends: Ends):
    watcher = ends.dialled.watch_paths()
    first = await anext(watcher)
    assert [path.remote_addr for path in first] == list(ends.accepting.bound_sockets())
    rest = asyncio.ensure_future(collect(watcher))
    ends.dialled.close()
    for paths in await rest:
        assert all(path.kind == "ip" for path in paths)


async def collect(watcher: pyiroh.PathWatcher) -> list[list[pyiroh.Path]]:
    return [paths async for paths in watcher]


async def test_watching_does_not_keep_a_connection():
    async with await bind() as one, await bind() as two:
        dialled, accepted = await connect(one, two)
        watcher = dialled.watch_paths()
        await anext(watcher)
        closed = asyncio.ensure_future(dialled.closed())
        await asyncio.sleep(0)
        del dialled
        gc.collect()
        assert isinstance(await accepted.closed(), pyiroh.ConnectionClosedByPeer)
        assert isinstance(await closed, pyiroh.LocallyClosed)


async def test_stats_count(ends: Ends):
    before = ends.dialled.stats()
    send = await ends.dialled.open_uni()
    await send.write_all(bytes(100_000))
    send.finish()
    await (await ends.accepted.accept_uni()).read_to_end(100_000)
    await send.acked()
    after = ends.dialled.stats()
    assert after.bytes_sent - before.bytes_sent > 100_000
    assert after.datagrams_sent > before.datagrams_sent
    assert after.bytes_received > before.bytes_received
    assert after.datagrams_received > before.datagrams_received
    assert after.packets_lost >= 0
    assert after.bytes_lost >= 0


async def test_stream_limits_hold_and_can_be_raised():
    async with connected(TransportConfig(max_bi_streams=1, max_uni_streams=0)) as ends:
        first = await ends.dialled.open_bi()
        second = asyncio.ensure_future(ends.dialled.open_bi())
        uni = asyncio.ensure_future(ends.dialled.open_uni())
        ends.accepted.set_max_streams(bi=2)
        await second
        assert not uni.done()
        ends.accepted.set_max_streams(uni=1)
        await uni
        assert first[0].id != second.result()[0].id


@pytest.mark.parametrize(
    "options",
    [
        {"stream_receive_window": pyiroh.STREAM_RECEIVE_WINDOW_MAX + 1},
        {"stream_receive_window": 0},
        {"receive_window": 2**62},
        {"max_bi_streams": 2**62},
        {"idle_timeout_s": 0},
        {"idle_timeout_s": -1},
        {"idle_timeout_s": float("nan")},
        {"idle_timeout_s": 1e30},
        {"keep_alive_s": 0},
        {"congestion": "reno"},
        {"initial_mtu": 1199},
    ],
)
def test_settings_out_of_range(options: dict[str, object]):
    with pytest.raises(ValueError, match=next(iter(options))):
        TransportConfig(**options)  # type: ignore[arg-type] # wrong on purpose


def test_the_largest_stream_window_is_two_mebibytes():
    assert pyiroh.STREAM_RECEIVE_WINDOW_MAX == 2 << 20


@pytest.mark.parametrize(
    "options",
    [
        {"congestion": "cubic"},
        {"congestion": "newreno"},
        {"congestion": "bbr3"},
        {"stream_receive_window": 64 << 10, "receive_window": 64 << 10, "send_window": 64 << 10},
        {"stream_receive_window": pyiroh.STREAM_RECEIVE_WINDOW_MAX, "segmentation_offload": False},
        {"initial_mtu": 1400, "datagram_send_buffer": 10_000},
    ],
)
async def test_data_arrives_with_other_settings(options: dict[str, object]):
    data = bytes(range(256)) * 1000
    async with connected(TransportConfig(**options)) as ends:  # type: ignore[arg-type] # each is right
        send = await ends.dialled.open_uni()

        async def write() -> None:
            await send.write_all(data)
            send.finish()

        async def read() -> bytes:
            recv = await ends.accepted.accept_uni()
            return await recv.read_to_end(len(data))

        received, _ = await asyncio.gather(read(), write())
        assert received == data

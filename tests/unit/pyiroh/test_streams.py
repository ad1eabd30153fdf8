"""Streams: data, ends, codes, priorities."""

from __future__ import annotations

import asyncio
import gc

import pytest

import pyiroh
from tests.unit.pyiroh.ends import Ends, open_bi, open_uni

# More than the receive window of a stream, so that writing it waits for a reader.
MUCH = bytes(4 << 20)


async def test_data_both_ways(ends: Ends):
    (our_send, our_recv), (their_send, their_recv) = await open_bi(ends)
    assert our_send.id == our_recv.id == their_send.id == their_recv.id
    await our_send.write_all(b"question")
    our_send.finish()
    assert await their_recv.read_to_end(100) == b"question"
    await their_send.write_all(b"answer")
    their_send.finish()
    assert await our_recv.read(2) == b"an"
    assert await our_recv.read_exact(4) == b"swer"
    assert await our_recv.read(1) == b""
    assert await our_recv.read(1) == b""
    await asyncio.gather(our_send.acked(), their_send.acked())


async def test_large_data_arrives_whole(ends: Ends):
    data = bytes(range(251)) * 40_000
    send, recv = await open_uni(ends)

    async def write() -> None:
        await send.write_all(data)
        send.finish()

    async def read() -> bytes:
        parts: list[bytes] = []
        while part := await recv.read(1 << 20):
            assert len(part) <= 1 << 20
            parts.append(part)
        return b"".join(parts)

    received, _ = await asyncio.gather(read(), write())
    assert received == data


async def test_write_takes_what_there_is_room_for(ends: Ends):
    send, recv = await open_uni(ends)
    written = await send.write(MUCH)
    assert 0 < written < len(MUCH)
    assert len(await recv.read_exact(written)) == written
    assert await send.write(b"") == 0


async def test_bytearray_is_copied_when_given(ends: Ends):
    send, recv = await open_uni(ends)
    data = bytearray(b"before")
    operation = send.write_all(data)
    data[:] = b"after!"
    await operation
    assert await recv.read_exact(6) == b"before"


async def test_empty_stream_ends_at_once(ends: Ends):
    send = await ends.dialled.open_uni()
    send.finish()
    recv = await ends.accepted.accept_uni()
    assert await recv.read_exact(0) == b""
    assert await recv.read_to_end(0) == b""
    assert await recv.read(1) == b""
    await send.acked()
    assert await send.stopped() is None


async def test_read_exact_of_too_little_gives_what_came(ends: Ends):
    send, recv = await open_uni(ends, b"12345")
    send.finish()
    with pytest.raises(pyiroh.IncompleteRead) as caught:
        await recv.read_exact(6)
    assert caught.value.partial == b"12345"
    assert str(caught.value) == "stream ended after 5 bytes, more were expected"
    assert await recv.read(1) == b""


async def test_read_to_end_beyond_the_limit_loses_nothing(ends: Ends):
    send, recv = await open_uni(ends, b"123456")
    send.finish()
    with pytest.raises(pyiroh.StreamTooLong, match="longer than 5 bytes"):
        await recv.read_to_end(5)
    assert await recv.read_to_end(6) == b"123456"


async def test_read_of_nothing_is_a_value_error(ends: Ends):
    _send, recv = await open_uni(ends)
    with pytest.raises(ValueError, match="1 or more"):
        recv.read(0)
    with pytest.raises(OverflowError):
        recv.read(-1)


@pytest.mark.parametrize("code", [0, 7, 2**62 - 1])
async def test_reset_code_reaches_the_reader_every_time(ends: Ends, code: int):
    send, recv = await open_uni(ends)
    send.reset(code)
    for operation in (recv.read(1), recv.read_exact(1), recv.read_to_end(1), recv.read(1)):
        with pytest.raises(pyiroh.StreamReset, match=f"code {code}") as caught:
            await operation
        assert caught.value.code == code


@pytest.mark.parametrize("code", [0, 7, 2**62 - 1])
async def test_stop_code_reaches_the_writer(ends: Ends, code: int):
    send, recv = await open_uni(ends)
    stopped = asyncio.ensure_future(send.stopped())
    recv.stop(code)
    assert await stopped == code
    for operation in (send.write(b"x"), send.write_all(b"x"), send.acked()):
        with pytest.raises(pyiroh.StreamStopped, match=f"code {code}") as caught:
            await operation
        assert caught.value.code == code


async def test_codes_out_of_range(ends: Ends):
    send, recv = await open_uni(ends)
    with pytest.raises(ValueError, match="below 2"):
        send.reset(2**62)
    with pytest.raises(ValueError, match="below 2"):
        recv.stop(2**62)


async def test_stop_ends_a_writer_that_waits(ends: Ends):
    send, recv = await open_uni(ends)
    writing = asyncio.ensure_future(send.write_all(MUCH))
    await recv.read_exact(1)
    recv.stop(9)
    with pytest.raises(pyiroh.StreamStopped):
        await writing


async def test_own_stop_ends_a_read_that_waits(ends: Ends):
    send, recv = await open_uni(ends)
    reading = asyncio.ensure_future(recv.read(1))
    await asyncio.sleep(0)
    recv.stop(3)
    with pytest.raises(pyiroh.StreamClosed):
        await reading
    with pytest.raises(pyiroh.StreamClosed):
        await recv.read(1)
    assert await send.stopped() == 3
    recv.stop(4)


async def test_own_reset_ends_a_write_that_waits(ends: Ends):
    send, recv = await open_uni(ends)
    writing = asyncio.ensure_future(send.write_all(MUCH))
    await recv.read_exact(1)
    send.reset(3)
    with pytest.raises(pyiroh.StreamClosed):
        await writing
    with pytest.raises(pyiroh.StreamReset) as caught:
        while True:
            await recv.read(1 << 20)
    assert caught.value.code == 3
    for operation in (send.write(b"x"), send.write_all(b"x"), send.acked()):
        with pytest.raises(pyiroh.StreamClosed):
            await operation
    with pytest.raises(pyiroh.StreamClosed):
        send.finish()
    send.reset(4)


async def test_finish_during_a_write_is_busy(ends: Ends):
    send, recv = await open_uni(ends)
    writing = asyncio.ensure_future(send.write_all(MUCH))
    await recv.read_exact(1)
    with pytest.raises(pyiroh.StreamBusy):
        send.finish()
    with pytest.raises(pyiroh.StreamBusy):
        _ = send.priority
    await recv.read_exact(len(MUCH) - 1)
    await writing
    send.finish()


async def test_nothing_after_finish(ends: Ends):
    send, recv = await open_uni(ends, b"all")
    send.finish()
    with pytest.raises(pyiroh.StreamClosed):
        send.finish()
    with pytest.raises(pyiroh.StreamClosed):
        await send.write_all(b"more")
    assert await recv.read_to_end(10) == b"all"


async def test_reset_after_finish_leaves_nothing_to_wait_for(ends: Ends):
    send, _recv = await open_uni(ends)
    send.finish()
    send.reset(6)
    with pytest.raises(pyiroh.StreamClosed):
        await send.acked()


async def test_send_stream_dropped_without_finish_is_reset(ends: Ends):
    send, recv = await open_uni(ends, b"half")
    assert await recv.read_exact(4) == b"half"
    del send
    gc.collect()
    with pytest.raises(pyiroh.StreamReset) as caught:
        await recv.read(1)
    assert caught.value.code == 0


async def test_send_stream_dropped_after_finish_arrives_whole(ends: Ends):
    send, recv = await open_uni(ends, b"whole")
    send.finish()
    del send
    gc.collect()
    assert await recv.read_to_end(10) == b"whole"


async def test_recv_stream_dropped_is_stopped(ends: Ends):
    send, recv = await open_uni(ends)
    del recv
    gc.collect()
    assert await send.stopped() == 0


async def test_reset_of_one_direction_leaves_the_other(ends: Ends):
    (our_send, our_recv), (their_send, their_recv) = await open_bi(ends)
    our_send.reset(1)
    with pytest.raises(pyiroh.StreamReset):
        await their_recv.read(1)
    await their_send.write_all(b"still")
    their_send.finish()
    assert await our_recv.read_to_end(10) == b"still"


async def test_priority(ends: Ends):
    send, _recv = await open_uni(ends)
    assert send.priority == 0
    send.priority = -5
    assert send.priority == -5
    with pytest.raises(OverflowError):
        send.priority = 1 << 31


async def test_writes_at_a_time_do_not_mix(ends: Ends):
    send, recv = await open_uni(ends)
    parts = [bytes([n]) * 100_000 for n in range(20)]
    writes = asyncio.gather(*(send.write_all(part) for part in parts))
    received = [await recv.read_exact(100_000) for _ in parts]
    await writes
    assert sorted(received) == parts

"""Operations are coroutines that any event loop can run."""

from __future__ import annotations

import asyncio
import gc
import inspect
import threading
import weakref
from collections.abc import Coroutine
from pathlib import Path

import pytest

from pyiroh import Endpoint
from tests.unit.pyiroh.ends import Ends, connected, open_uni


def descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


async def test_an_operation_is_a_coroutine(ends: Ends):
    send, recv = await open_uni(ends)
    assert isinstance(recv.read(1), Coroutine)
    assert asyncio.iscoroutine(recv.read(1))
    assert inspect.isawaitable(recv.read(1))
    await send.write_all(b"abcde")
    task = asyncio.create_task(recv.read(1))
    assert await task == b"a"
    assert await asyncio.wait_for(recv.read(1), 60) == b"b"
    assert await asyncio.gather(recv.read(1)) == [b"c"]
    async with asyncio.TaskGroup() as group:
        one = group.create_task(recv.read(1))
    assert one.result() == b"d"
    async with asyncio.timeout(60):
        assert await recv.read(1) == b"e"


async def test_an_operation_that_is_never_awaited_does_nothing(ends: Ends):
    send, recv = await open_uni(ends)
    send.write_all(b"never")
    operation = send.write_all(b"closed")
    operation.close()
    await send.write_all(b"written")
    send.finish()
    assert await recv.read_to_end(100) == b"written"


async def test_an_operation_is_awaited_once(ends: Ends):
    send, _recv = await open_uni(ends)
    operation = send.write(b"x")
    assert await operation == 1
    with pytest.raises(RuntimeError, match="already awaited"):
        await operation
    closed = send.write(b"x")
    closed.close()
    with pytest.raises(RuntimeError, match="already awaited"):
        await closed


async def test_throw_takes_classes_and_instances(ends: Ends):
    _send, recv = await open_uni(ends)
    with pytest.raises(KeyError):
        recv.read(1).throw(KeyError)
    with pytest.raises(KeyError, match="word"):
        recv.read(1).throw(KeyError("word"))
    with pytest.raises(KeyError, match="word"):
        recv.read(1).throw(KeyError, KeyError("word"), None)


def test_without_a_loop_there_is_a_clear_error():
    with pytest.raises(RuntimeError, match="no running event loop"):
        Endpoint.bind(bind_ipv4="127.0.0.1:0", bind_ipv6=None).send(None)


async def exchange(rounds: int) -> int:
    """Bytes that went from one end to the other in a loop of its own."""
    total = 0
    async with connected() as ends:
        send, recv = await open_uni(ends)
        for number in range(rounds):
            await send.write_all(bytes([number % 256]) * 10)
            total += len(await recv.read_exact(10))
    return total


def test_loops_one_after_the_other_leave_no_descriptors():
    asyncio.run(exchange(1))
    gc.collect()
    before = descriptors()
    for _ in range(20):
        asyncio.run(exchange(1))
    gc.collect()
    assert descriptors() <= before + 2


def test_loops_in_several_threads_at_a_time():
    totals: list[int] = []
    threads = [
        threading.Thread(target=lambda: totals.append(asyncio.run(exchange(200)))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert totals == [2000] * 4


def test_one_connection_serves_two_loops():
    """Each loop writes or reads its part of the same stream."""
    received: list[bytes] = []

    async def write_here_read_there() -> None:
        async with connected() as ends:
            send, recv = await open_uni(ends)

            async def read_there() -> None:
                received.append(await recv.read_exact(100_000))

            reader = threading.Thread(target=lambda: asyncio.run(read_there()))
            reader.start()
            await send.write_all(b"x" * 100_000)
            await asyncio.to_thread(reader.join)

    asyncio.run(write_here_read_there())
    assert received == [b"x" * 100_000]


async def test_a_loop_that_died_waiting_is_collected(ends: Ends):
    """Its operation must neither keep it alive nor take what others wait for."""

    def die_waiting() -> weakref.ref[asyncio.AbstractEventLoop]:
        loop = asyncio.new_event_loop()
        stuck = loop.create_task(ends.accepted.accept_uni())  # type: ignore[arg-type] # a coroutine
        loop.call_soon(loop.stop)
        loop.run_forever()
        assert not stuck.done()
        stuck._log_destroy_pending = False  # type: ignore[attr-defined] # it is on purpose
        loop.close()
        return weakref.ref(loop)

    dead = await asyncio.to_thread(die_waiting)
    gc.collect()
    assert dead() is None
    _send, recv = await open_uni(ends, b"taken")
    assert await recv.read_exact(5) == b"taken"

"""Cancelling a Python task cancels its operation, and nothing that came is lost."""

from __future__ import annotations

import asyncio
import random
import socket

import pytest

import pyiroh
from tests.unit.pyiroh.ends import ALPN, Ends, connected, open_bi, open_uni


async def cancel(task: asyncio.Task[object]) -> bool:
    """Whether the task was cancelled before it was done."""
    task.cancel()
    await asyncio.wait([task])
    return task.cancelled()


async def cancel_after(turns: int, operation: object) -> tuple[bool, object]:
    """Start an operation, let the loop turn, cancel it: (is_done, result)."""
    task = asyncio.ensure_future(operation)  # type: ignore[arg-type] # operations are coroutines
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    try:
        return True, await task
    except asyncio.CancelledError:
        return False, None


async def test_a_thousand_cancelled_operations():
    """The stream goes on as if they had never been."""
    async with connected() as ends:
        (our_send, our_recv), (their_send, their_recv) = await open_bi(ends)
        waits = [
            lambda: our_recv.read(1),
            lambda: their_recv.read_exact(10),
            lambda: ends.dialled.accept_bi(),
            lambda: ends.accepted.accept_uni(),
            lambda: ends.accepted.read_datagram(),
            lambda: ends.dialling.accept(),
            lambda: our_send.stopped(),
            lambda: ends.dialled.closed(),
            lambda: ends.accepting.closed(),
            lambda: ends.dialling.online(100),
        ]
        for turn in range(10):
            tasks = [asyncio.ensure_future(wait()) for wait in waits for _ in range(10)]
            for _ in range(turn):
                await asyncio.sleep(0)
            assert all(await asyncio.gather(*map(cancel, tasks)))
        await our_send.write_all(b"0123456789")
        assert await their_recv.read_exact(10) == b"0123456789"
        await their_send.write_all(b"y")
        assert await our_recv.read(1) == b"y"
        await open_uni(ends)


async def test_a_cancelled_operation_lets_go_of_its_stream(ends: Ends):
    """The lock of the half is free again without any data having come."""
    send, recv = await open_uni(ends)
    reading = asyncio.ensure_future(recv.read(1))
    await asyncio.sleep(0)
    assert await cancel(reading)
    recv.stop(4)
    assert await send.stopped() == 4


@pytest.mark.parametrize("method", ["read", "read_exact", "read_to_end"])
async def test_cancelled_reads_lose_nothing(ends: Ends, method: str):
    """12,000 bytes in small pieces; each read is cancelled at about the time when it completes."""
    data = random.Random(1).randbytes(12_000)
    send, recv = await open_uni(ends)

    async def write() -> None:
        for start in range(0, len(data), 10):
            await send.write_all(data[start : start + 10])
        send.finish()

    writing = asyncio.ensure_future(write())
    received = b""
    cancelled = 0
    random_turns = random.Random(2)
    while len(received) < len(data):
        missing = len(data) - len(received)
        match method:
            case "read":
                operation = recv.read(10)
            case "read_exact":
                operation = recv.read_exact(min(25, missing))
            case _:
                operation = recv.read_to_end(20_000)
        # Sometimes let it through, or a machine that is never fast enough gets nowhere.
        turns = random_turns.choice([0, 1, 2, 3, 5, 10, 50, 500])
        is_done, part = await cancel_after(turns, operation)
        if is_done:
            assert isinstance(part, bytes)
            received += part
        else:
            cancelled += 1
    await writing
    assert received == data
    assert cancelled > 10
    assert await recv.read(1) == b""


async def test_a_result_that_was_set_but_not_taken_comes_again(ends: Ends):
    """The task is cancelled between the wake-up of its operation and its own next step.

    A plain future would have handed the bytes over at the wake-up, and they would be gone.
    """
    send, recv = await open_uni(ends)
    for number in range(200):
        piece = number.to_bytes(4, "big")
        task = asyncio.ensure_future(recv.read_exact(4))
        await asyncio.sleep(0)
        await send.write_all(piece)
        while not waiter_is_done(task):  # noqa: ASYNC110 - this very state has no event
            await asyncio.sleep(0)
        assert await cancel(task)
        assert await recv.read_exact(4) == piece


def waiter_is_done(task: asyncio.Task[object]) -> bool:
    waiter = task._fut_waiter  # type: ignore[attr-defined] # what the task waits for
    return waiter is not None and waiter.done()


async def test_cancelled_accepts_lose_no_stream_datagram_or_peer(ends: Ends):
    for number in range(100):
        code = bytes([number])
        turns = number % 20
        send = await ends.dialled.open_uni()
        accepting = cancel_after(turns, ends.accepted.accept_uni())
        (is_done, recv), _ = await asyncio.gather(accepting, send.write_all(code))
        if not is_done:
            recv = await ends.accepted.accept_uni()
        assert isinstance(recv, pyiroh.RecvStream)
        assert await recv.read_exact(1) == code

        ends.dialled.send_datagram(code)
        is_done, datagram = await cancel_after(turns, ends.accepted.read_datagram())
        if not is_done:
            datagram = await ends.accepted.read_datagram()
        assert datagram == code
    for number in range(10):
        dial = asyncio.ensure_future(ends.dialling.connect(ends.accepting.addr(), ALPN))
        is_done, incoming = await cancel_after(number * 50, ends.accepting.accept())
        if not is_done:
            incoming = await ends.accepting.accept()
        assert isinstance(incoming, pyiroh.Incoming)
        await incoming.accept()
        await dial


async def test_time_limits_around_reads_lose_nothing(ends: Ends):
    send, recv = await open_uni(ends)
    received = b""
    for number in range(100):
        writing = asyncio.ensure_future(send.write_all(bytes([number])))
        try:
            async with asyncio.timeout(0.0001 * (number % 7)):
                received += await recv.read(1)
        except TimeoutError:
            received += await recv.read_exact(1)
        await writing
    assert received == bytes(range(100))


async def test_cancelled_dial_reaches_nobody(ends: Ends):
    dial = asyncio.ensure_future(ends.dialling.connect(ends.accepting.addr(), ALPN))
    incoming = await ends.accepting.accept()
    assert incoming is not None
    assert await cancel(dial)
    with pytest.raises(pyiroh.IrohError):
        connection = await incoming.accept()
        raise await connection.closed()


async def test_cancelled_bind_leaves_no_socket():
    """Its address can be bound again: whatever was bound meanwhile is closed."""
    for turns in range(0, 100, 5):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        bind = pyiroh.Endpoint.bind(bind_ipv4=address, bind_ipv6=None)
        is_done, made = await cancel_after(turns, bind)
        if is_done:
            assert isinstance(made, pyiroh.Endpoint)
            await made.close()
        async with asyncio.timeout(60):
            while True:
                try:
                    again = await pyiroh.Endpoint.bind(bind_ipv4=address, bind_ipv6=None)
                except pyiroh.BindError:
                    continue
                break
        await again.close()

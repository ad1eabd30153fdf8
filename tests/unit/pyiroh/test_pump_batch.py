"""The pumps for many small blobs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

import pybao
import pyiroh
from tests.unit.pybao.vectors import data
from tests.unit.pyiroh.ends import Ends, connected, open_uni

if TYPE_CHECKING:
    from collections.abc import Callable

SIZES = [0, 1, 1023, 1024, 1025, 16_384, 16_385, 65_537, 3, 0, 200_000]
WHOLE_MAX = 1 << 20


class Blob:
    """A blob and all that belongs to it."""

    def __init__(self, size: int, salt: int = 0) -> None:
        self.data = bytes([salt]) * min(size, 1) + data(size)[1:]
        self.root, self.outboard = pybao.outboard(self.data)
        self.encoding = size.to_bytes(8, "little") + b"".join(
            iter(
                pybao.Encoder(self.root, size, [0], self.data, self.outboard, header=False).next,
                b"",
            )
        )


BLOBS = [Blob(size, salt) for salt, size in enumerate(SIZES)]
ROOTS = [blob.root for blob in BLOBS]
TRIPLES = [(blob.root, blob.data, blob.outboard) for blob in BLOBS]
EXPECTED = [(index, blob.data, blob.outboard) for index, blob in enumerate(BLOBS)]
WIRE = b"".join(blob.encoding for blob in BLOBS)


def unpack(batch: pyiroh.WholeBlobs) -> list[tuple[int, bytes, bytes]]:
    """Index, data and outboard of each blob."""
    assert [len(batch.data(i)) for i in range(len(batch))] == batch.sizes
    return [(index, batch.data(i), batch.outboard(i)) for i, index in enumerate(batch.indices)]


async def drain(pump: pyiroh.BatchPump) -> list[tuple[int, bytes, bytes]]:
    """All batches up to the first that is empty."""
    got: list[tuple[int, bytes, bytes]] = []
    while batch := await pump.next():
        got += unpack(batch)
        assert pump.index == batch.indices[-1] + 1
    return got


async def test_many_leave_as_one_after_the_other(ends: Ends):
    send, recv = await open_uni(ends)
    progress = pyiroh.PumpProgress()

    async def provide() -> None:
        await send.pump_many(TRIPLES, progress=progress)
        send.finish()

    received, _ = await asyncio.gather(recv.read_to_end(len(WIRE)), provide())
    assert received == WIRE
    assert progress.bytes == sum(SIZES)


@pytest.mark.parametrize("batch_bytes", [1, 20_000, 1 << 20])
async def test_many_arrive_in_order_and_leave_the_rest(ends: Ends, batch_bytes: int):
    send, recv = await open_uni(ends)

    async def provide() -> None:
        await send.pump_many(TRIPLES)
        await send.write_all(b"behind")
        send.finish()

    providing = asyncio.ensure_future(provide())
    pump = recv.batch_pump(ROOTS, WHOLE_MAX, batch_bytes)
    assert await drain(pump) == EXPECTED
    assert unpack(await pump.next()) == []
    assert pump.large is None
    assert await recv.read_to_end(100) == b"behind"
    await providing


async def test_a_large_blob_is_left_to_the_other_pump(ends: Ends, tmp_path):
    send, recv = await open_uni(ends)
    providing = asyncio.ensure_future(send.pump_many(TRIPLES))
    pump = recv.batch_pump(ROOTS, 65_536)
    assert await drain(pump) == EXPECTED[:7]
    assert pump.large == (7, 65_537)
    assert unpack(await pump.next()) == []
    with (tmp_path / "large").open("w+b") as file:
        assert await recv.blob_pump(ROOTS[7], 65_537, [0], file.fileno()).run()
        assert file.read() == BLOBS[7].data
    rest = recv.batch_pump(ROOTS[8:], 65_536)
    assert [blob for _, blob, _ in await drain(rest)] == [blob.data for blob in BLOBS[8:10]]
    assert rest.large == (2, 200_000)
    recv.stop()
    with pytest.raises(pyiroh.StreamStopped):
        await asyncio.gather(providing, send.stopped(), send.acked())


async def test_no_hashes_no_bytes(ends: Ends):
    send, recv = await open_uni(ends, b"behind")
    assert unpack(await recv.batch_pump([], WHOLE_MAX).next()) == []
    await send.pump_many([])
    assert await recv.read_exact(6) == b"behind"


def cuts() -> list[tuple[int, int, str]]:
    """Places to cut the wire: (length, blobs before, error)."""
    places: list[tuple[int, int, str]] = []
    begin = 0
    for index, blob in enumerate(BLOBS):
        places.append((begin, index, "size_not_found"))
        places.append((begin + 1, index, "truncated"))
        places.append((begin + 7, index, "truncated"))
        if blob.outboard:
            places.append((begin + 8, index, "parent_not_found"))
            places.append((begin + 9, index, "truncated"))
        elif blob.data:
            places.append((begin + 8, index, "leaf_not_found"))
        if len(blob.encoding) > 9:
            # A last group of one byte is missing as a whole.
            kind = "leaf_not_found" if len(blob.data) % 16_384 == 1 else "truncated"
            places.append((begin + len(blob.encoding) - 1, index, kind))
        begin += len(blob.encoding)
    return places


async def test_a_stream_that_ends_early(ends: Ends):
    for length, before, kind in cuts():
        send, recv = await open_uni(ends, WIRE[:length] or b"")
        send.finish()
        pump = recv.batch_pump(ROOTS, WHOLE_MAX)
        got: list[tuple[int, bytes, bytes]] = []
        for _ in range(2):
            with pytest.raises(pyiroh.VerifyError) as caught:
                while True:
                    got += unpack(await pump.next())
            assert (caught.value.kind, pump.index) == (kind, before), length
        assert got == EXPECTED[:before]


async def test_a_damaged_byte_anywhere(ends: Ends):
    """Each blob's first and last byte and its header."""
    begin = 0
    for index, blob in enumerate(BLOBS):
        for place in {begin, begin + 8, begin + len(blob.encoding) - 1}:
            if place == len(WIRE):
                continue
            wire = bytearray(WIRE)
            wire[place] ^= 1
            # The byte behind an empty blob is the header of the next one.
            owner = index if place < begin + len(blob.encoding) else index + 1
            send, recv = await open_uni(ends)

            async def write(send: pyiroh.SendStream = send, wire: bytearray = wire) -> None:
                await send.write_all(wire)
                send.finish()

            writing = asyncio.ensure_future(write())
            pump = recv.batch_pump(ROOTS, WHOLE_MAX)
            got: list[tuple[int, bytes, bytes]] = []
            if wire[begin : begin + 8] == b"\0" * 7 + b"\1":
                got += await drain(pump)
                assert pump.large == (owner, 1 << 56)
            else:
                with pytest.raises(pyiroh.VerifyError):
                    while True:
                        got += unpack(await pump.next())
            assert pump.index == owner
            assert got == EXPECTED[:owner]
            recv.stop()
            await asyncio.wait([writing])
            writing.exception()
        begin += len(blob.encoding)


async def test_a_size_that_cannot_be(ends: Ends):
    send, recv = await open_uni(ends, (2**63).to_bytes(8, "little"))
    pump = recv.batch_pump([bytes(32)], WHOLE_MAX)
    with pytest.raises(pyiroh.VerifyError, match="size invalid"):
        await pump.next()
    send.finish()


async def test_a_claim_alone_takes_no_memory(ends: Ends):
    send, recv = await open_uni(ends, (1 << 40).to_bytes(8, "little"))
    send.finish()
    pump = recv.batch_pump([bytes(32)], 1 << 41)
    with pytest.raises(pyiroh.VerifyError, match="parent not found"):
        await pump.next()


async def test_a_reset_comes_after_the_whole_blobs(ends: Ends):
    send, recv = await open_uni(ends)
    cut = sum(len(blob.encoding) for blob in BLOBS[:5]) + 100
    await send.write_all(WIRE[:cut])
    pump = recv.batch_pump(ROOTS, WHOLE_MAX, 1)
    got: list[tuple[int, bytes, bytes]] = []
    while len(got) < 5:
        got += unpack(await pump.next())
    send.reset(31)
    with pytest.raises(pyiroh.StreamReset):
        await pump.next()
    with pytest.raises(pyiroh.StreamReset):
        await pump.next()
    assert got == EXPECTED[:5]
    assert pump.index == 5


def reset(send: pyiroh.SendStream, _recv: pyiroh.RecvStream, _ends: Ends) -> None:
    send.reset(31)


def lost(_send: pyiroh.SendStream, _recv: pyiroh.RecvStream, ends: Ends) -> None:
    ends.dialled.close(7)


def closed(_send: pyiroh.SendStream, _recv: pyiroh.RecvStream, ends: Ends) -> None:
    ends.accepted.close(7)


def stopped(_send: pyiroh.SendStream, recv: pyiroh.RecvStream, _ends: Ends) -> None:
    recv.stop(7)


# A stream's bytes that may wait unread: when a write of more ends, the rest has been read.
WINDOW = 16_384


@pytest.mark.parametrize("cancelled", [False, True], ids=["waiting", "cancelled"])
@pytest.mark.parametrize("piece", [True, False], ids=["piece", "header"])
@pytest.mark.parametrize(
    ("end", "error"),
    [
        (reset, pyiroh.StreamReset),
        (lost, pyiroh.ConnectionClosedByPeer),
        (closed, pyiroh.LocallyClosed),
        (stopped, pyiroh.StreamClosed),
    ],
)
async def test_an_error_comes_after_the_whole_blobs(
    end: Callable[[pyiroh.SendStream, pyiroh.RecvStream, Ends], None],
    error: type[pyiroh.IrohError],
    piece: bool,
    cancelled: bool,
):
    """Blobs that were read but not handed over, then a piece of the last one or of its header."""
    last = len(BLOBS) - 1
    whole = len(WIRE) - len(BLOBS[last].encoding)
    transport = pyiroh.TransportConfig(stream_receive_window=WINDOW)
    async with connected(transport) as ends:
        send, recv = await open_uni(ends)
        pump = recv.batch_pump(ROOTS, WHOLE_MAX)
        call = asyncio.ensure_future(pump.next())
        if piece:
            await send.write_all(WIRE[: whole + 2 * WINDOW])
            before = last
        else:
            # The blob before the header is longer than what may wait unread, so its beginning,
            # and all blobs before it, have been read.
            await send.write_all(WIRE[: whole + 3])
            before = None
        if cancelled:
            call.cancel()
            await asyncio.wait([call])
            call = asyncio.ensure_future(pump.next())
        end(send, recv, ends)
        got = unpack(await call)
        if before is None:
            assert len(got) >= 7
        else:
            assert len(got) == before
        assert got == EXPECTED[: len(got)]
        assert pump.index == len(got)
        for _ in range(2):
            with pytest.raises(error):
                await pump.next()
        assert pump.index == len(got)


async def test_cancelled_calls_lose_nothing():
    """Cancelled at every stage: while a header, a body or the verification is awaited."""
    async with connected() as ends:
        send, recv = await open_uni(ends)
        pump = recv.batch_pump(ROOTS, WHOLE_MAX, 5000)
        got: list[tuple[int, bytes, bytes]] = []

        async def provide() -> None:
            for start in range(0, len(WIRE), 997):
                await send.write_all(WIRE[start : start + 997])
                if start % 5 == 0:
                    await asyncio.sleep(0)

        providing = asyncio.ensure_future(provide())
        cancelled = 0
        turns = 0
        while len(got) < len(BLOBS):
            turns = turns % 13 + 1
            call = asyncio.ensure_future(pump.next())
            for _ in range(turns):
                await asyncio.sleep(0)
            call.cancel()
            try:
                got += unpack(await call)
            except asyncio.CancelledError:
                cancelled += 1
            if cancelled > 2000:
                got += unpack(await pump.next())
        await providing
        assert got == EXPECTED
        assert cancelled > 10


async def test_nothing_of_a_wrong_blob_leaves(ends: Ends):
    send, recv = await open_uni(ends)
    wrong = [*TRIPLES[:5], (bytes(32), b"wrong", b""), *TRIPLES[5:]]
    with pytest.raises(pyiroh.VerifyError, match="leaf hash mismatch at chunk 0") as caught:
        await send.pump_many(wrong)
    assert caught.value.index == 5
    send.finish()
    good = b"".join(blob.encoding for blob in BLOBS[:5])
    received = await recv.read_to_end(1 << 20)
    assert received == good + (5).to_bytes(8, "little")


async def test_arguments_that_cannot_be_right(ends: Ends):
    send, recv = await open_uni(ends)
    with pytest.raises(ValueError, match="32 bytes"):
        recv.batch_pump([bytes(31)], 1)
    with pytest.raises(ValueError, match="batch_bytes"):
        recv.batch_pump([], 1, 0)
    with pytest.raises(ValueError, match="outboard must have 0 bytes"):
        send.pump_many([(bytes(32), b"", b"x")])
    with pytest.raises(ValueError, match="32 bytes"):
        send.pump_many([(b"", b"", b"")])

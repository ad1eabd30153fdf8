"""The suite that every implementation of the pumps passes: `class TestX(PumpsContract)`.

A subclass gives `open_ends`: two ends of a connection. What one writes to a stream, valid or not,
the pumps of the other receive; and what the pumps send is read byte by byte.
"""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from blobstore import BlobReader, ChunkRanges, Hash, VerificationError, WholeSource
from blobstore.codec.bao import BlobEncoder, outboard
from blobsync.errors import NotFoundError, PeerDataError, RemoteProtocolError
from blobsync.protocols.blobs.pumps import BlobBody, Element, WholeBlob
from blobsync.transports import StreamResetError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from blobsync.protocols.blobs.pumps import BlobReceiver, Pumps
    from blobsync.transports import Connection

TIMEOUT_S = 60
ALL = ChunkRanges.all()

SIZES = [
    0,  # one empty chunk
    1,
    1024,  # one chunk
    1025,
    16 * 1024,  # one group: no outboard
    16 * 1024 + 1,  # the smallest outboard
    100_000,
    1 << 20,  # the largest that travels whole
    (1 << 20) + 1,
    3_000_000,  # more than any buffer on the way
]

RANGES = [
    ChunkRanges.of(0, 1),
    ChunkRanges.of(3, 20),
    ChunkRanges((0, 1, 16, 32, 40, 41)),
    ChunkRanges.of(17),
    ChunkRanges.last(),
]


@dataclass(frozen=True)
class Blob:
    """A blob and its tree."""

    hash: Hash
    data: bytes
    outboard: bytes

    @classmethod
    def of(cls, size: int) -> Blob:
        data = random.Random(size).randbytes(size)
        return cls(*_hashed(data))

    def encode(self, ranges: ChunkRanges = ALL) -> bytes:
        """Size header and encoding."""
        return b"".join(self.pieces(ranges))

    def pieces(self, ranges: ChunkRanges = ALL) -> list[bytes]:
        """The items of the encoding, the size header first."""
        encoder = BlobEncoder(
            self.hash, len(self.data), ranges, self.data, self.outboard, header=False
        )
        items = [len(self.data).to_bytes(8, "little")]
        while item := encoder.next(1):
            items.append(item)
        return items

    def source(self, path: Path | None = None) -> WholeSource:
        """As a store would find it."""
        data = self.data if path is None else str(path)
        return WholeSource(data, len(self.data), self.outboard)

    def reader(self, data: bytes | None = None, available: ChunkRanges = ALL) -> BlobReader:
        """As a store would open it."""
        data = self.data if data is None else data
        return BlobReader(self.hash, len(self.data), available, data, self.outboard)


def _hashed(data: bytes) -> tuple[Hash, bytes, bytes]:
    hash, pairs = outboard(data)
    return hash, data, pairs


@dataclass
class Received:
    """What came of one answer, up to its end or an error."""

    whole: list[WholeBlob]
    written: dict[int, bytes]
    """Data files of the bodies, by element."""
    outboards: dict[int, bytes]
    proven: dict[int, ChunkRanges]
    size_proven: dict[int, bool]
    error: Exception | None = None


_ANY_REFUSAL = PeerDataError | RemoteProtocolError | NotFoundError


def _intervals(ranges: ChunkRanges) -> list[tuple[int, int]]:
    points = ranges.boundaries
    return list(zip(points[::2], points[1::2], strict=True))


class Counter:
    """Counts what a sender sent."""

    bytes_sent = 0


class PumpsContract(ABC):
    """Tests of one implementation of the pumps."""

    @abstractmethod
    def open_ends(self) -> AbstractAsyncContextManager[tuple[Connection, Connection]]:
        """Two ends of a connection whose streams the pumps take."""

    @abstractmethod
    def make_pumps(self) -> Pumps: ...

    @pytest.fixture
    async def ends(self) -> AsyncIterator[tuple[Connection, Connection]]:
        async with asyncio.timeout(TIMEOUT_S), self.open_ends() as ends:
            yield ends

    async def receive(
        self,
        ends: tuple[Connection, Connection],
        elements: Sequence[Element],
        wire: bytes,
        *,
        step: int | None = None,
        reset: int | None = None,
    ) -> Received:
        """Receive `wire` as the answer for `elements`; FIN, or a reset, ends it."""
        ours, theirs = ends
        stream = await ours.open_bi()
        await stream.send.write(b"?")
        answer = await theirs.accept_bi()
        assert answer is not None

        async def write() -> None:
            await answer.send.write(wire)
            if reset is None:
                await answer.send.finish()

        writing = asyncio.ensure_future(write())
        result = Received([], {}, {}, {}, {})
        receiver = self.make_pumps().receiver(stream.recv, "peer")
        try:
            await self._receive(receiver, elements, result, step)
            await receiver.end()
        except (NotFoundError, PeerDataError, RemoteProtocolError, StreamResetError) as error:
            result.error = error
        finally:
            stream.recv.stop(0)
            await asyncio.wait({writing})
        return result

    async def _receive(
        self,
        receiver: BlobReceiver,
        elements: Sequence[Element],
        result: Received,
        step: int | None,
    ) -> None:
        async for item in receiver.blobs(elements):
            if not isinstance(item, BlobBody):
                result.whole += item
                continue
            index = item.element.index
            with tempfile.TemporaryFile() as data, tempfile.TemporaryFile() as pairs:
                item.open(data.fileno(), pairs.fileno())
                try:
                    while not item.is_done:
                        await item.run(step)
                finally:
                    await item.settle()
                    result.proven[index] = item.proven
                    result.size_proven[index] = item.size_proven
                    result.written[index] = os.pread(data.fileno(), 1 << 30, 0)
                    result.outboards[index] = os.pread(pairs.fileno(), 1 << 30, 0)

    @pytest.mark.parametrize("size", SIZES)
    async def test_whole_blobs(self, ends: tuple[Connection, Connection], size: int) -> None:
        blob = Blob.of(size)
        got = await self.receive(ends, [Element(0, blob.hash, ALL)], blob.encode())
        assert got.error is None
        if size <= 1 << 20:
            (whole,) = got.whole
            assert (whole.element.index, whole.data, whole.outboard) == (
                0,
                blob.data,
                blob.outboard,
            )
        else:
            assert got.written[0] == blob.data
            assert got.outboards[0] == blob.outboard
            assert got.proven[0] == ALL.truncate(size)
            assert got.size_proven[0]

    @pytest.mark.parametrize("step", [None, 1, 100_000])
    @pytest.mark.parametrize("ranges", RANGES)
    async def test_ranges(
        self, ends: tuple[Connection, Connection], ranges: ChunkRanges, step: int | None
    ) -> None:
        blob = Blob.of(100_000)
        element = Element(7, blob.hash, ranges)
        got = await self.receive(ends, [element], blob.encode(ranges), step=step)
        assert got.error is None
        assert got.proven[7] == ranges.truncate(100_000)
        assert got.size_proven[7] == (97 in ranges.truncate(100_000))
        for start, end in got.proven[7].intervals():
            assert end is not None
            assert got.written[7][start * 1024 : end * 1024] == blob.data[start * 1024 : end * 1024]

    async def test_blobs_follow_each_other(self, ends: tuple[Connection, Connection]) -> None:
        blobs = [Blob.of(size) for size in (5, 2_000_000, 0, 100_000, 16 * 1024, 3_000_000, 1)]
        elements = [
            Element(i, blob.hash, ChunkRanges.of(0, 20) if i == 3 else ALL)
            for i, blob in enumerate(blobs)
        ]
        wire = b"".join(
            blob.encode(element.ranges) for blob, element in zip(blobs, elements, strict=True)
        )
        got = await self.receive(ends, elements, wire)
        assert got.error is None
        assert [(each.element.index, each.data) for each in got.whole] == [
            (i, blobs[i].data) for i in (0, 2, 4, 6)
        ]
        assert got.written[1] == blobs[1].data
        assert got.written[3] == blobs[3].data[: 20 * 1024]
        assert got.written[5] == blobs[5].data

    async def test_thousands_of_small_blobs(self, ends: tuple[Connection, Connection]) -> None:
        blobs = [Blob.of(i) for i in range(3000)]
        elements = [Element(i, blob.hash, ALL) for i, blob in enumerate(blobs)]
        got = await self.receive(ends, elements, b"".join(blob.encode() for blob in blobs))
        assert got.error is None
        assert [blob.data for blob in got.whole] == [blob.data for blob in blobs]

    @pytest.mark.parametrize("size", [1, 16 * 1024, 100_000, 1_200_000])
    async def test_a_flipped_bit_is_refused(
        self, ends: tuple[Connection, Connection], size: int
    ) -> None:
        blob = Blob.of(size)
        wire = blob.encode()
        rng = random.Random(size)
        for position in [8, len(wire) - 1, *(rng.randrange(8, len(wire)) for _ in range(6))]:
            damaged = bytearray(wire)
            damaged[position] ^= 1 << rng.randrange(8)
            got = await self.receive(ends, [Element(0, blob.hash, ALL)], bytes(damaged))
            assert isinstance(got.error, PeerDataError)
            assert not got.whole
            self._check_proven(got, blob)

    async def test_a_false_size_is_refused(self, ends: tuple[Connection, Connection]) -> None:
        blob = Blob.of(100_000)
        body = blob.encode()[8:]
        for size in (0, 1, 99_999, 100_001, 1 << 20, 1 << 40, (1 << 63) - 1, (1 << 64) - 1):
            wire = size.to_bytes(8, "little") + body
            got = await self.receive(ends, [Element(0, blob.hash, ALL)], wire)
            assert isinstance(got.error, PeerDataError | RemoteProtocolError | NotFoundError)
            assert not got.whole
            assert not any(got.size_proven.values())

    async def test_an_end_between_items_means_not_found(
        self, ends: tuple[Connection, Connection]
    ) -> None:
        blob = Blob.of(100_000)
        ranges = ChunkRanges((0, 1, 20, 50))
        items = blob.pieces(ranges)
        for count in range(len(items)):
            wire = b"".join(items[:count])
            got = await self.receive(ends, [Element(3, blob.hash, ranges)], wire)
            assert isinstance(got.error, NotFoundError), f"after {count} items"
            assert got.error.index == 3
            self._check_proven(got, blob)

    async def test_an_end_within_an_item_is_an_error(
        self, ends: tuple[Connection, Connection]
    ) -> None:
        blob = Blob.of(100_000)
        ranges = ChunkRanges((0, 1, 20, 50))
        items = blob.pieces(ranges)
        for count in range(len(items)):
            wire = b"".join(items[:count]) + items[count][:-1]
            got = await self.receive(ends, [Element(3, blob.hash, ranges)], wire)
            assert isinstance(got.error, RemoteProtocolError), f"within item {count}"
            self._check_proven(got, blob)

    async def test_an_end_among_small_blobs(self, ends: tuple[Connection, Connection]) -> None:
        blobs = [Blob.of(size) for size in (10, 20, 30)]
        elements = [Element(i, blob.hash, ALL) for i, blob in enumerate(blobs)]
        wire = blobs[0].encode() + blobs[1].encode()
        got = await self.receive(ends, elements, wire)
        assert isinstance(got.error, NotFoundError)
        assert got.error.index == 2
        got = await self.receive(ends, elements, wire[:-1])
        assert isinstance(got.error, RemoteProtocolError)

    async def test_an_answer_broken_at_every_item(
        self, ends: tuple[Connection, Connection]
    ) -> None:
        """Ended, cut within an item, damaged, or with something put in, before each in turn.

        Some blobs come whole, some in part: what came before the break is handed on, what comes
        after it never is.
        """
        answer = [
            (Blob.of(5), ALL),
            (Blob.of(70_000), ALL),
            (Blob.of(0), ALL),
            (Blob.of(50_000), ChunkRanges((0, 1, 20, 40))),
            (Blob.of(16 * 1024 + 1), ALL),
            (Blob.of(40_000), ChunkRanges.last()),
        ]
        elements = [Element(i, blob.hash, ranges) for i, (blob, ranges) in enumerate(answer)]
        items = [
            (index, number, item)
            for index, (blob, ranges) in enumerate(answer)
            for number, item in enumerate(blob.pieces(ranges))
        ]
        for place, (index, number, item) in enumerate(items):
            before = b"".join(item for _, _, item in items[:place])
            after = b"".join(item for _, _, item in items[place + 1 :])
            is_size = number == 0
            flipped = bytes((item[0] ^ 1,)) + item[1:] if item else b"x"
            is_cut = RemoteProtocolError if len(item) > 1 else NotFoundError
            cases = {
                "ended": (before, NotFoundError),
                "cut": (before + item[:-1], is_cut),
                "damaged": (before + flipped + after, PeerDataError | RemoteProtocolError),
            }
            if is_size:
                # Another size shows at what follows it, and be it that it is missing.
                cases["damaged"] = (before + flipped + after, _ANY_REFUSAL)
            else:
                cases["put in"] = (
                    before + b"x" + item + after,
                    PeerDataError | RemoteProtocolError,
                )
            for name, (wire, expected) in cases.items():
                got = await self.receive(ends, elements, wire)
                told = f"{name} at item {number} of blob {index}: {got.error!r}"
                if got.error is None:
                    # Of a part without the last chunk nothing depends on the size but its proof.
                    assert is_size, told
                    assert name == "damaged", told
                    assert not got.size_proven[index], told
                    self._check_answer(got, answer, len(answer), told)
                    continue
                assert isinstance(got.error, expected), told
                self._check_answer(got, answer, index, told)

    def _check_answer(
        self, got: Received, answer: Sequence[tuple[Blob, ChunkRanges]], index: int, told: str
    ) -> None:
        """All blobs before `index` came, and nothing that is not theirs."""
        whole = {blob.element.index: blob for blob in got.whole}
        for i, (blob, ranges) in enumerate(answer):
            if ranges.is_all:
                assert (i in whole) is (i < index), told
                if i in whole:
                    assert (whole[i].data, whole[i].outboard) == (blob.data, blob.outboard), told
                continue
            proven = got.proven.get(i, ChunkRanges.empty())
            if i < index:
                assert proven == ranges.truncate(len(blob.data)), told
            assert i <= index or not proven, told
            for start, end in _intervals(proven):
                written = got.written[i][start * 1024 : end * 1024]
                assert written == blob.data[start * 1024 : end * 1024], told

    async def test_more_than_was_asked_for_is_an_error(
        self, ends: tuple[Connection, Connection]
    ) -> None:
        for size in (10, 2_000_000):
            blob = Blob.of(size)
            got = await self.receive(ends, [Element(0, blob.hash, ALL)], blob.encode() + b"x")
            assert isinstance(got.error, RemoteProtocolError)

    async def test_sent_bytes_are_those_of_the_format(
        self, ends: tuple[Connection, Connection]
    ) -> None:
        for size in (0, 1, 16 * 1024 + 1, 100_000, 3_000_000):
            blob = Blob.of(size)
            for ranges in (ALL, *RANGES):
                counter = Counter()
                sent, complete = await self._send(ends, blob.reader(), ranges, counter)
                assert complete is True
                assert sent == blob.encode(ranges)
                assert counter.bytes_sent == ranges.bytes_within(size)

    async def test_whole_blobs_are_sent_back_to_back(
        self, ends: tuple[Connection, Connection]
    ) -> None:
        blobs = [Blob.of(i * 37 % 16_384) for i in range(500)]
        blobs += [Blob.of(100_000), Blob.of(0), Blob.of(1 << 20), Blob.of(5)]
        counter = Counter()
        wanted = [(each.hash, each.source()) for each in blobs]
        sent, count = await self._send_whole(ends, wanted, counter)
        assert count == len(blobs)
        assert sent == b"".join(blob.encode() for blob in blobs)
        assert counter.bytes_sent == sum(len(blob.data) for blob in blobs)

    async def test_whole_blobs_are_sent_from_files(
        self, ends: tuple[Connection, Connection], tmp_path: Path
    ) -> None:
        """Up to the first whose file is not what it should be, of which nothing is sent."""
        blobs = [Blob.of(size) for size in (100_000, 5, 0, 16_385, 1 << 20, 70_000, 1)]
        paths = [tmp_path / str(i) for i in range(len(blobs))]
        for blob, path in zip(blobs, paths, strict=True):
            path.write_bytes(blob.data)
        wanted = [
            (blob.hash, blob.source() if i == 1 else blob.source(path))
            for i, (blob, path) in enumerate(zip(blobs, paths, strict=True))
        ]
        counter = Counter()
        sent, count = await self._send_whole(ends, wanted, counter)
        assert count == len(blobs)
        assert sent == b"".join(blob.encode() for blob in blobs)
        assert counter.bytes_sent == sum(len(blob.data) for blob in blobs)
        good = paths[5].read_bytes()
        for bad in (None, b"", good[:-1], good[:-1] + b"x", b"x" + good[1:], tmp_path):
            paths[5].unlink()
            if isinstance(bad, bytes):
                paths[5].write_bytes(bad)
            elif bad is not None:
                paths[5].symlink_to(bad)
            sent, count = await self._send_whole(ends, wanted, Counter())
            assert count == 5
            assert sent == b"".join(blob.encode() for blob in blobs[:5])
            paths[5].touch()

    async def test_a_gap_ends_the_answer_between_items(
        self, ends: tuple[Connection, Connection]
    ) -> None:
        blob = Blob.of(100_000)
        held = blob.data[: 32 * 1024] + bytes(100_000 - 32 * 1024)
        reader = blob.reader(held, ChunkRanges.of(0, 32))
        sent, complete = await self._send(ends, reader, ALL, Counter())
        assert complete is False
        assert blob.data[31 * 1024 : 32 * 1024] in sent
        assert blob.encode().startswith(sent)

    async def test_damaged_data_never_leaves(self, ends: tuple[Connection, Connection]) -> None:
        blob = Blob.of(100_000)
        damaged = bytearray(blob.data)
        damaged[50_000] ^= 1
        sent, error = await self._send(ends, blob.reader(bytes(damaged)), ALL, Counter())
        assert isinstance(error, VerificationError)
        assert blob.encode().startswith(sent)
        small = Blob.of(100)
        wrong = WholeSource(b"x" * 100, 100, b"")
        sent, error = await self._send_whole(ends, [(small.hash, wrong)], Counter())
        assert isinstance(error, VerificationError)
        assert error.hash == small.hash
        assert sent in (b"", (100).to_bytes(8, "little")), "the size may go first, no data"

    async def test_a_cancelled_body_keeps_what_is_proven(
        self, ends: tuple[Connection, Connection]
    ) -> None:
        ours, theirs = ends
        blob = Blob.of(3_000_000)
        wire = blob.encode()
        stream = await ours.open_bi()
        await stream.send.write(b"?")
        answer = await theirs.accept_bi()
        assert answer is not None
        await answer.send.write(wire[: len(wire) // 16])
        receiver = self.make_pumps().receiver(stream.recv, "peer")
        blobs = receiver.blobs([Element(0, blob.hash, ALL)])
        body = await anext(blobs)
        assert isinstance(body, BlobBody)
        with tempfile.TemporaryFile() as data, tempfile.TemporaryFile() as pairs:
            body.open(data.fileno(), pairs.fileno())
            await body.run(16 * 1024)
            before = body.proven
            running = asyncio.ensure_future(body.run_ahead(1 << 20))
            await asyncio.sleep(0)
            running.cancel()
            await asyncio.wait({running})
            await body.settle()
            assert before.issubset(body.proven)
            assert body.bytes_received == body.bytes_written
            got = Received([], {}, {}, {}, {})
            got.proven[0], got.size_proven[0] = body.proven, body.size_proven
            got.written[0] = os.pread(data.fileno(), 1 << 30, 0)
        assert before
        assert not got.size_proven[0]
        self._check_proven(got, blob)
        stream.recv.stop(0)
        answer.send.reset(0)
        await blobs.aclose()  # type: ignore[attr-defined]

    def _check_proven(self, got: Received, blob: Blob) -> None:
        """Whatever was written is right, and what is called proven was written."""
        for index, written in got.written.items():
            covered = bytearray(len(written))
            for start, end in got.proven[index].intervals():
                assert end is not None
                piece = written[start * 1024 : end * 1024]
                assert piece == blob.data[start * 1024 : end * 1024]
                covered[start * 1024 : end * 1024] = b"\1" * len(piece)
            assert all(byte == 0 or covered[i] for i, byte in enumerate(written))

    async def _send(
        self,
        ends: tuple[Connection, Connection],
        reader: BlobReader,
        ranges: ChunkRanges,
        counter: Counter,
    ) -> tuple[bytes, bool | Exception]:
        """What was sent, and what the sender returned or raised."""
        ours, theirs = ends
        stream = await ours.open_bi()
        sender = self.make_pumps().sender(stream.send, counter)

        async def send() -> bool | Exception:
            try:
                return await sender.send_ranges(reader, ranges)
            except VerificationError as error:
                return error
            finally:
                await stream.send.finish()

        sending = asyncio.ensure_future(send())
        answer = await theirs.accept_bi()
        assert answer is not None
        sent = await answer.recv.read_to_end(1 << 30)
        assert sent is not None
        return sent, await sending

    async def _send_whole(
        self,
        ends: tuple[Connection, Connection],
        blobs: list[tuple[Hash, WholeSource]],
        counter: Counter,
    ) -> tuple[bytes, int | Exception]:
        ours, theirs = ends
        stream = await ours.open_bi()
        sender = self.make_pumps().sender(stream.send, counter)

        async def send() -> int | Exception:
            try:
                return await sender.send_whole(blobs)
            except VerificationError as error:
                return error
            finally:
                await stream.send.finish()

        sending = asyncio.ensure_future(send())
        answer = await theirs.accept_bi()
        assert answer is not None
        sent = await answer.recv.read_to_end(1 << 30)
        assert sent is not None
        return sent, await sending

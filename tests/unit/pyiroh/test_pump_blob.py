"""The pumps for one blob: what they send, receive, verify and write."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import blake3
import pytest

import pybao
import pyiroh
from tests.unit.pybao import vectors
from tests.unit.pyiroh.ends import Ends, open_uni

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pyiroh import BlobPump, RecvStream, SendStream

HEADER_SIZE = 8
GROUP_SIZE = 16_384
ENCODINGS: list[Any] = vectors.load("encodings.json")["blobs"]
ERRORS: list[Any] = vectors.load("decode_errors.json")["blobs"]

# Several buffers of the pumps, with a last group that is short.
LARGE = vectors.data((5 << 20) + 12_345)
LARGE_ROOT, LARGE_OUTBOARD = pybao.outboard(LARGE)
ALL = [0]


class Target:
    """Two files to pump into."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.outboard = folder / "outboard"
        self.data_fd = os.open(self.data, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        self.outboard_fd = os.open(self.outboard, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)

    def pump(self, recv: RecvStream, root: bytes, size: int, ranges: list[int]) -> BlobPump:
        return recv.blob_pump(root, size, ranges, self.data_fd, self.outboard_fd)

    def close(self) -> None:
        os.close(self.data_fd)
        os.close(self.outboard_fd)


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    files = Target(tmp_path)
    yield files
    files.close()


@pytest.fixture
async def streams(ends: Ends) -> tuple[SendStream, RecvStream]:
    return await open_uni(ends)


def encoding(data: bytes, ranges: list[int]) -> bytes:
    root, outboard = pybao.outboard(data)
    encoder = pybao.Encoder(root, len(data), ranges, data, outboard, header=False)
    return b"".join(iter(encoder.next, b""))


def holds(target: Target, data: bytes, chunks: list[int]) -> bool:
    """Whether the target has the data of these chunks."""
    written = target.data.read_bytes()
    edges = [min(chunk * 1024, len(data)) for chunk in chunks]
    pairs = zip(edges[::2], edges[1::2], strict=True)
    return all(written[start:end] == data[start:end] for start, end in pairs)


@pytest.mark.parametrize("blob", ENCODINGS, ids=lambda blob: blob["size"])
async def test_vectors_leave_and_arrive(ends: Ends, tmp_path: Path, blob: Any):
    """Every encoding of the vectors, one after the other on one stream."""
    data = vectors.data(blob["size"])
    root, outboard = pybao.outboard(data)
    send, recv = await open_uni(ends)
    for number, case in enumerate(blob["cases"]):
        ranges = vectors.boundaries(case["ranges"])
        folder = tmp_path / str(number)
        folder.mkdir()
        target = Target(folder)
        progress = pyiroh.PumpProgress()

        async def check_bytes(case: Any = case) -> None:
            received = await recv.read_exact(case["len"])
            assert blake3.blake3(received).hexdigest() == case["blake3"]

        await asyncio.gather(
            send.pump_blob(root, len(data), ranges, data, outboard, progress=progress),
            check_bytes(),
        )
        pump = target.pump(recv, root, len(data), ranges)
        _, is_done = await asyncio.gather(
            send.pump_blob(root, len(data), ranges, data, outboard, header=False), pump.run()
        )
        assert is_done
        assert pump.is_done
        received = received_chunks(case, len(data))
        assert pump.proven == received
        assert pump.bytes == progress.bytes == payload(received, len(data))
        assert pump.size_proven == (max(-(-len(data) // 1024), 1) in received[1::2])
        assert holds(target, data, received)
        provable = pybao.valid_ranges(root, len(data), target.data_fd, target.outboard_fd)
        assert not data or provable == vectors.boundaries(case["valid_ranges_of_group_outboard"])
        assert await pump.run()
        target.close()


def received_chunks(case: Any, size: int) -> list[int]:
    """The vectors leave out that the empty blob has one chunk, which is empty."""
    if size == 0:
        return [0, 1] * case["leaves"]
    return vectors.boundaries(case["chunks_received"])


def payload(chunks: list[int], size: int) -> int:
    edges = [min(chunk * 1024, size) for chunk in chunks]
    return sum(edges[1::2]) - sum(edges[::2])


@pytest.mark.parametrize(
    ("blob", "case"),
    [(blob, case) for blob in ERRORS for case in blob["cases"]],
    ids=lambda value: str(value.get("change", value.get("size"))),
)
async def test_damage_is_reported_as_the_vectors_say(
    streams: tuple[SendStream, RecvStream], target: Target, blob: Any, case: Any
):
    send, recv = streams
    ranges = vectors.boundaries(blob["ranges"])
    payload = bytearray(encoding(vectors.data(blob["size"]), ranges))
    match case["change"].split():
        case ["xor", "byte", place, *_]:
            payload[int(place)] ^= 1
        case ["payload", "truncated", "to", length, *_]:
            del payload[int(length) :]
        case _:
            pass
    await send.write_all(payload)
    send.finish()
    pump = target.pump(recv, bytes.fromhex(blob["root"]), case["claimed_size"], ranges)
    if case["error"] is None:
        assert await pump.run()
    else:
        with pytest.raises(pyiroh.VerifyError) as caught:
            await pump.run()
        kind, node, chunk = caught.value.kind, caught.value.node, caught.value.chunk
        # A cut within an item is told apart from one between two, which the reference does not.
        assert kind in (case["error"]["kind"], "truncated")
        assert node == case["error"].get("node")
        assert chunk == case["error"].get("chunk")
    await pump.settled()
    assert pump.bytes == case["leaf_bytes_ok"]
    assert holds(target, vectors.data(blob["size"]), pump.proven)


async def test_truncated_is_only_within_an_item(ends: Ends, target: Target):
    payload = encoding(vectors.data(65537), ALL)
    for length, kind in [(63, "truncated"), (64, "parent_not_found"), (65, "truncated")]:
        send, recv = await open_uni(ends)
        await send.write_all(payload[:length])
        send.finish()
        pump = target.pump(recv, pybao.hash(vectors.data(65537)), 65537, ALL)
        with pytest.raises(pyiroh.VerifyError) as caught:
            await pump.run()
        assert caught.value.kind == kind


async def test_files_to_files(
    streams: tuple[SendStream, RecvStream], target: Target, tmp_path: Path
):
    send, recv = streams
    source = tmp_path / "source"
    source.write_bytes(LARGE)
    pairs = tmp_path / "pairs"
    pairs.write_bytes(LARGE_OUTBOARD)
    with source.open("rb") as data, pairs.open("rb") as outboard:
        sending = asyncio.ensure_future(
            send.pump_blob(LARGE_ROOT, len(LARGE), ALL, data.fileno(), outboard.fileno())
        )
        await asyncio.sleep(0)
    # The descriptors are the pump's own: closing ours here changes nothing.
    size = int.from_bytes(await recv.read_exact(HEADER_SIZE), "little")
    pump = target.pump(recv, LARGE_ROOT, size, ALL)
    assert await pump.run()
    await sending
    assert target.data.read_bytes() == LARGE
    assert target.outboard.read_bytes() == LARGE_OUTBOARD
    assert pump.proven == [0, -(-len(LARGE) // 1024)]
    assert pump.size_proven


async def test_without_outboard_only_data_is_written(
    streams: tuple[SendStream, RecvStream], target: Target
):
    send, recv = streams
    pump = recv.blob_pump(LARGE_ROOT, len(LARGE), ALL, target.data_fd)
    await asyncio.gather(
        send.pump_blob(LARGE_ROOT, len(LARGE), ALL, LARGE, LARGE_OUTBOARD, header=False),
        pump.run(),
    )
    assert target.data.read_bytes() == LARGE
    assert target.outboard.read_bytes() == b""


async def test_step_by_step_with_other_bytes_behind(
    streams: tuple[SendStream, RecvStream], target: Target
):
    send, recv = streams

    async def provide() -> None:
        await send.pump_blob(LARGE_ROOT, len(LARGE), ALL, LARGE, LARGE_OUTBOARD, header=False)
        await send.write_all(b"behind")
        send.finish()

    providing = asyncio.ensure_future(provide())
    pump = target.pump(recv, LARGE_ROOT, len(LARGE), ALL)
    seen = [0]
    while not await pump.run(max_bytes=300_000):
        assert not pump.is_done
        assert 0 < pump.bytes - seen[-1] <= 300_000 + GROUP_SIZE
        assert holds(target, LARGE, pump.proven)
        seen.append(pump.bytes)
    assert len(seen) > len(LARGE) // (300_000 + GROUP_SIZE)
    assert await recv.read_to_end(100) == b"behind"
    assert target.data.read_bytes() == LARGE
    assert target.outboard.read_bytes() == LARGE_OUTBOARD
    await providing


async def test_steps_ahead_of_the_writing(streams: tuple[SendStream, RecvStream], target: Target):
    send, recv = streams
    providing = asyncio.ensure_future(
        send.pump_blob(LARGE_ROOT, len(LARGE), ALL, LARGE, LARGE_OUTBOARD, header=False)
    )
    pump = target.pump(recv, LARGE_ROOT, len(LARGE), ALL)
    granted = 0
    while not await pump.run(max_bytes=300_000, ahead=True):
        granted += 300_000 + GROUP_SIZE
        # In this order: what is written meanwhile counts twice.
        pending = pump.pending
        assert pending + pump.bytes > 0
        assert pump.bytes <= granted
        assert holds(target, LARGE, pump.proven)
    assert pump.pending == 0
    assert target.data.read_bytes() == LARGE
    assert target.outboard.read_bytes() == LARGE_OUTBOARD
    assert await pump.run(ahead=True)
    await providing


async def test_settled_between_two_steps_writes_what_was_received(
    streams: tuple[SendStream, RecvStream], target: Target
):
    send, recv = streams
    pump = target.pump(recv, LARGE_ROOT, len(LARGE), ALL)
    await send.write_all(encoding(LARGE, ALL)[: 1 << 20])
    assert not await pump.run(max_bytes=500_000, ahead=True)
    await pump.settled()
    assert 500_000 - 2 * GROUP_SIZE <= pump.bytes <= 500_000 + GROUP_SIZE
    assert pump.pending == 0
    assert holds(target, LARGE, pump.proven)
    with pytest.raises(pyiroh.PumpError, match="cannot go on"):
        await pump.run()


async def test_wrong_bytes_ahead_are_told_by_the_next_step(
    streams: tuple[SendStream, RecvStream], target: Target
):
    send, recv = streams
    payload = bytearray(encoding(LARGE, ALL)[: 1 << 20])
    payload[600_000] ^= 1
    await send.write_all(bytes(payload))
    pump = target.pump(recv, LARGE_ROOT, len(LARGE), ALL)
    with pytest.raises(pyiroh.VerifyError):
        for _ in range(8):
            await pump.run(max_bytes=100_000, ahead=True)
    await pump.settled()
    assert 0 < pump.bytes < 600_000
    assert holds(target, LARGE, pump.proven)


async def test_bytes_read_before_and_put_back_are_used(
    streams: tuple[SendStream, RecvStream], target: Target
):
    send, recv = streams
    data = vectors.data(100_000)
    root, outboard = pybao.outboard(data)
    await send.pump_blob(root, len(data), ALL, data, outboard, header=False)
    send.finish()
    with pytest.raises(pyiroh.StreamTooLong):
        await recv.read_to_end(70_000)
    assert await target.pump(recv, root, len(data), ALL).run()
    assert target.data.read_bytes() == data


async def test_reset_keeps_what_came_before(streams: tuple[SendStream, RecvStream], target: Target):
    send, recv = streams
    pump = target.pump(recv, LARGE_ROOT, len(LARGE), ALL)
    payload = encoding(LARGE, ALL)
    await send.write_all(payload[: 1 << 19])
    while not await pump.run(max_bytes=1) and pump.bytes < 400_000:
        pass
    before = pump.bytes
    send.reset(77)
    with pytest.raises(pyiroh.StreamReset) as caught:
        await pump.run()
    assert caught.value.code == 77
    await pump.settled()
    assert before <= pump.bytes < 1 << 19
    assert holds(target, LARGE, pump.proven)
    with pytest.raises(pyiroh.PumpError, match="cannot go on"):
        await pump.run()


async def test_cancelled_pump_proves_what_it_wrote(
    streams: tuple[SendStream, RecvStream], target: Target
):
    send, recv = streams
    pump = target.pump(recv, LARGE_ROOT, len(LARGE), ALL)
    running = asyncio.ensure_future(pump.run())
    await send.write_all(encoding(LARGE, ALL)[: 3 << 20])
    while pump.bytes < 1 << 20:  # noqa: ASYNC110 - the pump has no event for it
        await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    recv.stop(5)
    await pump.settled()
    settled = target.data.read_bytes()
    assert await send.stopped() == 5
    assert not pump.is_done
    assert 1 << 20 <= pump.bytes < 3 << 20
    assert holds(target, LARGE, pump.proven)
    assert target.data.read_bytes() == settled
    valid = pybao.valid_ranges(LARGE_ROOT, len(LARGE), target.data_fd, target.outboard_fd)
    assert valid == pump.proven
    with pytest.raises(pyiroh.PumpError, match="cannot go on"):
        await pump.run()


async def test_cancelled_sender_stops_and_can_reset(
    streams: tuple[SendStream, RecvStream], target: Target
):
    send, recv = streams
    providing = asyncio.ensure_future(
        send.pump_blob(LARGE_ROOT, len(LARGE), ALL, LARGE, LARGE_OUTBOARD, header=False)
    )
    pump = target.pump(recv, LARGE_ROOT, len(LARGE), ALL)
    await pump.run(max_bytes=100_000)
    providing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await providing
    send.reset(8)
    with pytest.raises(pyiroh.StreamReset):
        await pump.run()
    await pump.settled()
    assert holds(target, LARGE, pump.proven)


async def test_nothing_of_wrong_data_leaves(streams: tuple[SendStream, RecvStream]):
    send, recv = streams
    wrong = bytearray(LARGE)
    wrong[3 << 20] ^= 1
    good = encoding(LARGE, ALL)

    async def provide() -> pyiroh.VerifyError:
        with pytest.raises(pyiroh.VerifyError) as caught:
            await send.pump_blob(
                LARGE_ROOT, len(LARGE), ALL, bytes(wrong), LARGE_OUTBOARD, header=False
            )
        send.finish()
        return caught.value

    error, received = await asyncio.gather(provide(), recv.read_to_end(len(good)))
    assert (error.kind, error.node, error.chunk) == ("leaf_hash_mismatch", None, (3 << 20) // 1024)
    assert good.startswith(received)
    assert 3 << 20 < len(received) < len(good)


async def test_wrong_root_sends_and_writes_nothing(ends: Ends, target: Target):
    send, recv = await open_uni(ends)
    with pytest.raises(pyiroh.VerifyError, match="parent hash mismatch"):
        await send.pump_blob(bytes(32), len(LARGE), ALL, LARGE, LARGE_OUTBOARD, header=False)
    await send.write_all(encoding(LARGE, [0, 16]))
    send.finish()
    pump = target.pump(recv, bytes(32), len(LARGE), [0, 16])
    with pytest.raises(pyiroh.VerifyError, match="parent hash mismatch at node"):
        await pump.run()
    assert target.data.read_bytes() == target.outboard.read_bytes() == b""
    assert pump.proven == []


async def test_a_source_that_is_too_short(streams: tuple[SendStream, RecvStream], tmp_path: Path):
    send, _recv = streams
    short = tmp_path / "short"
    short.write_bytes(LARGE[:100])
    with short.open("rb") as file, pytest.raises(pyiroh.VerifyError, match="size mismatch"):
        await send.pump_blob(LARGE_ROOT, len(LARGE), ALL, file.fileno(), LARGE_OUTBOARD)


async def test_a_target_that_cannot_be_written(
    streams: tuple[SendStream, RecvStream], tmp_path: Path
):
    send, recv = streams
    data = vectors.data(10)
    (tmp_path / "read-only").write_bytes(b"")
    with (tmp_path / "read-only").open("rb") as file:
        pump = recv.blob_pump(pybao.hash(data), 10, ALL, file.fileno())
        await send.pump_blob(pybao.hash(data), 10, ALL, data, b"", header=False)
        with pytest.raises(OSError, match="Bad file descriptor"):
            await pump.run()
    assert pump.proven == []


async def test_arguments_that_cannot_be_right(
    streams: tuple[SendStream, RecvStream], target: Target
):
    send, recv = streams
    fd = target.data_fd
    with pytest.raises(ValueError, match="32 bytes"):
        recv.blob_pump(bytes(31), 10, ALL, fd)
    with pytest.raises(ValueError, match="must increase"):
        recv.blob_pump(bytes(32), 10, [3, 3], fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        recv.blob_pump(bytes(32), 10, ALL, -1)
    with pytest.raises(pyiroh.VerifyError, match="size invalid"):
        recv.blob_pump(bytes(32), 2**63, ALL, fd)
    with pytest.raises(ValueError, match="1 or more"):
        recv.blob_pump(bytes(32), 10, ALL, fd).run(max_bytes=0)
    with pytest.raises(ValueError, match="data must have 10 bytes"):
        send.pump_blob(bytes(32), 10, ALL, b"", b"")
    with pytest.raises(ValueError, match="outboard must have 0 bytes"):
        send.pump_blob(bytes(32), 10, ALL, bytes(10), b"x")
    with pytest.raises(ValueError, match="must increase"):
        send.pump_blob(bytes(32), 10, [5, 4], bytes(10), b"")
    with pytest.raises(ValueError, match="large"):
        send.pump_blob(bytes(32), 2**63, ALL, fd, fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        send.pump_blob(bytes(32), 10, ALL, -1, b"")


async def test_the_largest_claim_costs_nothing(
    streams: tuple[SendStream, RecvStream], target: Target
):
    send, recv = streams
    send.finish()
    pump = target.pump(recv, bytes(32), 2**63 - 1, ALL)
    with pytest.raises(pyiroh.VerifyError, match="parent not found"):
        await pump.run()
    assert target.data.read_bytes() == b""

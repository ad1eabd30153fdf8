"""Killed transfers go on where they were: `kill -9` of getters and providers in mid-transfer."""

import asyncio
import contextlib
import random
import signal
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

import pybao
from blobsync.errors import ExitCode
from blobsync.sync.names import HIDDEN_SUFFIX
from tests.interop.blobsync_cli import Blobsync, ShareProcess
from tests.interop.contents import (
    GROUP,
    MIB,
    assert_same,
    read_tree,
    write_random,
    write_small_files,
)
from tests.interop.drivers import Sendme, SendmeSend

LOST_MAX = 16 * MIB
"""What a kill may make us fetch again."""

IN_FLIGHT_MAX = 2 * MIB
"""What a peer may send that nobody reads any more: the receive window."""

NEARLY_DONE = 200 * MIB
"""Bytes that a fetch may make between two looks at its progress, with some to spare."""

KILLED = -signal.SIGKILL


class Source:
    """What serves a file or folder: `sendme`, or `blobsync share`."""

    def __init__(self, sendme: Sendme, sharer: Blobsync, cwd: Path, name: str) -> None:
        self.name = name
        self._sendme = sendme
        self._sharer = sharer
        self._cwd = cwd

    def serve(self, path: Path) -> AbstractAsyncContextManager[SendmeSend | ShareProcess]:
        """Serves until left."""
        if self.name == "blobsync":
            return self._sharer.share(path)
        return self._sendme.send(path, self._cwd)


@pytest.fixture(params=["sendme", "blobsync"])
def source(request: pytest.FixtureRequest, sendme: Sendme, scratch: Path) -> Source:
    """Either provider."""
    cwd = scratch / "source"
    cwd.mkdir()
    return Source(sendme, Blobsync(scratch / "sharer"), cwd, request.param)


# For tests that mostly wait: the other provider is left to the long run.
ONE_IS_SLOW = pytest.mark.parametrize(
    "source", ["blobsync", pytest.param("sendme", marks=pytest.mark.slow)], indirect=True
)


@contextlib.asynccontextmanager
async def killed(
    blobsync: Blobsync, ticket: str, destination: Path, size: int
) -> AsyncGenerator[None]:
    """A fetch that was ended with SIGKILL after about so many bytes, before it was done."""
    async with blobsync.getting(ticket, destination) as process:
        await process.has_fetched(size)
        process.kill()
        assert await process.ended() == KILLED, "it was done before it was killed"
        yield


def partial_size(folder: Path) -> int:
    """Bytes that were written of the one unfinished file below a folder."""
    [partial] = folder.rglob(f"*{HIDDEN_SUFFIX}")
    return partial.stat().st_blocks * 512


async def kill_often(
    source: Source, blobsync: Blobsync, scratch: Path, *, size: int, kills: int, seed: int
) -> None:
    """Fetch a file, killed again and again; no kill may cost more than `LOST_MAX`.

    Fewer times than `kills` where a fast machine is nearly done before.
    """
    moments = random.Random(seed)
    path = write_random(scratch / "source" / "file.bin", size, seed=seed)
    hash = hash_of_file(path)
    out = scratch / "out"
    held = killed_times = 0
    async with source.serve(path) as serving:
        while killed_times < kills and held < size - NEARLY_DONE:
            async with killed(blobsync, serving.ticket, out, moments.randrange(24 * MIB)):
                resumed, held = held, await blobsync.bytes_held(hash)
                assert held >= resumed
                # What is on the disk was verified and written; what is not on record is lost.
                assert partial_size(out) - held <= LOST_MAX
            killed_times += 1
            assert not (out / "file.bin").exists()
        ended = await blobsync.get(serving.ticket, out)
    assert ended.status == 0, ended
    assert killed_times > 0
    assert 0 < held < size
    assert ended.last["bytes_fetched"] == size - held
    assert_same(out / "file.bin", path)
    assert not list(out.rglob(f"*{HIDDEN_SUFFIX}"))
    if isinstance(serving, ShareProcess):
        sent = serving.events("stopped")[0]["bytes_sent"]
        assert sent <= size + killed_times * (LOST_MAX + IN_FLIGHT_MAX) + MIB


def hash_of_file(path: Path) -> str:
    """The hash that the blob of a file has, in hex."""
    with path.open("rb") as file:
        return pybao.outboard_fd(file.fileno(), path.stat().st_size)[0].hex()


async def test_a_killed_get_goes_on(source: Source, blobsync: Blobsync, scratch: Path) -> None:
    await kill_often(source, blobsync, scratch, size=384 * MIB, kills=3, seed=31)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
async def test_a_get_killed_many_times_goes_on(
    source: Source, blobsync: Blobsync, scratch: Path, seed: int
) -> None:
    await kill_often(source, blobsync, scratch, size=1024 * MIB, kills=8, seed=seed)


@pytest.mark.slow
async def test_a_killed_get_of_a_tree_goes_on(
    source: Source, blobsync: Blobsync, scratch: Path
) -> None:
    moments, kills = random.Random(41), 3
    tree = write_small_files(scratch / "source" / "tree", 20_000, seed=41)
    total = sum(path.stat().st_size for path in tree.rglob("*") if path.is_file())
    out = scratch / "out"
    async with source.serve(tree) as serving:
        for _ in range(kills):
            async with killed(blobsync, serving.ticket, out, moments.randrange(1, total // 8)):
                assert len(list(out.rglob("*.txt"))) < 20_000
        ended = await blobsync.get(serving.ticket, out)
    assert ended.status == 0, ended
    assert ended.last["bytes_fetched"] < total
    assert not list(out.rglob(f"*{HIDDEN_SUFFIX}"))
    assert_same(out / "tree", tree)


@ONE_IS_SLOW
async def test_a_killed_provider(source: Source, blobsync: Blobsync, scratch: Path) -> None:
    size = 256 * MIB
    path = write_random(scratch / "source" / "file.bin", size, seed=51)
    out = scratch / "out"
    late = Blobsync(scratch / "late")
    async with source.serve(path) as serving, blobsync.getting(serving.ticket, out) as process:
        await process.has_fetched(20 * MIB)
        serving.kill()
        # Both the one that it left in the middle and one that comes too late give up in time.
        gone, status = await asyncio.gather(
            late.get(serving.ticket, scratch / "nothing"), process.ended()
        )
    assert (gone.status, gone.last["kind"]) == (ExitCode.UNREACHABLE, "unreachable"), gone
    assert status == ExitCode.UNREACHABLE
    [failed] = process.events("error")
    assert (failed["kind"], failed["retry"]) == ("unreachable", True)
    told = process.events("progress")[-1]["bytes_fetched"]
    held = await blobsync.bytes_held(hash_of_file(path))
    # Nothing that was proven is lost.
    assert told <= held < size
    assert partial_size(out) - held <= GROUP
    async with source.serve(path) as again:
        if source.name == "blobsync":
            assert again.ticket == serving.ticket
        ended = await blobsync.get(again.ticket, out)
    assert ended.status == 0, ended
    assert ended.last["bytes_fetched"] == size - held
    assert_same(out / "file.bin", path)


@ONE_IS_SLOW
async def test_a_get_that_is_interrupted_goes_on(
    source: Source, blobsync: Blobsync, scratch: Path
) -> None:
    size = 192 * MIB
    path = write_random(scratch / "source" / "file.bin", size, seed=61)
    out = scratch / "out"
    async with source.serve(path) as serving:
        async with blobsync.getting(serving.ticket, out) as process:
            await process.has_fetched(20 * MIB)
        # Leaving it has sent SIGTERM, which is waited for.
        assert await process.ended() == 128 + signal.SIGTERM
        held = await blobsync.bytes_held(hash_of_file(path))
        # Nothing that was proven is lost.
        assert partial_size(out) - held <= GROUP
        ended = await blobsync.get(serving.ticket, out)
    assert ended.status == 0, ended
    assert ended.last["bytes_fetched"] == size - held
    assert_same(out / "file.bin", path)


async def test_a_killed_sendme_goes_on(sendme: Sendme, blobsync: Blobsync, scratch: Path) -> None:
    path = write_random(scratch / "source" / "file.bin", 512 * MIB, seed=71)
    out = scratch / "out"
    out.mkdir()
    async with blobsync.share(path) as sharer:
        async with sendme.receiving(sharer.ticket, out) as process:
            await sharer.has_sent(1)
            process.kill()
            assert await process.ended() == KILLED
        assert not (out / "file.bin").exists()
        done = await sendme.receive(sharer.ticket, out)
    assert done.status == 0, done.stderr
    assert read_tree(out).keys() == {"file.bin"}
    assert_same(out / "file.bin", path)
    assert await sharer.ended() == 0


async def test_a_get_killed_at_its_end_goes_on(scratch: Path) -> None:
    # The last bytes, the sync, the name and the record are close together: any of them may be
    # what the kill meets, or it comes too late.
    size = 48 * MIB + 1
    path = write_random(scratch / "source" / "file.bin", size, seed=81)
    async with Blobsync(scratch / "sharer").share(path) as serving:
        for attempt in range(4):
            out = scratch / f"out {attempt}"
            mine = Blobsync(scratch / f"home {attempt}")
            async with mine.getting(serving.ticket, out) as process:
                await process.has_fetched(size if attempt % 2 else size - MIB)
                process.kill()
                assert await process.ended() in (KILLED, 0)
            ended = await mine.get(serving.ticket, out)
            assert ended.status == 0, ended
            assert ended.last["bytes_fetched"] <= LOST_MAX
            assert_same(out / "file.bin", path)
            assert [each.name for each in out.iterdir()] == ["file.bin"]


async def test_a_get_of_what_was_here_once_goes_on(blobsync: Blobsync, scratch: Path) -> None:
    # The store knows the blob as complete, in a file that the user has deleted. The fetch that
    # brings it back resumes as any other; it once began anew each time.
    size = 128 * MIB
    path = write_random(scratch / "source" / "file.bin", size, seed=91)
    async with Blobsync(scratch / "sharer").share(path) as serving:
        first = await blobsync.get(serving.ticket, scratch / "first")
        assert first.status == 0, first
        (scratch / "first" / "file.bin").unlink()
        out = scratch / "out"
        async with blobsync.getting(serving.ticket, out) as process:
            await process.has_fetched(MIB)
        assert await process.ended() == 128 + signal.SIGTERM
        kept = partial_size(out)
        ended = await blobsync.get(serving.ticket, out)
    assert ended.status == 0, ended
    assert kept >= MIB
    assert ended.last["bytes_fetched"] <= size - kept + GROUP
    assert_same(out / "file.bin", path)

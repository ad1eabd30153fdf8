"""Fetching many pieces at once: jobs of `segments`, over as many streams as `parallelism` says.

A lane is one stream after the other on one connection; before the answer to one request ends the
next is sent, so that no round trip is idle. All lanes fill the same partial blobs, each its own
chunks of them. What one lane fails with ends the fetch, with all that was proven recorded; only a
lane on a further connection gives its job back, since the first one can bring it as well.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from blobstore import ChunkRanges
from blobsync.errors import BlobsyncError, PeerDataError, RemoteProtocolError
from blobsync.protocols.blobs.getter import check_size, open_answer
from blobsync.protocols.blobs.parallelism import Measured, Parallelism
from blobsync.protocols.blobs.pumps import BATCH_SIZE, BlobBody
from blobsync.protocols.blobs.recorder import Recorder
from blobsync.protocols.blobs.segments import Segments
from blobsync.wire.range_spec import ChunkRangesSeq
from blobsync.wire.requests import GetRequest, split_request

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence

    from blobstore import Hash, PartialBlob
    from blobsync.protocols.blobs.getter import BlobSink, GetProgress
    from blobsync.protocols.blobs.pumps import BlobReceiver, Element, Pumps, WholeBlobs
    from blobsync.protocols.blobs.recorder import Piece
    from blobsync.transports import Connection

    Dial = Callable[[], Awaitable[Connection]]

logger = logging.getLogger(__name__)

LOOK_INTERVAL_S = 0.05
"""How often a running fetch is measured."""

RTT_LOOKS = 10
"""The round trip is looked up at every so many of these, as that waits for a busy connection."""

CUT_MIN = 16 << 20
"""A blob of a far peer, of unknown size until it began to come, is cut into segments from here."""


@dataclass(slots=True, eq=False)
class _Link:
    """One connection."""

    connection: Connection
    is_first: bool
    lanes: int = 0
    is_lost: bool = False


class Peer:
    """The connections to one peer and what was measured of it, kept from one call to the next."""

    def __init__(
        self,
        connection: Connection,
        *,
        dial: Dial | None = None,
        parallelism: Parallelism | None = None,
    ) -> None:
        """`dial` gives further connections, which whoever gave it closes; else there is but one."""
        self.links = [_Link(connection, is_first=True)]
        self.dial = dial
        self.parallelism = parallelism or Parallelism(self.rtt_s)
        if dial is None:
            self.parallelism.limit_connections(1)
        self.blobs_fetched = 0

    @property
    def connection(self) -> Connection:
        """The first one."""
        return self.links[0].connection

    @property
    def name(self) -> str:
        """For messages."""
        return self.connection.remote_id.short()

    @property
    def rtt_s(self) -> float | None:
        """The round trip of the path that packets take, None if it is unknown."""
        return next((path.rtt_s for path in self.connection.paths() if path.is_selected), None)


async def get_elements(
    peer: Peer,
    pumps: Pumps,
    root: Hash,
    elements: Sequence[Element],
    sink: BlobSink,
    progress: GetProgress,
    *,
    sizes: Mapping[Hash, int] | None = None,
) -> None:
    """Fetch parts of a root blob and its children, whose hashes are known, into a sink.

    `elements` ascend by index; they arrive in any order. Blobs of which `sizes` tells the proven
    size are cut into segments.

    Raises:
        RefusedError, RateLimitedError: the peer does not serve this, or not now.
        NotFoundError, PeerFailedError: the peer lacks a piece or failed.
        PeerDataError: it sent bytes that do not match their hash.
        RemoteProtocolError: it does not keep to the protocol.
        ConnectionClosedError: the connection is gone.
    """
    if not elements:
        return
    download = _Download(peer, pumps, root, Segments(elements, sizes or {}), sink, progress)
    try:
        await download.run()
    except ExceptionGroup as group:
        # What failed first; the others are lanes that were ended for it.
        raise group.exceptions[0] from group.exceptions[0].__cause__


@dataclass(slots=True, eq=False)
class _Target:
    """A larger blob that is being filled, by one lane or several."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    partial: PartialBlob | None = None
    size: int = 0
    users: int = 0


@dataclass(slots=True, eq=False)
class _Asked:
    """A request that was sent."""

    receiver: BlobReceiver
    stack: AsyncExitStack
    """Leaving it stops the peer, unless the answer was complete."""
    left: list[Element]
    """What did not come yet."""
    elements: int
    """How many there were."""


@dataclass(slots=True, eq=False)
class _Lane:
    """What is under way on one lane."""

    link: _Link
    current: _Asked | None = None
    ahead: _Asked | None = None


class _Download:
    """One call of `get_elements`."""

    def __init__(
        self,
        peer: Peer,
        pumps: Pumps,
        root: Hash,
        segments: Segments,
        sink: BlobSink,
        progress: GetProgress,
    ) -> None:
        self._peer = peer
        self._pumps = pumps
        self._root = root
        self._segments = segments
        self._sink = sink
        self._progress = progress
        self._parallelism = peer.parallelism
        self._recorder = Recorder()
        self._targets: dict[int, _Target] = {}
        self._fetched_before = progress.bytes_fetched
        self._bytes_whole = 0
        self._lanes = 0
        self._all_done = asyncio.Event()

    async def run(self) -> None:
        """Fetch everything. Whatever ends it, nothing of it runs afterwards."""
        try:
            async with asyncio.TaskGroup() as tasks:
                helpers = [
                    tasks.create_task(self._recorder.run()),
                    tasks.create_task(self._watch(tasks)),
                ]
                self._start_lanes(tasks)
                await self._all_done.wait()
                for helper in helpers:
                    helper.cancel()
        finally:
            self._count()
            for target in self._targets.values():
                if target.partial is not None:
                    await target.partial.close()

    def _count(self) -> None:
        self._progress.bytes_fetched = (
            self._fetched_before + self._bytes_whole + self._recorder.bytes_received
        )

    # How many at once

    async def _watch(self, tasks: asyncio.TaskGroup) -> None:
        """Measure, and add lanes and connections as they pay."""
        dialling: set[asyncio.Task[None]] = set()
        clock = asyncio.get_running_loop().time
        rtt_s: float | None = None
        try:
            for look in itertools.count():
                if look % RTT_LOOKS == 0:
                    rtt_s = self._peer.rtt_s
                self._count()
                self._parallelism.look(
                    Measured(
                        now_s=clock(),
                        bytes_fetched=self._progress.bytes_fetched,
                        blobs_fetched=self._peer.blobs_fetched,
                        bytes_left=self._segments.bytes_waiting,
                        rtt_s=rtt_s,
                    )
                )
                wanted = self._parallelism.connections - len(self._peer.links) - len(dialling)
                if self._peer.dial is not None:
                    # All at once: each takes some round trips.
                    for _ in range(wanted):
                        dial = tasks.create_task(self._add_link(self._peer.dial, tasks))
                        dialling.add(dial)
                        dial.add_done_callback(dialling.discard)
                self._start_lanes(tasks)
                await asyncio.sleep(LOOK_INTERVAL_S)
        finally:
            for dial in dialling:
                dial.cancel()

    async def _add_link(self, dial: Dial, tasks: asyncio.TaskGroup) -> None:
        try:
            connection = await dial()
        except (BlobsyncError, OSError) as error:
            logger.info("%s gives no further connection: %s", self._peer.name, error)
            self._parallelism.limit_connections(len(self._peer.links))
            return
        self._peer.links.append(_Link(connection, is_first=False))
        self._start_lanes(tasks)

    def _start_lanes(self, tasks: asyncio.TaskGroup) -> None:
        while self._lanes < self._parallelism.streams and not self._segments.is_empty:
            link = self._freest_link()
            if link.lanes >= self._lanes_per_link():
                # What is missing are lanes of a connection that is being dialled.
                break
            link.lanes += 1
            self._lanes += 1
            tasks.create_task(self._run_lane(link, tasks))

    def _freest_link(self) -> _Link:
        links = [link for link in self._peer.links if not link.is_lost]
        return min(links, key=lambda link: link.lanes)

    def _lanes_per_link(self) -> int:
        return -(-self._parallelism.streams // self._parallelism.connections)

    def _is_crowded(self, link: _Link) -> bool:
        """Whether a lane of this connection should go on as one of another."""
        room = self._lanes_per_link()
        return link.lanes > room and self._freest_link().lanes < room

    # A lane

    async def _run_lane(self, link: _Link, tasks: asyncio.TaskGroup) -> None:
        try:
            await self._fetch_jobs(_Lane(link))
        finally:
            link.lanes -= 1
            self._lanes -= 1
        # What it gave back, or another lane meanwhile, is fetched by new lanes.
        self._start_lanes(tasks)
        if self._lanes == 0:
            self._all_done.set()

    async def _fetch_jobs(self, lane: _Lane) -> None:
        """Fetch jobs until none waits, or until a further connection turns out to be of no use."""
        try:
            lane.current = await self._ask(lane.link)
            while lane.current is not None:
                await self._fetch_job(lane, lane.current)
                lane.current = lane.ahead or await self._ask(lane.link)
                lane.ahead = None
        except BlobsyncError as error:
            if lane.link.is_first or isinstance(error, PeerDataError | RemoteProtocolError):
                raise
            logger.info("a further connection to %s is of no use: %s", self._peer.name, error)
            lane.link.is_lost = True
            self._parallelism.limit_connections(1)
        finally:
            for asked in (lane.ahead, lane.current):
                if asked is not None:
                    self._segments.give_back(asked.left)
                    await asked.stack.aclose()

    async def _ask(self, link: _Link) -> _Asked | None:
        """Send the request for the next job; None if the lane is to end."""
        if self._is_crowded(link):
            return None
        job = self._segments.take(self._parallelism.job_size)
        if job is None:
            return None
        ranges = ChunkRangesSeq.from_elements((each.index, each.ranges) for each in job)
        first, *others = split_request(GetRequest(self._root, ranges))
        assert isinstance(first, GetRequest)
        left = list(job)
        if others:
            # Too much for one request. An element whose ranges are, comes round in several parts.
            by_index = {element.index: element for element in job}
            parts = [
                [replace(by_index[index], ranges=part) for index, part in other.ranges.elements()]
                for other in (first, *others)
            ]
            left = parts[0]
            self._segments.divide(job, left, [each for part in parts[1:] for each in part])
        async with AsyncExitStack() as stack:
            try:
                receiver = await stack.enter_async_context(
                    open_answer(link.connection, self._pumps, first)
                )
            except BaseException:
                self._segments.give_back(left)
                raise
            return _Asked(receiver, stack.pop_all(), left, len(left))

    async def _fetch_job(self, lane: _Lane, asked: _Asked) -> None:
        async with asked.stack:
            # About five batches of a lane are received and not written, at most: together, and with
            # what is not recorded of larger blobs, they are what a kill may cost, 16 MiB.
            streams = self._parallelism.streams
            batch_bytes = BATCH_SIZE if streams == 1 else BATCH_SIZE // (2 * streams)
            blobs = asked.receiver.blobs(tuple(asked.left), batch_bytes=batch_bytes)
            async with aclosing(blobs):
                async for item in blobs:
                    if not isinstance(item, BlobBody):
                        await self._take_whole(asked, item)
                    elif self._is_to_be_cut(item):
                        # Its size is news: what is left of the job waits again.
                        self._segments.learn_size(item.element.hash, item.size)
                        self._segments.give_back(asked.left)
                        asked.left = []
                        return
                    else:
                        await self._receive_body(lane, asked, item)
                    if lane.ahead is None and len(asked.left) <= asked.elements // 2:
                        lane.ahead = await self._ask(lane.link)
            await asked.receiver.end()

    async def _take_whole(self, asked: _Asked, blobs: WholeBlobs) -> None:
        self._bytes_whole += sum(blobs.sizes)
        self._count()
        await self._sink.add_whole(blobs)
        self._peer.blobs_fetched += len(blobs)
        for element in asked.left[: len(blobs)]:
            self._segments.done(element)
        del asked.left[: len(blobs)]

    # A larger blob, or a segment of it

    def _is_to_be_cut(self, body: BlobBody) -> bool:
        element = body.element
        return (
            self._parallelism.is_far
            and self._segments.size_of(element.hash) is None
            and element.ranges.bytes_within(body.size) >= CUT_MIN
        )

    async def _receive_body(self, lane: _Lane, asked: _Asked, body: BlobBody) -> None:
        element = body.element
        target = self._targets.setdefault(element.index, _Target())
        partial = await self._open_target(target, body)
        body.open(partial.data_fd, partial.outboard_fd)
        piece = self._recorder.add(body, partial)
        target.users += 1
        wanted = element.ranges.bytes_within(body.size)
        try:
            while not body.is_done:
                left = wanted - body.bytes_received
                is_ending = left <= self._parallelism.ahead_bytes and len(asked.left) == 1
                if is_ending and lane.ahead is None:
                    lane.ahead = await self._ask(lane.link)
                step = await self._recorder.grant(piece, left, self._parallelism.streams)
                await body.run_ahead(step)
                self._recorder.end_step(piece)
        finally:
            await _to_its_end(self._end_body(asked, piece, target))
        async with target.lock:
            await self._close_target(element, target)

    async def _end_body(self, asked: _Asked, piece: Piece, target: _Target) -> None:
        """Settle a body, done or not, and record what is proven of it."""
        body = piece.body
        await body.settle()
        missing = _missing(body)
        if missing:
            asked.left[0] = replace(body.element, ranges=missing)
        else:
            self._segments.done(body.element)
            del asked.left[0]
        try:
            await self._recorder.remove(piece)
        finally:
            # Only now: whoever finds no user left closes the blob.
            target.users -= 1
        self._count()

    async def _open_target(self, target: _Target, body: BlobBody) -> PartialBlob:
        """The partial blob that a body belongs to.

        Raises:
            PeerDataError, RemoteProtocolError: see `check_size`.
        """
        async with target.lock:
            if target.partial is None:
                target.partial = await self._sink.open_partial(body.element, body.size)
                target.size = body.size
                await check_size(target.partial, body.size, body.element.hash, self._peer.name)
            elif target.size != body.size:
                raise RemoteProtocolError(
                    f"{self._peer.name} claims {body.size} and {target.size} bytes for "
                    f"{body.element.hash}"
                )
            return target.partial

    async def _close_target(self, element: Element, target: _Target) -> None:
        """Let go of a blob when no piece of it is under way or waits any more."""
        partial = target.partial
        if partial is None or target.users or self._segments.is_wanted(element.index):
            return
        target.partial = None
        self._targets.pop(element.index, None)
        try:
            whole = ChunkRanges.all().truncate(target.size)
            if partial.size_proven and whole.issubset(partial.bitfield):
                await self._sink.complete(element, partial)
                self._peer.blobs_fetched += 1
        finally:
            await partial.close()


async def _to_its_end(doing: Coroutine[None, None, None]) -> None:
    """Do something short that must not be left half done; a cancel waits for it."""
    task = asyncio.ensure_future(doing)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.info("what was received last could not be recorded: %s", error)
        raise


def _missing(body: BlobBody) -> ChunkRanges:
    """What a body was to bring and did not, in whole groups."""
    if body.is_done:
        return ChunkRanges.empty()
    proven = body.proven
    if body.size_proven:
        proven = proven.open_at_end(body.size)
    return body.element.ranges - proven.full_groups()

"""Whatever is taken, given back and done in whatever order: every chunk is asked for once."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from blobstore import ChunkRanges, Hash
from blobsync.protocols.blobs import Element
from blobsync.protocols.blobs.segments import JobSize, Segments, segment_chunks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blobsync.protocols.blobs.segments import Job

KIB = 1024
SIZES = [0, 1, 1024, 16 * KIB + 1, 300 * KIB, 1000 * KIB, 5000 * KIB + 7]

ranges = st.one_of(
    st.just(ChunkRanges.all()),
    st.just(ChunkRanges.last()),
    st.lists(st.integers(0, 6000), unique=True, min_size=1, max_size=8).map(
        lambda boundaries: ChunkRanges(sorted(boundaries))
    ),
)

wanted = st.lists(st.tuples(st.sampled_from(SIZES), st.booleans(), ranges), max_size=6)

job_sizes = st.builds(
    JobSize,
    st.sampled_from([1, 16 * KIB, 100 * KIB, 256 * KIB, 4096 * KIB]),
    st.one_of(st.none(), st.integers(1, 3)),
)


def hash_of(index: int) -> Hash:
    return Hash(bytes([index]) * 32)


class SegmentsMachine(RuleBasedStateMachine):
    """Several jobs are under way at once; each ends whole, in part, or not at all."""

    @initialize(wanted=wanted)
    def begin(self, wanted: Sequence[tuple[int, bool, ChunkRanges]]) -> None:
        self.elements = [Element(i, hash_of(i), each) for i, (_, _, each) in enumerate(wanted)]
        self.sizes = [size for size, _, _ in wanted]
        self.segments = Segments(
            self.elements,
            {hash_of(i): size for i, (size, is_known, _) in enumerate(wanted) if is_known},
        )
        self.under_way: list[Job] = []
        self.arrived = [ChunkRanges.empty() for _ in wanted]

    @rule(size=job_sizes)
    def take(self, size: JobSize) -> None:
        job = self.segments.take(size)
        if job is None:
            assert self.segments.is_empty
            return
        indices = [element.index for element in job]
        assert indices == sorted(set(indices)), "one request asks for elements in order"
        assert size.elements is None or len(job) <= size.elements
        if len(job) > 1:
            known = [e for e in job if self.segments.size_of(e.hash) is not None]
            assert sum(e.ranges.bytes_within(self.sizes[e.index]) for e in known) <= size.bytes
        self.under_way.append(job)

    def _arrive(self, element: Element) -> None:
        size = self.sizes[element.index]
        chunks = element.ranges.truncate(size)
        assert chunks, "nothing is asked for that has no answer"
        assert not chunks & self.arrived[element.index], "asked for twice"
        self.arrived[element.index] |= chunks

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        job = self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))
        for element in job:
            self._arrive(element)
            self.segments.done(element)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        """The first elements came, then a part of the next one; its size is known by then."""
        job = self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))
        count = data.draw(st.integers(0, len(job) - 1))
        for element in job[:count]:
            self._arrive(element)
            self.segments.done(element)
        broken, *rest = job[count:]
        size = self.sizes[broken.index]
        chunks = list(broken.ranges.truncate(size).intervals())
        start, end = chunks[0]
        stop = data.draw(st.integers(start, (end or start + 1) - 1))
        came = ChunkRanges.of(start, stop) if stop > start else ChunkRanges.empty()
        if came:
            self._arrive(replace(broken, ranges=came))
        self.segments.learn_size(broken.hash, size)
        self.segments.give_back([replace(broken, ranges=broken.ranges - came), *rest])

    @precondition(lambda self: any(len(job) > 1 for job in self.under_way))
    @rule()
    def divide(self) -> None:
        """A job whose request would have been too long."""
        place = next(i for i, job in enumerate(self.under_way) if len(job) > 1)
        job = self.under_way[place]
        self.under_way[place] = job[:1]
        self.segments.divide(job, job[:1], job[1:])

    @invariant()
    def pieces_are_counted(self) -> None:
        if not hasattr(self, "segments"):
            return
        running = Counter(e.index for job in self.under_way for e in job)
        for element, size, arrived in zip(self.elements, self.sizes, self.arrived, strict=True):
            if running[element.index] or element.ranges.truncate(size) != arrived:
                assert self.segments.is_wanted(element.index)
            else:
                assert not self.segments.is_wanted(element.index)
        assert self.segments.bytes_waiting >= 0

    def teardown(self) -> None:
        if not hasattr(self, "segments"):
            return
        while self.under_way or not self.segments.is_empty:
            for job in self.under_way:
                for element in job:
                    self._arrive(element)
                    self.segments.done(element)
            job = self.segments.take(JobSize(64 * KIB, None))
            self.under_way = [] if job is None else [job]
        for element, size, arrived in zip(self.elements, self.sizes, self.arrived, strict=True):
            assert arrived == element.ranges.truncate(size)
        assert self.segments.bytes_waiting == 0


TestSegments = SegmentsMachine.TestCase
TestSegments.settings = settings(deadline=None, max_examples=60, stateful_step_count=30)


def test_segments_of_a_blob_are_subtrees():
    size = 100 << 20
    segments = Segments([Element(0, hash_of(0), ChunkRanges.all())], {hash_of(0): size})
    boundaries = [0]
    while (job := segments.take(JobSize(4 << 20, None))) is not None:
        (element,) = job
        assert element.ranges.boundaries[0] == boundaries[-1]
        boundaries += element.ranges.boundaries[1:]
    assert boundaries == [4096 * i for i in range(25)]
    assert segment_chunks(4 << 20) == 4096
    assert segment_chunks(1) == 16

"""How many streams and connections a fetch uses, from what is measured. Pure: no clock of its own.

One stream carries at most its window in a round trip, so a far peer needs
bandwidth x round trip / window of them; how much that is shows only as the rate grows. One
connection is the work of one task at either end, and has one congestion window: a near, fast peer
and a path with losses give more through several.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from blobsync.protocols.blobs.segments import JobSize

STREAM_WINDOW = 1_250_000
"""Bytes that one iroh stream has under way at most."""

STREAMS_MAX = 32
"""With as many that are asked for ahead, all that our provider answers at once; peers allow 100."""

CONNECTIONS_MAX = 4

NEAR_CONNECTIONS = 2
"""What a near, fast peer is worth: more of them were not faster."""

FAR_S = 0.01
"""Round trips up to this are near: one stream fills what one connection can carry."""

GROWTH = 1.1
"""A rate that did not grow by this much was not held back by what was added."""

WINDOW_MIN_S = 0.1
"""Rates are measured over a round trip, and at least this long."""

WINDOW_MAX_S = 1.0
WINDOW_BYTES = 4 << 20
"""They are also measured over so many bytes, unless that takes longer than `WINDOW_MAX_S`: what
arrives is counted in lumps."""

FAST = 130_000_000
"""Bytes per second from which on a near connection is held back by our work, not by its path: more
than a link of 1 Gbit/s carries, which one connection fills."""

NEAR_WORTH = 32 << 20
"""Bytes that have to be left for another connection to a near peer."""

FAR_WORTH_S = 2.0
"""Seconds that a far peer would need for what is left, for another connection to it."""

TRIAL_WINDOWS = 3
"""Measurements that streams or a connection that were added have to show what they are good for."""

FAR_PROOF = 2 << 20
NEAR_PROOF = 8 << 20
"""Bytes fetched before another connection is thought of."""

NEAR_JOB_MIN = 4 << 20
NEAR_JOB_MAX = 32 << 20

FAR_JOB_MIN = 512 << 10
FAR_JOB_MAX = 4 << 20
FAR_JOB_S = 1.0
"""About the time that a stream of a far peer spends on a job."""

FAR_ELEMENTS_FIRST = 256
"""Blobs of a first job whose sizes nobody knows."""

FAR_ELEMENTS_MAX = 4096


@dataclass(frozen=True, slots=True)
class Measured:
    """A look at a running fetch."""

    now_s: float
    bytes_fetched: int
    blobs_fetched: int
    bytes_left: int | None
    """Not asked for yet; None: unknown."""
    rtt_s: float | None
    """None: unknown."""


class Parallelism:
    """Decides from look to look; `streams` and `connections` only grow."""

    def __init__(
        self,
        rtt_s: float | None = None,
        *,
        streams_max: int = STREAMS_MAX,
        connections_max: int = CONNECTIONS_MAX,
    ) -> None:
        self._rtt_s = rtt_s
        self._streams_max = streams_max
        self._connections_max = connections_max
        self.streams = 2 if self.is_far else 1
        """Streams that should be at work, over all connections."""
        self.connections = 1
        self._begin: Measured | None = None
        self._bytes_left: int | None = None
        self._bytes_per_blob = 0.0
        self._rate = 0.0
        self._grown_at = 0.0
        """The rate when streams were added last."""
        self._trial_left = TRIAL_WINDOWS
        self._trial: Measured | None = None
        self._rate_before_trial: float | None = None

    @property
    def is_far(self) -> bool:
        """Whether a round trip is long enough to need several streams."""
        return self._rtt_s is not None and self._rtt_s > FAR_S

    @property
    def job_size(self) -> JobSize:
        """How much the next job should ask for."""
        if self.is_far:
            share = int(self._rate * FAR_JOB_S / self.streams)
            size = max(FAR_JOB_MIN, min(FAR_JOB_MAX, share))
            elements = FAR_ELEMENTS_FIRST
            if self._bytes_per_blob > 0:
                elements = max(1, min(FAR_ELEMENTS_MAX, int(FAR_JOB_MAX / self._bytes_per_blob)))
            return JobSize(size, elements)
        # The jobs become smaller to the end, so that all streams end at about the same time.
        share = (self._bytes_left or 0) // (4 * self.streams)
        return JobSize(max(NEAR_JOB_MIN, min(NEAR_JOB_MAX, share)), None)

    def limit_connections(self, connections_max: int) -> None:
        """No more connections are to be had."""
        self._connections_max = connections_max
        self.connections = min(self.connections, connections_max)

    def look(self, measured: Measured) -> None:
        """Take in a look; may raise `streams` and `connections`."""
        self._bytes_left = measured.bytes_left
        if measured.rtt_s is not None:
            # A queue on the way lengthens round trips; the path itself is the shortest of them.
            self._rtt_s = min(self._rtt_s or math.inf, measured.rtt_s)
        if measured.blobs_fetched:
            self._bytes_per_blob = measured.bytes_fetched / measured.blobs_fetched
        begin = self._begin
        if begin is None:
            self._begin = measured
            return
        passed_s = measured.now_s - begin.now_s
        bytes_fetched = measured.bytes_fetched - begin.bytes_fetched
        if passed_s < max(WINDOW_MIN_S, self._rtt_s or 0) or (
            passed_s < WINDOW_MAX_S and bytes_fetched < WINDOW_BYTES
        ):
            return
        self._begin = measured
        rate = self._rate = bytes_fetched / passed_s
        if not self._add_streams(rate, measured.rtt_s or 0):
            self._add_connections(rate, measured)

    def _add_streams(self, rate: float, rtt_s: float) -> bool:
        if not self.is_far or rate < GROWTH * self._grown_at:
            return False
        # More than the rate has proven to need: if there is more to be had, they get it.
        # A reader that is late, as on a busy machine, needs them too, and lengthens round trips.
        needed = rate * max(rtt_s, self._rtt_s or 0) / STREAM_WINDOW
        wanted = min(2 * self.streams, math.ceil(4 * needed) + 1, self._streams_max)
        if wanted <= self.streams:
            return False
        self.streams = wanted
        self._grown_at = rate
        self._trial = None
        self._trial_left = TRIAL_WINDOWS
        return True

    def _add_connections(self, rate: float, measured: Measured) -> None:
        fetched = measured.bytes_fetched
        left = self._bytes_left
        if self.connections >= self._connections_max or left is None:
            return
        if not self.is_far:
            if rate >= FAST and fetched >= NEAR_PROOF and left >= NEAR_WORTH:
                self.connections = min(NEAR_CONNECTIONS, self._connections_max)
                self.streams = max(self.streams, self.connections)
            return
        if self._trial is None:
            self._trial = measured
        if self._trial_left > 0:
            self._trial_left -= 1
            return
        # Over all of the trial: losses make the rate of a moment anything.
        passed_s = measured.now_s - self._trial.now_s
        rate = (fetched - self._trial.bytes_fetched) / passed_s if passed_s > 0 else rate
        held_back_by_streams = rate * (self._rtt_s or 0) > self.streams * STREAM_WINDOW / 2
        if fetched < FAR_PROOF or held_back_by_streams or left < FAR_WORTH_S * rate:
            return
        if self._rate_before_trial is not None and rate < GROWTH * self._rate_before_trial:
            self._connections_max = self.connections
            return
        self._rate_before_trial = rate
        self._trial = measured
        self._trial_left = TRIAL_WINDOWS
        # With so little under way losses are what holds it back (or a slow path, which looks the
        # same): each connection gets what they leave to one.
        has_little = rate * (self._rtt_s or 0) < STREAM_WINDOW / 4
        wanted = self._connections_max if has_little else 2 * self.connections
        self.connections = min(wanted, self._connections_max)
        self.streams = min(self._streams_max, max(self.streams, 2 * self.connections))

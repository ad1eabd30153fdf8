"""How many streams and connections a fetch uses, from what is measured. Pure: no clock of its own.

One stream carries at most its window in a round trip, so a far peer needs
bandwidth x round trip / window of them; how much that is shows only as the rate grows. One
connection is the work of one task at either end, and has one congestion window: a near, fast peer
and a path with losses give more through several.

Losses are seen by who sends. A receiver sees a rate that is lower than it could be, and tries.
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

VERY_FAR_S = 0.05
VERY_FAR_WORTH = 32 << 20
VERY_FAR_STREAMS = 8
VERY_FAR_CONNECTIONS = 2
"""From so long a round trip on much data is asked for over several at once: until they were found
out to be needed, much of the time would be gone. Each connection has a slow start of its own."""

GROWTH = 1.1
"""A rate that did not grow by this much was not held back by what was added."""

WINDOW_MIN_S = 0.1
"""Rates are measured over a round trip, and at least this long."""

WINDOW_MAX_S = 0.5
WINDOW_BYTES = 4 << 20
NEAR_WINDOW_BYTES = 2 << 20
"""They are also measured over so many bytes, unless that takes longer than `WINDOW_MAX_S`: what
arrives is counted in lumps."""

FAST = 130_000_000
"""Bytes per second from which on a near connection is held back by our work, not by its path: more
than a link of 1 Gbit/s carries, which one connection fills."""

SLOW = 60_000_000
"""Bytes per second up to which a near connection is taken for held back by losses, of which 1 %
leaves a fourth of this: half of what a link of 1 Gbit/s carries."""

NEAR_WORTH = 32 << 20
"""Bytes that have to be left for another connection to a near, fast peer."""

NEAR_WORTH_S = 1.0
FAR_WORTH_S = 2.0
"""Seconds that a peer would need for what is left, for another connection to it."""

TRIAL_WINDOWS = 3
"""Measurements that streams or a connection that were added have to show what they are good for."""

FAR_PROOF = 2 << 20
NEAR_PROOF = 8 << 20
"""Bytes fetched before another connection is thought of."""

NEAR_JOB_MIN = 4 << 20
NEAR_JOB_MAX = 32 << 20
NEAR_JOB_S = 0.25
"""About the time that a stream of a near, slow peer spends on one of its last jobs."""

FAR_JOB_FIRST = 256 << 10
FAR_JOB_MIN = 512 << 10
FAR_JOB_MAX = 4 << 20
FAR_JOB_S = 1.0
"""About the time that a stream of a far peer spends on a job."""

HELD_BACK_JOB_MIN = 128 << 10
"""Over several connections that losses hold back: what was asked for on one that turns out slow
does not come on another."""

HELD_BACK_ROUND_TRIPS = 10
"""Before that a far peer may be slow for having just begun."""

AHEAD_MIN = 64 << 10
AHEAD_MAX = 2 << 20
"""When no more than this is left of a job, the next one is asked for: more than fits a stream, and
where losses leave much less, about what comes in the meantime."""

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
        """Of the last window; 0 before there was one."""
        self._grown_at = 0.0
        """The rate when streams were added last."""
        self._trial_left = TRIAL_WINDOWS
        self._trial: Measured | None = None
        self._rate_before_trial: float | None = None
        self._begun_s = 0.0
        self._windows = 0
        self._shares_losses = False
        """Connections were added since losses hold each of them back."""

    @property
    def is_far(self) -> bool:
        """Whether a round trip is long enough to need several streams."""
        return self._rtt_s is not None and self._rtt_s > FAR_S

    @property
    def job_size(self) -> JobSize:
        """How much the next job should ask for."""
        if self.is_far:
            size = FAR_JOB_FIRST
            if self._windows:
                least = HELD_BACK_JOB_MIN if self._shares_losses else FAR_JOB_MIN
                size = max(least, min(FAR_JOB_MAX, int(self._rate * FAR_JOB_S / self.streams)))
            elements = FAR_ELEMENTS_FIRST
            if self._bytes_per_blob > 0:
                elements = max(1, min(FAR_ELEMENTS_MAX, int(FAR_JOB_MAX / self._bytes_per_blob)))
            return JobSize(size, elements)
        # The jobs become smaller to the end, so that all streams end at about the same time.
        share = (self._bytes_left or 0) // (4 * self.streams)
        least = NEAR_JOB_MIN
        if self._shares_losses:
            least = min(least, int(self._rate * NEAR_JOB_S / self.streams))
            least = max(least, HELD_BACK_JOB_MIN)
        return JobSize(max(least, min(NEAR_JOB_MAX, share)), None)

    @property
    def ahead_bytes(self) -> int:
        """How much is left of a job when the next one is to be asked for."""
        if not self.is_far or not self._shares_losses:
            return AHEAD_MAX
        # Of two round trips, and as much again for a rate that goes up and down.
        needed = int(4 * self._rate * (self._rtt_s or 0) / self.streams)
        return max(AHEAD_MIN, min(AHEAD_MAX, needed))

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
            self._begun_s = measured.now_s
            if (self._rtt_s or 0) >= VERY_FAR_S and (measured.bytes_left or 0) >= VERY_FAR_WORTH:
                self.streams = min(VERY_FAR_STREAMS, self._streams_max)
                self._use_connections(VERY_FAR_CONNECTIONS)
            return
        passed_s = measured.now_s - begin.now_s
        bytes_fetched = measured.bytes_fetched - begin.bytes_fetched
        enough = WINDOW_BYTES if self.is_far else NEAR_WINDOW_BYTES
        if passed_s < max(WINDOW_MIN_S, self._rtt_s or 0) or (
            passed_s < WINDOW_MAX_S and bytes_fetched < enough
        ):
            return
        self._begin = measured
        self._windows += 1
        rate_before, self._rate = self._rate, bytes_fetched / passed_s
        if not self._add_streams(self._rate, measured.rtt_s or 0):
            self._add_connections(self._rate, rate_before, measured)

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

    def _add_connections(self, rate: float, rate_before: float, measured: Measured) -> None:
        fetched = measured.bytes_fetched
        left = self._bytes_left
        if self.connections >= self._connections_max or left is None:
            return
        if self._is_held_back(rate):
            worth_s = FAR_WORTH_S if self.is_far else NEAR_WORTH_S
            if self._has_shown(rate, rate_before, measured.now_s) and left > worth_s * rate:
                # Each connection gets what the losses leave to one.
                self._shares_losses = True
                self._use_connections(self._connections_max)
            return
        if not self.is_far:
            if rate >= FAST and fetched >= NEAR_PROOF and left >= NEAR_WORTH:
                self._use_connections(NEAR_CONNECTIONS)
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
        self._use_connections(2 * self.connections)

    def _is_held_back(self, rate: float) -> bool:
        """Whether it is so slow that losses hold it back, or a slow path, which looks the same."""
        if self.is_far:
            return rate * (self._rtt_s or 0) < STREAM_WINDOW / 4
        return rate < SLOW

    def _has_shown(self, rate: float, rate_before: float, now_s: float) -> bool:
        """Whether a rate is what there is, and not what there is yet."""
        if self._windows < 2:
            return False
        if not self.is_far:
            return self._is_held_back(rate_before)
        has_begun = now_s - self._begun_s >= HELD_BACK_ROUND_TRIPS * (self._rtt_s or 0)
        return has_begun and rate <= GROWTH * rate_before

    def _use_connections(self, wanted: int) -> None:
        self.connections = min(wanted, self._connections_max)
        streams = 2 * self.connections if self.is_far else self.connections
        self.streams = min(self._streams_max, max(self.streams, streams))

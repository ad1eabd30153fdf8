"""How fast something goes and how long it will still take: pure, the caller brings the clock."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blobsync.sync.events import FetchProgress

WINDOW_S = 5.0
"""A rate is the mean of this long: steady to read, yet it follows a change of path."""

SAMPLES_MAX = 256


class RateMeter:
    """The mean rate of a growing count over the last `window_s` seconds."""

    def __init__(self, window_s: float = WINDOW_S) -> None:
        self._window_s = window_s
        self._samples: deque[tuple[float, int]] = deque(maxlen=SAMPLES_MAX)

    def update(self, now_s: float, count: int) -> None:
        """Note that the count was `count` at `now_s`; times must not go back."""
        self._samples.append((now_s, count))
        # The sample before the window stays, so that the rate spans all of the window.
        while len(self._samples) > 2 and self._samples[1][0] <= now_s - self._window_s:
            self._samples.popleft()

    @property
    def per_s(self) -> float | None:
        """Counts a second; None until two moments are known."""
        if len(self._samples) < 2:
            return None
        (first_s, first), (last_s, last) = self._samples[0], self._samples[-1]
        return (last - first) / (last_s - first_s) if last_s > first_s else None

    def time_left_s(self, rest: int) -> float | None:
        """Seconds until `rest` more were counted, None if that cannot be said."""
        if rest <= 0:
            return 0.0
        rate = self.per_s
        return rest / rate if rate else None


@dataclass(frozen=True, slots=True)
class Pace:
    """Speed and time left of a fetch."""

    rate: float | None
    """Bytes a second over the network."""
    eta_s: float | None


class FetchMeter:
    """Turns the progress events of one fetch into its pace."""

    def __init__(self) -> None:
        self._fetched = RateMeter()
        self._done = RateMeter()
        self._files = RateMeter()

    def update(self, now_s: float, progress: FetchProgress) -> Pace:
        """The pace with this event; time left is told by bytes, else by files."""
        self._fetched.update(now_s, progress.bytes_fetched)
        self._done.update(now_s, progress.bytes_done)
        self._files.update(now_s, progress.files_done)
        if progress.bytes_total is not None:
            eta_s = self._done.time_left_s(progress.bytes_total - progress.bytes_done)
        else:
            eta_s = self._files.time_left_s(progress.files_total - progress.files_done)
        return Pace(self._fetched.per_s, eta_s)

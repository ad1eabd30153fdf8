"""Progress on stderr: a live bar on a terminal, a line now and then elsewhere, or nothing.

What is shown is text made by the pure functions of this module; rich draws it, and never
interprets it as markup.
"""

from __future__ import annotations

import asyncio
import sys
import time
from abc import ABC, abstractmethod
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blobsync.cli.formatting import (
    format_bytes,
    format_count,
    format_duration,
    format_rate,
    printable,
)
from blobsync.cli.output import is_terminal, write_stderr

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator

    from blobstore import ImportProgress
    from blobsync.cli.output import Output
    from blobsync.cli.rates import Pace
    from blobsync.protocols.blobs import ProviderCounters
    from blobsync.sync.events import FetchProgress

PLAIN_INTERVAL_S = 10.0
"""Between two lines of progress where there is no terminal."""

TICK_S = 0.25
"""Between two looks at counters that are polled."""


@dataclass(frozen=True, slots=True)
class Status:
    """What a display shows at one moment."""

    text: str
    """One line, without the label."""
    fraction: float | None
    """Done, 0 to 1; None while nobody knows."""


def fetch_status(progress: FetchProgress, pace: Pace) -> Status:
    """A running fetch: bytes, rate, time left, files, path."""
    total = progress.bytes_total
    parts = [
        f"{format_bytes(progress.bytes_done)}"
        + ("" if total is None else f" of {format_bytes(total)}"),
        *([] if pace.rate is None else [format_rate(pace.rate)]),
        *([f"{format_duration(pace.eta_s)} left"] if pace.eta_s else []),
        _files_of(progress.files_done, progress.files_total),
        *([progress.path] if progress.path else []),
    ]
    if total is not None:
        fraction = _fraction(progress.bytes_done, total)
    else:
        fraction = _fraction(progress.files_done, progress.files_total)
    return Status("  ".join(parts), fraction)


def import_status(progress: ImportProgress) -> Status:
    """A running import: bytes and files; the totals grow until the folder is walked."""
    more = "" if progress.walked else "+"
    text = (
        f"{format_bytes(progress.bytes_done)} of {format_bytes(progress.bytes_total)}{more}"
        f"  {_files_of(progress.files_done, progress.files_total)}{more}"
    )
    is_known = progress.walked and progress.bytes_total > 0
    return Status(text, _fraction(progress.bytes_done, progress.bytes_total) if is_known else None)


def share_status(counters: ProviderCounters, rate: float | None) -> Status:
    """A share being served: connections, requests, bytes sent, rate."""
    parts = [
        format_count(counters.connections_open, "connection"),
        format_count(counters.requests, "request"),
        *([f"{counters.requests_refused:,} refused"] if counters.requests_refused else []),
        f"{format_bytes(counters.bytes_sent)} sent",
        format_rate(rate or 0),
    ]
    return Status("  ".join(parts), None)


def _files_of(done: int, total: int) -> str:
    return f"{done:,}/{total:,} {'file' if total == 1 else 'files'}"


def _fraction(done: int, total: int) -> float:
    return min(done / total, 1.0) if total else 1.0


class Display(ABC):
    """Where statuses are shown; the last one wins."""

    @abstractmethod
    def show(self, status: Status) -> None: ...


class SilentDisplay(Display):
    """Shows nothing: `--quiet`, `--json`."""

    def show(self, status: Status) -> None:
        pass


class LineDisplay(Display):
    """A line on stderr every `PLAIN_INTERVAL_S`, if it says something new."""

    def __init__(self, label: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._label = label
        self._clock = clock
        self._shown_at_s = clock()
        self._text = ""

    def show(self, status: Status) -> None:
        now_s = self._clock()
        if now_s - self._shown_at_s < PLAIN_INTERVAL_S or status.text == self._text:
            return
        self._shown_at_s = now_s
        self._text = status.text
        percent = "" if status.fraction is None else f"{status.fraction:4.0%}  "
        write_stderr(printable(f"{self._label}  {percent}{status.text}") + "\n")


@contextmanager
def display(output: Output, label: str, *, bar: bool = True) -> Generator[Display]:
    """The display that suits the output; a live one leaves the terminal as it was."""
    if not output.wants_notes:
        yield SilentDisplay()
    elif is_terminal(sys.stderr):
        # rich takes a while to import, so only who shows a bar pays for it.
        from blobsync.cli.live import live_display

        with live_display(label, bar=bar) as live:
            yield live
    else:
        yield LineDisplay(label)


@asynccontextmanager
async def ticking(tick: Callable[[], None], interval_s: float = TICK_S) -> AsyncGenerator[None]:
    """While this is open, call `tick` every `interval_s` seconds, and once more at the end."""

    async def run() -> None:
        while True:
            await asyncio.sleep(interval_s)
            tick()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(run())
        try:
            yield
        finally:
            task.cancel()
    tick()

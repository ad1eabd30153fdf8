"""Peaks of memory, read from /proc while a program runs.

Resident memory has three parts. Anonymous is what a program allocated. File and shared are pages
that it maps: of libraries and of a database (LMDB maps its file, which counts as shared if it is on
tmpfs). `VmHWM` is the peak of the sum; the parts are sampled, so their peaks are of the moments
that were looked at.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

INTERVAL_S = 0.05
CHILDREN_INTERVAL_S = 0.5
"""Children are looked for less often, since that reads a file of every thread."""

FIELDS = {"VmHWM": "peak", "RssAnon": "anon", "RssFile": "file", "RssShmem": "shmem"}
"""Lines of /proc/PID/status, and what we call them."""


@dataclass(slots=True)
class Peaks:
    """The largest values seen of one process, in bytes."""

    values: dict[str, int] = field(default_factory=dict[str, int])

    def add(self, status: str) -> None:
        """Take the text of one look at /proc/PID/status."""
        for name, value in parse_status(status).items():
            self.values[name] = max(self.values.get(name, 0), value)


def parse_status(text: str) -> dict[str, int]:
    """The fields of /proc/PID/status that say something of memory, in bytes."""
    found: dict[str, int] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key in FIELDS:
            found[FIELDS[key]] = int(value.split()[0]) * 1024
    return found


class MemorySampler:
    """Looks at a process and its descendants from a thread of its own, until it is stopped.

    Where there is no /proc it finds nothing.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._peaks: dict[int, Peaks] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        if sys.platform == "linux":
            self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def largest(self) -> dict[str, int]:
        """The peaks of the process that had the largest one."""
        found = [peaks.values for peaks in tuple(self._peaks.values()) if "peak" in peaks.values]
        return dict(max(found, key=lambda values: values["peak"])) if found else {}

    def _run(self) -> None:
        pids = [self._pid]
        children_at_s = 0.0
        while True:
            if time.monotonic() >= children_at_s:
                pids = [self._pid, *descendants(self._pid)]
                children_at_s = time.monotonic() + CHILDREN_INTERVAL_S
            for pid in pids:
                with contextlib.suppress(OSError):
                    status = Path("/proc", str(pid), "status").read_text()
                    self._peaks.setdefault(pid, Peaks()).add(status)
            if self._stop.wait(INTERVAL_S):
                return


def descendants(pid: int) -> list[int]:
    """Children of a process, and theirs; those that end meanwhile may be missing."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path("/proc", str(pid), "task").iterdir():
            with contextlib.suppress(OSError):
                found += [int(child) for child in (task / "children").read_text().split()]
    for child in tuple(found):
        found += descendants(child)
    return found

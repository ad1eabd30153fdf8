"""Functions that a transfer spends its time in, each alone. Runs once as a test."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Figure:
    """A rate: the median of some repeats."""

    name: str
    value: float
    unit: str
    repeats: int


@dataclass(frozen=True, slots=True)
class MicroSize:
    """How much each measurement works through."""

    blob_bytes: int
    items: int
    """Names, small blobs, children of a request."""
    repeats: int


FULL = MicroSize(blob_bytes=256 << 20, items=20_000, repeats=5)
SHORT = MicroSize(blob_bytes=16 << 20, items=2_000, repeats=2)


def rate(name: str, unit: str, amount: float, repeats: int, work: Callable[[], object]) -> Figure:
    """`amount` of `unit`, divided by the seconds that `work` takes; it runs once to warm up."""
    work()
    rates: list[float] = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        rates.append(amount / (time.perf_counter() - begin))
    return Figure(name, statistics.median(rates), f"{unit}/s", repeats)

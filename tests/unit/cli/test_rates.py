"""Speed and time left."""

from __future__ import annotations

import pytest

from blobsync.cli.rates import FetchMeter, RateMeter
from blobsync.sync.events import FetchProgress


def progress(
    *, files: int = 0, done: int = 0, total: int | None = None, fetched: int = 0
) -> FetchProgress:
    return FetchProgress(
        files_done=files,
        files_total=10,
        bytes_done=done,
        bytes_total=total,
        bytes_fetched=fetched,
        path="direct",
    )


def test_one_moment_says_nothing() -> None:
    meter = RateMeter()
    assert meter.per_s is None
    meter.update(1.0, 100)
    assert meter.per_s is None
    meter.update(1.0, 200)
    assert meter.per_s is None


def test_a_steady_rate() -> None:
    meter = RateMeter()
    for second in range(20):
        meter.update(float(second), second * 50)
    assert meter.per_s == pytest.approx(50)
    assert meter.time_left_s(100) == pytest.approx(2)
    assert meter.time_left_s(0) == 0


def test_what_is_older_than_the_window_is_forgotten() -> None:
    meter = RateMeter(window_s=5)
    for second in range(10):
        meter.update(float(second), second * 1000)
    for second in range(10, 16):
        meter.update(float(second), 9000)
    assert meter.per_s == 0
    assert meter.time_left_s(1) is None


def test_a_long_pause_between_two_samples_counts() -> None:
    meter = RateMeter(window_s=5)
    meter.update(0, 0)
    meter.update(100, 1000)
    assert meter.per_s == pytest.approx(10)


def test_many_updates_in_a_window_keep_memory_bounded() -> None:
    meter = RateMeter(window_s=5)
    for step in range(10_000):
        meter.update(step / 10_000, step)
    assert meter.per_s == pytest.approx(10_000)


def test_time_left_by_bytes_counts_what_was_found_too() -> None:
    meter = FetchMeter()
    meter.update(0, progress(done=0, total=1000, fetched=0))
    pace = meter.update(1, progress(done=500, total=1000, fetched=100))
    assert pace.rate == pytest.approx(100)
    assert pace.eta_s == pytest.approx(1)


def test_time_left_by_files_where_sizes_are_not_known() -> None:
    meter = FetchMeter()
    meter.update(0, progress(files=0, done=0, fetched=0))
    pace = meter.update(2, progress(files=4, done=77, fetched=77))
    assert pace.eta_s == pytest.approx(3)


def test_nothing_left() -> None:
    pace = FetchMeter().update(0, progress(done=5, total=5))
    assert pace.eta_s == 0
    assert pace.rate is None

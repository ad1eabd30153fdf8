"""A `get` that is killed goes on where it was, and fetches almost nothing twice."""

from __future__ import annotations

import random
import signal
from typing import TYPE_CHECKING

import pytest

from tests.faults.app.conftest import tree_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.app.conftest import Program

MIB = 1 << 20
LOST_MAX = 16 * MIB
"""Bytes that one kill may cost."""
LARGE = 200 * MIB
SMALL_FILES = 3000


def make_tree(folder: Path, seed: int) -> int:
    """One large file and a tree of small ones; returns the bytes of all."""
    random_bytes = random.Random(seed)
    folder.mkdir()
    (folder / "large").write_bytes(random_bytes.randbytes(LARGE))
    total = LARGE
    for i in range(SMALL_FILES):
        path = folder / f"d{i % 50}" / f"f{i}"
        path.parent.mkdir(exist_ok=True)
        # Mostly inline ones, with some of a few groups.
        size = random_bytes.choice([0, 1, 700, 5_000, 16_384, 16_385, 60_000])
        path.write_bytes(random_bytes.randbytes(size) if size > 1 else b"1" * size)
        total += size
    return total


@pytest.mark.parametrize(
    ("seed", "kills"),
    [(1, 3), *(pytest.param(seed, 6, marks=pytest.mark.slow) for seed in (2, 3, 4))],
)
def test_a_killed_get_finishes_and_fetches_little_again(
    provider: Program, getter: Program, memory_folder: Path, seed: int, kills: int
):
    source, destination = memory_folder / "source", memory_folder / "destination"
    provider.home, getter.home = memory_folder / "provider", memory_folder / "getter"
    total = make_tree(source, seed)
    moments = sorted(random.Random(seed).sample(range(4 * MIB, total - 8 * MIB), kills))
    fetched = 0
    done_before = 0
    with provider.share(source) as sharing:
        for moment in moments:
            run = getter.start_get(sharing.ticket, destination)
            run.until(event="started")
            first = run.until(event="progress")
            # What was at the destination at first is what is not fetched in this run.
            done_at_start = first["bytes_done"] - first["bytes_fetched"]
            assert done_at_start >= done_before - LOST_MAX, "what was proven was lost"
            last = first
            while last["bytes_done"] < moment:
                event = run.next_event()
                assert event is not None
                assert event["event"] == "progress", event
                last = event
            run.send(signal.SIGKILL)
            rest = run.wait()
            assert rest.code == -signal.SIGKILL
            last = ([last] + [each for each in rest.events if each["event"] == "progress"])[-1]
            fetched += last["bytes_fetched"]
            done_before = last["bytes_done"]
        run = getter.start_get(sharing.ticket, destination)
        finished = run.wait()
        assert finished.code == 0, finished.stderr
        fetched += finished.last["bytes_fetched"]
        assert finished.last["files"] == SMALL_FILES + 1
        assert finished.last["bytes"] == total
        again = getter.start_get(sharing.ticket, destination).wait()
        assert (again.code, again.last["bytes_fetched"]) == (0, 0)
        served = sharing.stop().last["bytes_sent"]
    assert fetched <= total + kills * LOST_MAX
    # What the provider has sent includes what was under way when the getter died.
    assert served <= total + kills * LOST_MAX, served - total
    arrived = tree_of(destination)
    assert arrived == {f"source/{name}": data for name, data in tree_of(source).items()}

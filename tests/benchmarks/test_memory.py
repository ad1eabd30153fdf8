"""Peaks of memory are those of the process that had the largest."""

import os
import sys
from pathlib import Path

import pytest

from benchmarks.harness import Process, memory_peak
from benchmarks.memory import Peaks, descendants, parse_status

MIB = 1 << 20

STATUS = """\
Name:\tpython
VmPeak:\t  900000 kB
VmHWM:\t    3000 kB
VmRSS:\t    2000 kB
RssAnon:\t    1500 kB
RssFile:\t     400 kB
RssShmem:\t     100 kB
"""

CHILD_ALLOCATES = """
import subprocess, sys
code = "data = b'x' * (64 << 20); print('ready', flush=True); sys.stdin.read(); len(data)"
subprocess.run([sys.executable, '-c', 'import sys; ' + code], check=True)
"""


def test_status() -> None:
    assert parse_status(STATUS) == {
        "peak": 3000 * 1024,
        "anon": 1500 * 1024,
        "file": 400 * 1024,
        "shmem": 100 * 1024,
    }
    assert parse_status("Name:\tzombie\nState:\tZ (zombie)\n") == {}


def test_peaks_keep_the_largest_of_each() -> None:
    peaks = Peaks()
    for status in ("RssAnon: 5 kB\nRssFile: 1 kB", "RssAnon: 2 kB\nRssFile: 3 kB"):
        peaks.add(status)
    assert peaks.values == {"anon": 5 * 1024, "file": 3 * 1024}


@pytest.mark.parametrize(
    ("counted", "sampled", "own", "peak"),
    [(90, 80, 50, 90), (50, 20, 50, 20), (50, None, 50, 50)],
    ids=["more than the harness", "hidden by the harness", "never seen"],
)
def test_the_count_of_the_kernel_is_believed_above_our_own(
    counted: int, sampled: int | None, own: int, peak: int
) -> None:
    assert memory_peak(counted, sampled, own) == peak


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_children_are_looked_at(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CHILD_ALLOCATES]
    with Process(command, cwd=tmp_path, env=os.environ) as process:
        process.line_where(lambda line: line or None)
        (child,) = descendants(process.pid)
        # The parent alone never holds so much.
        process.wait_until(lambda: process.memory_so_far().get("peak", 0) >= 64 * MIB)
        assert child != process.pid
        used = process.end(None)
    assert used.memory_peak >= 64 * MIB
    measures = used.memory_measures("getter")
    assert measures["getter_memory"] == used.memory_peak
    assert measures["getter_anon"] > 0

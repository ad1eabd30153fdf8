"""The process ends cleanly whatever is under way: no crash, no hang, nothing odd printed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.pyiroh.exit_ways import WAYS

PROGRAM = Path(__file__).with_name("exit_ways.py")
TIME_LIMIT_S = 120


def end_once(way: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-X", "faulthandler", str(PROGRAM), way],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "ready\n", process.stderr.read()
        if way == "interrupted":
            process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=TIME_LIMIT_S)
    expected = WAYS[way][1]
    status = process.returncode
    # An uncaught KeyboardInterrupt ends a Python program by the signal itself.
    assert status == expected or (way == "interrupted" and status == -signal.SIGINT), errors
    for word in ("panicked", "Fatal", "Segmentation", "PyGILState", "never awaited"):
        assert word not in errors, errors
    if expected == 0:
        assert errors == ""


@pytest.mark.parametrize("way", WAYS)
def test_every_way_out_is_clean(way: str):
    for _ in range(5):
        end_once(way)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("way", WAYS)
def test_every_way_out_is_clean_fifty_times(way: str):
    for _ in range(50):
        end_once(way)

"""Programs that are measured, rounds that interleave them, and the ratios that come of it.

Machines differ from hour to hour, so only programs that ran in turn in the same run are compared:
A B A B. The figure of a comparison is the median of the ratios of each round.
"""

from __future__ import annotations

import contextlib
import os
import queue
import shlex
import signal
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self, TypeVar

import psutil

if TYPE_CHECKING:
    import resource
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

T = TypeVar("T")

PATIENCE_S = 900.0
"""A program that takes longer is broken: it is killed, and the run fails."""

STDERR_SHOWN = 2000

Measures = dict[str, float]
"""What one run of one program came to. Times end in `_s`, sizes are bytes."""


class BenchmarkError(Exception):
    """A program failed, or its result was not what it had to be: there is no figure."""


class MissingRivalError(Exception):
    """A program to compare with is not on this machine."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process cost that has ended, with all of its children that it waited for."""

    wall_s: float
    cpu_s: float
    """User and system time."""
    memory_peak: int
    """Resident bytes of the largest process. At least what this harness itself has, since the
    kernel counts the moment between fork and exec."""


class Process:
    """A program under measurement. Leaving its context kills it if it still runs.

    Args:
        command: program and arguments.
        cwd: its working directory.
        env: its whole environment.
    """

    def __init__(self, command: Sequence[str], *, cwd: Path, env: Mapping[str, str]) -> None:
        self._command = list(command)
        self._stderr_path = cwd / f"stderr-{time.monotonic_ns()}"
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._usage: Usage | None = None
        with self._stderr_path.open("wb") as stderr:
            self.started_s = time.perf_counter()
            self._process = subprocess.Popen(
                self._command,
                cwd=cwd,
                env=dict(env),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        """Take what the program prints all the time, so that a full pipe never stops it."""
        assert self._process.stdout is not None
        with self._process.stdout as stdout:
            for line in stdout:
                self._lines.put(line.decode(errors="replace").rstrip("\n"))
        self._lines.put(None)

    def line_where(self, parse: Callable[[str], T | None]) -> T:
        """What `parse` makes of the first line it accepts; waits for it.

        Raises:
            BenchmarkError: the program ended or fell silent before.
        """
        while True:
            try:
                line = self._lines.get(timeout=PATIENCE_S)
            except queue.Empty:
                raise self._failure("prints nothing") from None
            if line is None:
                raise self._failure("ended too early")
            parsed = parse(line)
            if parsed is not None:
                return parsed

    def seconds_so_far(self) -> float:
        """Since it was started."""
        return time.perf_counter() - self.started_s

    def cpu_so_far_s(self) -> float:
        """User and system seconds of the running process, without children."""
        times = psutil.Process(self._process.pid).cpu_times()
        return times.user + times.system

    def wait(self) -> Usage:
        """Its end, which must be a success.

        Raises:
            BenchmarkError: it failed, or took longer than `PATIENCE_S`.
        """
        timer = threading.Timer(PATIENCE_S, self._process.kill)
        timer.start()
        try:
            _, status, used = os.wait4(self._process.pid, 0)
            ended_s = time.perf_counter()
        finally:
            timer.cancel()
        self._process.returncode = os.waitstatus_to_exitcode(status)
        self._usage = usage = Usage(
            ended_s - self.started_s, used.ru_utime + used.ru_stime, max_rss(used)
        )
        if self._process.returncode != 0:
            raise self._failure(f"ended with status {self._process.returncode}")
        return usage

    def end(self, end_signal: signal.Signals | None = signal.SIGINT) -> Usage:
        """Tell it to end, by closing its standard input and by a signal, and wait for that."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        if end_signal is not None:
            self._process.send_signal(end_signal)
        return self.wait()

    def _failure(self, what: str) -> BenchmarkError:
        said = self._stderr_path.read_bytes()[-STDERR_SHOWN:].decode(errors="replace")
        return BenchmarkError(f"{shlex.join(self._command)} {what}\n{said}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()


def max_rss(used: resource.struct_rusage) -> int:
    """Peak resident bytes: the kernel counts KiB, but bytes on macOS."""
    return used.ru_maxrss if sys.platform == "darwin" else used.ru_maxrss * 1024


def run_to_end(command: Sequence[str], *, cwd: Path, env: Mapping[str, str]) -> Usage:
    """Run a program to its end; see `Process.wait`."""
    with Process(command, cwd=cwd, env=env) as process:
        return process.wait()


class Contestant(Protocol):
    """One of the programs that a case compares."""

    name: str
    version: str
    commands: Sequence[Sequence[str]]
    """The command lines of the last run, for the report."""

    def run(self, folder: Path) -> Measures:
        """One run in an empty folder; checks what it received, outside of the times."""
        ...


Rounds = list[dict[str, Measures]]
"""Of each round the measures by the contestant's name."""


def run_rounds(
    contestants: Sequence[Contestant],
    count: int,
    new_folder: Callable[[str], contextlib.AbstractContextManager[Path]],
    tell: Callable[[str], None],
) -> Rounds:
    """Run all contestants in turn, `count` times, each in a folder of its own."""
    rounds: Rounds = []
    for number in range(1, count + 1):
        measures: dict[str, Measures] = {}
        for contestant in contestants:
            with new_folder(f"{contestant.name}-{number}") as folder:
                measures[contestant.name] = contestant.run(folder)
            shown = ", ".join(
                f"{key} {value:.2f}"
                for key, value in measures[contestant.name].items()
                if key.endswith("_s")
            )
            tell(f"round {number} of {count}: {contestant.name}: {shown}")
        rounds.append(measures)
    return rounds


def medians(rounds: Rounds, name: str) -> Measures:
    """The median of each measure of one contestant."""
    first = rounds[0][name]
    return {key: statistics.median(each[name][key] for each in rounds) for key in first}


def ratios(rounds: Rounds, ours: str, rival: str) -> Measures:
    """Median over the rounds of rival / ours, for each measure that both have.

    Above 1 the rival took that many times as long, or as much.
    """
    shared = [key for key in rounds[0][ours] if key in rounds[0][rival]]
    return {
        key: statistics.median(each[rival][key] / each[ours][key] for each in rounds)
        for key in shared
        if all(each[ours][key] > 0 for each in rounds)
    }

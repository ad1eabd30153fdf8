"""Programs that are measured, rounds that interleave them, and the ratios that come of it.

Machines differ from hour to hour, so only programs that ran in turn in the same run are compared:
A B A B. The figure of a comparison is the median of the ratios of each round.
"""

from __future__ import annotations

import contextlib
import os
import queue
import resource
import shlex
import signal
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, Self, TypeVar

import psutil

from benchmarks.memory import MemorySampler

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

T = TypeVar("T")

PATIENCE_S = 900.0
"""A program that takes longer is broken: it is killed, and the run fails."""

SLOW_S = 120.0
"""An optional program that takes longer is run in one round only."""

POLL_S = 0.02
"""Between two looks at a program that cannot tell by itself how far it is."""

STDERR_SHOWN = 2000

Measures = dict[str, float]
"""What one run of one program came to. Times end in `_s`, sizes are bytes."""


class BenchmarkError(Exception):
    """A program failed, or its result was not what it had to be: there is no figure."""


class MissingRivalError(Exception):
    """A program to compare with is not on this machine.

    Args:
        is_optional: CI does without it.
    """

    def __init__(self, message: str, *, is_optional: bool = False) -> None:
        super().__init__(message)
        self.is_optional = is_optional


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process cost that has ended, with all of its children that it waited for."""

    wall_s: float
    cpu_s: float
    """User and system time."""
    memory_peak: int
    """Resident bytes of the largest process."""
    memory_parts: Mapping[str, int] = field(default_factory=dict[str, int])
    """Peaks of its parts, as `MemorySampler.largest` calls them; empty if nothing was seen."""

    def memory_measures(self, role: str) -> Measures:
        """`<role>_memory` and, where they are known, `<role>_anon`, `_file` and `_shmem`."""
        parts = {f"{role}_{part}": float(size) for part, size in self.memory_parts.items()}
        return {f"{role}_memory": float(self.memory_peak)} | parts


class Process:
    """A program under measurement. Leaving its context kills it if it still runs.

    Args:
        command: program and arguments.
        cwd: its working directory.
        env: its whole environment.
        output: a file that gets what it prints, instead of `line_where`.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        output: Path | None = None,
    ) -> None:
        self._command = list(command)
        self._stderr_path = cwd / f"stderr-{time.monotonic_ns()}"
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._usage: Usage | None = None
        with contextlib.ExitStack() as files:
            stderr = files.enter_context(self._stderr_path.open("wb"))
            stdout = files.enter_context(output.open("wb")) if output else subprocess.PIPE
            self.started_s = time.perf_counter()
            self._process = subprocess.Popen(
                self._command,
                cwd=cwd,
                env=dict(env),
                stdin=subprocess.PIPE,
                stdout=stdout,
                stderr=stderr,
            )
        self._memory = MemorySampler(self._process.pid)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        """Take what the program prints all the time, so that a full pipe never stops it."""
        if self._process.stdout is not None:
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

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def memory_so_far(self) -> dict[str, int]:
        """Peaks up to now; see `MemorySampler.largest`."""
        return self._memory.largest()

    def has_said(self, text: str) -> bool:
        """Whether this is in what it has printed to standard error."""
        return text in self._stderr_path.read_text(errors="replace")

    def seconds_so_far(self) -> float:
        """Since it was started."""
        return time.perf_counter() - self.started_s

    def cpu_so_far_s(self) -> float:
        """User and system seconds of the running process and of its children so far."""
        process = psutil.Process(self._process.pid)
        used_s = 0.0
        for each in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                times = each.cpu_times()
                used_s += times.user + times.system + times.children_user + times.children_system
        return used_s

    def wait_until(self, is_so: Callable[[], bool]) -> None:
        """Ask again and again, until it is so.

        Raises:
            BenchmarkError: the program ended before, or it took longer than `PATIENCE_S`.
        """
        end_s = time.perf_counter() + PATIENCE_S
        while not is_so():
            if os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                raise self._failure("ended too early")
            if time.perf_counter() > end_s:
                raise self._failure("does not get there")
            time.sleep(POLL_S)

    def wait_for_children(self) -> None:
        """Until it has none, so that all they used is counted as its own."""
        self.wait_until(lambda: not psutil.Process(self._process.pid).children())

    def wait(self, accepted: Sequence[int] = (0,)) -> Usage:
        """Its end, which must be a success: one of the accepted statuses.

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
        self._memory.stop()
        parts = self._memory.largest()
        self._usage = usage = Usage(
            ended_s - self.started_s,
            used.ru_utime + used.ru_stime,
            memory_peak(max_rss(used), parts.pop("peak", None), own_max_rss()),
            parts,
        )
        if self._process.returncode not in accepted:
            raise self._failure(f"ended with status {self._process.returncode}")
        return usage

    def end(
        self, end_signal: signal.Signals | None = signal.SIGINT, accepted: Sequence[int] = (0,)
    ) -> Usage:
        """Tell it to end, by closing its standard input and by a signal, and wait for that."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        if end_signal is not None:
            self._process.send_signal(end_signal)
        return self.wait(accepted)

    def _failure(self, what: str) -> BenchmarkError:
        said = self._stderr_path.read_bytes()[-STDERR_SHOWN:].decode(errors="replace")
        return BenchmarkError(f"{shlex.join(self._command)} {what}\n{said}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.kill()
            self._process.wait()
        self._memory.stop()
        self._reader.join()
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()


def max_rss(used: resource.struct_rusage) -> int:
    """Peak resident bytes: the kernel counts KiB, but bytes on macOS."""
    return used.ru_maxrss if sys.platform == "darwin" else used.ru_maxrss * 1024


def own_max_rss() -> int:
    """The peak of this harness, in bytes."""
    return max_rss(resource.getrusage(resource.RUSAGE_SELF))


def memory_peak(counted: int, sampled: int | None, own: int) -> int:
    """The peak of a program, of two figures that both may be wrong.

    What the kernel counted until its end is never below what this harness has, since it counts the
    moment between fork and exec too. Up to there only the samples say something.
    """
    return counted if sampled is None or counted > own else sampled


def run_to_end(
    command: Sequence[str], *, cwd: Path, env: Mapping[str, str], output: Path | None = None
) -> Usage:
    """Run a program to its end; see `Process`."""
    with Process(command, cwd=cwd, env=env, output=output) as process:
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
"""Of each round the measures by the contestant's name; one that was left out is not in it."""


def run_rounds(
    contestants: Sequence[Contestant],
    count: int,
    new_folder: Callable[[str], contextlib.AbstractContextManager[Path]],
    tell: Callable[[str], None],
    left_out: dict[str, str] | None = None,
) -> Rounds:
    """Run all contestants in turn, `count` times, each in a folder of its own.

    Args:
        left_out: gets the names of those that were not run to the end, with the reason. Only an
            optional one (`is_optional`) can be: one that fails, or takes longer than `SLOW_S`
            and so is run once.
    """
    rounds: Rounds = []
    left_out = {} if left_out is None else left_out
    for number in range(1, count + 1):
        measures: dict[str, Measures] = {}
        for contestant in contestants:
            if contestant.name in left_out:
                continue
            is_optional = getattr(contestant, "is_optional", False)
            begin_s = time.perf_counter()
            try:
                with new_folder(f"{contestant.name}-{number}") as folder:
                    measures[contestant.name] = contestant.run(folder)
            except BenchmarkError as error:
                if not is_optional:
                    raise
                left_out[contestant.name] = f"failed in round {number}"
                tell(f"round {number} of {count}: {error}")
                continue
            if is_optional and time.perf_counter() - begin_s > SLOW_S and number < count:
                left_out[contestant.name] = f"slow, left out after round {number}"
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
    held = [each[name] for each in rounds if name in each]
    return {key: statistics.median(each[key] for each in held) for key in _shared_keys(held)}


def ratios(rounds: Rounds, ours: str, rival: str) -> Measures:
    """Median over the rounds of rival / ours, for each measure that both have.

    Above 1 the rival took that many times as long, or as much.
    """
    held = [each for each in rounds if rival in each]
    shared = _shared_keys([each[name] for each in held for name in (ours, rival)])
    return {
        key: statistics.median(each[rival][key] / each[ours][key] for each in held)
        for key in shared
        if all(each[ours][key] > 0 for each in held)
    }


def _shared_keys(measures: Sequence[Measures]) -> list[str]:
    """What all of them hold: a part of memory may have been seen in some rounds only."""
    return [key for key in measures[0] if all(key in each for each in measures)]

"""The real program in processes of its own, over loopback, without any relay."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

LOOPBACK = ("--relay", "disabled", "--bind", "127.0.0.1:0")
MEMORY_FOLDER = Path("/dev/shm")


@dataclass(frozen=True)
class Finished:
    """A run of the program that has ended."""

    code: int
    """Negative: the signal that ended it."""
    events: list[dict[str, Any]]
    """JSON objects that nobody had read before."""
    stdout: bytes
    stderr: str

    @property
    def last(self) -> dict[str, Any]:
        return self.events[-1]

    def failed_with(self, code: int) -> str:
        """Check that it failed as it should: this code and one clear line; returns the line."""
        assert self.code == code, (self.code, self.stdout, self.stderr)
        (line,) = self.stderr.splitlines()
        assert line.startswith("blobsync: "), line
        assert "Traceback" not in line, line
        assert "unexpected" not in line, line
        return line


class Run:
    """One run of the program."""

    def __init__(self, command: Sequence[str], environment: dict[str, str]) -> None:
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `wait`
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=environment,
            bufsize=1 << 16,
        )
        assert self._process.stdout is not None
        self._stdout = self._process.stdout

    @property
    def is_running(self) -> bool:
        return self._process.returncode is None

    @property
    def pid(self) -> int:
        return self._process.pid

    def memory_peak(self) -> int:
        """Bytes of resident memory that it had at most so far; 0 if it is gone.

        What `wait4` tells would include the memory of this process, which it was forked from.
        """
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE)
        return int(found[1]) * 1024 if found is not None else 0

    def next_event(self) -> dict[str, Any] | None:
        """The next JSON object of `--json`, None at the end."""
        line = self._stdout.readline()
        return json.loads(line) if line else None

    def until(self, **fields: Any) -> dict[str, Any]:
        """The next event whose numbers are at least, and whose texts are, the given ones."""
        seen: list[dict[str, Any]] = []
        while (event := self.next_event()) is not None:
            seen.append(event)
            if all(_reaches(event.get(name), value) for name, value in fields.items()):
                return event
        raise AssertionError(f"it ended without {fields}: {seen[-3:]} {self.wait().stderr}")

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self) -> Finished:
        """Read the rest of its output and wait for its end."""
        out = self._stdout.read()
        self._stdout.close()
        code = self._process.wait()
        with self._stderr as file:
            file.seek(0)
            err = file.read().decode()
        lines = [line for line in out.splitlines() if line.startswith(b'{"event"')]
        return Finished(code, [json.loads(line) for line in lines], out, err)

    def end(self) -> None:
        """Kill it if it still runs."""
        if self.is_running:
            self._process.kill()
            self.wait()


def _reaches(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, str):
        return found == wanted
    return found is not None and found >= wanted


@dataclass(frozen=True)
class Sharing:
    """A share that is being served."""

    run: Run
    ticket: str
    event: dict[str, Any]

    def stop(self) -> Finished:
        self.run.send(signal.SIGINT)
        return self.run.wait()


class Program:
    """`blobsync` as people run it, with a home of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.prefix: tuple[str, ...] = ()
        """Goes before the command: what gives it another view of the machine."""
        self.environment: dict[str, str] = {}
        self._runs: list[Run] = []

    def start(self, *args: str | Path) -> Run:
        command = [*self.prefix, sys.executable, "-m", "blobsync", "--home", str(self.home)]
        run = Run([*command, *map(str, args)], {**os.environ, **self.environment})
        self._runs.append(run)
        return run

    def run(self, *args: str | Path) -> Finished:
        return self.start(*args).wait()

    def start_get(self, ticket: str, destination: Path, *args: str) -> Run:
        return self.start("get", ticket, destination, "--json", "--bind", "127.0.0.1:0", *args)

    def get(self, ticket: str, destination: Path, *args: str) -> Finished:
        """Fetch, telling errors as a person sees them."""
        return self.run("get", ticket, destination, "--bind", "127.0.0.1:0", *args)

    @contextmanager
    def share(self, *paths: Path, network: Sequence[str] = LOOPBACK) -> Generator[Sharing]:
        run = self.start("share", *paths, "--json", *network)
        try:
            event = run.until(event="ticket")
            yield Sharing(run, event["ticket"], event)
        finally:
            run.end()

    def end(self) -> None:
        for run in self._runs:
            run.end()


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Any]:
    """Makes programs by name, each with the home `tmp_path / name`; the same name is the same."""
    known: dict[str, Program] = {}

    def program(name: str) -> Program:
        if name not in known:
            known[name] = Program(tmp_path / name)
        return known[name]

    yield program
    for each in known.values():
        each.end()


@pytest.fixture
def provider(programs: Any) -> Program:
    return programs("provider")


@pytest.fixture
def getter(programs: Any) -> Program:
    return programs("getter")


@pytest.fixture
def memory_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for large files, in memory where the machine has that."""
    if not os.access(MEMORY_FOLDER, os.W_OK):
        yield tmp_path
        return
    path = Path(tempfile.mkdtemp(prefix="blobsync-test-", dir=MEMORY_FOLDER))
    yield path
    shutil.rmtree(path)


def tree_of(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def snapshot(*folders: Path) -> dict[str, tuple[object, ...]]:
    """Everything below some folders: identity, kind, times and content, following no link."""
    found: dict[str, tuple[object, ...]] = {}
    for folder in folders:
        for place in (folder, *folder.rglob("*")) if folder.is_dir() else (folder,):
            if not os.path.lexists(place):
                found[str(place)] = ()
                continue
            info = place.lstat()
            content = place.read_bytes() if place.is_file() and os.access(place, os.R_OK) else b""
            found[str(place)] = (info.st_ino, info.st_mode, info.st_size, content)
    return found

"""The sessions and programs of the README and of the tutorial, run as they stand.

A `console` block holds commands after `$ ` and what they print, standard error included. `…` in
it stands for any text; so do durations, rates and seconds. `TICKET` is the ticket that the last
`blobsync share` printed; a share runs on until a line `^C`. A `python` block is a program. All
blocks of a page run in one folder, in their order.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PATIENCE_S = 60

BLOCK = re.compile(r"^```(console|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# What differs from run to run and is not worth a `…` in every line.
VARYING = re.compile(r"\d[\d.,]*(?: (?:ms|s|min)\b| [KMGT]?i?B/s)")

TICKET = re.compile(r"^blob[a-z2-7]{60,}$")


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block of a page."""

    kind: str
    text: str
    line: int

    @property
    def needs_sendme(self) -> bool:
        return "sendme " in self.text


def blocks_of(page: Path) -> list[Block]:
    """The blocks of a page that can be run."""
    text = page.read_text()
    return [
        Block(found[1], found[2], text.count("\n", 0, found.start()) + 1)
        for found in BLOCK.finditer(text)
    ]


def matches(expected: list[str], printed: str) -> bool:
    """Whether a command printed what the page says."""
    lines = [re.escape(VARYING.sub("…", line)).replace("…", ".*") for line in expected]
    given = [VARYING.sub("…", line.rstrip()) for line in printed.splitlines()]
    return re.fullmatch("\n".join(lines), "\n".join(given)) is not None


class Session:
    """A folder with a shell in it, and at most one share that runs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ticket = "TICKET"
        self._share: subprocess.Popen[str] | None = None
        programs = folder.parent / "bin"
        programs.mkdir()
        shim = programs / "blobsync"
        shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m blobsync "$@"\n')
        shim.chmod(0o755)
        self._env = os.environ | {
            "BLOBSYNC_HOME": str(folder.parent / "home"),
            "PATH": os.pathsep.join([str(programs), os.environ["PATH"]]),
            "PYTHONPATH": str(ROOT),
        }

    def run(self, block: Block) -> None:
        """Run one block and compare what it prints."""
        if block.kind == "python":
            done = subprocess.run(
                [sys.executable, "-W", "error", "-c", block.text],
                cwd=self._folder,
                env=self._env,
                capture_output=True,
                text=True,
                timeout=PATIENCE_S,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            return
        commands = re.split(r"^\$ ", block.text, flags=re.MULTILINE)
        assert not commands[0].strip(), "a session begins with a command"
        for each in commands[1:]:
            command, *expected = each.rstrip("\n").split("\n")
            self._run_command(command, [line for line in expected if line])

    def _run_command(self, command: str, expected: list[str]) -> None:
        command = command.replace("TICKET", self._ticket)
        if command.startswith("blobsync share "):
            printed = self._start_share(command)
            if expected[-1] == "^C":
                expected = expected[:-1]
                assert matches(expected[:-1], printed), f"{command}\n{printed}"
                printed, expected = self.end_share(), expected[-1:]
        else:
            done = subprocess.run(
                ["bash", "-c", command],
                cwd=self._folder,
                env=self._env,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=PATIENCE_S,
                check=False,
            )
            printed = done.stdout
            assert done.returncode == 0, f"{command}\n{printed}"
        assert matches(expected, printed), f"{command}\n{printed}"

    def _start_share(self, command: str) -> str:
        self.end_share()
        share = self._share = subprocess.Popen(
            ["bash", "-c", f"exec {command}"],
            cwd=self._folder,
            env=self._env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert share.stdout is not None
        printed = ""
        for line in share.stdout:
            printed += line
            if TICKET.match(line):
                self._ticket = line.strip()
            if line.startswith("serving until"):
                return printed
        raise AssertionError(f"{command} ended: {printed}")

    def end_share(self) -> str:
        """Ctrl-C for the share that runs; what it said since its ticket."""
        share, self._share = self._share, None
        if share is None:
            return ""
        share.send_signal(signal.SIGINT)
        printed, _ = share.communicate(timeout=PATIENCE_S)
        assert share.returncode == 0, printed
        return printed

    def close(self) -> None:
        """End whatever still runs."""
        if self._share is not None:
            self._share.kill()
            self._share.communicate()


def run_page(page: Path, folder: Path, *, has_sendme: bool) -> int:
    """Run the blocks of a page; returns how many there were."""
    folder.mkdir()
    session = Session(folder)
    blocks = [block for block in blocks_of(page) if has_sendme or not block.needs_sendme]
    try:
        for block in blocks:
            try:
                session.run(block)
            except AssertionError as error:
                raise AssertionError(f"{page.name}:{block.line}: {error}") from error
        session.end_share()
    finally:
        session.close()
    return len(blocks)


PAGES = [ROOT / "README.md", ROOT / "docs" / "tutorial.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_says_what_happens(page: Path, tmp_path: Path) -> None:
    assert run_page(page, tmp_path / "work", has_sendme=False) >= 2


@pytest.mark.interop
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_says_what_happens_with_sendme(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Path(os.environ.get("BLOBSYNC_CACHE", Path.home() / ".cache" / "blobsync"))
    installed = Path(os.environ.get("BLOBSYNC_SENDME", cache / "tools" / "bin" / "sendme"))
    sendme = str(installed) if installed.is_file() else shutil.which("sendme")
    if sendme is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"no sendme at {installed}: run `make peers`")
        pytest.skip(f"no sendme at {installed}: run `make peers`")
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sendme).parent), os.environ["PATH"]]))
    run_page(page, tmp_path / "work", has_sendme=True)


def test_a_page_that_says_something_else_is_noticed() -> None:
    assert matches(["3 files, 1.2 MiB in 0.3 s"], "3 files, 1.2 MiB in 17 s\n")
    assert matches(["hash … of a.txt"], "hash af13 of a.txt")
    assert not matches(["3 files"], "4 files")
    assert not matches(["one"], "one\ntwo")
    assert not matches([], "something")

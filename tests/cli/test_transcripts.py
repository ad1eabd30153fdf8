"""Transcripts of the real program: commands, what they print, exit codes, files.

Each file in `transcripts/` is one story, told line by line:

    # a comment
    write NAME SIZE          a file of SIZE bytes of a pattern
    text NAME WORDS...       a file with this line
    remove NAME              a file or a folder
    link NAME TARGET         a symlink
    share NAME PATH...       starts a share with home `sharer`; {NAME} is its ticket from then on
    stop NAME                ends that share with SIGINT, which must give exit code 0
    same LEFT RIGHT          both files, or both folders, hold the same
    absent NAME              nothing of this name is there
    $ blobsync ARGS...       runs the program; the lines after it say what came of it:
    > LINE                   the next line of stdout
    ! LINE                   the next line of stderr
    = CODE                   the exit code, if it is not 0

In an expected line `...` stands for anything, and `{name}` for a word: the one that this name
stands for already, or a new one. `{name}` in a command or a file name is replaced.
"""

from __future__ import annotations

import filecmp
import os
import re
import shlex
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

TRANSCRIPTS = Path(__file__).with_name("transcripts")


class Teller:
    """Plays one transcript."""

    def __init__(self, program: Any, write: Any, stack: ExitStack) -> None:
        self.program = program
        self.write = write
        self.stack = stack
        self.words: dict[str, str] = {}
        self.shares: dict[str, Any] = {}

    def play(self, lines: list[str]) -> None:
        index = 0
        while index < len(lines):
            line = lines[index]
            index += 1
            if not line.strip() or line.startswith("#"):
                continue
            verb, *args = shlex.split(self.filled(line))
            if verb != "$":
                getattr(self, f"do_{verb}")(*args)
                continue
            expected: list[str] = []
            while index < len(lines) and lines[index][:2].strip() in (">", "!", "="):
                expected.append(lines[index])
                index += 1
            self.run(line, args, expected)

    def filled(self, line: str) -> str:
        return re.sub(r"\{(\w+)\}", lambda match: self.words[match[1]], line)

    def path(self, name: str) -> Path:
        return self.program.cwd / name

    def run(self, line: str, args: list[str], expected: list[str]) -> None:
        assert args[0] == "blobsync"
        ended = self.program.run(*args[1:])
        shown = f"{line}\n{ended.out.decode(errors='replace')}{ended.err}= {ended.code}"
        for mark, text in ((">", ended.out.decode()), ("!", ended.err)):
            wanted = [one[2:] for one in expected if one.startswith(mark)]
            lines = text.splitlines()
            assert len(lines) == len(wanted), shown
            for pattern, actual in zip(wanted, lines, strict=True):
                self.match(pattern, actual, shown)
        codes = [int(one[2:]) for one in expected if one.startswith("=")]
        assert [ended.code] == (codes or [0]), shown

    def match(self, pattern: str, line: str, shown: str) -> None:
        new: list[str] = []

        def piece(part: str) -> str:
            name = part[1:-1]
            if part == "...":
                return ".*"
            is_word = re.fullmatch(r"\{\w+\}", part) is not None
            if is_word and name in new:
                return rf"(?P={name})"
            if is_word and name not in self.words:
                new.append(name)
                return rf"(?P<{name}>\S+)"
            return re.escape(self.words.get(name, part) if is_word else part)

        regex = "".join(map(piece, re.split(r"(\.\.\.|\{\w+\})", pattern)))
        match = re.fullmatch(regex, line)
        assert match is not None, f"expected: {pattern}\n{shown}"
        self.words |= match.groupdict()

    def do_write(self, name: str, size: str) -> None:
        self.write(name, int(size))

    def do_text(self, name: str, *words: str) -> None:
        self.write(name, " ".join(words) + "\n")

    def do_remove(self, name: str) -> None:
        path = self.path(name)
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    def do_link(self, name: str, target: str) -> None:
        self.path(name).symlink_to(target)

    def do_share(self, name: str, *paths: str) -> None:
        self.shares[name] = share = self.stack.enter_context(self.program.sharing(*paths))
        self.words[name] = share.ticket

    def do_stop(self, name: str) -> None:
        ended = self.shares[name].stop()
        assert (ended.code, ended.err) == (0, "")
        assert ended.events[-1]["event"] == "stopped"

    def do_same(self, left: str, right: str) -> None:
        if self.path(left).is_file():
            assert filecmp.cmp(self.path(left), self.path(right), shallow=False)
        else:
            assert tree(self.path(left)) == tree(self.path(right))

    def do_absent(self, name: str) -> None:
        assert not os.path.lexists(self.path(name))


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("path", sorted(TRANSCRIPTS.glob("*.txt")), ids=lambda path: path.stem)
def test_transcript(path: Path, program: Any, write: Any) -> None:
    with ExitStack() as stack:
        Teller(program, write, stack).play(path.read_text().splitlines())


def test_there_are_transcripts() -> None:
    assert len(list(TRANSCRIPTS.glob("*.txt"))) >= 8

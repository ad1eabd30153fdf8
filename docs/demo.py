"""Two peers on this machine: one shares a real folder and a large file, the other fetches both.

Everything goes over iroh on 127.0.0.1, without a relay: `blobsync share` in one process,
`blobsync get` with its ticket in another, each with a home folder of its own. Then both sides are
compared byte by byte. `make demo` runs this; nothing of it is left behind.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

MIB = 1024**2
GIB = 1024**3
FILES_MIN = 10_000
"""A tree with fewer files would not show much."""

SPARE_BYTES = GIB
"""Room for databases and whatever else uses the disk meanwhile."""

BLOBSYNC = [sys.executable, "-m", "blobsync"]


class DemoError(Exception):
    """The demo cannot go on; the text says why."""


@dataclass(frozen=True)
class Tree:
    """A folder of this machine that is shared as it is."""

    path: Path
    files: int
    bytes: int


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tree", type=Path, action="append", help="share this folder instead")
    parser.add_argument("--file-size", type=int, default=GIB, help="bytes of the large file")
    parser.add_argument("--work", type=Path, default=Path("demo-work"), help="temporary folder")
    options = parser.parse_args()
    # A `kill` cleans up as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        demo(options.tree, options.file_size, options.work)
    except DemoError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
        return 130
    return 0


def demo(folders: list[Path] | None, file_size: int, work: Path) -> None:
    trees = [measure(folder) for folder in folders] if folders else find_trees()
    with work_folder(work, needed_bytes(trees, file_size)) as here:
        large = here / "random.bin"
        say("Making", f"a random file of {mib(file_size)}")
        make_random_file(large, file_size)
        for tree in trees:
            say("Using", f"{tree.path}: {tree.files:,} files, {mib(tree.bytes)}")
        files = sum(tree.files for tree in trees) + 1
        size = sum(tree.bytes for tree in trees) + file_size

        say("Sharing", "both from a process of their own (blobsync share)")
        started_s = time.monotonic()
        paths = [*(tree.path for tree in trees), large]
        with sharing(paths, here / "sharer") as ticket:
            seconds = time.monotonic() - started_s
            if (ticket["files"], ticket["bytes"]) != (files, size):
                raise DemoError(f"{files} files, {size} bytes were to be shared, not: {ticket}")
            print(f"  {files:,} files hashed and served after {rate(size, seconds)}")
            print(f"  {ticket['ticket']}")

            say("Fetching", "by that ticket in another process (blobsync get)")
            seconds = fetch(ticket["ticket"], here)
            print(f"  fetched, verified and written: {rate(size, seconds)}")

            say("Fetching", "again: all of it is there")
            seconds = fetch(ticket["ticket"], here)
            print(f"  {seconds:.1f} s")

        say("Comparing", "both sides byte by byte")
        compared = compare([*(tree.path for tree in trees), large], here / "fetched")
        if compared != (files, size):
            raise DemoError(f"compared {compared} files and bytes, not {(files, size)}")
        print(f"  {files:,} files, {size:,} bytes: all equal")
    print()
    print(
        "Try it against sendme: 'blobsync share FOLDER' here and 'sendme receive TICKET' there,"
        " or 'sendme send FOLDER' there and 'blobsync get TICKET' here."
    )


def find_trees() -> list[Tree]:
    """The sources of the Rust crates that cargo has, else Python's own library and packages."""
    cargo_home = Path(os.environ.get("CARGO_HOME") or Path.home() / ".cargo")
    sources = cargo_home / "registry" / "src"
    if sources.is_dir():
        tree = measure(sources)
        if tree.files >= FILES_MIN:
            return [tree]
    return [measure(Path(sysconfig.get_path(name))) for name in ("stdlib", "purelib")]


def measure(folder: Path) -> Tree:
    sizes = [path.stat().st_size for path in regular_files(folder)]
    return Tree(folder.resolve(), len(sizes), sum(sizes))


def regular_files(folder: Path) -> Iterator[Path]:
    """What a share takes of a folder: regular files, no links."""
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            if path.is_file() and not path.is_symlink():
                yield path


def needed_bytes(trees: list[Tree], file_size: int) -> int:
    """The large file twice; of the trees what is fetched, and small files in both stores."""
    return 2 * file_size + 3 * sum(tree.bytes for tree in trees) + SPARE_BYTES


@contextmanager
def work_folder(parent: Path, needed: int) -> Generator[Path]:
    """A new folder below `parent`; it is gone when this ends, and so is an empty `parent`."""
    parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(parent).free
    try:
        if free < needed:
            raise DemoError(
                f"{mib(needed)} are needed in {parent.resolve()}, {mib(free)} are free;"
                " --work names another folder, --file-size a smaller file"
            )
        with tempfile.TemporaryDirectory(dir=parent) as here:
            yield Path(here).resolve()
    finally:
        # Another demo may be running in it.
        if not any(parent.iterdir()):
            parent.rmdir()


def make_random_file(path: Path, size: int) -> None:
    with path.open("wb") as file:
        for offset in range(0, size, MIB):
            file.write(os.urandom(min(MIB, size - offset)))


@contextmanager
def sharing(paths: list[Path], home: Path) -> Generator[dict[str, object]]:
    """`blobsync share` in a process of its own; yields its first JSON object, the ticket."""
    command = [*BLOBSYNC, "share", *map(str, paths), "--relay", "disabled"]
    command += ["--bind", "127.0.0.1:0", "--json", "--home", str(home)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            event = json.loads(line) if line else {"event": "nothing"}
            if event["event"] != "ticket":
                raise DemoError(f"share failed: {event.get('message', event)}")
            yield event
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate()
    if process.returncode != 0:
        raise DemoError(f"share ended with exit code {process.returncode}")


def fetch(ticket: object, here: Path) -> float:
    """Run `blobsync get`, whose progress goes to this terminal; returns the seconds it took."""
    command = [*BLOBSYNC, "get", str(ticket), str(here / "fetched")]
    command += ["--bind", "127.0.0.1:0", "--home", str(here / "getter")]
    sys.stdout.flush()
    started_s = time.monotonic()
    code = subprocess.run(command, check=False).returncode
    if code != 0:
        raise DemoError(f"get ended with exit code {code}")
    return time.monotonic() - started_s


def compare(sources: list[Path], fetched: Path) -> tuple[int, int]:
    """Compare what was shared with what arrived, both ways; returns files and bytes compared."""
    expected: dict[str, Path] = {}
    for source in sources:
        for path in [source] if source.is_file() else regular_files(source):
            expected[path.relative_to(source.parent).as_posix()] = path
    arrived = {path.relative_to(fetched).as_posix() for path in regular_files(fetched)}
    if arrived != expected.keys():
        odd = sorted(arrived ^ expected.keys())
        raise DemoError(f"{len(odd)} files are on one side only, the first is {odd[0]!r}")
    compared = sum(compare_file(path, fetched / name) for name, path in expected.items())
    return len(expected), compared


def compare_file(left_path: Path, right_path: Path) -> int:
    size = 0
    with left_path.open("rb", buffering=0) as left, right_path.open("rb", buffering=0) as right:
        while True:
            block = left.read(MIB)
            if block != right.read(MIB):
                raise DemoError(f"{right_path} differs from {left_path}")
            if not block:
                return size
            size += len(block)


def say(verb: str, what: str) -> None:
    print(f"\n{verb} {what}", flush=True)


def mib(size: int) -> str:
    return f"{size / MIB:,.0f} MiB"


def rate(size: int, seconds: float) -> str:
    return f"{seconds:.1f} s, {size / MIB / seconds:,.0f} MiB/s"


if __name__ == "__main__":
    sys.exit(main())

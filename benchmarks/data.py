"""What is sent, where the runs happen, and whether what arrived is the same."""

from __future__ import annotations

import contextlib
import filecmp
import itertools
import os
import shutil
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from benchmarks.harness import BenchmarkError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

PIECE_SIZE = 1 << 20

HOLE_SIZE = 64 << 20

FILES_PER_FOLDER = 500

MEMORY_FOLDER = Path("/dev/shm")

DISK_FOLDER = Path(__file__).resolve().parent / "work"


@dataclass(frozen=True, slots=True)
class Tree:
    """A folder of files."""

    path: Path
    files: int
    folders: int
    bytes: int

    def sent(self) -> dict[str, int]:
        """What a result says of it."""
        return {"files": self.files, "folders": self.folders, "bytes": self.bytes}


def make_file(path: Path, size: int) -> None:
    """A file of random bytes."""
    with path.open("wb") as file:
        for start in range(0, size, PIECE_SIZE):
            file.write(os.urandom(min(PIECE_SIZE, size - start)))


def make_mostly_holes(path: Path, size: int) -> None:
    """A file that takes little room: holes, and 1 MiB of random bytes every 64 MiB.

    Hashing, sending, verifying and writing it cost what they cost for any bytes; only reading
    it is somewhat cheaper. Many copies of it do take the room.
    """
    with path.open("wb") as file:
        for start in range(0, size, HOLE_SIZE):
            file.seek(start)
            file.write(os.urandom(min(PIECE_SIZE, size - start)))
        file.truncate(size)


def make_files(path: Path, count: int, size: int) -> Tree:
    """So many files of random bytes, all different, `FILES_PER_FOLDER` in each folder."""
    folders = range(-(-count // FILES_PER_FOLDER))
    for number in folders:
        folder = path / f"{number:04}"
        folder.mkdir(parents=True)
        first = number * FILES_PER_FOLDER
        for name in range(first, min(first + FILES_PER_FOLDER, count)):
            (folder / f"{name:07}.bin").write_bytes(os.urandom(size))
    return Tree(path, count, len(folders), count * size)


def tree_sources() -> list[Path]:
    """Real trees of a machine that has built us, the best first: Rust crates, then Python."""
    cargo_home = Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo"))
    candidates = [cargo_home / "registry" / "src", Path(sysconfig.get_path("stdlib"))]
    return [path for path in candidates if path.is_dir()]


def copy_tree(target: Path, *, files_min: int, files_max: int | None = None) -> Tree:
    """Copy the first source with enough files: regular files only, in the order of their names.

    Raises:
        BenchmarkError: no source has `files_min` files.
    """
    found: dict[str, int] = {}
    for source in tree_sources():
        files = list(regular_files(source))
        found[source.name] = len(files)
        if len(files) >= files_min:
            return _copy_files(source, target, files[:files_max])
    raise BenchmarkError(f"no tree of {files_min} files on this machine, only {found}")


def regular_files(folder: Path) -> Iterator[str]:
    """Regular files below a folder, relative to it, sorted within each folder."""
    for base, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(base, name)
            if path.is_file() and not path.is_symlink():
                yield str(path.relative_to(folder))


def _copy_files(source: Path, target: Path, files: list[str]) -> Tree:
    folders: set[Path] = set()
    size = 0
    for name in files:
        path = target / name
        if path.parent not in folders:
            path.parent.mkdir(parents=True, exist_ok=True)
            folders.add(path.parent)
        shutil.copyfile(source / name, path)
        size += path.stat().st_size
    return Tree(target, len(files), len(folders), size)


def check_equal(sent: Path, received: Path) -> None:
    """Compare two files, or two trees, byte by byte.

    Raises:
        BenchmarkError: they differ.
    """
    if sent.is_file():
        pairs = [(sent, received)]
    else:
        names = set(regular_files(sent))
        if names ^ set(regular_files(received)):
            raise BenchmarkError(f"{received} does not hold the files of {sent}")
        pairs = [(sent / name, received / name) for name in sorted(names)]
    for one, other in pairs:
        if not other.is_file() or not filecmp.cmp(one, other, shallow=False):
            raise BenchmarkError(f"{other} differs from {one}")
    filecmp.clear_cache()


class WorkFolder:
    """Where the runs happen: in memory if there is room, else in a fresh folder of the clone.

    In memory each run's folder is removed after it, to make room. On a disk nothing is removed
    before the end: after a large tree was deleted, ext4 makes new files many times slower for
    minutes, which would favour whoever runs first.
    """

    def __init__(self, path: Path, *, in_memory: bool, removes: bool | None = None) -> None:
        self.path = path
        self.in_memory = in_memory
        self._removes = in_memory if removes is None else removes

    def removing(self) -> WorkFolder:
        """The same folder for runs of a few large files, whose removal slows down nothing."""
        return WorkFolder(self.path, in_memory=self.in_memory, removes=True)

    def drop(self, path: Path) -> None:
        """Remove data that no run needs any more, unless all stays until the end."""
        if not self._removes:
            return
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()

    @contextlib.contextmanager
    def run_folder(self, name: str) -> Generator[Path]:
        """An empty folder for one run; another one of the same name gets a number."""
        path = self.path / name
        for number in itertools.count(2):
            if not path.exists():
                break
            path = self.path / f"{name}-{number}"
        path.mkdir()
        try:
            yield path
        finally:
            if self._removes:
                shutil.rmtree(path)


@contextlib.contextmanager
def disk_folder(given: Path | None) -> Generator[WorkFolder]:
    """A work folder on a disk, below `given` or the clone, removed at the end."""
    parent = given or DISK_FOLDER
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="blobsync-bench-", dir=parent) as path:
        yield WorkFolder(Path(path), in_memory=False)


@contextlib.contextmanager
def work_folder(given: Path | None, *, room: int) -> Generator[WorkFolder]:
    """A work folder, removed at the end; `room` is how many bytes memory must have free for it.

    `given` is made by us or empty, and is used instead of memory.
    """
    in_memory = given is None and has_room(MEMORY_FOLDER, room)
    parent = MEMORY_FOLDER if in_memory else given
    if parent is None:
        parent = DISK_FOLDER
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="blobsync-bench-", dir=parent) as path:
        yield WorkFolder(Path(path), in_memory=in_memory)


def free_room(folder: Path) -> int:
    """Bytes that may be written there: of a folder in memory no more than memory has."""
    free = shutil.disk_usage(folder).free
    if MEMORY_FOLDER in folder.parents:
        free = min(free, psutil.virtual_memory().available)
    return free


def has_room(folder: Path, room: int) -> bool:
    """Whether a folder is there, writable and has so many bytes free."""
    return folder.is_dir() and os.access(folder, os.W_OK) and shutil.disk_usage(folder).free >= room

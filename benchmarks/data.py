"""What is sent, where the runs happen, and whether what arrived is the same."""

from __future__ import annotations

import contextlib
import filecmp
import os
import shutil
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.harness import BenchmarkError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

PIECE_SIZE = 1 << 20

MEMORY_FOLDER = Path("/dev/shm")


@dataclass(frozen=True, slots=True)
class Tree:
    """A folder of files."""

    path: Path
    files: int
    folders: int
    bytes: int


def make_file(path: Path, size: int) -> None:
    """A file of random bytes."""
    with path.open("wb") as file:
        for start in range(0, size, PIECE_SIZE):
            file.write(os.urandom(min(PIECE_SIZE, size - start)))


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

    def __init__(self, path: Path, *, in_memory: bool) -> None:
        self.path = path
        self.in_memory = in_memory

    @contextlib.contextmanager
    def run_folder(self, name: str) -> Generator[Path]:
        """An empty folder for one run."""
        path = self.path / name
        path.mkdir()
        yield path
        if self.in_memory:
            shutil.rmtree(path)


@contextlib.contextmanager
def work_folder(given: Path | None, *, room: int) -> Generator[WorkFolder]:
    """A work folder, removed at the end; `room` is how many bytes memory must have free for it.

    `given` is made by us or empty, and is used instead of memory.
    """
    in_memory = given is None and has_room(MEMORY_FOLDER, room)
    parent = MEMORY_FOLDER if in_memory else given
    if parent is None:
        parent = Path(__file__).resolve().parent / "work"
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="blobsync-bench-", dir=parent) as path:
        yield WorkFolder(Path(path), in_memory=in_memory)


def has_room(folder: Path, room: int) -> bool:
    """Whether a folder is there, writable and has so many bytes free."""
    return folder.is_dir() and os.access(folder, os.W_OK) and shutil.disk_usage(folder).free >= room

"""Files for transfers: made from a seed, compared byte for byte."""

import filecmp
import os
import random
from collections.abc import Mapping
from pathlib import Path

GROUP = 16 * 1024
MIB = 1 << 20

# Chunk, chunk group, the sizes around both, and the limit of what travels in batches.
EDGE_SIZES = (
    *(0, 1, 1023, 1024, 1025),
    *(GROUP - 1, GROUP, GROUP + 1, 2 * GROUP - 1, 2 * GROUP, 2 * GROUP + 1),
    *(MIB - 1, MIB, MIB + 1, 8 * MIB + 1025),
)

PIECE = 8 * MIB

# Names that a careless program breaks on; none is refused by `check_names`.
ODD_NAMES = {
    "empty": b"",
    "folder/empty too": b"",
    ".hidden": b"hidden",
    ".hidden folder/.also": b"h" * 1500,
    "naïve café.txt": b"composed",
    "decompose\u0301.txt": b"decomposed",
    "日本語/ファイル.bin": b"j" * (GROUP + 1),
    "emoji 🦀🐍/👩‍👩‍👧.txt": b"e" * GROUP,
    "עברית العربية": b"right to left",
    "-dash": b"-",
    " leading blank": b"blank",
    'quote\'s "and" $HOME `x` ;&|': b"shell",
    "per%20cent #?.txt": b"url",
    "n" * 255: b"longest component",
    "/".join(f"d{i}" for i in range(100)) + "/deep": b"deep" * 1000,
    "same content 1": b"twice" * 9000,
    "same content 2": b"twice" * 9000,
}


def random_bytes(size: int, seed: int) -> bytes:
    """The same bytes for the same seed."""
    return random.Random(seed).randbytes(size)


def write_random(path: Path, size: int, seed: int) -> Path:
    """Write a file of `size` bytes without holding all of it; gives its path."""
    source = random.Random(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for start in range(0, size, PIECE):
            file.write(source.randbytes(min(PIECE, size - start)))
    return path


def write_tree(folder: Path, contents: Mapping[str, bytes]) -> Path:
    """Write files by their relative names; gives the folder."""
    for name, data in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def write_small_files(folder: Path, count: int, *, seed: int) -> Path:
    """Write many small files, some empty, most under a chunk group; gives the folder."""
    source = random.Random(seed)
    for i in range(count):
        path = folder / f"{i % 100:02}" / f"{i // 100 % 10}" / f"file {i}.txt"
        if i < 1000:
            path.parent.mkdir(parents=True, exist_ok=True)
        # The number makes nearly all of them different, as files of a real tree are.
        size = source.choice((0, 30, 700, 3000, 9000, 20_000))
        path.write_bytes(b"%d " % i + source.randbytes(size) if size else b"")
    return folder


def edge_files() -> dict[str, bytes]:
    """A file for each of `EDGE_SIZES`, named by its size."""
    return {str(size): random_bytes(size, seed=size) for size in EDGE_SIZES}


def read_tree(folder: Path) -> dict[str, bytes]:
    """All files below a folder by their relative names."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def assert_same(found: Path, expected: Path) -> None:
    """Two files, or all files below two folders, have the same names and bytes."""
    names = _names(found)
    assert names == _names(expected)
    for name in names:
        assert filecmp.cmp(found / name, expected / name, shallow=False), name


def _names(path: Path) -> set[str]:
    if path.is_file():
        return {"."}
    found: set[str] = set()
    for folder, _, files in os.walk(path):
        found.update(os.path.relpath(Path(folder, name), path) for name in files)
    return found

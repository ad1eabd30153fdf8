"""Folders and files in batches: what each holds, and what fails alone."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

import pybao
from blobstore.testing.data import pattern

LIMITS = {"data_max": 16384, "size_max": 1_000_000}
SIZES = (0, 1, 1024, 16383, 16384, 16385, 100_000, 262_144, 262_145, 999_999, 1_000_000)


def identity(path: Path) -> bytes:
    info = path.lstat()
    times = (info.st_mtime_ns, info.st_ctime_ns)
    return struct.pack("<QQQqq", info.st_dev, info.st_ino, info.st_size, *times)


@pytest.mark.parametrize("threads", [0, 1, 2])
def test_files_are_read_as_one_by_one(tmp_path: Path, threads: int) -> None:
    paths: list[Path] = []
    for size in SIZES:
        paths.append(tmp_path / str(size))
        paths[-1].write_bytes(pattern(size))
    os.utime(paths[0], ns=(0, -1_500_000_001))
    read = pybao.read_files([bytes(path) for path in paths], threads=threads, **LIMITS)
    for path, result in zip(paths, read, strict=True):
        data = path.read_bytes()
        root, outboard = pybao.outboard(data)
        kept = data if len(data) <= LIMITS["data_max"] else None
        assert result == (identity(path), root, kept, outboard)
    assert pybao.read_files([], **LIMITS) == []


def test_what_cannot_be_read_fails_alone(tmp_path: Path) -> None:
    good = tmp_path / "good"
    good.write_bytes(b"x")
    (tmp_path / "large").write_bytes(bytes(1_000_001))
    (tmp_path / "link").symlink_to("good")
    os.mkfifo(tmp_path / "pipe")
    paths = [tmp_path / name for name in ("absent", "large", "link", "pipe", ".", "good", "good/x")]
    results = pybao.read_files([bytes(path) for path in paths], **LIMITS)
    assert results == [
        errno.ENOENT,
        pybao.TOO_LARGE,
        errno.ELOOP,
        pybao.NOT_REGULAR,
        pybao.NOT_REGULAR,
        (identity(good), pybao.hash(b"x"), b"x", b""),
        errno.ENOTDIR,
    ]
    with pytest.raises(ValueError, match="negative"):
        pybao.read_files([], data_max=-1, size_max=0)
    with pytest.raises(TypeError):
        pybao.read_files([str(good)], **LIMITS)  # type: ignore[list-item] # pyright: ignore[reportArgumentType] - on purpose


def test_a_file_without_all_its_bytes_has_changed() -> None:
    """The kernel's own files say that they have none, and sometimes too many."""
    path = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not path.exists():
        pytest.skip("no such file here")
    assert pybao.read_files([bytes(path)], **LIMITS) == [pybao.CHANGED]


@pytest.mark.parametrize("threads", [0, 1])
def test_folders_are_scanned(tmp_path: Path, threads: int) -> None:
    full, empty = tmp_path / "full", tmp_path / "empty"
    full.mkdir()
    empty.mkdir()
    names = ["b", "a", "a-b", "\N{LATIN SMALL LETTER E WITH ACUTE}", "B"]
    for name in names:
        (full / name).write_bytes(name.encode())
    (full / "z").mkdir()
    (full / "y").mkdir()
    (full / "link").symlink_to("nowhere")
    os.mkfifo(full / "pipe")
    wanted = [full, empty, tmp_path / "absent", full / "a"] * 3
    found = pybao.scan_folders([bytes(path) for path in wanted], threads=threads)
    files = sorted(name.encode() for name in names)
    content = (
        b"\0".join(files),
        b"".join(identity(full / name.decode()) for name in files),
        b"y\0z",
        b"link",
        b"pipe",
    )
    assert found == [content, (b"", b"", b"", b"", b""), errno.ENOENT, errno.ENOTDIR] * 3


def test_a_forked_child_reads_too(tmp_path: Path) -> None:
    """Threads of the parent do not exist in the child."""
    program = (
        "import os, sys, pybao\n"
        "paths = [os.fsencode(sys.argv[1])] * 100\n"
        "def read(): return pybao.read_files(paths, data_max=10, size_max=10, threads=2)\n"
        "expected = read()\n"
        "pid = os.fork()\n"
        "if pid == 0: os._exit(0 if read() == expected else 1)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
    )
    (tmp_path / "file").write_bytes(b"x")
    program_args = [sys.executable, "-W", "ignore", "-c", program, str(tmp_path / "file")]
    subprocess.run(program_args, check=True, timeout=60)

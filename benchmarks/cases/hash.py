"""Hash and outboard of a file in the page cache, on one and on two threads."""

from __future__ import annotations

import resource
import time
from typing import TYPE_CHECKING, Any

import pybao
from benchmarks.cases import compare
from benchmarks.data import make_file
from benchmarks.machine import package_version
from benchmarks.rivals.b3sum import B3sum

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from benchmarks.cases import Setting
    from benchmarks.harness import Contestant, Measures

SIZE, SIZE_SHORT = 1 << 30, 64 << 20
THREADS = (1, 2)


def run(setting: Setting) -> list[dict[str, Any]]:
    """`pybao.outboard_fd` against `b3sum` on as many threads."""
    size = SIZE_SHORT if setting.is_short else SIZE
    path = setting.work.path / "hash.bin"
    make_file(path, size)
    results: list[dict[str, Any]] = []
    for threads in THREADS:
        point = f"{threads} thread{'s' * (threads > 1)}"
        makers = _makers(path, threads)
        results += compare(
            setting, "hash", {"bytes": size, "threads": threads}, makers, point=point
        )
    setting.work.drop(path)
    return results


def _makers(path: Path, threads: int) -> Sequence[Callable[[], Contestant]]:
    return [lambda: PybaoHash(path, threads), lambda: B3sum(path, threads)]


class PybaoHash:
    """Root and outboard, by one call in this process."""

    name = "pybao"

    def __init__(self, path: Path, threads: int) -> None:
        self.version = f"pybao {package_version('pybao')}"
        self.commands: Sequence[Sequence[str]] = [
            ["python", "-c", f"pybao.outboard_fd(fd, size, threads={threads})"]
        ]
        self._path = path
        self._threads = threads

    def run(self, folder: Path) -> Measures:
        """Hash the file once."""
        size = self._path.stat().st_size
        with self._path.open("rb") as file:
            used_s, begin_s = _cpu_s(), time.perf_counter()
            pybao.outboard_fd(file.fileno(), size, threads=self._threads)
            wall_s = time.perf_counter() - begin_s
        return {"hash_wall_s": wall_s, "hash_cpu_s": _cpu_s() - used_s}


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime

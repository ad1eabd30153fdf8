"""The store's two hot paths of a tree of small files: adding in batches, reading in batches."""

from __future__ import annotations

import asyncio
import itertools
import os
import statistics
import time
from typing import TYPE_CHECKING

from benchmarks.harness import BenchmarkError
from benchmarks.micro import Figure, MicroSize
from blobstore import LmdbStore

if TYPE_CHECKING:
    from pathlib import Path

BLOB_SIZE = 2048
BATCH = 256


def measure(size: MicroSize, folder: Path) -> list[Figure]:
    """Blobs a second, each repeat in a new store with new blobs."""
    added: list[float] = []
    read: list[float] = []
    for number in range(size.repeats):
        add_s, read_s = asyncio.run(_run(folder / f"store-{number}", size.items))
        added.append(size.items / add_s)
        read.append(size.items / read_s)
    what = f"blobs of {BLOB_SIZE} bytes"
    return [
        Figure(f"store add_many, {what}", statistics.median(added), "blobs/s", size.repeats),
        Figure(f"store read_small, {what}", statistics.median(read), "blobs/s", size.repeats),
    ]


async def _run(path: Path, count: int) -> tuple[float, float]:
    blobs = [os.urandom(BLOB_SIZE) for _ in range(count)]
    async with LmdbStore.open(path) as store:
        begin = time.perf_counter()
        hashes = await store.add_many(blobs)
        added = time.perf_counter()
        found: list[bytes | None] = []
        for start in itertools.count(0, BATCH):
            batch = hashes[start : start + BATCH]
            if not batch:
                break
            found += await store.read_small(batch)
        end = time.perf_counter()
    if found != blobs:
        raise BenchmarkError("the store gave back other blobs than it took")
    return added - begin, end - added

"""The same commands to LmdbStore and MemStore have the same outcome."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

import pybao
from blobstore import (
    BlobFormat,
    ChunkRanges,
    Hash,
    HashAndFormat,
    HashSeq,
    ImportMode,
    LmdbStore,
    MemStore,
)
from blobstore.errors import BlobError
from blobstore.testing.data import fill, pattern

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from blobstore import Store, TempTag

NAMES = st.sampled_from(["a", "ab", "b"])
SIZES = st.sampled_from([0, 1, 5000, 16 * 1024, 16 * 1024 + 1, 70_000])


class Stores(RuleBasedStateMachine):
    """Both stores, the temp tags held in both, and what a tag may be set to."""

    blobs = Bundle("blobs")

    def __init__(self) -> None:
        super().__init__()
        self._folder = Path(tempfile.mkdtemp(prefix="blobstore-stateful-"))
        self._runner = asyncio.Runner()
        self._lmdb: Store = LmdbStore.open(self._folder / "store")
        self._mem: Store = MemStore()
        self._temps: list[tuple[TempTag, TempTag]] = []
        self._runner.run(self._lmdb.__aenter__())

    def teardown(self) -> None:
        self._runner.run(self._lmdb.close())
        self._runner.run(self._mem.close())
        self._runner.close()
        shutil.rmtree(self._folder)

    def both(self, act: Callable[[Store, int], Awaitable[Any]]) -> Any:
        """Do the same to both; the same result or the same kind of error."""
        outcomes: list[Any] = []
        for index, store in enumerate((self._lmdb, self._mem)):
            try:
                outcomes.append(self._runner.run(_await(act(store, index))))
            except (BlobError, FileExistsError) as error:
                outcomes.append(type(error))
        assert outcomes[0] == outcomes[1]
        return outcomes[0]

    def temp_of(self, number: int | None) -> tuple[TempTag, TempTag] | tuple[None, None]:
        if number is None or not self._temps:
            return None, None
        return self._temps[number % len(self._temps)]

    # Adding

    @rule(target=blobs, size=SIZES, seed=st.integers(0, 3), temp=st.none() | st.integers(0, 9))
    def add_bytes(self, size: int, seed: int, temp: int | None) -> Hash:
        temps = self.temp_of(temp)
        data = pattern(size, seed)
        return self.both(lambda store, i: store.add_bytes(data, temp=temps[i]))

    @rule(target=blobs, children=st.lists(blobs, max_size=3), temp=st.none() | st.integers(0, 9))
    def add_hash_seq(self, children: list[Hash], temp: int | None) -> Hash:
        temps = self.temp_of(temp)
        data = bytes(HashSeq(children))
        return self.both(lambda store, i: store.add_bytes(data, temp=temps[i]))

    @rule(target=blobs, size=SIZES, seed=st.integers(0, 3), temp=st.integers(0, 9))
    def import_copy(self, size: int, seed: int, temp: int) -> Hash:
        temps = self.temp_of(temp)
        path = self._folder / "file"
        path.write_bytes(pattern(size, seed))
        imported = self.both(
            lambda store, i: store.import_file(path, mode=ImportMode.COPY, temp=temps[i])
        )
        return imported.hash

    @rule(
        target=blobs,
        size=SIZES.filter(bool),
        seed=st.integers(0, 3),
        groups=st.sets(st.integers(0, 4)),
        end=st.sampled_from(["close", "complete", "discard"]),
    )
    def fill_partial(self, size: int, seed: int, groups: set[int], end: str) -> Hash:
        data = pattern(size, seed)
        hash = Hash(pybao.hash(data))
        ranges = ChunkRanges.union_of((group * 16, group * 16 + 16) for group in groups)

        async def act(store: Store, _: int) -> tuple[Any, ...]:
            async with await store.open_partial(hash) as partial:
                before = partial.bitfield, partial.size, partial.size_proven
                if ranges:
                    await fill(partial, data, ranges)
                after = partial.bitfield, partial.size, partial.size_proven
                if end == "complete":
                    await partial.complete()
                elif end == "discard":
                    await partial.discard()
                return before, after

        self.both(act)
        return hash

    # Tags

    @rule(name=NAMES, hash=blobs, format_=st.sampled_from(BlobFormat))
    def set_tag(self, name: str, hash: Hash, format_: BlobFormat) -> None:
        self.both(lambda store, _: store.set_tag(name, HashAndFormat(hash, format_)))

    @rule(name=NAMES)
    def delete_tag(self, name: str) -> None:
        self.both(lambda store, _: store.delete_tag(name))

    @rule(old=NAMES, new=NAMES)
    def rename_tag(self, old: str, new: str) -> None:
        self.both(lambda store, _: store.rename_tag(old, new))

    @rule()
    def open_temp(self) -> None:
        run = self._runner.run
        self._temps.append((run(self._lmdb.temp_tag()), run(self._mem.temp_tag())))

    @rule(number=st.integers(0, 9))
    def close_temp(self, number: int) -> None:
        pair = self.temp_of(number)
        if pair[0] is not None:
            self._temps.remove(pair)
            for temp in pair:
                self._runner.run(temp.close())

    @rule(number=st.integers(0, 9), hash=blobs, format_=st.sampled_from(BlobFormat))
    def protect(self, number: int, hash: Hash, format_: BlobFormat) -> None:
        for temp in self.temp_of(number):
            if temp is not None:
                self._runner.run(temp.protect(HashAndFormat(hash, format_)))

    # Removing

    @rule(hashes=st.lists(blobs, max_size=2))
    def delete(self, hashes: list[Hash]) -> None:
        self.both(lambda store, _: store.delete(hashes))

    @rule(dry_run=st.booleans())
    def gc(self, dry_run: bool) -> None:
        async def act(store: Store, _: int) -> tuple[int, int]:
            report = await store.gc(dry_run=dry_run)
            return report.blobs, report.kept

        self.both(act)

    # Looking

    @rule(hash=blobs, start=st.integers(0, 80_000), size=st.integers(0, 80_000))
    def read(self, hash: Hash, start: int, size: int) -> None:
        self.both(lambda store, _: store.read(hash, start, start + size))

    @rule(hash=blobs)
    def export(self, hash: Hash) -> None:
        async def act(store: Store, index: int) -> bytes:
            path = self._folder / "out"
            try:
                await store.export(hash, path)
                return path.read_bytes()
            finally:
                path.unlink(missing_ok=True)

        self.both(act)

    @rule(hash=blobs)
    def verify(self, hash: Hash) -> None:
        self.both(lambda store, _: store.verify(hash))

    @invariant()
    def same_contents(self) -> None:
        async def act(store: Store, _: int) -> tuple[Any, ...]:
            blobs = [
                (stat.hash, stat.size, stat.size_proven, stat.is_complete, stat.bitfield)
                async for stat in store.list_blobs()
            ]
            small = await store.read_small([blob[0] for blob in blobs])
            return blobs, small, await store.list_tags()

        self.both(act)


async def _await(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


@pytest.mark.timeout(240)
class TestStores(Stores.TestCase):
    settings = settings(max_examples=30, stateful_step_count=25, deadline=None)

"""Cases of the store contract: tags, what is kept alive, removal, and the end of a store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import pybao
from blobstore.codec.hash import EMPTY_HASH, BlobFormat, Hash, HashAndFormat
from blobstore.codec.hashseq import HashSeq
from blobstore.codec.ranges import ChunkRanges
from blobstore.errors import (
    BlobError,
    BlobNotFoundError,
    ProtectedError,
    StoreClosedError,
    TagNotFoundError,
)
from blobstore.testing.contract_base import ContractBase
from blobstore.testing.data import (
    ABSENT,
    LARGE,
    LARGE_HASH,
    fill,
    pattern,
)

if TYPE_CHECKING:
    from pathlib import Path

    from blobstore.api import (
        Store,
    )


class KeepingCases(ContractBase):
    """Tags, what is kept alive, removal, and the end of a store."""

    # Tags

    async def test_tags(self, store: Store) -> None:
        one, two = HashAndFormat(ABSENT), HashAndFormat(LARGE_HASH, BlobFormat.HASH_SEQ)
        await store.set_tag("b", one)
        await store.set_tag("a/\N{SNOWMAN}", two)
        await store.set_tag("a", one)
        await store.set_tag("a", two)
        assert [tag.name for tag in await store.list_tags()] == ["a", "a/\N{SNOWMAN}", "b"]
        assert [tag.target for tag in await store.list_tags("a")] == [two, two]
        assert await store.list_tags("z") == []
        assert await store.get_tag("a") == two
        assert await store.get_tag("c") is None
        await store.rename_tag("a", "b")
        assert await store.get_tag("b") == two
        await store.rename_tag("b", "b")
        await store.delete_tag("b")
        assert [tag.name for tag in await store.list_tags()] == ["a/\N{SNOWMAN}"]

    async def test_tags_that_are_not_there(self, store: Store) -> None:
        with pytest.raises(TagNotFoundError):
            await store.delete_tag("absent")
        with pytest.raises(TagNotFoundError):
            await store.rename_tag("absent", "other")

    @pytest.mark.parametrize("name", ["", "x" * 512, "\udc80"])
    async def test_names_that_no_tag_has(self, store: Store, name: str) -> None:
        with pytest.raises(ValueError, match=r"tag name|surrogates"):
            await store.set_tag(name, HashAndFormat(ABSENT))
        assert await store.list_tags() == []

    # What is kept

    async def test_gc_keeps_what_is_needed(self, store: Store) -> None:
        temp = await store.temp_tag()
        tagged, garbage, child, held = await store.add_many(
            [b"tagged", LARGE, b"child", b"held"], temp=temp
        )
        seq = await store.add_bytes(bytes(HashSeq([child, ABSENT, child])), temp=temp)
        for_now = await store.add_bytes(b"until the store is closed")
        await store.set_tag("raw", HashAndFormat(tagged))
        await store.set_tag("seq", HashAndFormat(seq, BlobFormat.HASH_SEQ))
        other = await store.temp_tag(HashAndFormat(held))
        assert (await store.gc()).blobs == 0
        await temp.close()
        await temp.close()
        dry = await store.gc(dry_run=True)
        assert (dry.blobs, dry.kept) == (1, 5)
        assert dry.bytes_freed >= len(LARGE)
        assert await store.read(garbage) == LARGE
        assert await store.gc() == dry
        assert await store.stat(garbage) is None
        assert [stat.hash async for stat in store.list_blobs()] == sorted(
            [tagged, child, held, seq, for_now]
        )
        await other.close()
        await store.set_tag("seq", HashAndFormat(seq))
        assert (await store.gc()).blobs == 2
        assert await store.stat(child) is None
        assert await store.stat(held) is None

    async def test_gc_of_a_large_hash_seq(self, store: Store) -> None:
        temp = await store.temp_tag()
        children = await store.add_many([pattern(50, n) + bytes([n]) for n in range(5)], temp=temp)
        names = [Hash(pybao.hash(b"%d" % n)) for n in range(40_000)]
        seq = await store.add_bytes(bytes(HashSeq([*names, *children])), temp=temp)
        await store.set_tag("seq", HashAndFormat(seq, BlobFormat.HASH_SEQ))
        await temp.close()
        assert (await store.gc()).kept == 6

    async def test_a_partial_hash_seq_keeps_the_children_it_shows(self, store: Store) -> None:
        temp = await store.temp_tag()
        early, late = await store.add_many([b"early", b"late"], temp=temp)
        filler = [ABSENT] * 2000
        data = bytes(HashSeq([early, *filler, late]))
        seq = Hash(pybao.hash(data))
        await store.set_tag("seq", HashAndFormat(seq, BlobFormat.HASH_SEQ))
        async with await store.open_partial(seq) as partial:
            await fill(partial, data, ChunkRanges.of(0, 16))
        await temp.close()
        await store.gc()
        assert await store.stat(early) is not None
        assert await store.stat(late) is None
        assert await store.stat(seq) is not None

    async def test_temp_tags_protect(self, store: Store) -> None:
        async with await store.temp_tag() as first:
            child = await store.add_bytes(b"child", temp=first)
            seq = await store.add_bytes(bytes(HashSeq([child])), temp=first)
            second = await store.temp_tag()
            await second.protect(HashAndFormat(seq, BlobFormat.HASH_SEQ))
            await second.protect()
        assert (await store.gc()).kept == 2
        await second.close()
        with pytest.raises(BlobError):
            await second.protect(HashAndFormat(seq))
        assert (await store.gc()).blobs == 2

    async def test_an_open_partial_is_kept(self, store: Store) -> None:
        async with await store.open_partial(LARGE_HASH) as partial:
            await fill(partial, LARGE, ChunkRanges.of(0, 16))
            assert (await store.gc()).blobs == 0
            with pytest.raises(ProtectedError):
                await store.delete([LARGE_HASH])
            assert partial.bitfield == ChunkRanges.of(0, 16)
        assert (await store.gc()).blobs == 1
        assert await store.stat(LARGE_HASH) is None

    async def test_a_tag_keeps_a_partial_blob(self, store: Store) -> None:
        async with await store.open_partial(LARGE_HASH) as partial:
            await fill(partial, LARGE, ChunkRanges.of(0, 16))
        await store.set_tag("wanted", HashAndFormat(LARGE_HASH))
        assert (await store.gc()).blobs == 0
        async with await store.open_partial(LARGE_HASH) as partial:
            assert partial.bitfield == ChunkRanges.of(0, 16)

    async def test_delete(self, store: Store) -> None:
        small, large, kept = await store.add_many([b"small", LARGE, b"kept"])
        seq = await store.add_bytes(bytes(HashSeq([kept])))
        await store.set_tag("seq", HashAndFormat(seq, BlobFormat.HASH_SEQ))
        with pytest.raises(ProtectedError):
            await store.delete([small, kept])
        assert await store.read(small) == b"small"
        assert await store.delete([small, large, small, ABSENT]) == 2
        assert await store.stat(small) is None
        with pytest.raises(BlobNotFoundError):
            await store.read(large)
        assert await store.add_bytes(LARGE) == large
        assert await store.read(large) == LARGE
        assert await store.delete([]) == 0

    async def test_a_temp_tag_protects_from_delete(self, store: Store) -> None:
        async with await store.temp_tag() as temp:
            hash = await store.add_bytes(b"held", temp=temp)
            with pytest.raises(ProtectedError):
                await store.delete([hash])
        assert await store.delete([hash]) == 1

    async def test_the_empty_blob_is_kept_by_nothing_and_stays(
        self, store: Store, tmp_path: Path
    ) -> None:
        path = tmp_path / "empty"
        path.touch()
        async with await store.temp_tag(HashAndFormat(EMPTY_HASH)) as temp:
            await store.import_file(path, temp=temp)
            await store.set_tag("empty", HashAndFormat(EMPTY_HASH))
            small = await store.add_bytes(b"small")
            assert await store.delete([EMPTY_HASH, small]) == 1
        assert await store.read(EMPTY_HASH) == b""
        assert await store.delete([EMPTY_HASH]) == 0

    # Lifetime

    async def test_a_closed_store(self, store: Store) -> None:
        hash = await store.add_bytes(b"x")
        temp = await store.temp_tag()
        partial = await store.open_partial(LARGE_HASH)
        await store.close()
        await store.close()
        with pytest.raises(StoreClosedError):
            await store.add_bytes(b"y")
        with pytest.raises(StoreClosedError):
            await store.stat(hash)
        await temp.close()
        await partial.close()

    async def test_temp_tags_belong_to_their_store(self, store: Store, tmp_path: Path) -> None:
        async with self.open_store(tmp_path / "other") as other:
            temp = await other.temp_tag()
            with pytest.raises(ValueError, match="another store"):
                await store.add_bytes(b"x", temp=temp)
            await temp.close()

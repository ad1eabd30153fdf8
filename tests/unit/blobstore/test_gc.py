"""Removing garbage while others protect it: what is protected in time stays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from blobstore import BlobFormat, Hash, HashAndFormat, HashSeq, LmdbStore, catalog, gc, tags
from blobstore.errors import ProtectedError
from blobstore.folder import DATA, LEASES, OUTBOARD
from blobstore.testing.data import names_in, pattern

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from blobstore.core import Core


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LmdbStore]:
    async with LmdbStore.open(tmp_path / "store") as store:
        yield store


@pytest.fixture
async def garbage(store: LmdbStore) -> list[Hash]:
    """A child, a hash seq of it, and another blob, all unprotected."""
    async with await store.temp_tag() as temp:
        child = await store.add_bytes(b"child", temp=temp)
        seq = await store.add_bytes(bytes(HashSeq([child])), temp=temp)
        return [child, seq, await store.add_bytes(pattern(50_000), temp=temp)]


def after_mark(monkeypatch: pytest.MonkeyPatch, act: Callable[[Core], Any], *, number: int) -> None:
    """Let something happen after one of the marks, where another process may come between.

    A collection of one batch marks twice, the second time right before it removes the batch.
    """
    mark = gc.Marker.mark
    marks: list[gc.Marker] = []

    def mark_and_act(self: gc.Marker) -> None:
        mark(self)
        marks.append(self)
        if len(marks) == number:
            act(self._core)  # pyright: ignore[reportPrivateUsage] - the seam of this test

    monkeypatch.setattr(gc.Marker, "mark", mark_and_act)


@pytest.mark.parametrize("how", ["lease", "tag"])
async def test_protected_after_the_mark(
    store: LmdbStore, garbage: list[Hash], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    _child, seq, _other = garbage
    target = HashAndFormat(seq, BlobFormat.HASH_SEQ)

    def act(core: Core) -> None:
        if how == "lease":
            lease = core.session.default_lease
            core.database.write(lambda txn: catalog.protect(txn, lease, (target,)))
        else:
            core.database.write(lambda txn: tags.set_tag(txn, "late", target))

    after_mark(monkeypatch, act, number=2)
    report = await store.gc()
    assert (report.blobs, report.kept) == (1, 2)


async def test_a_hash_seq_that_arrives_after_the_mark(
    store: LmdbStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was tagged before it was there; its child was garbage until then."""
    async with await store.temp_tag() as temp:
        child = await store.add_bytes(b"child", temp=temp)
    data = bytes(HashSeq([child]))
    seq = await store.add_bytes(data)
    await store.delete([seq])
    await store.set_tag("wanted", HashAndFormat(seq, BlobFormat.HASH_SEQ))

    def act(core: Core) -> None:
        core.record(core.session.default_lease, [catalog.Complete(seq, len(data), data=data)])

    after_mark(monkeypatch, act, number=2)
    assert (await store.gc()).blobs == 0
    assert await store.read(child) == b"child"
    assert await store.read(seq) == data


async def test_tagged_after_the_mark_of_a_delete(
    store: LmdbStore, garbage: list[Hash], monkeypatch: pytest.MonkeyPatch
) -> None:
    child, seq, other = garbage
    target = HashAndFormat(seq, BlobFormat.HASH_SEQ)

    def act(core: Core) -> None:
        lease = core.session.new_lease()
        core.database.write(lambda txn: catalog.protect(txn, lease, (target,)))

    after_mark(monkeypatch, act, number=1)
    with pytest.raises(ProtectedError):
        await store.delete([other, child])
    assert len([stat async for stat in store.list_blobs()]) == 3


async def test_many_blobs_go_in_batches(store: LmdbStore) -> None:
    async with await store.temp_tag() as temp:
        await store.add_many([b"%d" % number for number in range(3000)], temp=temp)
    kept = await store.add_bytes(b"kept")
    report = await store.gc()
    assert (report.blobs, report.kept) == (3000, 1)
    assert await store.read(kept) == b"kept"


async def test_orphans_are_swept_and_strangers_are_not(store: LmdbStore) -> None:
    hash = await store.add_bytes(pattern(5_000_000))
    stranger = store.path / DATA / "README"
    stranger.write_bytes(b"mine")
    orphans = [
        store.path / DATA / f"{'ab' * 32}.{'01' * 8}",
        store.path / DATA / f"incoming.{'01' * 8}",
        store.path / OUTBOARD / f"{hash}.{'01' * 8}",
    ]
    for orphan in orphans:
        orphan.write_bytes(b"12345")
    dead = store.path / LEASES / ("ab" * 16)
    dead.write_bytes(b"")
    dry = await store.gc(dry_run=True)
    assert (dry.files_removed, dry.bytes_freed, dry.blobs) == (3, 15, 0)
    assert all(orphan.exists() for orphan in orphans)
    assert await store.gc() == dry
    assert not any(path.exists() for path in (*orphans, dead))
    assert stranger.exists()
    assert len(names_in(store.path / LEASES)) == 1
    assert await store.read(hash) == pattern(5_000_000)


async def test_strange_names_among_the_leases(store: LmdbStore) -> None:
    """A name that is the beginning of a living session's releases nothing of it."""
    hash = await store.add_bytes(b"held")
    (session,) = names_in(store.path / LEASES)
    for name in (session[:2], session[:30], session.upper(), "README"):
        (store.path / LEASES / name).write_bytes(b"")
    assert (await store.gc()).blobs == 0
    assert await store.read(hash) == b"held"


async def test_bytes_freed_are_counted(store: LmdbStore) -> None:
    async with await store.temp_tag() as temp:
        await store.add_many([bytes(1000), pattern(100_000), pattern(5_000_000)], temp=temp)
    report = await store.gc()
    # Data, the inline outboard of 7 groups, the outboard file of 306.
    assert report.bytes_freed == 1000 + 100_000 + 6 * 64 + 5_000_000 + 305 * 64
    assert report.files_removed == 3

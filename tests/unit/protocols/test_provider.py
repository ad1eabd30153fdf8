"""What a provider serves, what it refuses, and how each answer ends."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from blobstore import BlobFormat, ChunkRanges, Hash, HashAndFormat, HashSeq
from blobsync.transports import StreamResetError, StreamStoppedError
from blobsync.wire.range_spec import ChunkRangesSeq
from blobsync.wire.requests import (
    GetManyRequest,
    GetRequest,
    ObserveRequest,
    PushRequest,
    encode_request,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blobstore import BlobReader, WholeSource
    from tests.unit.protocols.conftest import World

VECTORS = Path(__file__).parents[2] / "vectors"


async def ask(world: World, request: bytes) -> tuple[bytes, int | None]:
    """The bytes of the answer, and the reset code that ended it, None for a regular end."""
    stream = await world.connection.open_bi()
    await stream.send.write(request)
    with suppress(StreamStoppedError):
        await stream.send.finish()
    answer = b""
    try:
        while data := await stream.recv.read(1 << 20):
            answer += data
    except StreamResetError as error:
        return answer, error.code
    return answer, None


async def stop_code(world: World, request: bytes) -> int | None:
    """With which code the provider stops a request that goes on."""
    stream = await world.connection.open_bi()
    await stream.send.write(request)
    return await stream.send.wait_stopped()


def encoded(data: bytes) -> bytes:
    """The answer for a whole blob of at most one chunk group."""
    return len(data).to_bytes(8, "little") + data


@pytest.fixture
async def blob(world: World) -> Hash:
    hash = await world.store.add_bytes(b"shared")
    world.shared.grant(HashAndFormat(hash))
    return hash


@pytest.fixture
async def hash_seq(world: World) -> HashSeq:
    """Two children, the second of which is not in the store."""
    child = await world.store.add_bytes(b"child")
    seq = HashSeq([child, Hash(bytes(32)), child])
    root = await world.store.add_bytes(bytes(seq))
    world.shared.grant(HashAndFormat(root, BlobFormat.HASH_SEQ))
    return seq


async def root_of(world: World) -> Hash:
    (root,) = world.shared.hash_seqs()
    return root


async def test_a_shared_blob_is_served(world: World, blob: Hash) -> None:
    request = encode_request(GetRequest(blob, ChunkRangesSeq.blob()))
    assert await ask(world, request) == (encoded(b"shared"), None)
    assert world.provider.counters.bytes_sent == len(b"shared")


async def test_what_is_only_in_the_store_is_as_unknown(world: World, blob: Hash) -> None:
    private = await world.store.add_bytes(b"private")
    unknown = Hash(bytes(32))
    for hash in (private, unknown):
        for ranges in (ChunkRangesSeq.blob(), ChunkRangesSeq.all()):
            assert await ask(world, encode_request(GetRequest(hash, ranges))) == (b"", None)
        many = GetManyRequest.from_blobs([(blob, ChunkRanges.all()), (hash, ChunkRanges.all())])
        assert await ask(world, encode_request(many)) == (encoded(b"shared"), None)
    assert world.provider.counters.bytes_sent == 2 * len(b"shared")


async def test_a_revoked_blob_is_as_unknown(world: World, blob: Hash) -> None:
    world.shared.revoke(blob)
    request = encode_request(GetRequest(blob, ChunkRangesSeq.blob()))
    assert await ask(world, request) == (b"", None)


async def test_children_of_a_shared_hash_seq_are_served(world: World, hash_seq: HashSeq) -> None:
    root = await root_of(world)
    through_root = GetRequest(root, ChunkRangesSeq.from_elements([(3, ChunkRanges.all())]))
    alone = GetRequest(hash_seq[0], ChunkRangesSeq.blob())
    many = GetManyRequest.from_blobs([(hash_seq[0], ChunkRanges.all())])
    for request in (through_root, alone, many):
        assert await ask(world, encode_request(request)) == (encoded(b"child"), None)


async def test_an_answer_ends_where_a_piece_is_missing(world: World, hash_seq: HashSeq) -> None:
    root = await root_of(world)
    request = encode_request(GetRequest(root, ChunkRangesSeq.all()))
    expected = encoded(bytes(hash_seq)) + encoded(b"child")
    assert await ask(world, request) == (expected, None)


async def test_children_of_a_raw_share_are_not_served(world: World, hash_seq: HashSeq) -> None:
    root = await root_of(world)
    world.shared.revoke(root)
    world.shared.grant(HashAndFormat(root))
    request = encode_request(GetRequest(root, ChunkRangesSeq.all()))
    assert await ask(world, request) == (encoded(bytes(hash_seq)), None)
    alone = encode_request(GetRequest(hash_seq[0], ChunkRangesSeq.blob()))
    assert await ask(world, alone) == (b"", None)


async def test_an_answer_ends_with_the_hash_seq(world: World) -> None:
    child = await world.store.add_bytes(b"child")
    root = await world.store.add_bytes(bytes(HashSeq([child])))
    world.shared.grant(HashAndFormat(root, BlobFormat.HASH_SEQ))
    beyond = ChunkRangesSeq.from_elements((i, ChunkRanges.all()) for i in range(1, 9))
    assert await ask(world, encode_request(GetRequest(root, beyond))) == (encoded(b"child"), None)


async def test_a_request_that_selects_nothing_has_an_empty_answer(world: World, blob: Hash) -> None:
    request = encode_request(GetRequest(blob, ChunkRangesSeq.empty()))
    assert await ask(world, request) == (b"", None)


async def test_a_changed_file_resets_the_answer_with_internal(
    lmdb_world: World, tmp_path: Path
) -> None:
    world = lmdb_world
    path = tmp_path / "file"
    path.write_bytes(bytes(100_000))
    imported = await world.store.import_file(path)
    world.shared.grant(HashAndFormat(imported.hash))
    request = encode_request(GetRequest(imported.hash, ChunkRangesSeq.blob()))
    whole, _ = await ask(world, request)
    assert len(whole) == 8 + 6 * 64 + 100_000
    path.write_bytes(b"x" * 100_000)
    assert await ask(world, request) == (b"", 3)


@pytest.mark.parametrize("in_file", [False, True], ids=["bytes", "file"])
@pytest.mark.parametrize("size", [10_000, 100_000, 2_000_000])
async def test_damaged_data_never_leaves(
    lmdb_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, in_file: bool
) -> None:
    """The data changes without a trace in its status: only hashing finds it."""
    world = lmdb_world
    path = tmp_path / "file"
    path.write_bytes(bytes(size))
    imported = await world.store.import_file(path)
    world.shared.grant(HashAndFormat(imported.hash))
    damaged = bytes(size // 2) + b"x" + bytes(size - size // 2 - 1)
    open_reader, find_whole = world.store.open_reader, world.store.find_whole

    async def open_damaged(hash: Hash) -> BlobReader:
        with await open_reader(hash) as reader:
            return replace(reader, data=damaged, _on_close=None)

    async def find_damaged(
        hashes: Sequence[Hash], *, size_max: int, bytes_max: int
    ) -> list[WholeSource | None]:
        found = await find_whole(hashes, size_max=size_max, bytes_max=bytes_max)
        if in_file:
            (tmp_path / "damaged").write_bytes(damaged)
            return [each and each._replace(data=str(tmp_path / "damaged")) for each in found]
        return [each and each._replace(data=damaged) for each in found]

    request = encode_request(GetRequest(imported.hash, ChunkRangesSeq.blob()))
    whole, _ = await ask(world, request)
    monkeypatch.setattr(world.store, "open_reader", open_damaged)
    monkeypatch.setattr(world.store, "find_whole", find_damaged)
    answer, code = await ask(world, request)
    assert code == 3
    assert whole.startswith(answer)
    assert len(answer) < len(whole)


async def test_observe_is_refused(world: World, blob: Hash) -> None:
    request = encode_request(ObserveRequest(blob, ChunkRanges.all()))
    assert await ask(world, request) == (b"", 1)
    assert world.provider.counters.requests_refused == 1


async def test_push_is_refused_before_its_data(world: World, blob: Hash) -> None:
    request = encode_request(PushRequest(blob, ChunkRangesSeq.blob()))
    assert await ask(world, request) == (b"", 1)
    assert await stop_code(world, request + bytes(100_000)) == 0
    assert world.provider.counters.requests_refused == 2


@pytest.mark.parametrize("kind", [2, 3, 4, 5, 6, 7, 10, 255])
async def test_reserved_and_unknown_kinds_are_dropped(world: World, blob: Hash, kind: int) -> None:
    request = bytes([kind]) + encode_request(GetRequest(blob, ChunkRangesSeq.blob()))[1:]
    assert await ask(world, request) == (b"", None)
    assert world.provider.counters.requests_refused == 1


async def test_nothing_and_garbage_are_dropped(world: World) -> None:
    for request in (b"", b"\x00", b"\x00" + b"garbage", b"\x09\xff\xff\xff"):
        assert await ask(world, request) == (b"", None)
    assert world.provider.counters.requests_refused == 4


async def test_a_request_may_have_one_mebibyte_and_no_more(world: World, blob: Hash) -> None:
    # A GetMany whose hashes fill the body to the last byte, the ranges of which follow as zeros.
    for extra in (0, 1):
        body = b"\xff\xff\x03" + bytes((1 << 20) - 3 + extra)
        assert await ask(world, b"\x09" + body) == (b"", None)
    assert await stop_code(world, b"\x00" + bytes((1 << 20) + 200_000)) == 0


def _must_reject() -> list[Any]:
    cases = json.loads((VECTORS / "range_specs.json").read_text())["must_reject"]
    return [pytest.param(case, id=case.get("name") or str(i)) for i, case in enumerate(cases)]


@pytest.mark.parametrize("case", _must_reject())
async def test_ranges_that_are_not_canonical_are_dropped(
    world: World, blob: Hash, case: dict[str, Any]
) -> None:
    wire = bytes.fromhex(case["wire"])
    assert await ask(world, b"\x00" + blob + wire) == (b"", None)
    assert world.provider.counters.requests_refused == 1

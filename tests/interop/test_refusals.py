"""How an answer of ours ends when it is refused, as a real client of iroh sees it.

The expected ends are those of docs/protocols/blobs.md: what cannot be read, and what is not held
or not shared, is answered with an end of the stream and no bytes; a kind of request that is not
granted with a reset of code 1; and whoever goes on sending is stopped with code 0.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from blobstore import ChunkRanges, Hash, ImportMode
from blobsync.app import App, Share
from blobsync.errors import RemoteProtocolError
from blobsync.protocols.blobs import ALPN
from blobsync.wire.range_spec import ChunkRangesSeq
from blobsync.wire.requests import (
    REQUEST_SIZE_MAX,
    GetManyRequest,
    GetRequest,
    ObserveRequest,
    PushRequest,
    decode_request,
    encode_request,
)
from tests.interop.conftest import OpenApp
from tests.interop.contents import GROUP, random_bytes, write_tree
from tests.interop.drivers import Line, Peer, PeerFailedError

# More than the 1 MiB that is read of a request and the receive window behind it.
UNREAD_SIZE = 4 << 20

RESET_PERMISSION = {"reset": 1}

UNKNOWN = Hash(bytes([0x11] * 32))


@dataclass(frozen=True)
class Shared:
    """A running share with one file, and a second file that is in the store only."""

    app: App
    share: Share
    address: str
    file: Hash
    data: bytes
    unshared: Hash


@pytest.fixture
async def shared(open_app: OpenApp, scratch: Path) -> AsyncIterator[Shared]:
    """Such a share."""
    data = random_bytes(GROUP + 1, seed=1)
    tree = write_tree(scratch / "source", {"file": data, "other": b"not shared"})
    async with open_app(scratch / "home") as app:
        added = await app.add([tree / "other"], mode=ImportMode.COPY)
        share = await app.share([tree / "file"], mode=ImportMode.REFERENCE)
        addr = share.ticket.addr
        address = f"{addr.id}@{','.join(str(ip_addr) for ip_addr in addr.ip_addrs)}"
        file = share.collection.files[0].hash
        yield Shared(app, share, address, file, data, added.files[0].hash)


async def ask(
    peer: Peer, shared: Shared, scratch: Path, request: bytes, *options: str, alpn: bytes = ALPN
) -> Line:
    """Send bytes on a stream; what came back, once the data is known to be served still."""
    path = scratch / "request"
    path.write_bytes(request)
    answer = await peer.run("raw-request", shared.address, alpn.decode(), f"@{path}", *options)
    # Whatever it was, the provider goes on.
    good = encode_request(GetRequest(shared.file, ChunkRangesSeq.blob()))
    served = await peer.run("raw-request", shared.address, ALPN.decode(), good.hex())
    assert (served["end"], served["data_len"]) == ("fin", 8 + 64 + len(shared.data))
    return answer


def assert_ends(answer: Line, end: str | dict[str, int], *, stopped: int | None) -> None:
    """No bytes came, and both halves of the stream ended like this."""
    assert (answer["data_len"], answer["end"], answer["stopped"]) == (0, end, stopped)


async def test_observe(peer: Peer, shared: Shared, scratch: Path) -> None:
    for hash in (shared.file, shared.share.ticket.hash, UNKNOWN):
        request = encode_request(ObserveRequest(hash, ChunkRanges.all()))
        assert_ends(await ask(peer, shared, scratch, request), RESET_PERMISSION, stopped=None)
    assert shared.share.counters.requests_refused == 3


async def test_push(peer: Peer, shared: Shared, scratch: Path) -> None:
    request = encode_request(PushRequest(UNKNOWN, ChunkRangesSeq.blob()))
    answer = await ask(peer, shared, scratch, request + bytes(UNREAD_SIZE))
    assert_ends(answer, RESET_PERMISSION, stopped=0)
    assert await shared.app.store.stat(UNKNOWN) is None


async def test_push_by_the_peers_own_client(peer: Peer, shared: Shared, scratch: Path) -> None:
    (scratch / "pushed").write_bytes(random_bytes(UNREAD_SIZE, seed=5))
    done = await peer.run("push", shared.address, scratch / "pushed")
    assert done["stopped"] == 0
    assert await shared.app.store.stat(Hash.from_text(done["hash"])) is None


@pytest.mark.parametrize("kind", [2, 3, 4, 5, 6, 7, 10, 127, 255])
async def test_unknown_kinds(peer: Peer, shared: Shared, scratch: Path, kind: int) -> None:
    request = bytes([kind]) + encode_request(GetRequest(shared.file, ChunkRangesSeq.blob()))[1:]
    assert_ends(await ask(peer, shared, scratch, request), "fin", stopped=None)


async def test_an_unknown_kind_with_a_lot_behind_it(
    peer: Peer, shared: Shared, scratch: Path
) -> None:
    answer = await ask(peer, shared, scratch, b"\x02" + bytes(UNREAD_SIZE))
    assert_ends(answer, "fin", stopped=0)


GET = b"\x00"
GET_MANY = b"\x09"
HASH = b"\xda" * 32
COUNT_32767 = b"\xff\xff\x01"
COUNT_32768 = b"\x80\x80\x02"


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"",
        GET,
        GET + HASH[:31],
        GET + HASH,
        GET + b"\xff" * 100,
        GET + HASH + b"\x02\x00\x01\x00",
        GET + HASH + b"\xff" * 9 + b"\x01",
        GET_MANY + b"\xff\xff\xff\xff\x0f",
        GET_MANY + b"\x02" + HASH,
    ],
)
async def test_garbage(peer: Peer, shared: Shared, scratch: Path, request_bytes: bytes) -> None:
    answer = await ask(peer, shared, scratch, request_bytes)
    assert_ends(answer, "fin", stopped=None)
    assert shared.share.counters.requests_refused == 1


async def test_bytes_behind_a_request(peer: Peer, shared: Shared, scratch: Path) -> None:
    request = encode_request(GetRequest(shared.file, ChunkRangesSeq.blob())) + b"\x00"
    assert_ends(await ask(peer, shared, scratch, request), "fin", stopped=None)


@pytest.mark.parametrize(
    "ranges",
    [
        pytest.param("02 00 00  01 01 00", id="first entry empty"),
        pytest.param("03 00 01 00  01 01 00  01 00", id="an entry equal to the one before"),
        pytest.param("02 00 01 00  00 00", id="an element named twice"),
        pytest.param("02 00 02 00 00  01 00", id="a boundary named twice"),
        pytest.param("02 00 02 01 ff ff ff ff ff ff ff ff ff 01  01 00", id="past 64 bits"),
        pytest.param("02 00 01 ff ff ff ff ff ff ff ff ff 02  01 00", id="a number past 64 bits"),
    ],
)
async def test_ranges_that_are_not_in_their_one_form(
    peer: Peer, shared: Shared, scratch: Path, ranges: str
) -> None:
    request = GET + shared.file + bytes.fromhex(ranges)
    with pytest.raises(RemoteProtocolError):
        decode_request(request)
    assert_ends(await ask(peer, shared, scratch, request), "fin", stopped=None)


async def test_a_request_that_is_too_long(peer: Peer, shared: Shared, scratch: Path) -> None:
    # A list of one known hash, whole: right, as long as it is short enough.
    root, ranges = shared.share.ticket.hash, bytes.fromhex("01 00 01 00")
    fitting = (REQUEST_SIZE_MAX - len(COUNT_32767) - len(ranges)) // len(root)
    assert fitting == 32767
    request = GET_MANY + COUNT_32767 + root * fitting + ranges
    answered = await ask(peer, shared, scratch, request, "--wait-s", "60")
    assert (answered["end"], answered["data_len"]) == ("fin", fitting * (8 + 2 * len(root)))
    request = GET_MANY + COUNT_32768 + root * (fitting + 1) + ranges
    assert_ends(await ask(peer, shared, scratch, request), "fin", stopped=None)
    answer = await ask(peer, shared, scratch, request + bytes(UNREAD_SIZE))
    assert_ends(answer, "fin", stopped=0)


async def test_what_is_not_shared(peer: Peer, shared: Shared, scratch: Path) -> None:
    # What is in the store looks as what is nowhere.
    assert await shared.app.store.stat(shared.unshared) is not None
    for hash in (UNKNOWN, shared.unshared):
        for seq in (ChunkRangesSeq.blob(), ChunkRangesSeq.all()):
            request = encode_request(GetRequest(hash, seq))
            assert_ends(await ask(peer, shared, scratch, request), "fin", stopped=None)
        many = encode_request(GetManyRequest.from_blobs([(hash, ChunkRanges.all())]))
        assert_ends(await ask(peer, shared, scratch, many), "fin", stopped=None)
        with pytest.raises(PeerFailedError):
            await peer.run("get-many", shared.address, scratch / "out", str(hash))


async def test_a_selection_of_nothing(peer: Peer, shared: Shared, scratch: Path) -> None:
    request = encode_request(GetRequest(shared.file, ChunkRangesSeq.empty()))
    assert_ends(await ask(peer, shared, scratch, request), "fin", stopped=None)
    assert shared.share.counters.requests_refused == 0


async def test_a_request_that_goes_on(peer: Peer, shared: Shared, scratch: Path) -> None:
    request = encode_request(GetRequest(shared.file, ChunkRangesSeq.blob()))
    answer = await ask(peer, shared, scratch, request, "--no-finish", "--wait-s", "0.5")
    assert_ends(answer, "open", stopped=None)


async def test_an_unknown_alpn(peer: Peer, shared: Shared, scratch: Path) -> None:
    with pytest.raises(PeerFailedError, match="known protocol"):
        await ask(peer, shared, scratch, b"", alpn=b"/iroh-bytes/3")

"""What cannot be done is told in one line, with its exit code, and changes nothing."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from blobstore import BlobFormat, Collection, Hash, HashAndFormat, MemStore
from blobsync.address import EndpointAddr, SocketAddr
from blobsync.errors import BlobsyncError, ExitCode
from blobsync.identity import public_id
from blobsync.protocols.blobs import ALPN, Provider, SharedBlobs
from blobsync.protocols.blobs.python_pumps import PythonPumps
from blobsync.transports.quic.endpoint import AioquicEndpoint
from blobsync.wire.ticket import BlobTicket
from tests.faults.app.conftest import snapshot, tree_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.faults.app.conftest import Finished, Program, Sharing

LOOPBACK = SocketAddr.from_text("127.0.0.1:0")


@pytest.fixture
def destination(tmp_path: Path) -> Path:
    """Holds a file of the user already."""
    path = tmp_path / "destination"
    path.mkdir()
    (path / "mine").write_bytes(b"precious")
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.mkdir()
    (path / "small").write_bytes(b"small")
    (path / "large").write_bytes(os.urandom(2_000_000))
    return path


@pytest.fixture
def sharing(provider: Program, source: Path) -> Iterator[Sharing]:
    with provider.share(source) as sharing:
        yield sharing


def changed(ticket: str, **fields: object) -> str:
    """A ticket with other contents."""
    old = BlobTicket.from_text(ticket)
    known = {"addr": old.addr, "hash": old.hash, "format": old.format, **fields}
    return BlobTicket(**known).to_text()  # type: ignore[arg-type]


# Tickets


@pytest.mark.parametrize(
    ("command", "ticket"),
    [
        ("get", ""),
        ("get", "blobaaaa"),
        ("get", "docaaaa" + "a" * 60),
        ("get", "bl\x1b[31mob"),
        ("cat", "nonsense"),
        ("ls", "☃"),
    ],
)
def test_a_bad_ticket(getter: Program, destination: Path, ticket: str, command: str):
    before = snapshot(destination, getter.home)
    args = [command, ticket, *([str(destination)] if command == "get" else [])]
    line = getter.run(*args).failed_with(ExitCode.BAD_INPUT)
    assert "\x1b" not in line
    assert snapshot(destination, getter.home) == before


def test_a_ticket_whose_key_nobody_can_have(getter: Program, destination: Path):
    """All its bytes are zero: a point of the curve, but one of those that prove nothing."""
    before = snapshot(destination)
    line = getter.get("blob" + "a" * 200, destination).failed_with(ExitCode.BAD_INPUT)
    assert "key" in line
    assert snapshot(destination) == before


def test_a_ticket_with_one_wrong_letter_never_fetches(
    getter: Program, sharing: Sharing, destination: Path
):
    """A ticket has no checksum: what is wrong shows as no ticket, no peer or no such blob."""
    before = snapshot(destination)
    middle = len(sharing.ticket) - 20
    letter = "a" if sharing.ticket[middle] != "a" else "b"
    ticket = sharing.ticket[:middle] + letter + sharing.ticket[middle + 1 :]
    getter.get(ticket, destination).failed_with(ExitCode.NOT_FOUND)
    assert snapshot(destination) == before


# Peers


@pytest.mark.slow
def test_a_port_where_nobody_answers(getter: Program, sharing: Sharing, destination: Path):
    """A socket that takes packets and never sends one."""
    before = snapshot(destination)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        silent_addr = SocketAddr.from_text(f"127.0.0.1:{silent.getsockname()[1]}")
        known = BlobTicket.from_text(sharing.ticket).addr
        ticket = changed(sharing.ticket, addr=EndpointAddr(known.id, ip_addrs=(silent_addr,)))
        line = getter.get(ticket, destination).failed_with(ExitCode.UNREACHABLE)
    assert known.id.short() in line
    assert snapshot(destination) == before


@pytest.mark.slow
def test_a_closed_port(getter: Program, sharing: Sharing, destination: Path):
    """The kernel says at once that nobody listens there; QUIC may not believe it."""
    before = snapshot(destination)
    assert sharing.stop().code == 0
    line = getter.get(sharing.ticket, destination).failed_with(ExitCode.UNREACHABLE)
    assert BlobTicket.from_text(sharing.ticket).addr.id.short() in line
    assert snapshot(destination) == before


def test_a_peer_with_another_key(getter: Program, sharing: Sharing, destination: Path):
    """Someone answers at the address, but cannot prove that it is who the ticket names."""
    before = snapshot(destination)
    known = BlobTicket.from_text(sharing.ticket).addr
    other = EndpointAddr(public_id(bytes([7]) * 32), ip_addrs=known.ip_addrs)
    getter.get(changed(sharing.ticket, addr=other), destination).failed_with(ExitCode.UNREACHABLE)
    assert snapshot(destination) == before


def test_a_ticket_without_any_address(getter: Program, sharing: Sharing, destination: Path):
    before = snapshot(destination)
    nowhere = EndpointAddr(BlobTicket.from_text(sharing.ticket).addr.id)
    getter.get(changed(sharing.ticket, addr=nowhere), destination).failed_with(ExitCode.UNREACHABLE)
    assert snapshot(destination) == before


async def test_a_peer_of_another_protocol(getter: Program, destination: Path):
    before = snapshot(destination)
    async with await AioquicEndpoint.bind(alpns=[b"something-else/0"], bind=[LOOPBACK]) as endpoint:
        addr = await endpoint.wait_for_addr(10)
        answering = asyncio.ensure_future(_accept_all(endpoint))
        ticket = BlobTicket(addr, Hash(bytes(32)), BlobFormat.RAW).to_text()
        got = await asyncio.to_thread(getter.get, ticket, destination)
        answering.cancel()
    line = got.failed_with(ExitCode.UNREACHABLE)
    assert "protocol" in line
    assert snapshot(destination) == before


async def _accept_all(endpoint: AioquicEndpoint) -> None:
    while (incoming := await endpoint.accept()) is not None:
        with suppress(BlobsyncError):
            await incoming.accept()


# What is not served


@pytest.mark.parametrize("format", list(BlobFormat))
def test_what_is_not_shared(
    getter: Program, sharing: Sharing, destination: Path, format: BlobFormat
):
    before = snapshot(destination)
    ticket = changed(sharing.ticket, hash=Hash(b"\x11" * 32), format=format)
    line = getter.get(ticket, destination).failed_with(ExitCode.NOT_FOUND)
    assert "11111111" in line
    assert snapshot(destination) == before


def test_what_is_only_in_the_store_of_a_provider(
    provider: Program, getter: Program, sharing: Sharing, destination: Path, tmp_path: Path
):
    private = tmp_path / "private"
    private.write_bytes(b"private" * 1000)
    added = provider.run("add", private, "--json")
    assert added.code == 0, added.stderr
    before = snapshot(destination)
    ticket = changed(sharing.ticket, hash=Hash.from_text(added.last["hash"]))
    getter.get(ticket, destination).failed_with(ExitCode.NOT_FOUND)
    assert snapshot(destination) == before


def test_a_failure_in_json(getter: Program, sharing: Sharing, destination: Path):
    ticket = changed(sharing.ticket, hash=Hash(b"\x11" * 32))
    got = getter.get(ticket, destination, "--json")
    assert got.code == ExitCode.NOT_FOUND
    assert got.stderr == ""
    assert got.last["event"] == "error"
    assert (got.last["kind"], got.last["exit_code"]) == ("not_found", ExitCode.NOT_FOUND)


# What is in the way


@pytest.mark.parametrize("name", ["small", "large"])
def test_a_file_with_other_content_in_the_way(
    getter: Program, sharing: Sharing, destination: Path, name: str
):
    (destination / "source").mkdir()
    (destination / "source" / name).write_bytes(b"mine" * 10_000)
    before = snapshot(destination)
    line = getter.get(sharing.ticket, destination).failed_with(ExitCode.CONFLICT)
    assert f"source/{name}" in line
    assert snapshot(destination) == before


def test_a_destination_that_is_a_file(getter: Program, sharing: Sharing, destination: Path):
    before = snapshot(destination)
    for place in (destination / "mine", destination / "mine" / "below"):
        got = getter.get(sharing.ticket, place)
        assert got.code in (ExitCode.CONFLICT, ExitCode.BAD_INPUT, ExitCode.HOSTILE), got
        got.failed_with(got.code)
    assert snapshot(destination) == before


def test_a_symlink_in_the_way_is_not_followed(
    getter: Program, sharing: Sharing, destination: Path, tmp_path: Path
):
    outside = tmp_path / "outside"
    outside.mkdir()
    (destination / "source").symlink_to(outside)
    before = snapshot(destination, outside)
    for overwrite in ("never", "always", "if-changed"):
        got = getter.get(sharing.ticket, destination, "--overwrite", overwrite)
        assert got.code in (ExitCode.CONFLICT, ExitCode.HOSTILE), got
        got.failed_with(got.code)
    assert snapshot(destination, outside) == before


@pytest.mark.parametrize("missing", ["no such file", "folder/no such file"])
def test_sharing_what_is_not_there(provider: Program, tmp_path: Path, missing: str):
    done = provider.run("share", tmp_path / missing, "--relay", "disabled", "--bind", "127.0.0.1:0")
    line = done.failed_with(ExitCode.BAD_INPUT)
    assert "no such file" in line
    assert done.stdout == b""


@pytest.mark.parametrize(
    "args",
    [
        ("--bind", "127.0.0.1:99999"),
        ("--bind", "127.0.0.1:0", "--bind", "127.0.0.1:0"),
        ("--relay", "not a url"),
        ("--overwrite", "perhaps"),
    ],
)
def test_bad_options(getter: Program, sharing: Sharing, destination: Path, args: tuple[str, ...]):
    before = snapshot(destination, getter.home)
    got = getter.run("get", sharing.ticket, destination, *args)
    assert got.code == ExitCode.USAGE, got
    assert len(got.stderr.splitlines()) == 1
    assert snapshot(destination, getter.home) == before


# Hostile collections


async def hostile_get(
    getter: Program, destination: Path, collection: Collection, contents: list[bytes]
) -> Finished:
    """Run a `get` against a provider that serves this collection."""
    async with MemStore() as store:
        await store.add_many(contents)
        meta = await store.add_bytes(collection.encode_meta())
        root = await store.add_bytes(bytes(collection.hash_seq(meta)))
        shared = SharedBlobs()
        shared.grant(HashAndFormat(root, BlobFormat.HASH_SEQ))
        provider = Provider(store, shared, PythonPumps())
        async with await AioquicEndpoint.bind(alpns=[ALPN], bind=[LOOPBACK]) as endpoint:
            addr = await endpoint.wait_for_addr(10)
            serving = asyncio.ensure_future(_serve_one(endpoint, provider))
            ticket = BlobTicket(addr, root, BlobFormat.HASH_SEQ).to_text()
            got = await asyncio.to_thread(getter.get, ticket, destination)
            serving.cancel()
            await asyncio.wait({serving})
        return got


async def _serve_one(endpoint: AioquicEndpoint, provider: Provider) -> None:
    incoming = await endpoint.accept()
    assert incoming is not None
    async with await incoming.accept() as connection:
        await provider.serve(connection)


@pytest.mark.parametrize(
    "names",
    [
        ["../escape"],
        ["/absolute"],
        ["a", "a/b"],
        ["\x1b[2J"],
        [".mine.blobsync-partial"],
    ],
    ids=repr,
)
async def test_a_hostile_collection(getter: Program, destination: Path, names: list[str]):
    before = snapshot(destination, destination.parent / "escape")
    async with MemStore() as store:
        hash = await store.add_bytes(b"evil")
    entries = (("good", hash), *((name, hash) for name in names))
    got = await hostile_get(getter, destination, Collection(entries), [b"evil"])
    line = got.failed_with(ExitCode.HOSTILE)
    assert "\x1b" not in line
    assert snapshot(destination, destination.parent / "escape") == before
    assert tree_of(destination) == {"mine": b"precious"}


async def test_names_that_are_no_names(getter: Program, destination: Path):
    """The first child is no list of names."""
    before = snapshot(destination)
    async with MemStore() as store:
        hash = await store.add_bytes(b"CollectionV0.garbage")

    class Garbled(Collection):
        def encode_meta(self) -> bytes:
            return b"CollectionV0." + b"\xff" * 50

    got = await hostile_get(getter, destination, Garbled((("a", hash),)), [b"CollectionV0.garbage"])
    got.failed_with(ExitCode.PROTOCOL)
    assert snapshot(destination) == before


def test_json_of_a_failure_is_one_object(getter: Program, destination: Path):
    got = getter.run("get", "nonsense", destination, "--json")
    assert json.loads(got.stdout)["kind"] == "bad_input"

"""The drivers themselves: each Rust peer starts, talks to itself, fails and ends as told."""

import re
from pathlib import Path

import pytest

from tests.interop.contents import read_tree
from tests.interop.drivers import Peer, PeerFailedError, Sendme

# A peer that stops reading says so only if not all had arrived by then: more than the 1 MiB that it
# reads of a request and the 1.25 MB of its receive window.
UNREAD_SIZE = 4 << 20

FILES = {"tree/a.txt": b"a" * 10, "tree/sub/b.bin": bytes(range(256)) * 400, "tree/empty": b""}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with a small, a large and an empty file."""
    for name, data in FILES.items():
        path = tmp_path / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "source" / "tree"


async def test_sendme_sends_to_sendme(sendme: Sendme, tree: Path, tmp_path: Path) -> None:
    sending, receiving = tmp_path / "sending", tmp_path / "receiving"
    sending.mkdir()
    receiving.mkdir()
    async with sendme.send(tree, sending, secret="07" * 32) as sender:
        assert list(sending.glob(".sendme-send-*"))
        done = await sendme.receive(sender.ticket, receiving)
    assert done.status == 0, done.stderr
    assert read_tree(receiving) == FILES
    assert list(sending.iterdir()) == []


async def test_sendme_fails_with_its_own_words(sendme: Sendme, tmp_path: Path) -> None:
    done = await sendme.receive("blobnonsense", tmp_path)
    assert done.status != 0
    assert "invalid value 'blobnonsense'" in done.stderr


async def test_a_peer_fetches_a_collection(peer: Peer, tree: Path, tmp_path: Path) -> None:
    async with peer.serve("provide", tree) as provider:
        done = await peer.run("get", provider.ticket, tmp_path / "out")
        completed = await provider.event("completed")
    assert sorted(done["files"]) == sorted(FILES)
    assert read_tree(tmp_path / "out") == FILES
    assert completed["payload_bytes_sent"] == done["payload_bytes_read"]
    assert done["payload_bytes_read"] >= sum(len(data) for data in FILES.values())


async def test_a_peer_keeps_what_it_has_in_a_store(peer: Peer, tree: Path, tmp_path: Path) -> None:
    mine = ("--store", tmp_path / "mine")
    async with peer.serve("provide", "--store", tmp_path / "theirs", tree) as provider:
        first = await peer.run("get", provider.ticket, tmp_path / "out", *mine)
        again = await peer.run("get", provider.ticket, tmp_path / "again", *mine)
    assert first["payload_bytes_read"] > 0
    assert again["payload_bytes_read"] == 0
    assert read_tree(tmp_path / "again") == FILES


async def test_a_peer_fetches_from_sendme(
    peer: Peer, sendme: Sendme, tree: Path, tmp_path: Path
) -> None:
    sending = tmp_path / "sending"
    sending.mkdir()
    async with sendme.send(tree, sending) as sender:
        await peer.run("get", sender.ticket, tmp_path / "out")
    assert read_tree(tmp_path / "out") == FILES


async def test_single_requests(peer: Peer, tree: Path, tmp_path: Path) -> None:
    large = FILES["tree/sub/b.bin"]
    async with peer.serve("provide", tree) as provider:
        by_name = provider.ready["blobs"]
        children = tmp_path / "children"
        done = await peer.run("get-children", provider.ticket, children, "1", "3:16..32")
        assert done["count"] == 4
        assert (children / "1").read_bytes() == FILES["tree/a.txt"]
        assert [blob["received"] for blob in done["children"]] == [[[0, 10]], [[16384, 32768]]]

        many = tmp_path / "many"
        hashes = [by_name["tree/sub/b.bin"], by_name["tree/a.txt"], by_name["tree/a.txt"]]
        done = await peer.run("get-many", provider.address, many, *hashes)
        assert [blob["size"] for blob in done["blobs"]] == [len(large), 10, 10]
        assert (many / "0").read_bytes() == large

    async with peer.serve("provide", "--raw", tree / "sub" / "b.bin") as provider:
        out = tmp_path / "ranges"
        done = await peer.run("get-ranges", provider.ticket, "0..16,last", out)
        assert done["blob"] == {"size": len(large), "received": [[0, 16384], [101376, 102400]]}
        assert out.read_bytes()[:16384] == large[:16384]


async def test_a_partial_provider(peer: Peer, tree: Path, tmp_path: Path) -> None:
    path = tree / "sub" / "b.bin"
    async with peer.serve("provide", "--raw", "--partial", f"{path}:16..48") as provider:
        async with peer.watch(provider.ticket) as watcher:
            frame = await watcher.event("bitfield")
        assert frame["ranges"] == [16, 48]
        done = await peer.run("get-ranges", provider.ticket, "16..48", tmp_path / "part")
        assert done["blob"]["received"] == [[16384, 49152]]
        with pytest.raises(PeerFailedError) as failed:
            await peer.run("get-ranges", provider.ticket, "all", tmp_path / "whole")
    assert failed.value.code == 3


async def test_a_provider_refuses_and_limits(peer: Peer, tree: Path, tmp_path: Path) -> None:
    request = f"00{'00' * 32}020001000100"
    for option, code in (("--refuse", 1), ("--limit", 2)):
        async with peer.serve("provide", option, "get", tree) as provider:
            done = await peer.run("raw-request", provider.address, "/iroh-bytes/4", request)
            assert done["end"] == {"reset": code}
            with pytest.raises(PeerFailedError) as failed:
                await peer.run("get", provider.ticket, tmp_path / "out")
            assert failed.value.code == code
    async with peer.serve("provide", "--refuse", "connect", tree) as provider:
        done = await peer.run("raw-request", provider.address, "/iroh-bytes/4", request)
        assert done["end"] == {"closed": {"code": 1, "reason": "permission"}}
    async with peer.serve("provide", "--raw", "--limit-after", "16384", tree / "sub/b.bin") as cut:
        with pytest.raises(PeerFailedError) as failed:
            await peer.run("get-ranges", cut.ticket, "all", tmp_path / "cut")
        assert failed.value.code == 2


async def test_a_push_is_taken_only_where_allowed(peer: Peer, tree: Path, tmp_path: Path) -> None:
    path = tree / "sub" / "b.bin"
    large = tmp_path / "large"
    large.write_bytes(bytes(UNREAD_SIZE))
    async with peer.serve("provide") as provider:
        done = await peer.run("push", provider.address, large)
        assert done["stopped"] == 0
    async with peer.serve("provide", "--allow-push") as provider:
        done = await peer.run("push", provider.address, path)
        assert done["stopped"] is None
        await provider.event("completed")
        fetched = await peer.run("get-many", provider.address, tmp_path / "out", done["hash"])
        assert fetched["blobs"][0]["received"] == [[0, len(FILES["tree/sub/b.bin"])]]


async def test_raw_requests_show_how_an_answer_ends(peer: Peer, tree: Path) -> None:
    async with peer.serve("provide", tree) as provider:
        where = (provider.address, "/iroh-bytes/4")
        known = provider.ready["blobs"]["tree/a.txt"]
        get = f"00{known}020001000100"
        done = await peer.run("raw-request", *where, get)
        assert bytes.fromhex(done["data_hex"]) == (10).to_bytes(8, "little") + b"a" * 10
        assert (done["end"], done["stopped"]) == ("fin", None)
        done = await peer.run("raw-request", *where, get, "--no-finish", "--wait-s", "0.2")
        assert (done["end"], done["data_len"]) == ("open", 0)
        done = await peer.run("raw-request", *where, f"00{'11' * 32}020001000100")
        assert done["end"] == {"reset": 3}


async def test_a_request_can_come_from_a_file(peer: Peer, tree: Path, tmp_path: Path) -> None:
    (tmp_path / "request").write_bytes(bytes(UNREAD_SIZE))
    async with peer.serve("provide", tree) as provider:
        done = await peer.run(
            "raw-request", provider.address, "/iroh-bytes/4", f"@{tmp_path / 'request'}"
        )
    assert (done["end"], done["data_len"], done["stopped"]) == ("fin", 0, 0)


async def test_echo(peer: Peer) -> None:
    async with peer.serve("echo-serve") as listener:
        assert listener.ticket.startswith("endpoint")
        done = await peer.run("echo-connect", listener.ticket, "Hello, world!")
        assert done["text"] == "Hello, world!"
        assert (await listener.event("echoed"))["bytes"] == 13


async def test_raw_stream(peer: Peer) -> None:
    async with peer.serve("raw-stream-serve", str(3_000_000)) as server:
        done = await peer.run("raw-stream-get", server.ticket)
        assert done["bytes"] == 3_000_000
        assert (await server.event("sent"))["bytes"] == 3_000_000


async def test_a_peer_that_ends_is_an_error_not_a_hang(peer: Peer, tree: Path) -> None:
    async with peer.serve("provide", tree) as provider:
        provider.kill()
        with pytest.raises(PeerFailedError, match="ended before"):
            await provider.event("completed")
        with pytest.raises(PeerFailedError, match="ended without a line"):
            await provider.line_where(re.compile("never"))
    with pytest.raises(PeerFailedError, match="no such path"):
        async with peer.serve("provide", tree / "absent"):
            pass

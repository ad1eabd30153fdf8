"""Several processes over one home, one folder or one ticket at the same time."""

from __future__ import annotations

import os
import signal
import socket
from typing import TYPE_CHECKING, Any

import pytest

from blobsync.errors import ExitCode
from blobsync.wire.ticket import BlobTicket
from tests.faults.app.conftest import tree_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.app.conftest import Program

MIB = 1 << 20


def make_source(path: Path, *, large: int = 10 * MIB) -> Path:
    path.mkdir()
    (path / "large").write_bytes(os.urandom(large))
    for i in range(300):
        (path / f"small{i}").write_bytes(b"%d" % i * 100)
    return path


@pytest.fixture
def source(memory_folder: Path) -> Path:
    return make_source(memory_folder / "source")


@pytest.mark.parametrize("homes", [("getter", "getter"), ("getter", "other")])
def test_two_gets_into_one_folder(
    provider: Program, programs: Any, source: Path, memory_folder: Path, homes: tuple[str, str]
):
    """One of them may find the other at work; neither harms what the other writes."""
    destination = memory_folder / "destination"
    with provider.share(source) as sharing:
        runs = [programs(home).start_get(sharing.ticket, destination) for home in homes]
        ends = [run.wait() for run in runs]
        for end in ends:
            assert end.stderr == ""
            assert end.code == 0 or end.last["kind"] == "conflict", end
        assert any(end.code == 0 for end in ends) or all(
            end.last["exit_code"] == ExitCode.CONFLICT for end in ends
        )
        for name, data in tree_of(destination / "source").items():
            assert name.startswith(".") or data == (source / name).read_bytes()
        for home in set(homes):
            done = programs(home).start_get(sharing.ticket, destination).wait()
            assert done.code == 0, done
            assert programs(home).run("verify").code == 0
    assert tree_of(destination / "source") == tree_of(source)


def test_two_gets_into_two_folders(
    provider: Program, getter: Program, source: Path, memory_folder: Path
):
    destinations = [memory_folder / "one", memory_folder / "two"]
    with provider.share(source) as sharing:
        runs = [getter.start_get(sharing.ticket, destination) for destination in destinations]
        for run in runs:
            done = run.wait()
            assert done.code == 0, (done.stdout, done.stderr)
    for destination in destinations:
        assert tree_of(destination / "source") == tree_of(source)
    assert getter.run("verify").code == 0


def test_a_get_beside_a_share_in_one_home(
    provider: Program, getter: Program, source: Path, memory_folder: Path
):
    mine = make_source(memory_folder / "mine", large=MIB)
    with provider.share(source) as theirs, getter.share(mine) as ours:
        got = getter.start_get(theirs.ticket, memory_folder / "destination").wait()
        assert got.code == 0, (got.stdout, got.stderr)
        assert tree_of(memory_folder / "destination/source") == tree_of(source)
        got = provider.start_get(ours.ticket, memory_folder / "back").wait()
        assert got.code == 0, (got.stdout, got.stderr)
        assert tree_of(memory_folder / "back/mine") == tree_of(mine)


def test_a_get_of_what_this_home_shares(provider: Program, source: Path, memory_folder: Path):
    """All is in the store, so nothing is asked for."""
    with provider.share(source) as sharing:
        got = provider.start_get(sharing.ticket, memory_folder / "copy").wait()
        assert (got.code, got.last["bytes_fetched"]) == (0, 0), (got.stdout, got.stderr)
        assert sharing.stop().last["requests"] == 0
    assert tree_of(memory_folder / "copy/source") == tree_of(source)


def test_a_second_share_has_a_key_of_its_own(
    provider: Program, getter: Program, source: Path, memory_folder: Path
):
    other = make_source(memory_folder / "other", large=MIB)
    with provider.share(source) as first:
        with provider.share(other) as second:
            assert (first.event["id_is_temporary"], second.event["id_is_temporary"]) == (0, 1)
            tickets = [BlobTicket.from_text(each.ticket) for each in (first, second)]
            assert tickets[0].addr.id != tickets[1].addr.id
            for sharing in (first, second):
                got = getter.start_get(sharing.ticket, memory_folder / "destination").wait()
                assert got.code == 0, (got.stdout, got.stderr)
        assert first.stop().code == 0
    # The key is free again.
    with provider.share(other) as third:
        assert not third.event["id_is_temporary"]
        assert BlobTicket.from_text(third.ticket).addr.id == tickets[0].addr.id


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["INT", "KILL"])
def test_the_same_ticket_after_a_restart(
    provider: Program, getter: Program, source: Path, memory_folder: Path, number: signal.Signals
):
    with provider.share(source) as first:
        first.run.send(number)
        first.run.wait()
    with provider.share(source) as second:
        assert second.ticket == first.ticket
        got = getter.start_get(first.ticket, memory_folder / "destination").wait()
        assert got.code == 0, (got.stdout, got.stderr)


def test_another_port_if_the_last_one_is_taken(
    provider: Program, getter: Program, source: Path, memory_folder: Path
):
    with provider.share(source) as first:
        assert first.stop().code == 0
    (addr,) = BlobTicket.from_text(first.ticket).addr.ip_addrs
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind((str(addr.ip), addr.port))
        with provider.share(source) as second:
            now = BlobTicket.from_text(second.ticket).addr
            assert now.ip_addrs[0].port != addr.port
            assert now.id == BlobTicket.from_text(first.ticket).addr.id
            got = getter.start_get(second.ticket, memory_folder / "destination").wait()
            assert got.code == 0, (got.stdout, got.stderr)


def test_a_port_of_the_users_own_that_is_taken(provider: Program, source: Path):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        done = provider.run("share", source, "--relay", "disabled", "--bind", f"127.0.0.1:{port}")
    line = done.failed_with(done.code)
    assert done.code in (ExitCode.FAILURE, ExitCode.CONFLICT)
    assert str(port) in line or "in use" in line


def test_gc_beside_a_share(provider: Program, getter: Program, source: Path, memory_folder: Path):
    with provider.share(source) as sharing:
        assert provider.run("gc").code == 0
        got = getter.start_get(sharing.ticket, memory_folder / "destination").wait()
        assert got.code == 0, (got.stdout, got.stderr)
    assert tree_of(memory_folder / "destination/source") == tree_of(source)


def test_gc_beside_a_share_whose_tag_was_deleted(
    provider: Program, getter: Program, source: Path, memory_folder: Path
):
    """What is being served is in use, whatever the tags say."""
    with provider.share(source) as sharing:
        for line in provider.run("tags", "list").stdout.decode().splitlines():
            name = next(word for word in line.split() if "share/" in word)
            assert provider.run("tags", "delete", name).code == 0
        assert provider.run("gc").code == 0
        got = getter.start_get(sharing.ticket, memory_folder / "destination").wait()
        assert got.code == 0, (got.stdout, got.stderr)
    assert tree_of(memory_folder / "destination/source") == tree_of(source)


def test_gc_beside_a_get(provider: Program, getter: Program, memory_folder: Path):
    source = make_source(memory_folder / "source", large=100 * MIB)
    destination = memory_folder / "destination"
    with provider.share(source) as sharing:
        run = getter.start_get(sharing.ticket, destination)
        run.until(event="progress", bytes_done=5 * MIB)
        collected = getter.run("gc")
        assert collected.code == 0, collected.stderr
        done = run.wait()
        assert done.code == 0, (done.stdout, done.stderr)
    assert tree_of(destination / "source") == tree_of(source)
    assert getter.run("gc").code == 0
    assert getter.run("verify").code == 0


def test_gc_after_a_killed_get_keeps_what_was_fetched(
    provider: Program, getter: Program, memory_folder: Path
):
    source = make_source(memory_folder / "source", large=100 * MIB)
    destination = memory_folder / "destination"
    with provider.share(source) as sharing:
        run = getter.start_get(sharing.ticket, destination)
        run.until(event="progress", bytes_done=50 * MIB)
        run.send(signal.SIGKILL)
        run.wait()
        assert getter.run("gc").code == 0
        done = getter.start_get(sharing.ticket, destination).wait()
        assert done.code == 0, (done.stdout, done.stderr)
        assert done.last["bytes_fetched"] <= (100 - 50 + 16) * MIB
    assert tree_of(destination / "source") == tree_of(source)

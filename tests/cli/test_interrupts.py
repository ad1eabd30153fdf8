"""Signals, readers that go away, restarts: the real program, ended in the middle."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

MIB = 1024**2
LARGE = 256 * MIB
LOOPBACK = ("--relay", "disabled", "--bind", "127.0.0.1:0")
INTERRUPTED = (
    "blobsync: interrupted; what was fetched is kept; run the same command again to go on\n"
)


def fetch_until_under_way(program: Any, share: Any) -> subprocess.Popen[bytes]:
    """Start a fetch and freeze its provider as soon as some of the data has arrived."""
    process = program.start("get", share.ticket, "dest", "--json")
    for line in process.stdout:
        event = json.loads(line)
        assert event["event"] in ("started", "progress"), event
        if event["event"] == "progress" and event["bytes_fetched"] >= MIB:
            share.process.send_signal(signal.SIGSTOP)
            return process
    raise AssertionError("the fetch ended before any progress")


def fetch_the_rest(program: Any, share: Any, source: Path) -> int:
    """Fetch again, from the provider awake again; returns the bytes that this run fetched."""
    share.process.send_signal(signal.SIGCONT)
    ended = program.run("get", share.ticket, "dest", "--json", "--quiet")
    assert ended.code == 0, ended
    (done,) = ended.events
    assert done["bytes"] == LARGE
    assert (program.cwd / "dest" / "large.bin").read_bytes() == source.read_bytes()
    assert [path.name for path in (program.cwd / "dest").iterdir()] == ["large.bin"]
    return done["bytes_fetched"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_fetch_goes_on(program: Any, write: Any, number: int, code: int) -> None:
    source = write("large.bin", LARGE)
    with program.sharing("large.bin") as share:
        process = fetch_until_under_way(program, share)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        assert process.returncode == code
        assert err == b""
        last = json.loads(out.splitlines()[-1])
        assert last["kind"] == "interrupted"
        assert last["exit_code"] == code
        assert "blobsync: " + last["message"] + "\n" == INTERRUPTED
        assert not (program.cwd / "dest" / "large.bin").exists()
        assert fetch_the_rest(program, share, source) < LARGE


def test_a_killed_fetch_goes_on(program: Any, write: Any) -> None:
    source = write("large.bin", LARGE)
    with program.sharing("large.bin") as share:
        process = fetch_until_under_way(program, share)
        process.kill()
        process.communicate(timeout=60)
        assert not (program.cwd / "dest" / "large.bin").exists()
        # How much at most is fetched twice is tested with the fetch itself.
        assert fetch_the_rest(program, share, source) <= LARGE


def test_a_share_has_the_same_ticket_after_a_restart(program: Any, write: Any) -> None:
    write("a.txt", "hello")
    tickets: list[str] = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL, signal.SIGINT):
        with program.sharing("a.txt") as share:
            tickets.append(share.ticket)
            ended = share.stop(number)
        assert ended.code == (-9 if number == signal.SIGKILL else 0)
        assert ended.err == ""
    assert len(set(tickets)) == 1


def test_two_shares_of_one_home(program: Any, write: Any) -> None:
    write("a.txt", "hello")
    with program.sharing("a.txt") as first:
        process = program.start("share", "a.txt", *LOOPBACK, "--json", "--home", "sharer")
        second = json.loads(process.stdout.readline())
        assert second["id_is_temporary"] is True
        assert second["ticket"] != first.ticket
        for ticket in (first.ticket, second["ticket"]):
            assert program.run("cat", ticket).out == b"hello"
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == 0
        assert first.stop().code == 0


def test_a_share_for_people(program: Any, write: Any) -> None:
    write("a.txt", "hello")
    process = program.start("share", "a.txt", *LOOPBACK)
    ticket = process.stdout.readline().decode().strip()
    assert program.run("cat", ticket).out == b"hello"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert out == b""
    lines = err.decode().splitlines()
    assert lines[0] == "sharing 1 file, 5 B; fetch it with: blobsync get TICKET"
    assert lines[1] == "serving until Ctrl-C"
    assert lines[-1].startswith("stopped after ")


def test_a_quiet_share(program: Any, write: Any) -> None:
    write("a.txt", "hello")
    process = program.start("share", "a.txt", *LOOPBACK, "--quiet")
    ticket = process.stdout.readline().decode().strip()
    assert program.run("cat", ticket).out == b"hello"
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60) == (b"", b"")
    assert process.returncode == 0


def test_cat_to_a_reader_that_went_away(program: Any, write: Any) -> None:
    write("large.bin", 16 * MIB)
    assert program.run("add", "large.bin").code == 0
    blobs = program.run("ls", "--json").events
    (hash,) = [blob["hash"] for blob in blobs if blob.get("bytes") == 16 * MIB]
    process = program.start("cat", hash)
    assert process.stdout.read(3) == b"\x00\x1f>"
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(timeout=60) == 141


def test_cat_to_a_reader_that_stopped_reading(program: Any, write: Any) -> None:
    write("large.bin", 16 * MIB)
    assert program.run("add", "large.bin").code == 0
    blobs = program.run("ls", "--json").events
    (hash,) = [blob["hash"] for blob in blobs if blob.get("bytes") == 16 * MIB]
    process = program.start("cat", hash)
    assert process.stdout.read(3) == b"\x00\x1f>"
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert process.stderr.read() == b"blobsync: interrupted; run the same command again\n"
    process.stdout.close()
    process.stderr.close()

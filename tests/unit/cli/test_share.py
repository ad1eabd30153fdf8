"""`share` and `add`: what is printed, and how a share ends."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from blobstore import Hash, ImportedCollection, ImportedFile, ImportMode
from blobsync.errors import BlobsyncError
from blobsync.protocols.blobs import ProviderCounters
from blobsync.wire.ticket import BlobTicket

if TYPE_CHECKING:
    from collections.abc import Callable

HASH = Hash(bytes(range(32)))


def collection(*skipped: str) -> ImportedCollection:
    files = (ImportedFile("d/a", HASH, 5), ImportedFile("d/b", HASH, 1024))
    return ImportedCollection(HASH, files, skipped)


@dataclass
class FakeShare:
    """A share that sends a signal to this process as soon as its counters are read."""

    ticket: BlobTicket
    collection: ImportedCollection = field(default_factory=collection)
    transport: str = "iroh"
    id_is_temporary: bool = False
    relay_is_missing: bool = False
    refused_name: str | None = None
    stop_with: int = signal.SIGINT
    is_closed: bool = False
    error: Exception | None = None
    failure: Exception | None = None

    @property
    def counters(self) -> ProviderCounters:
        if self.error is not None:
            raise self.error
        return ProviderCounters(connections_open=1, requests=2, requests_refused=1, bytes_sent=2048)

    async def wait_failed(self) -> None:
        if self.failure is None:
            await asyncio.Event().wait()
        else:
            raise self.failure

    async def close(self) -> None:
        self.is_closed = True


@pytest.fixture(autouse=True)
def signal_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A share that is served gets its signal as soon as it waits for one."""
    from blobsync.cli import share

    serve = share._serve  # pyright: ignore[reportPrivateUsage] - the moment to send the signal

    async def serve_and_stop(output: Any, served: Any, stop: Any) -> None:
        if served.failure is None:
            os.kill(os.getpid(), served.stop_with)
        await serve(output, served, stop)

    monkeypatch.setattr(share, "_serve", serve_and_stop)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_share_ends_regularly(run: Callable[..., Any], ticket: str, number: int) -> None:
    share = FakeShare(BlobTicket.from_text(ticket), stop_with=number)
    result = run("share", "d", script=[share])
    assert result.code == 0
    assert share.is_closed
    assert result.out == ticket + "\n"
    assert result.err == (
        "sharing 2 files, 1.0 KiB; fetch it with: blobsync get TICKET\n"
        "serving until Ctrl-C\n"
        "stopped after 2 requests, 2.0 KiB sent; the same command serves the same ticket again\n"
    )


def test_quiet_prints_the_ticket_alone(run: Callable[..., Any], ticket: str) -> None:
    result = run("share", "d", "--quiet", script=[FakeShare(BlobTicket.from_text(ticket))])
    assert (result.code, result.out, result.err) == (0, ticket + "\n", "")


def test_json(run: Callable[..., Any], ticket: str, check_event: Callable[[Any], None]) -> None:
    share = FakeShare(BlobTicket.from_text(ticket), collection("d/link: a symlink"))
    result = run("share", "d", "--json", script=[share])
    assert result.code == 0
    assert result.err == ""
    for event in result.events:
        check_event(event)
    first, second, serving, last = result.events
    assert first == {
        "event": "ticket",
        "ticket": ticket,
        "hash": HASH.hex(),
        "files": 2,
        "bytes": 1029,
        "skipped": 1,
        "transport": "iroh",
        "id_is_temporary": False,
        "relay_is_missing": False,
        "refused_name": None,
    }
    assert second == {"event": "skipped", "path": "d/link: a symlink"}
    assert serving["event"] == "serving"
    assert serving["connections"] == 1
    assert last["event"] == "stopped"
    assert last["bytes_sent"] == 2048


def test_what_the_person_should_know(run: Callable[..., Any], ticket: str) -> None:
    skipped = [f"d/{i}: a symlink" for i in range(12)]
    share = FakeShare(
        BlobTicket.from_text(ticket),
        collection("d/\x1b[2J: a socket", *skipped),
        transport="aioquic",
        id_is_temporary=True,
        relay_is_missing=True,
        refused_name="d/aux.c is a reserved name\n",
    )
    result = run("share", "d", script=[share])
    assert "skipped d/\\x1b[2J: a socket\n" in result.err
    assert "skipped 3 more" in result.err
    assert "another process serves under the key of this home" in result.err
    assert "the relay did not answer" in result.err
    assert "direct addresses only" in result.err
    assert "will refuse this: d/aux.c is a reserved name\\x0a\n" in result.err


def test_what_is_handed_on(
    run: Callable[..., Any], fake_app: Callable[..., Any], ticket: str
) -> None:
    app = fake_app(FakeShare(BlobTicket.from_text(ticket)))
    run("share", "a", "b/c", "--relay", "disabled", "--copy", app=app)
    assert app.calls[0][1][1].relay == "disabled"
    assert app.calls[1] == ("share", ((Path("a"), Path("b/c")), ImportMode.COPY))
    app = fake_app(FakeShare(BlobTicket.from_text(ticket)))
    run("share", "a", app=app)
    assert app.calls[0][1][1].relay is None
    assert app.calls[1][1][1] is ImportMode.REFERENCE


def test_an_interrupted_import(run: Callable[..., Any], fake_app: Callable[..., Any]) -> None:
    app = fake_app(lambda: os.kill(os.getpid(), signal.SIGINT), ...)
    result = run("share", "d", app=app)
    assert result.code == 130
    assert result.err == (
        "blobsync: interrupted; nothing is lost; run the same command again to go on\n"
    )
    assert app.names == ["open", "share", "ended", "closed"]


def test_a_share_that_fails_is_closed(run: Callable[..., Any], ticket: str) -> None:
    share = FakeShare(BlobTicket.from_text(ticket), error=RuntimeError("lost"))
    result = run("share", "d", script=[share])
    assert result.code == 1
    assert result.err.endswith(
        "blobsync: unexpected: RuntimeError: lost (--debug shows where it comes from)\n"
    )
    assert share.is_closed


def test_a_share_whose_service_dies_says_so(run: Callable[..., Any], ticket: str) -> None:
    lost = BlobsyncError("nothing is served any more")
    share = FakeShare(BlobTicket.from_text(ticket), failure=lost)
    result = run("share", "d", script=[share])
    assert result.code == 1
    assert result.err.endswith("blobsync: nothing is served any more\n")
    assert share.is_closed


def test_add(run: Callable[..., Any], check_event: Callable[[Any], None]) -> None:
    result = run("add", "d", script=[collection()])
    assert result.code == 0
    assert result.out == f"s{HASH}\n"
    assert result.err == "added 2 files, 1.0 KiB\n"
    assert run("add", "d", "-q", script=[collection()]).err == ""
    (event,) = run("add", "d", "--json", script=[collection()]).events
    check_event(event)
    assert event["bytes"] == 1029

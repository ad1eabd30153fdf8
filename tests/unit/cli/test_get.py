"""`get`: events in, lines or objects out; interrupts."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from blobstore import Hash
from blobsync.app import Overwrite
from blobsync.cli.get import describe_done
from blobsync.sync.events import FetchDone, FetchProgress, FetchStarted

if TYPE_CHECKING:
    from collections.abc import Callable

HASH = Hash(bytes(range(32)))
DEST = Path("/dest")
MIB = 1024**2

STARTED = FetchStarted(HASH, 3, 3 * MIB, DEST)
HALF = FetchProgress(1, 3, MIB, 3 * MIB, MIB, "direct")
UNKNOWN = FetchProgress(0, 3, 0, None, 0, None)
DONE = FetchDone(HASH, 3, 3 * MIB, 2 * MIB, 0.5, DEST)


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_json(run: Callable[..., Any], ticket: str, check_event: Callable[[Any], None]) -> None:
    result = run("get", ticket, "dest", "--json", script=[STARTED, UNKNOWN, HALF, DONE])
    assert result.code == 0
    assert result.err == ""
    for event in result.events:
        check_event(event)
    started, unknown, half, done = result.events
    assert started == {
        "event": "started",
        "hash": HASH.hex(),
        "files": 3,
        "bytes_total": 3 * MIB,
        "destination": "/dest",
    }
    assert unknown["bytes_total"] is unknown["path"] is unknown["rate"] is None
    assert half["files_done"] == 1
    assert half["bytes_fetched"] == MIB
    assert half["path"] == "direct"
    assert done == {
        "event": "done",
        "hash": HASH.hex(),
        "files": 3,
        "bytes": 3 * MIB,
        "bytes_fetched": 2 * MIB,
        "seconds": 0.5,
        "destination": "/dest",
    }


def test_json_quiet_leaves_the_end(run: Callable[..., Any], ticket: str) -> None:
    result = run("get", ticket, "--json", "-q", script=[STARTED, HALF, DONE])
    assert [event["event"] for event in result.events] == ["done"]


def test_for_people(run: Callable[..., Any], ticket: str) -> None:
    result = run("get", ticket, script=[STARTED, HALF, DONE])
    assert result.code == 0
    assert result.out == "3 files, 3.0 MiB in /dest; 2.0 MiB fetched in 0.5 s (4.0 MiB/s)\n"
    assert result.err == ""


def test_quiet(run: Callable[..., Any], ticket: str) -> None:
    result = run("get", ticket, "--quiet", script=[STARTED, HALF, DONE])
    assert (result.code, result.out, result.err) == (0, "", "")


@pytest.mark.parametrize(
    ("done", "line"),
    [
        (
            FetchDone(HASH, 3, 3 * MIB, 0, 0.1, DEST),
            "3 files, 3.0 MiB in /dest; nothing had to be fetched",
        ),
        (
            FetchDone(HASH, 1, MIB, MIB, 2.0, DEST),
            "1 file, 1.0 MiB in /dest; fetched in 2.0 s (512.0 KiB/s)",
        ),
        (FetchDone(HASH, 1, 5, 5, 0.0, DEST), "1 file, 5 B in /dest; fetched in 0.0 s"),
    ],
)
def test_the_last_line(done: FetchDone, line: str) -> None:
    assert describe_done(done) == line


def test_what_is_handed_on(
    run: Callable[..., Any], fake_app: Callable[..., Any], ticket: str
) -> None:
    app = fake_app(DONE)
    run("get", ticket, "there", "--overwrite", "if-changed", "--bind", "127.0.0.1:0", app=app)
    network = app.calls[0][1][1]
    assert network.bind == ("127.0.0.1:0",)
    assert network.relay is None
    parsed, destination, overwrite = app.calls[1][1]
    assert parsed.to_text() == ticket
    assert destination == Path("there")
    assert overwrite is Overwrite.IF_CHANGED
    app = fake_app(DONE)
    run("get", ticket, "--relay", "disabled", app=app)
    assert app.calls[0][1][1].relay == "disabled"
    assert app.calls[1][1][1:] == (Path(), Overwrite.NEVER)


def test_a_bad_ticket_opens_nothing(run: Callable[..., Any], fake_app: Callable[..., Any]) -> None:
    app = fake_app()
    result = run("get", "blobnonsense", app=app)
    assert result.code == 3
    assert result.err.startswith("blobsync: ")
    assert len(result.err.splitlines()) == 1
    assert app.calls == []


@pytest.mark.parametrize(("stop", "code"), [(interrupt, 130), (terminate, 143)])
def test_an_interrupted_fetch(
    run: Callable[..., Any],
    fake_app: Callable[..., Any],
    ticket: str,
    stop: Callable[[], None],
    code: int,
) -> None:
    app = fake_app(STARTED, HALF, stop, ...)
    result = run("get", ticket, app=app)
    assert result.code == code
    assert result.out == ""
    assert result.err == (
        "blobsync: interrupted; what was fetched is kept; run the same command again to go on\n"
    )
    assert app.names == ["open", "get", "ended", "closed"]


def test_an_interrupted_fetch_as_json(
    run: Callable[..., Any], ticket: str, check_event: Callable[[Any], None]
) -> None:
    result = run("get", ticket, "--json", script=[interrupt, ...])
    assert result.code == 130
    assert result.err == ""
    (event,) = result.events
    check_event(event)
    assert event["kind"] == "interrupted"
    assert event["exit_code"] == 130
    assert event["retry"] is True


def test_the_fetch_has_ended_before_the_application_is_closed(
    run: Callable[..., Any],
    fake_app: Callable[..., Any],
    ticket: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the display broke")

    monkeypatch.setattr("blobsync.cli.get.fetch_status", broken)
    app = fake_app(STARTED, HALF, DONE)
    assert run("get", ticket, app=app).code == 1
    assert app.names == ["open", "get", "ended", "closed"]

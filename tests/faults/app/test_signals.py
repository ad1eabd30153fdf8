"""Ctrl-C and SIGTERM at bad moments: a clean end, nothing half-written under a final name."""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.faults.app.conftest import LOOPBACK, tree_of

if TYPE_CHECKING:
    from tests.faults.app.conftest import Program, Run

MIB = 1 << 20
SIZE = 300 * MIB
"""Takes several times as long as from one progress event to the next."""

needs_proc = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks into /proc")


def wait_until_open(run: Run, name: str) -> None:
    """Wait until the program has mapped or opened a file of this name."""
    process = Path(f"/proc/{run.pid}")
    pidfd = os.pidfd_open(run.pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        while not _has_open(process, name):
            assert not poll.poll(1), f"it ended before it opened {name}: {run.wait()}"
    finally:
        os.close(pidfd)


def _has_open(process: Path, name: str) -> bool:
    if name in (process / "maps").read_text():
        return True
    try:
        return any(name in str(fd.readlink()) for fd in (process / "fd").iterdir())
    except FileNotFoundError:
        # A descriptor was closed while we looked.
        return False


@pytest.fixture
def source(memory_folder: Path) -> Path:
    path = memory_folder / "source"
    path.mkdir()
    (path / "large").write_bytes(os.urandom(SIZE))
    (path / "small").write_bytes(b"small")
    return path


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)],
    ids=["INT", "TERM"],
)
def test_a_get_in_the_middle(
    provider: Program,
    getter: Program,
    source: Path,
    memory_folder: Path,
    number: signal.Signals,
    code: int,
):
    destination = memory_folder / "destination"
    with provider.share(source) as sharing:
        run = getter.start_get(sharing.ticket, destination)
        run.until(event="progress", bytes_done=20 * MIB)
        run.send(number)
        done = run.wait()
        assert (done.code, done.stderr) == (code, "")
        assert (done.last["event"], done.last["kind"]) == ("error", "interrupted")
        assert done.last["exit_code"] == code
        assert "source/large" not in tree_of(destination)
        again = getter.start_get(sharing.ticket, destination).wait()
        assert again.code == 0, again.stderr
        assert again.last["bytes_fetched"] <= SIZE - 20 * MIB + MIB
    assert tree_of(destination / "source") == tree_of(source)


def test_a_get_in_the_middle_tells_a_person_one_line(
    provider: Program, getter: Program, source: Path, memory_folder: Path
):
    """The hidden file with what was proven is there as soon as there is progress."""
    destination = memory_folder / "destination"
    with provider.share(source) as sharing:
        run = getter.start("get", sharing.ticket, destination, "--bind", "127.0.0.1:0", "--quiet")
        wait_until_open(run, ".blobsync-partial")
        run.send(signal.SIGINT)
        line = run.wait().failed_with(130)
    assert "run the same command again" in line


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["INT", "TERM"])
def test_a_share_that_serves(
    provider: Program, getter: Program, source: Path, memory_folder: Path, number: signal.Signals
):
    """The regular end of a share, in the middle of an answer; the getter is told at once."""
    with provider.share(source) as sharing:
        run = getter.start_get(sharing.ticket, memory_folder / "destination")
        run.until(event="progress", bytes_done=10 * MIB)
        sharing.run.send(number)
        done = sharing.run.wait()
        assert (done.code, done.stderr) == (0, "")
        assert done.last["event"] == "stopped"
        got = run.wait()
    # What was under way when it ended may have been all.
    if got.code:
        assert got.last["kind"] in ("unreachable", "not_found"), got
    assert "Traceback" not in got.stderr


@needs_proc
@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)],
    ids=["INT", "TERM"],
)
def test_a_share_that_imports(provider: Program, tmp_path: Path, number: signal.Signals, code: int):
    """A file that takes long to hash, of nothing but a hole."""
    source = tmp_path / "huge"
    with source.open("wb") as file:
        file.truncate(1 << 36)
    run = provider.start("share", source, *LOOPBACK)
    wait_until_open(run, str(source))
    run.send(number)
    done = run.wait()
    assert "interrupted" in done.failed_with(code)
    assert done.stdout == b""
    assert provider.run("ls").stdout.startswith(b"0 blobs")


@needs_proc
@pytest.mark.parametrize("loaded", ["_pybao", "_pyiroh"])
def test_a_start(provider: Program, tmp_path: Path, loaded: str):
    """Before the program is ready to hear a signal, while it still loads its parts."""
    run = provider.start("share", tmp_path, *LOOPBACK)
    wait_until_open(run, loaded)
    run.send(signal.SIGINT)
    done = run.wait()
    assert done.code in (130, 0), done
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 4

"""A full disk, real ones of a few MiB that only these tests see."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from blobsync.errors import ExitCode
from tests.faults.app.conftest import tree_of

if TYPE_CHECKING:
    from collections.abc import Generator

    from tests.faults.app.conftest import Program

MIB = 1 << 20


@contextmanager
def small_disk(program: Program, place: Path, size: int) -> Generator[Path]:
    """Let `program` see a disk of `size` bytes at `place`; where everyone else sees it."""
    place.mkdir(exist_ok=True)
    flags = ["--mount"] if os.geteuid() == 0 else ["--user", "--map-root-user", "--mount"]
    script = 'mount -t tmpfs -o size="$1" none "$2" && echo mounted && exec cat'
    holder = subprocess.Popen(
        ["unshare", *flags, "sh", "-c", script, "sh", str(size), str(place)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    before = program.prefix
    try:
        assert holder.stdout.readline() == b"mounted\n"
        enter = ["--preserve-credentials", "--user"] if os.geteuid() else []
        program.prefix = ("nsenter", "--target", str(holder.pid), *enter, "--mount", "--wdns=.")
        yield Path(f"/proc/{holder.pid}/root{place}")
    finally:
        program.prefix = before
        holder.stdin.close()
        holder.stdout.close()
        holder.wait()


needs_mounts = pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run(
        [
            "unshare",
            *([] if os.geteuid() == 0 else ["--user", "--map-root-user"]),
            "--mount",
            "true",
        ],
        capture_output=True,
        check=False,
    ).returncode
    != 0,
    reason="nothing may be mounted here",
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.mkdir()
    for i in range(20):
        (path / f"small{i}").write_bytes(os.urandom(10_000))
    (path / "large").write_bytes(os.urandom(8 * MIB))
    return path


def source_tree(source: Path) -> dict[str, bytes]:
    return {f"source/{name}": data for name, data in tree_of(source).items()}


@needs_mounts
def test_no_room_at_the_destination_is_seen_before_it_begins(
    provider: Program, getter: Program, source: Path, tmp_path: Path
):
    destination = tmp_path / "destination"
    with provider.share(source) as sharing, small_disk(getter, destination, 4 * MIB) as seen:
        (seen / "mine").write_bytes(b"precious")
        line = getter.get(sharing.ticket, destination).failed_with(ExitCode.DISK_FULL)
        assert str(destination) in line
        assert tree_of(seen) == {"mine": b"precious"}


@needs_mounts
def test_a_disk_that_fills_meanwhile_keeps_what_was_fetched(
    provider: Program, getter: Program, source: Path, tmp_path: Path
):
    """There are more files than sizes are asked for, so nothing is known before."""
    for i in range(1001):
        (source / f"tiny{i}").write_bytes(b"%d" % i)
    destination = tmp_path / "destination"
    with provider.share(source) as sharing, small_disk(getter, destination, 16 * MIB) as seen:
        (seen / "ballast").write_bytes(bytes(8 * MIB))
        line = getter.get(sharing.ticket, destination).failed_with(ExitCode.DISK_FULL)
        assert str(destination) in line
        whole = source_tree(source)
        arrived = tree_of(seen)
        assert arrived.pop("ballast") == bytes(8 * MIB)
        for name, data in arrived.items():
            assert name.rpartition("/")[2].startswith(".") or whole[name] == data
        # With room again the same command goes on.
        (seen / "ballast").unlink()
        run = getter.start_get(sharing.ticket, destination)
        done = run.wait()
        assert done.code == 0, (done.stdout, done.stderr)
        assert tree_of(seen) == whole
        assert done.last["bytes_fetched"] < sum(map(len, whole.values()))


@needs_mounts
def test_a_full_disk_below_the_store_of_a_getter(
    provider: Program, getter: Program, source: Path, tmp_path: Path
):
    """The outboards and records have no room; the destination has."""
    destination = tmp_path / "destination"
    getter.home.mkdir()
    with provider.share(source) as sharing, small_disk(getter, getter.home, 2 * MIB) as seen:
        assert getter.run("id").code == 0
        free = shutil.disk_usage(seen).free
        (seen / "ballast").write_bytes(bytes(free - 40_000))
        getter.get(sharing.ticket, destination).failed_with(ExitCode.DISK_FULL)
        for name, data in tree_of(destination).items():
            hidden = name.rpartition("/")[2].startswith(".")
            assert hidden or source_tree(source)[name] == data
        (seen / "ballast").unlink()
        assert getter.get(sharing.ticket, destination).code == 0
        assert tree_of(destination) == source_tree(source)
        assert getter.run("verify").code == 0


@needs_mounts
@pytest.mark.parametrize(
    "args", [("add",), pytest.param(("add", "--copy"), marks=pytest.mark.slow)], ids=str
)
def test_a_full_disk_below_the_store_of_an_import(
    provider: Program, source: Path, tmp_path: Path, args: tuple[str, ...]
):
    provider.home.mkdir()
    before = tree_of(source)
    with small_disk(provider, provider.home, 2 * MIB) as seen:
        assert provider.run("ls").code == 0
        free = shutil.disk_usage(seen).free
        (seen / "ballast").write_bytes(bytes(free - 40_000))
        provider.run(*args, source).failed_with(ExitCode.DISK_FULL)
        assert tree_of(source) == before
        (seen / "ballast").unlink()
        listed = provider.run("ls", "--json")
        assert listed.code == 0, listed.stderr
        assert provider.run("verify").code == 0
        if args == ("add",):
            assert provider.run(*args, source).code == 0


@needs_mounts
def test_a_full_disk_before_the_first_start(getter: Program, tmp_path: Path):
    getter.home.mkdir()
    with small_disk(getter, getter.home, 64 * 1024) as seen:
        (seen / "ballast").write_bytes(bytes(64 * 1024 - 8192))
        getter.run("ls").failed_with(ExitCode.DISK_FULL)
        getter.run("id").failed_with(ExitCode.DISK_FULL)
        (seen / "ballast").unlink()


def test_a_limit_on_the_size_of_files(
    provider: Program, getter: Program, source: Path, tmp_path: Path
):
    """Needs no rights: the system says no in the middle of a large file."""
    destination = tmp_path / "destination"
    with provider.share(source) as sharing:
        getter.run("ls")
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (3 * MIB, hard))
        try:
            run = getter.start("get", sharing.ticket, destination, "--bind", "127.0.0.1:0")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        got = run.wait()
        assert got.code in (ExitCode.FAILURE, ExitCode.DISK_FULL), got
        got.failed_with(got.code)
        arrived = tree_of(destination)
        assert "source/large" not in arrived
        done = getter.get(sharing.ticket, destination)
        assert done.code == 0, done.stderr
        assert tree_of(destination) == source_tree(source)

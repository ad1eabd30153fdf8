"""Files that change while they are shared: peers get an error, never wrong bytes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from blobsync.errors import ExitCode
from tests.faults.app.conftest import tree_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.faults.app.conftest import Program

MIB = 1 << 20


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def replace(path: Path) -> None:
    """By a rename, as editors do it; the size stays."""
    aside = path.with_name("aside")
    aside.write_bytes(os.urandom(path.stat().st_size))
    aside.rename(path)


def delete(path: Path) -> None:
    path.unlink()


def overwrite(path: Path) -> None:
    """In place; the size stays."""
    with path.open("r+b") as file:
        file.seek(-MIB, os.SEEK_END)
        file.write(os.urandom(MIB))


def overwrite_and_hide(path: Path) -> None:
    """In place, with the old time of modification put back."""
    old = path.stat()
    overwrite(path)
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def replace_by_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


CHANGES = [append, replace, delete, overwrite, overwrite_and_hide, truncate, replace_by_a_folder]


@pytest.fixture
def source(memory_folder: Path) -> Path:
    path = memory_folder / "source"
    path.mkdir()
    (path / "b").write_bytes(os.urandom(4 * MIB))
    (path / "a small one").write_bytes(b"small")
    return path


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_before_it_is_asked_for(
    provider: Program,
    getter: Program,
    source: Path,
    memory_folder: Path,
    change: Callable[[Path], None],
):
    destination = memory_folder / "destination"
    before = tree_of(source)
    with provider.share(source) as sharing:
        change(source / "b")
        getter.get(sharing.ticket, destination).failed_with(ExitCode.NOT_FOUND)
        for name, data in tree_of(destination).items():
            assert name.rpartition("/")[2].startswith(".") or data == before[name[7:]]
        assert "source/b" not in tree_of(destination)
        assert sharing.run.is_running
    with provider.share(source) as again:
        assert again.ticket != sharing.ticket
        done = getter.get(again.ticket, destination, "--overwrite", "if-changed")
        assert done.code == 0, done.stderr
    arrived = tree_of(destination / "source")
    assert {name: arrived.get(name) for name in tree_of(source)} == tree_of(source)


@pytest.mark.parametrize(
    "change",
    [
        overwrite_and_hide,
        *(
            pytest.param(change, marks=pytest.mark.slow)
            for change in (append, delete, overwrite, truncate)
        ),
    ],
)
def test_a_change_while_it_is_sent(
    provider: Program,
    getter: Program,
    source: Path,
    memory_folder: Path,
    change: Callable[[Path], None],
):
    """What was opened before goes on to be served as long as it is what was promised."""
    destination = memory_folder / "destination"
    data = os.urandom(100 * MIB)
    (source / "b").write_bytes(data)
    with provider.share(source) as sharing:
        run = getter.start_get(sharing.ticket, destination)
        run.until(event="progress", bytes_done=MIB)
        change(source / "b")
        got = run.wait()
        arrived = tree_of(destination)
        if got.code == 0:
            assert arrived["source/b"] == data
        else:
            assert got.last["kind"] == "not_found", got
            assert "source/b" not in arrived
    assert getter.run("verify").code == 0


def test_a_copy_does_not_care(
    provider: Program, getter: Program, source: Path, memory_folder: Path
):
    before = tree_of(source)
    added = provider.run("add", "--copy", source)
    assert added.code == 0, added.stderr
    with provider.share(source) as sharing:
        overwrite(source / "b")
        (source / "a small one").unlink()
        got = getter.get(sharing.ticket, memory_folder / "destination")
        assert got.code == 0, got.stderr
    assert tree_of(memory_folder / "destination/source") == before


def test_a_received_file_that_was_changed_is_fetched_again(
    provider: Program, getter: Program, source: Path, memory_folder: Path
):
    """The getter's store refers to what it wrote, and notices that it is no longer that."""
    destination = memory_folder / "destination"
    with provider.share(source) as sharing:
        assert getter.get(sharing.ticket, destination).code == 0
        overwrite(destination / "source/b")
        changed = tree_of(destination)
        getter.get(sharing.ticket, destination).failed_with(ExitCode.CONFLICT)
        assert tree_of(destination) == changed
        got = getter.get(sharing.ticket, destination, "--overwrite", "if-changed")
        assert got.code == 0, got.stderr
    assert tree_of(destination / "source") == tree_of(source)

"""`Root` against planted traps, swaps at every step, a full disk and calls that fail.

An attacker here may change anything inside the destination at any moment, and wins when
something outside of it is created, changed or read.
"""

from __future__ import annotations

import errno
import os
import resource
import shutil
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import pybao
from blobsync.errors import BlobsyncError, DiskFullError, TargetExistsError
from blobsync.sync import folders, syscalls
from blobsync.sync import root as root_module
from blobsync.sync.folders import TargetError, UnsafeTargetError
from blobsync.sync.names import HIDDEN_SUFFIX, partial_name
from blobsync.sync.root import Root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HASH = "3f9a" * 16
REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """What must never change: a folder full of files with the names that are written."""
    path = tmp_path / "outside"
    for folder in (path, path / "d", path / "d" / "e", path / "e"):
        folder.mkdir()
        for name in ("a", "file", partial_name("a", HASH)):
            (folder / name).write_bytes(b"secret")
    return path


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    path = tmp_path / "dest"
    path.mkdir()
    return path


@pytest.fixture
def root(dest: Path) -> Iterator[Root]:
    with Root.open(dest) as root:
        yield root


def open_descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def names_in(path: Path) -> list[str]:
    return sorted(place.name for place in path.iterdir())


def snapshot(path: Path) -> dict[str, tuple[object, ...]]:
    """All there is below, without following a link."""
    found: dict[str, tuple[object, ...]] = {}
    for place in (path, *path.rglob("*")):
        info = place.lstat()
        content = place.read_bytes() if place.is_file() else b""
        found[str(place)] = (info.st_ino, info.st_mode, info.st_nlink, info.st_mtime_ns, content)
    return found


def write_whole(root: Root) -> None:
    root.write_file(("d", "e", "a"), b"new")


def write_whole_over(root: Root) -> None:
    root.write_file(("d", "e", "a"), b"new", replace=True)


def write_partial(root: Root) -> None:
    with root.open_partial(("d", "e", "a"), HASH) as partial:
        os.pwrite(partial.fd, b"new", 0)
        root.publish(partial)


def write_partial_over(root: Root) -> None:
    with root.open_partial(("d", "e", "a"), HASH) as partial:
        os.pwrite(partial.fd, b"new", 0)
        root.publish(partial, replace=True)


def remove(root: Root) -> None:
    root.remove_partial(("d", "e", "a"), HASH)


def read(root: Root) -> None:
    fd = root.open_read(("d", "e", "a"))
    try:
        assert os.read(fd, 100) != b"secret"
    finally:
        os.close(fd)


def make(root: Root) -> None:
    root.ensure_dir(("d", "e", "f"))


def look(root: Root) -> None:
    found = root.stat(("d", "e", "a"))
    assert found is None or found.st_size != len(b"secret")


ACTIONS = [
    write_whole,
    write_whole_over,
    write_partial,
    write_partial_over,
    remove,
    read,
    make,
    look,
]
WRITERS = [write_whole, write_whole_over, write_partial, write_partial_over]


# Planted before


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("dangling", [False, True])
@pytest.mark.parametrize("action", ACTIONS)
def test_a_symlink_for_a_folder_is_refused(
    root: Root,
    dest: Path,
    outside: Path,
    action: Callable[[Root], None],
    depth: int,
    dangling: bool,
):
    link = dest.joinpath(*("d", "e")[:depth])
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(outside / "none" if dangling else outside)
    before = snapshot(outside)
    with pytest.raises(UnsafeTargetError, match="is a symlink, not a folder"):
        action(root)
    assert snapshot(outside) == before
    assert link.is_symlink()


def test_a_symlink_that_stays_inside_is_refused_too(root: Root, dest: Path):
    (dest / "real" / "e").mkdir(parents=True)
    (dest / "d").symlink_to("real")
    with pytest.raises(UnsafeTargetError, match="symlink"):
        write_whole(root)
    assert not list((dest / "real" / "e").iterdir())


@pytest.mark.parametrize("dangling", [False, True])
def test_a_symlink_at_the_final_name_is_never_written_through(
    root: Root, dest: Path, outside: Path, dangling: bool
):
    target = outside / ("none" if dangling else "file")
    link = dest / "d" / "e" / "a"
    link.parent.mkdir(parents=True)
    link.symlink_to(target)
    before = snapshot(outside)
    for action in (write_whole, write_partial):
        with pytest.raises(TargetExistsError, match="symlink"):
            action(root)
        assert link.readlink() == target
    with pytest.raises(UnsafeTargetError, match="symlink"):
        read(root)
    for action in (write_whole_over, write_partial_over):
        link.unlink()
        link.symlink_to(target)
        action(root)
        assert not link.is_symlink()
        assert link.read_bytes() == b"new"
    assert snapshot(outside) == before


def plant_symlink(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "file")


def plant_dangling_symlink(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "none")


def plant_hard_link(path: Path, outside: Path) -> None:
    path.hardlink_to(outside / "file")


def plant_fifo(path: Path, outside: Path) -> None:
    os.mkfifo(path)


def plant_folder(path: Path, outside: Path) -> None:
    path.mkdir()


def plant_socket(path: Path, outside: Path) -> None:
    # A socket's address has to be short, so it is bound relative to its folder.
    old = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(old)


@pytest.mark.parametrize(
    ("plant", "rule"),
    [
        (plant_symlink, "is a symlink"),
        (plant_dangling_symlink, "is a symlink"),
        (plant_hard_link, "hard links"),
        (plant_fifo, "is a FIFO"),
        (plant_folder, "is a folder"),
        (plant_socket, "is a socket"),
    ],
)
def test_a_trap_at_the_partial_name_is_refused(
    root: Root, dest: Path, outside: Path, plant: Callable[[Path, Path], None], rule: str
):
    """A FIFO would block an ordinary open for ever; the test's own time limit would show it."""
    plant(dest / partial_name("a", HASH), outside)
    before = snapshot(outside)
    with pytest.raises(UnsafeTargetError, match=rule):
        root.open_partial(("a",), HASH)
    assert snapshot(outside) == before


@pytest.mark.parametrize("plant", [plant_fifo, plant_socket])
def test_special_files_at_the_final_name_are_neither_read_nor_replaced(
    root: Root, dest: Path, outside: Path, plant: Callable[[Path, Path], None]
):
    plant(dest / "a", outside)
    planted = (dest / "a").lstat()
    with pytest.raises(UnsafeTargetError, match="not a regular file"):
        root.open_read(("a",))
    with pytest.raises(TargetExistsError):
        root.write_file(("a",), b"x")
    with pytest.raises(UnsafeTargetError, match="not replaced"):
        root.write_file(("a",), b"x", replace=True)
    assert os.path.samestat((dest / "a").lstat(), planted)
    assert names_in(dest) == ["a"]


def test_a_partial_of_another_user_is_refused(
    root: Root, dest: Path, monkeypatch: pytest.MonkeyPatch
):
    root.open_partial(("a",), HASH).close()
    real = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: real + 1)
    with pytest.raises(UnsafeTargetError, match="another user"):
        root.open_partial(("a",), HASH)


# Changed while a partial is open


def test_a_partial_that_was_swapped_is_not_published(root: Root, dest: Path, outside: Path):
    with root.open_partial(("a",), HASH) as partial:
        os.pwrite(partial.fd, b"verified", 0)
        for swap in (
            lambda: partial.path.write_bytes(b"not verified"),
            lambda: partial.path.symlink_to(outside / "file"),
            lambda: None,
        ):
            partial.path.unlink(missing_ok=True)
            swap()
            with pytest.raises(UnsafeTargetError, match="not the file that was written"):
                root.publish(partial)
            with pytest.raises(UnsafeTargetError):
                root.publish(partial, replace=True)
            assert not (dest / "a").exists()


def test_a_folder_that_became_a_symlink_stops_publish(root: Root, dest: Path, outside: Path):
    with root.open_partial(("d", "e", "a"), HASH) as partial:
        os.pwrite(partial.fd, b"new", 0)
        (dest / "d").rename(dest / "moved")
        (dest / "d").symlink_to(outside)
        before = snapshot(outside)
        with pytest.raises(UnsafeTargetError, match="is a symlink"):
            root.publish(partial)
    assert snapshot(outside) == before
    assert (dest / "moved" / "e" / partial.path.name).read_bytes() == b"new"


def test_a_partial_that_another_process_finished_is_not_taken_up(
    root: Root, dest: Path, monkeypatch: pytest.MonkeyPatch
):
    """Between our open and our lock the other one renamed it: it is a user's file by then."""
    root.open_partial(("a",), HASH).close()
    real = root_module.fcntl.flock
    calls: list[int] = []

    def flock(fd: int, operation: int) -> None:
        if not calls:
            (dest / partial_name("a", HASH)).rename(dest / "a")
        calls.append(fd)
        real(fd, operation)

    monkeypatch.setattr(root_module.fcntl, "flock", flock)
    with root.open_partial(("a",), HASH) as partial:
        os.pwrite(partial.fd, b"new", 0)
    assert len(calls) == 2
    assert (dest / "a").read_bytes() == b""
    assert (dest / partial_name("a", HASH)).read_bytes() == b"new"


def test_a_partial_that_never_stays_is_given_up(
    root: Root, dest: Path, monkeypatch: pytest.MonkeyPatch
):
    real = root_module.fcntl.flock

    def flock(fd: int, operation: int) -> None:
        (dest / partial_name("a", HASH)).unlink()
        real(fd, operation)

    monkeypatch.setattr(root_module.fcntl, "flock", flock)
    before = open_descriptors()
    with pytest.raises(TargetError, match="again and again"):
        root.open_partial(("a",), HASH)
    assert open_descriptors() == before


# A swap just before the N-th call, for every N


CALLS = ("open", "mkdir", "stat", "rename", "link", "unlink")


def write_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where many new files cannot be written in one call."""
    monkeypatch.setattr(pybao, "write_files", no_files)


def no_files(*_: object) -> list[int | None]:
    return []


class Swapper:
    """Runs `swap` once, right before the N-th call that goes through the patched functions."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int, swap: Callable[[], None]) -> None:
        self.count = 0
        self._at = at
        self._swap = swap
        self._is_inside = False
        for name in CALLS:
            monkeypatch.setattr(os, name, self._wrap(getattr(os, name)))
        rename = self._wrap(syscalls.rename_exclusive)
        monkeypatch.setattr(root_module, "rename_exclusive", rename)
        monkeypatch.setattr(pybao, "write_files", self._wrap(pybao.write_files))

    def _wrap(self, call: Callable[..., object]) -> Callable[..., object]:
        def wrapped(*args: object, **options: object) -> object:
            if not self._is_inside:
                self.count += 1
                if self.count == self._at:
                    self._is_inside = True
                    self._swap()
                    self._is_inside = False
            return call(*args, **options)

        return wrapped


@pytest.mark.parametrize("is_warm", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize("exists", [False, True], ids=["new", "existing"])
@pytest.mark.parametrize("level", ["d", "d/e", "d/e/a", "partial"])
@pytest.mark.parametrize("action", ACTIONS)
def test_a_swap_for_a_symlink_at_any_step_leads_nowhere(
    tmp_path: Path,
    outside: Path,
    action: Callable[[Root], None],
    level: str,
    exists: bool,
    is_warm: bool,
):
    before = snapshot(outside)
    at = 0
    while True:
        at += 1
        dest = tmp_path / f"dest-{at}"
        with Root.open(dest) as root, pytest.MonkeyPatch.context() as patched:
            if exists:
                (dest / "d" / "e").mkdir(parents=True)
                (dest / "d" / "e" / "a").write_bytes(b"old")
            if is_warm:
                root.ensure_dir(("d", "e"))
            place = (
                dest / "d" / "e" / partial_name("a", HASH) if level == "partial" else dest / level
            )

            def swap(dest: Path = dest, place: Path = place) -> None:
                if place.exists():
                    place.rename(dest / "swapped")
                else:
                    place.parent.mkdir(parents=True, exist_ok=True)
                inside = "." if level in {"d", "d/e"} else "file"
                place.symlink_to(outside / (level if level == "d/e" else "") / inside)

            swapper = Swapper(patched, at, swap)
            # Whether it is refused or done elsewhere inside is up to where the swap came.
            with suppress(BlobsyncError):
                action(root)
            patched.undo()
            assert snapshot(outside) == before
        if swapper.count < at:
            break
        shutil.rmtree(dest)
    assert at > 1


# Calls that fail


@pytest.mark.parametrize(
    "code", [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EMFILE]
)
@pytest.mark.parametrize("one_by_one", [False, True], ids=["together", "one by one"])
@pytest.mark.parametrize("action", WRITERS)
def test_whichever_call_fails_the_old_file_or_the_new_one_is_whole(
    tmp_path: Path, action: Callable[[Root], None], one_by_one: bool, code: int
):
    """And the error is one of ours, no descriptor stays open, and what is left is hidden."""
    at = 0
    failed = True
    while failed:
        at += 1
        dest = tmp_path / f"dest-{at}"
        failed = False

        def fail() -> None:
            nonlocal failed
            failed = True
            raise OSError(code, os.strerror(code))

        descriptors = open_descriptors()
        with Root.open(dest) as root, pytest.MonkeyPatch.context() as patched:
            (dest / "d" / "e").mkdir(parents=True)
            if action in {write_whole_over, write_partial_over}:
                (dest / "d" / "e" / "a").write_bytes(b"old")
            if one_by_one:
                write_one_by_one(patched)
            Swapper(patched, at, fail)
            caught: BlobsyncError | None = None
            try:
                action(root)
            except BlobsyncError as error:
                caught = error
        if caught is None:
            # Looking for what stands in the way may fail without harm; the file is there.
            assert (dest / "d" / "e" / "a").read_bytes() == b"new"
        elif code in {errno.ENOSPC, errno.EDQUOT}:
            assert isinstance(caught, DiskFullError)
            assert str(dest) in str(caught)
        else:
            assert os.strerror(code) in str(caught)
        assert open_descriptors() == descriptors
        for path in dest.rglob("*"):
            if path.is_file() and not path.name.endswith(HIDDEN_SUFFIX):
                assert path.read_bytes() in {b"old", b"new"}
        shutil.rmtree(dest)
    assert at > (3 if one_by_one or action is not write_whole else 1)


def test_a_short_write_goes_on(root: Root, dest: Path, monkeypatch: pytest.MonkeyPatch):
    real = os.write
    write_one_by_one(monkeypatch)
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:7]))
    root.write_file(("a",), bytes(range(100)))
    assert (dest / "a").read_bytes() == bytes(range(100))


def test_a_failed_write_leaves_nothing(root: Root, dest: Path):
    """With a limit on the size of files, which needs no rights, the system itself says no."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(TargetError, match="too large"):
            root.write_files([(("d", "a"), b"x" * 4096), (("d", "b"), b"x" * 4097)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in (dest / "d").iterdir()] == ["a"]


FULL_DISK_CHILD = """
import os, sys
from blobsync.errors import DiskFullError
from blobsync.sync.root import Root

dest, written = sys.argv[1], 0
with Root.open(dest) as root:
    assert root.free_bytes() <= 1 << 20
    try:
        for written in range(100):
            root.write_file((f"f{written}",), os.urandom(100_000))
    except DiskFullError as error:
        assert f"f{written}" in str(error)
        assert not error.is_permanent
    else:
        raise AssertionError("the disk was never full")
    names = sorted(os.listdir(dest))
    assert names == sorted(f"f{i}" for i in range(written)) and written > 5
    assert all(os.stat(f"{dest}/{name}").st_size == 100_000 for name in names)
    with root.open_partial(("big",), "0" * 64) as partial:
        assert root.free_bytes() < 100_000
    os.unlink(f"{dest}/f0")
    root.write_file(("again",), b"x" * 1000)
print("full")
"""


def _unshare(script: str, *args: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script that may mount what nobody else sees."""
    flags = ["--mount"] if os.geteuid() == 0 else ["--user", "--map-root-user", "--mount"]
    return subprocess.run(
        ["unshare", *flags, "sh", "-c", script, "sh", *args],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        check=False,
    )


def _write_until_a_limit(dest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `write` that plays a disk with room for 250 bytes."""
    real = os.write
    room = 250

    def write(fd: int, data: memoryview) -> int:
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        count = real(fd, data[:room])
        room -= count
        return count

    write_one_by_one(monkeypatch)
    monkeypatch.setattr(os, "write", write)
    with Root.open(dest) as root, pytest.raises(DiskFullError, match=f"{dest}/c"):
        root.write_files([((name,), b"x" * 100) for name in "abc"])
    assert names_in(dest) == ["a", "b"]


def test_a_full_disk_in_the_middle_of_a_file_keeps_those_before_it(
    dest: Path, monkeypatch: pytest.MonkeyPatch
):
    _write_until_a_limit(dest, monkeypatch)


def test_a_real_full_disk_keeps_what_is_whole(dest: Path, monkeypatch: pytest.MonkeyPatch):
    """On a tmpfs of 1 MiB; where nothing may be mounted, on one that is played."""
    if shutil.which("unshare") is None or _unshare("mount -t tmpfs none /mnt").returncode:
        _write_until_a_limit(dest, monkeypatch)
        return
    script = 'mount -t tmpfs -o size=1m none "$1" && exec "$2" -c "$3" "$1"'
    done = _unshare(script, str(dest), sys.executable, FULL_DISK_CHILD)
    assert (done.stdout, done.returncode) == ("full\n", 0), done.stderr


def test_every_file_system_below_is_synced(root: Root, monkeypatch: pytest.MonkeyPatch):
    """A folder may be a mount point: its files are on another device than the root."""
    synced: list[tuple[int, int]] = []
    monkeypatch.setattr(
        root_module, "sync_file_system", lambda fd: synced.append(_identity(os.fstat(fd)))
    )
    real = os.fstat

    def fstat(fd: int) -> os.stat_result:
        found = real(fd)
        if found.st_ino == mounted.st_ino:
            fields = list(found)
            fields[2] += 1000
            return os.stat_result(fields)
        return found

    root.ensure_dir(("mounted",))
    mounted = (root.path / "mounted").stat()
    with Root.open(root.path) as fresh:
        monkeypatch.setattr(folders.os, "fstat", fstat)
        fresh.write_file(("mounted", "a"), b"x")
        fresh.write_file(("other", "a"), b"x")
        monkeypatch.setattr(folders.os, "fstat", real)
        fresh.sync()
    assert synced == [_identity(root.path.stat()), _identity(mounted)]


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino

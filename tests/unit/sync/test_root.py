"""`Root` on a folder that nobody else touches: what it writes, keeps and refuses."""

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from blobsync.errors import ExitCode, HostileCollectionError, TargetExistsError
from blobsync.sync import folders, syscalls
from blobsync.sync import root as root_module
from blobsync.sync.folders import TargetError, TargetMissingError, UnsafeTargetError
from blobsync.sync.names import HIDDEN_SUFFIX
from blobsync.sync.root import BytesContents, Root, TargetBusyError

if TYPE_CHECKING:
    from collections.abc import Iterator

HASH = "3f9a" * 16


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    return tmp_path / "base" / "dest"


@pytest.fixture
def root(dest: Path) -> Iterator[Root]:
    with Root.open(dest) as root:
        yield root


def open_descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def tree(path: Path) -> dict[str, bytes | None]:
    """Every file below, and every folder as None."""
    return {
        str(place.relative_to(path)): None if place.is_dir() else place.read_bytes()
        for place in path.rglob("*")
    }


# Opening


def test_open_makes_the_folder_and_those_above_it(dest: Path):
    with Root.open(dest) as root:
        assert root.path == dest.resolve()
    assert dest.is_dir()


def test_open_without_create_needs_the_folder(dest: Path):
    with pytest.raises(TargetMissingError, match="not there"):
        Root.open(dest, create=False)
    assert not dest.parent.exists()


@pytest.mark.parametrize("create", [True, False])
def test_open_refuses_a_file(tmp_path: Path, create: bool):
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(UnsafeTargetError, match="not a folder"):
        Root.open(tmp_path / "file", create=create)
    with pytest.raises(UnsafeTargetError, match="not a folder"):
        Root.open(tmp_path / "file" / "below", create=create)


def test_the_users_own_symlink_is_followed_once(tmp_path: Path):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    link = tmp_path / "link"
    link.symlink_to("one")
    with Root.open(link) as root:
        link.unlink()
        link.symlink_to("two")
        root.write_file(("a",), b"x")
        assert root.path == (tmp_path / "one").resolve()
    assert (tmp_path / "one" / "a").read_bytes() == b"x"
    assert not list((tmp_path / "two").iterdir())


def test_a_closed_root_refuses_work_and_leaves_no_descriptor(dest: Path):
    before = open_descriptors()
    root = Root.open(dest)
    root.write_files([((f"d{i}", "e", "f"), b"") for i in range(20)])
    assert open_descriptors() > before + 20
    root.close()
    root.close()
    assert open_descriptors() == before
    with pytest.raises(ValueError, match="closed"):
        root.write_file(("a",), b"")


# Whole files


def test_write_files_keeps_large_ones_open(root: Root, dest: Path):
    files = [(("a", "small"), b"s"), (("a", "large"), b"l" * 100), (("b",), b"m" * 101)]
    none, *kept = root.write_files(files, keep_open_over=99)
    assert none is None
    for fd, (components, data) in zip(kept, files[1:], strict=True):
        assert fd is not None
        assert os.pread(fd, 1000, 0) == data
        assert os.path.samestat(os.fstat(fd), dest.joinpath(*components).stat())
        os.close(fd)


def test_write_files_that_fails_keeps_nothing_open(root: Root, dest: Path):
    (dest / "taken").write_bytes(b"mine")
    before = open_descriptors()
    with pytest.raises(TargetExistsError):
        root.write_files([(("new",), b"n" * 100), (("taken",), b"t" * 100)], keep_open_over=1)
    assert open_descriptors() == before
    assert (dest / "new").read_bytes() == b"n" * 100


@pytest.mark.parametrize("has_syncfs", [True, False])
def test_of_several_places_of_one_content_the_first_stays_open(
    root: Root, dest: Path, monkeypatch: pytest.MonkeyPatch, has_syncfs: bool
):
    if not has_syncfs:
        monkeypatch.setattr(root_module, "HAS_SYNCFS", False)
    contents = [b"small", b"l" * 100, b"m" * 101]
    places = [
        [("a", f"small-{i}") for i in range(70)],
        [("b", f"large-{i}") for i in range(150)],
        [("c",)],
    ]
    before = open_descriptors()
    none, large, other = root.write_contents(places, BytesContents(contents), keep_open_over=99)
    assert open_descriptors() - before <= 2 + len({"a", "b"}), "the folders are kept as well"
    assert none is None
    assert large is not None
    assert other is not None
    assert os.path.samestat(os.fstat(large), (dest / "b" / "large-0").stat())
    assert os.path.samestat(os.fstat(other), (dest / "c").stat())
    os.close(large)
    os.close(other)
    found = {path: data for path, data in tree(dest).items() if data is not None}
    assert found == {
        "/".join(components): data
        for data, files in zip(contents, places, strict=True)
        for components in files
    }


def test_a_place_that_is_taken_keeps_no_other_open(root: Root, dest: Path):
    (dest / "b").mkdir()
    (dest / "b" / "taken").write_bytes(b"mine")
    before = open_descriptors()
    places = [[("b", "one"), ("b", "two")], [("b", "three"), ("b", "taken"), ("b", "four")]]
    with pytest.raises(TargetExistsError, match="taken"):
        root.write_contents(places, BytesContents([b"x" * 100, b"y" * 100]), keep_open_over=1)
    assert open_descriptors() - before <= 1, "the folder is kept"
    assert sorted(tree(dest / "b")) == ["one", "taken", "three", "two"]


def test_write_files_makes_exactly_these_files(root: Root, dest: Path):
    files = [
        (("a",), b"1"),
        (("d", "b"), b""),
        (("d", "e", "f", "c"), b"x" * 100_000),
        (("d", "g"), b"3"),
        (("\u65e5\u672c", "\U0001f980"), b"4"),
    ]
    root.write_files(files)
    root.sync()
    folders_made = {"d", "d/e", "d/e/f", "\u65e5\u672c"}
    assert tree(dest) == {"/".join(c): data for c, data in files} | dict.fromkeys(folders_made)


def test_files_and_folders_have_the_modes_of_the_umask(dest: Path):
    old = os.umask(0o027)
    try:
        with Root.open(dest) as root:
            root.write_file(("d", "a"), b"x")
            with root.open_partial(("d", "b"), HASH) as partial:
                root.publish(partial)
    finally:
        os.umask(old)
    assert stat.S_IMODE((dest / "d").stat().st_mode) == 0o750
    assert stat.S_IMODE((dest / "d" / "a").stat().st_mode) == 0o640
    assert stat.S_IMODE((dest / "d" / "b").stat().st_mode) == 0o640


def test_an_existing_file_is_kept_without_replace(root: Root, dest: Path):
    (dest / "b").write_bytes(b"mine")
    with pytest.raises(TargetExistsError, match="a file") as caught:
        root.write_files([(("a",), b"1"), (("b",), b"2"), (("c",), b"3")])
    assert caught.value.exit_code is ExitCode.CONFLICT
    assert str(dest / "b") in str(caught.value)
    assert tree(dest) == {"a": b"1", "b": b"mine"}


def test_replace_swaps_the_file_and_not_its_inode(root: Root, dest: Path):
    (dest / "a").write_bytes(b"old")
    os.link(dest / "a", dest / "other")
    root.write_file(("a",), b"new", replace=True)
    root.write_file(("b",), b"fresh", replace=True)
    assert tree(dest) == {"a": b"new", "b": b"fresh", "other": b"old"}


def test_a_replacing_file_is_synced_before_it_replaces(
    root: Root, dest: Path, monkeypatch: pytest.MonkeyPatch
):
    (dest / "a").write_bytes(b"old")
    events: list[str] = []
    real_fsync, real_rename = os.fsync, os.rename

    def fsync(fd: int) -> None:
        events.append(f"fsync {os.pread(fd, 10, 0).decode()} while {(dest / 'a').read_text()}")
        real_fsync(fd)

    def rename(*args: str, **options: int) -> None:
        events.append("rename")
        real_rename(*args, **options)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    root.write_file(("a",), b"new", replace=True)
    assert events == ["fsync new while old", "rename"]


@pytest.mark.parametrize("replace", [False, True])
def test_a_folder_is_never_replaced(root: Root, dest: Path, replace: bool):
    (dest / "a").mkdir()
    with pytest.raises(TargetExistsError, match="a folder"):
        root.write_file(("a",), b"x", replace=replace)
    with (
        root.open_partial(("a",), HASH) as partial,
        pytest.raises(TargetExistsError, match="a folder"),
    ):
        root.publish(partial, replace=replace)
    root.remove_partial(("a",), HASH)
    assert tree(dest) == {"a": None}


def test_a_file_where_a_folder_should_be_is_refused(root: Root, dest: Path):
    (dest / "a").write_bytes(b"mine")
    for act in (
        lambda: root.ensure_dir(("a",)),
        lambda: root.ensure_dir(("a", "b")),
        lambda: root.write_file(("a", "b"), b"x"),
        lambda: root.open_partial(("a", "b"), HASH),
        lambda: root.stat(("a", "b")),
        lambda: root.open_read(("a", "b")),
    ):
        with pytest.raises(UnsafeTargetError, match="is a file, not a folder"):
            act()
    assert tree(dest) == {"a": b"mine"}


@pytest.mark.parametrize(
    "components", [("..", "x"), (".",), ("",), ("a/b",), ("/etc",), ("a\0b",), ("d", "..", "x")]
)
def test_components_that_are_no_names_are_refused_even_unchecked(
    root: Root, dest: Path, components: tuple[str, ...]
):
    for act in (
        lambda: root.ensure_dir(components),
        lambda: root.write_file(components, b"x"),
        lambda: root.open_partial(components, HASH),
        lambda: root.remove_partial(components, HASH),
        lambda: root.stat(components),
        lambda: root.open_read(components),
    ):
        with pytest.raises(HostileCollectionError):
            act()
    assert tree(dest.parent) == {"dest": None}


def test_the_root_itself_is_not_a_file(root: Root):
    with pytest.raises(ValueError, match="root itself"):
        root.write_file((), b"x")


# Looking


def test_stat_and_open_read(root: Root, dest: Path):
    root.write_file(("d", "a"), b"hello")
    (dest / "link").symlink_to("d")
    found = root.stat(("d", "a"))
    assert found is not None
    assert (found.st_size, stat.S_ISREG(found.st_mode)) == (5, True)
    folder, link, top = root.stat(("d",)), root.stat(("link",)), root.stat(())
    assert folder is not None
    assert stat.S_ISDIR(folder.st_mode)
    assert link is not None
    assert stat.S_ISLNK(link.st_mode)
    assert top is not None
    assert os.path.samestat(top, dest.stat())
    assert root.stat(("none",)) is None
    assert root.stat(("none", "below")) is None

    fd = root.open_read(("d", "a"))
    try:
        assert os.read(fd, 100) == b"hello"
        assert os.get_blocking(fd)
    finally:
        os.close(fd)
    with pytest.raises(TargetMissingError):
        root.open_read(("d", "none"))
    with pytest.raises(UnsafeTargetError, match="a folder"):
        root.open_read(("d",))


def test_free_bytes_is_what_the_file_system_says(root: Root, monkeypatch: pytest.MonkeyPatch):
    assert root.free_bytes() > 0
    fields = list(os.statvfs(root.path))
    fields[1], fields[3], fields[4] = 512, 100, 7
    monkeypatch.setattr(os, "fstatvfs", lambda fd: os.statvfs_result(fields))
    assert root.free_bytes() == 7 * 512


# Partials


def test_a_partial_is_hidden_until_it_is_published(root: Root, dest: Path):
    with root.open_partial(("d", "big"), HASH) as partial:
        assert partial.path == dest / "d" / f".big.3f9a3f9a3f{HIDDEN_SUFFIX}"
        assert partial.components == ("d", "big")
        assert os.get_blocking(partial.fd)
        os.pwrite(partial.fd, b"data", 0)
        assert not (dest / "d" / "big").exists()
        assert root.publish(partial) == dest / "d" / "big"
        assert os.path.samestat(os.fstat(partial.fd), (dest / "d" / "big").stat())
    assert partial.fd == -1
    partial.close()
    assert tree(dest) == {"d": None, "d/big": b"data"}


def test_a_partial_is_found_again_and_removed(root: Root, dest: Path):
    with root.open_partial(("big",), HASH) as partial:
        os.pwrite(partial.fd, b"half", 0)
    with root.open_partial(("big",), HASH) as partial:
        assert os.pread(partial.fd, 10, 0) == b"half"
    with root.open_partial(("big",), "0" * 64) as other:
        assert os.pread(other.fd, 10, 0) == b""
    assert root.remove_partial(("big",), HASH)
    assert root.remove_partial(("big",), "0" * 64)
    assert not root.remove_partial(("big",), HASH)
    assert not root.remove_partial(("none", "big"), HASH)
    assert tree(dest) == {}


@pytest.mark.parametrize("name", ["x" * 255, "é" * 127])
def test_the_longest_names_have_partials(root: Root, dest: Path, name: str):
    with root.open_partial((name,), HASH) as partial:
        os.pwrite(partial.fd, b"data", 0)
        root.publish(partial)
    root.write_file((name,), b"other", replace=True)
    assert tree(dest) == {name: b"other"}


def test_one_writer_at_a_time(root: Root):
    with root.open_partial(("big",), HASH) as partial:
        with pytest.raises(TargetBusyError, match="someone else") as caught:
            root.open_partial(("big",), HASH)
        assert not caught.value.is_permanent
        copy = os.dup(partial.fd)
    try:
        with pytest.raises(TargetBusyError):
            root.open_partial(("big",), HASH)
    finally:
        os.close(copy)
    root.open_partial(("big",), HASH).close()


def test_publish_without_replace_leaves_file_and_partial(root: Root, dest: Path):
    (dest / "big").write_bytes(b"mine")
    with root.open_partial(("big",), HASH) as partial:
        os.pwrite(partial.fd, b"data", 0)
        with pytest.raises(TargetExistsError):
            root.publish(partial)
        assert tree(dest) == {"big": b"mine", partial.path.name: b"data"}
        root.publish(partial, replace=True)
    assert tree(dest) == {"big": b"data"}


def test_a_file_system_without_locks_still_has_partials(
    root: Root, monkeypatch: pytest.MonkeyPatch
):
    def no_locks(fd: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(root_module.fcntl, "flock", no_locks)
    with root.open_partial(("big",), HASH) as partial:
        root.publish(partial)


# Without the newer calls of the system


@pytest.fixture
def old_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that has neither renameat2 nor syncfs."""
    monkeypatch.setattr(syscalls, "_rename_at", None)
    monkeypatch.setattr(syscalls, "_syncfs", None)
    monkeypatch.setattr(root_module, "HAS_SYNCFS", False)


@pytest.mark.usefixtures("old_system")
def test_hard_links_do_what_an_exclusive_rename_does(root: Root, dest: Path):
    root.write_file(("d", "a"), b"1")
    (dest / "link").symlink_to("nowhere")
    for name in (("d", "a"), ("link",)):
        with pytest.raises(TargetExistsError):
            root.write_file(name, b"2")
    root.write_file(("d", "a"), b"3", replace=True)
    with root.open_partial(("big",), HASH) as partial:
        root.publish(partial)
    root.sync()
    assert (dest / "big").stat().st_nlink == 1
    (dest / "link").unlink()
    assert tree(dest) == {"big": b"", "d": None, "d/a": b"3"}


@pytest.mark.usefixtures("old_system")
def test_without_syncfs_each_file_is_synced(root: Root, monkeypatch: pytest.MonkeyPatch):
    synced: list[bytes] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        synced.append(
            Path(f"/dev/fd/{fd}").read_bytes() if not stat.S_ISDIR(os.fstat(fd).st_mode) else b"dir"
        )
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    root.write_files([(("a",), b"1"), (("b",), b"2")])
    assert synced == [b"1", b"2"]


def test_a_file_system_that_knows_no_flags_gets_the_hard_link(
    root: Root, dest: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: object) -> int:
        syscalls.ctypes.set_errno(errno.EINVAL)
        return -1

    monkeypatch.setattr(syscalls, "_rename_at", refuse)
    root.write_file(("a",), b"1")
    with pytest.raises(TargetExistsError):
        root.write_file(("a",), b"2")
    assert tree(dest) == {"a": b"1"}


def test_sync_reports_what_the_disk_says(root: Root, monkeypatch: pytest.MonkeyPatch):
    def fail(fd: int) -> int:
        syscalls.ctypes.set_errno(errno.EIO)
        return -1

    monkeypatch.setattr(syscalls, "_syncfs", fail)
    with pytest.raises(TargetError, match="cannot sync"):
        root.sync()


# Folding


def test_a_unix_file_system_folds_nothing(root: Root, dest: Path):
    assert not root.folds_names()
    assert tree(dest) == {}


@pytest.mark.parametrize("fold", [str.lower, lambda name: name.replace("e\u0301", "\u00e9")])
def test_folding_is_noticed(root: Root, dest: Path, monkeypatch: pytest.MonkeyPatch, fold: object):
    """No file system that folds can be had everywhere, so `stat` plays one."""
    assert callable(fold)
    real = os.stat

    def folding_stat(name: str, *, dir_fd: int, follow_symlinks: bool) -> os.stat_result:
        for entry in os.listdir(dir_fd):
            if fold(entry) == fold(name):
                name = entry
        return real(name, dir_fd=dir_fd, follow_symlinks=follow_symlinks)

    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", folding_stat)
        assert root.folds_names()
    assert tree(dest) == {}


# Descriptors of folders


def test_few_folders_stay_open(dest: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(folders, "HELD_MAX", 4)
    with Root.open(dest) as root:
        before = open_descriptors()
        deep = tuple("abcdefghijklmnop")
        root.write_files([((f"d{i}", *deep), b"x") for i in range(10)])
        assert open_descriptors() == before + 4
        root.write_files([((f"d{i}", *deep[:-1], "again"), b"x") for i in range(10)])
    assert len(list(dest.rglob("again"))) == 10


def test_a_folder_that_was_removed_or_replaced_is_not_written_to(
    root: Root, dest: Path, tmp_path: Path
):
    root.write_file(("d", "e", "a"), b"1")
    (dest / "d").rename(tmp_path / "moved")
    root.write_file(("d", "e", "b"), b"2")
    assert tree(tmp_path / "moved") == {"e": None, "e/a": b"1"}
    assert tree(dest) == {"d": None, "d/e": None, "d/e/b": b"2"}


def test_threads_share_a_root(dest: Path, monkeypatch: pytest.MonkeyPatch):
    """With fewer kept folders than threads, a descriptor closed too early would show."""
    monkeypatch.setattr(folders, "HELD_MAX", 2)
    count, threads_count = 60, 8
    failures: list[BaseException] = []
    barrier = threading.Barrier(threads_count)

    def write(root: Root, thread: int) -> None:
        try:
            barrier.wait()
            for i in range(count):
                name = f"t{thread}-{i}"
                root.write_file((f"d{i % 7}", f"e{i % 5}", name), name.encode())
                with root.open_partial((f"d{i % 3}", "big", name), HASH) as partial:
                    os.pwrite(partial.fd, name.encode(), 0)
                    root.publish(partial)
        except BaseException as error:
            failures.append(error)
            raise

    with Root.open(dest) as root:
        threads = [threading.Thread(target=write, args=(root, n)) for n in range(threads_count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures
    files = [path for path in dest.rglob("*") if path.is_file()]
    assert len(files) == 2 * count * threads_count
    assert all(path.read_text() == path.name for path in files)

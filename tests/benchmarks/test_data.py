"""What the benchmarks send, and how they notice that something else arrived."""

from pathlib import Path

import pytest

from benchmarks import data
from benchmarks.data import (
    HOLE_SIZE,
    check_equal,
    copy_tree,
    disk_folder,
    make_file,
    make_files,
    make_mostly_holes,
    regular_files,
    work_folder,
)
from benchmarks.harness import BenchmarkError

FILES = {"a.txt": b"one", "sub/b.txt": b"two", "sub/empty": b""}


def fill(folder: Path) -> Path:
    for name, content in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def test_a_tree_is_copied_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = fill(tmp_path / "source")
    (source / "link").symlink_to("a.txt")
    (tmp_path / "too-small").mkdir()
    monkeypatch.setattr(data, "tree_sources", lambda: [tmp_path / "too-small", source])
    tree = copy_tree(tmp_path / "copy" / "tree", files_min=3)
    check_equal(source, tree.path)
    assert (tree.files, tree.folders, tree.bytes) == (3, 2, 6)
    with pytest.raises(BenchmarkError, match="no tree of 100 files"):
        copy_tree(tmp_path / "other", files_min=100)


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.txt", b"onE"), ("a.txt", None), ("more", b"")],
    ids=["changed", "missing", "too many"],
)
def test_another_tree_is_not_equal(tmp_path: Path, name: str, content: bytes | None) -> None:
    sent, received = fill(tmp_path / "sent"), fill(tmp_path / "received")
    check_equal(sent, received)
    if content is None:
        (received / name).unlink()
    else:
        (received / name).write_bytes(content)
    with pytest.raises(BenchmarkError):
        check_equal(sent, received)


def test_another_file_is_not_equal(tmp_path: Path) -> None:
    make_file(tmp_path / "one", 3_000_000)
    make_file(tmp_path / "other", 3_000_000)
    check_equal(tmp_path / "one", tmp_path / "one")
    with pytest.raises(BenchmarkError):
        check_equal(tmp_path / "one", tmp_path / "other")
    with pytest.raises(BenchmarkError):
        check_equal(tmp_path / "one", tmp_path / "absent")


def test_a_work_folder_is_gone_after_the_run(tmp_path: Path) -> None:
    with work_folder(tmp_path / "work", room=0) as work:
        with work.run_folder("one") as folder:
            (folder / "file").write_bytes(b"x")
        # On a disk it stays until the end.
        assert list(regular_files(work.path)) == ["one/file"]
    assert list((tmp_path / "work").iterdir()) == []


def test_small_files_are_all_different(tmp_path: Path) -> None:
    tree = make_files(tmp_path / "tree", 1_001, 8)
    contents = {(tree.path / name).read_bytes() for name in regular_files(tree.path)}
    assert (tree.files, tree.folders, tree.bytes, len(contents)) == (1_001, 3, 8_008, 1_001)


def test_a_file_of_holes_has_its_size_and_random_bytes_where_said(tmp_path: Path) -> None:
    path = tmp_path / "holes"
    make_mostly_holes(path, HOLE_SIZE + 10)
    assert path.stat().st_size == HOLE_SIZE + 10
    with path.open("rb") as file:
        assert any(file.read(100))
        file.seek(HOLE_SIZE)
        assert any(file.read())


def test_two_runs_of_one_name_get_a_folder_each(tmp_path: Path) -> None:
    with disk_folder(tmp_path) as disk:
        paths: list[Path] = []
        for _ in range(2):
            with disk.run_folder("run") as folder:
                paths.append(folder)
        assert len(set(paths)) == 2
        with disk.removing().run_folder("run") as folder:
            pass
        assert not folder.exists()

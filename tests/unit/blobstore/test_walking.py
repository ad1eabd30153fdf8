"""What is found is in the order of its names, whatever the folders are called."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from blobstore.errors import ImportFileError
from blobstore.files import Files
from blobstore.testing import FaultyFiles
from blobstore.testing.data import make_file
from blobstore.walking import SCAN_BATCH, walk

NAMES = [
    "a",
    "a-",
    "a-b/x",
    "a0",
    "ab/c/d",
    "ab/c-",
    "ab/c.d/e",
    "ab.c",
    "b/z",
    "c/~",
    "d\N{LATIN SMALL LETTER E WITH ACUTE}/f",
    "zz",
]


def test_files_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in NAMES:
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "tree-").write_text("x")
    found = walk(Files(), [tmp_path / "tree-", tmp_path / "tree"])
    expected = sorted([b"tree-", *(b"tree/" + name.encode() for name in NAMES)])
    assert list(found.names()) == expected
    files = list(found.files())
    assert [os.fsencode(file.name) for file in files] == expected
    for file in files:
        assert file.path == str(tmp_path / file.name)
        assert file.size == Path(file.path).stat().st_size


def test_many_and_deep_folders(tmp_path: Path) -> None:
    deep = tmp_path / "tree"
    for _ in range(SCAN_BATCH):
        deep = deep / "d"
    deep.mkdir(parents=True)
    (deep / "file").write_text("x")
    for number in range(SCAN_BATCH + 1):
        (tmp_path / "tree" / str(number)).mkdir()
        (tmp_path / "tree" / str(number) / "file").write_text("x")
    names = list(walk(Files(), [tmp_path / "tree"]).names())
    assert names == sorted(names)
    assert len(names) == SCAN_BATCH + 2


def test_a_refused_name_is_said(tmp_path: Path) -> None:
    for number, bad in enumerate((b"back\\slash", b"not \xff utf-8")):
        for kind in ("file", "folder"):
            folder = tmp_path / f"{kind} {number}"
            folder.mkdir()
            (folder / "fine").write_text("x")
            if kind == "file":
                if not make_file(folder, bad):
                    continue
            else:
                try:
                    (folder / os.fsdecode(bad)).mkdir()
                except OSError:
                    continue
            with pytest.raises(ImportFileError, match=r"slash|udcff"):
                walk(Files(), [folder])


def test_a_root_has_a_name() -> None:
    with pytest.raises(ImportFileError, match="without a name"):
        walk(Files(), ["/"])


def test_a_folder_that_fails_is_said(tmp_path: Path) -> None:
    (tmp_path / "tree/a").mkdir(parents=True)
    files = FaultyFiles()
    files.arm(3)
    with pytest.raises(ImportFileError, match="tree/a"):
        walk(files, [tmp_path / "tree"])
    assert files.verbs == ["stat", "scan_folders", "scan_folders"]

"""The file verbs, where they are more than one system call."""

from __future__ import annotations

import errno
import fcntl
import os
from typing import TYPE_CHECKING

import pytest

from blobstore.files import COPY_SIZE, Files, Identity, boot_id, sync_all
from blobstore.testing.data import pattern

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("size", [0, 1, COPY_SIZE, 3 * COPY_SIZE + 17])
@pytest.mark.parametrize("without", [(), ("reflink",), ("reflink", "range")])
def test_copy(
    tmp_path: Path, size: int, without: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "not on this file system")

    if "reflink" in without:
        monkeypatch.setattr(fcntl, "ioctl", refuse)
    if "range" in without:
        monkeypatch.setattr(os, "copy_file_range", refuse, raising=False)
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(pattern(size))
    with source.open("rb") as reader, target.open("w+b") as writer:
        Files().copy(reader.fileno(), writer.fileno())
    assert target.read_bytes() == pattern(size)


def test_a_copy_that_fails_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "broken")

    (tmp_path / "source").write_bytes(b"x")
    monkeypatch.setattr(os, "copy_file_range", fail, raising=False)
    monkeypatch.setattr(os, "pread", fail)
    with (
        (tmp_path / "source").open("rb") as reader,
        (tmp_path / "target").open("w+b") as writer,
        pytest.raises(OSError, match="broken"),
    ):
        Files().copy(reader.fileno(), writer.fileno())


def test_read_and_write_go_on_after_a_short_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pread, pwrite = os.pread, os.pwrite
    monkeypatch.setattr(os, "pread", lambda fd, size, at: pread(fd, min(size, 1000), at))
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, data[:700], at))
    with (tmp_path / "file").open("w+b") as file:
        Files().write(file.fileno(), pattern(5000), 10)
        assert Files().read(file.fileno(), 4000, 10) == pattern(5000)[:4000]
        assert Files().read(file.fileno(), 9000, 10) == pattern(5000)
        assert Files().read(file.fileno(), 10, 99_999) == b""


def test_a_lock_has_one_holder_within_a_process_too(tmp_path: Path) -> None:
    files = Files()
    with (tmp_path / "file").open("w") as one, (tmp_path / "file").open("w") as two:
        assert files.try_lock(one.fileno())
        assert not files.try_lock(two.fileno())
        one.close()
        assert files.try_lock(two.fileno())


def test_an_identity_shows_a_change(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    before = Identity.of(path.stat())
    assert Identity.of(path.stat()) == before
    path.rename(tmp_path / "other")
    path.write_bytes(b"two")
    assert Identity.of(path.stat()) != before


def test_a_boot_has_one_id() -> None:
    assert len(boot_id()) == 16
    assert boot_id() == boot_id()


def test_where_a_file_system_cannot_be_synced_files_are(tmp_path: Path) -> None:
    calls: list[str] = []

    class Other(Files):
        def sync_file_system(self, fd: int) -> bool:
            return False

        def sync_data(self, fd: int) -> None:
            calls.append("file")
            super().sync_data(fd)

        def sync_folder(self, path: str | os.PathLike[str]) -> None:
            calls.append("folder")
            super().sync_folder(path)

    handles = [(tmp_path / str(number)).open("w") for number in range(20)]
    sync_all(Other(), [file.fileno() for file in handles], {str(tmp_path)})
    for file in handles:
        file.close()
    assert calls == ["file"] * 20 + ["folder"]

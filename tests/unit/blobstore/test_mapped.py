"""What of this process's memory may be given back, and that all others are left alone."""

from __future__ import annotations

import mmap
import os
import sys
from typing import TYPE_CHECKING

import pytest

from blobstore import mapped

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the system tells nothing")

SIZE = 1 << 20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a name\nof (deleted) two lines"
    path.write_bytes(os.urandom(SIZE))
    return path


def test_pages_go_and_come_back(path: Path) -> None:
    content = path.read_bytes()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as map:
        before = mapped.resident().shared
        assert map[:] == content
        assert mapped.resident().shared >= before + SIZE
        for at in (0, 1, SIZE // 2, SIZE - 1):
            with memoryview(map) as view, view[at:] as part:
                found = mapped.mapping_of(part, SIZE)
            assert found is not None
            assert found.size == SIZE
            mapped.give_back(found)
            assert mapped.resident().shared <= before + SIZE // 2
            assert map[:] == content


def test_others_are_left_alone(path: Path) -> None:
    def of(map: mmap.mmap, size: int = SIZE) -> mapped.Mapping | None:
        with memoryview(map) as view:
            return mapped.mapping_of(view, size)

    with path.open("r+b") as file:
        fd = file.fileno()
        with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as map:
            assert of(map, SIZE - 4096) is None, "not all of it"
            assert of(map, SIZE + 4096) is None, "more than there is"
        with mmap.mmap(fd, 0) as writable:
            assert of(writable) is None
        with mmap.mmap(fd, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ) as private:
            assert of(private) is None
    with mmap.mmap(-1, SIZE) as anonymous:
        assert of(anonymous) is None
    assert mapped.mapping_of(memoryview(bytes(SIZE)), SIZE) is None


def test_a_refusal_is_raised() -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        mapped.give_back(mapped.Mapping(1, mmap.PAGESIZE))


def test_a_system_that_tells_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped, "_STATM", path / "statm")
    assert mapped.resident() == (0, 0)
    monkeypatch.setattr(mapped, "_MAPS", path / "maps")
    with pytest.raises(OSError, match="maps"):
        mapped.mapping_of(memoryview(b"1"), SIZE)
    monkeypatch.setattr(mapped, "_IS_LINUX", False)
    assert mapped.mapping_of(memoryview(b"1"), SIZE) is None
    assert mapped.resident() == (0, 0)

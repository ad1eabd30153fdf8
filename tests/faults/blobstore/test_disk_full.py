"""The disk gets full: the operation says so, and what was complete before still is."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from blobstore.testing.crash import run_until_full

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def run(children: Any, folder: Path, size_max: int) -> None:
    child, connection = children.start(run_until_full, folder, size_max)
    messages = children.finish(child, connection)
    assert child.exitcode == 0
    added = dict(messages)
    assert "ended" in added
    # Otherwise it was full from the start, and nothing was tried.
    assert added["_add_small"] > 10


@pytest.mark.timeout(120)
def test_files_may_not_grow(children: Any, tmp_path: Path) -> None:
    run(children, tmp_path, 3_000_000)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(path)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip("only root may mount a small file system")
    yield path
    subprocess.run(["umount", str(path)], check=True)


@pytest.mark.timeout(120)
def test_a_small_disk(children: Any, small_disk: Path) -> None:
    run(children, small_disk, 0)

"""Neither end takes more memory for a larger file."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.faults.app.conftest import Program

MIB = 1 << 20
GIB = 1 << 30
MEMORY_MAX = 250 * MIB


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="measured with /proc")
@pytest.mark.parametrize("size", [GIB, pytest.param(5 * GIB, marks=pytest.mark.slow)])
def test_memory_does_not_grow_with_the_file(
    provider: Program, getter: Program, memory_folder: Path, tmp_path: Path, size: int
):
    """The source is a hole, so that only what arrives needs room."""
    source, destination = tmp_path / "source", memory_folder / "destination"
    with source.open("wb") as file:
        file.truncate(size)
    if shutil.disk_usage(memory_folder).free < 2 * size:
        destination = tmp_path / "destination"
    with provider.share(source) as sharing:
        run = getter.start_get(sharing.ticket, destination)
        get_peak = 0
        while (event := run.next_event()) is not None and event["event"] != "done":
            get_peak = max(get_peak, run.memory_peak())
        assert event is not None, run.wait().stderr
        assert event["bytes_fetched"] == size
        assert run.wait().code == 0
        assert (destination / "source").stat().st_size == size
        share_peak = sharing.run.memory_peak()
        assert sharing.stop().code == 0
    assert 10 * MIB < get_peak < MEMORY_MAX
    assert 10 * MIB < share_peak < MEMORY_MAX

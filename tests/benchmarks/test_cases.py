"""The pure parts of the cases and of the rivals."""

import pytest

from benchmarks.cases.huge import GIB, size_with_room
from benchmarks.cases.ladder import RUNGS
from benchmarks.rivals.syncthing import FolderStatus, parse_status
from benchmarks.run import CASES, SHORT_CASES, parse
from benchmarks.wire_count import HEADERS_SIZE, WireCount, parse_devices

DEVICES = """\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs
    lo: 1000000     100    0    0    0     0          0         0  1000000     100    0
  eth0:      42       1    0    0    0     0          0         0        0       0    0
"""


def test_every_case_can_be_asked_for() -> None:
    assert set(SHORT_CASES) <= set(CASES)
    assert parse(["--case", "ladder", "--case", "file"]).case == ["ladder", "file"]
    for wrong in (["--case", "none"], ["--pairs", "0"]):
        with pytest.raises(SystemExit):
            parse(wrong)


def test_bytes_on_the_wire() -> None:
    assert parse_devices(DEVICES) == {"lo": (1_000_000, 100), "eth0": (42, 1)}
    passed = WireCount(1_000_000, 100) - WireCount(400_000, 40)
    assert passed == WireCount(600_000, 60)
    assert passed.udp_bytes == 600_000 - 60 * HEADERS_SIZE


@pytest.mark.parametrize(
    ("free", "size"),
    [(100 * GIB, 10 * GIB), (30 * GIB, 10 * GIB), (29 * GIB, 9 * GIB), (GIB, GIB)],
)
def test_a_huge_file_is_as_large_as_there_is_room(free: int, size: int) -> None:
    assert size_with_room(10 * GIB, free) == size


def test_the_links_are_told_apart() -> None:
    assert len({rung.point() for rung in RUNGS}) == len(RUNGS)


def test_a_folder_of_syncthing_is_complete_when_it_rests_and_lacks_nothing() -> None:
    answer = {"state": "idle", "localFiles": 7, "needBytes": 0, "localBytes": 1}
    assert parse_status(answer).is_complete(7)
    for change in ({"state": "syncing"}, {"localFiles": 6}, {"needBytes": 1}):
        assert not parse_status(answer | change).is_complete(7)
    assert parse_status({}) == FolderStatus()

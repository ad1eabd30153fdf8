"""What a result says of the runs it came from."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.machine import ROOT
from benchmarks.report import (
    case_result,
    case_table,
    case_tables,
    portable,
    write_results,
)


@dataclass
class Ran:
    """A contestant that has run."""

    name: str
    version: str = "1.0"
    commands: Sequence[Sequence[str]] = field(default_factory=lambda: [["program", "--option"]])

    def run(self, folder: Path) -> dict[str, float]:
        raise AssertionError("a report runs nothing")


def test_no_folder_of_this_machine_is_in_a_result() -> None:
    work = Path("/dev/shm/work-1")
    command = [str(ROOT / ".venv/bin/python"), "-m", "x y", str(work / "a b"), "/usr/bin/rsync"]
    assert portable(command, work) == "./.venv/bin/python -m 'x y' WORK'/a b' /usr/bin/rsync"
    assert portable([str(Path.home() / "sendme")], work) == "~/sendme"


def test_a_table_holds_both_sides_and_their_factors() -> None:
    rounds = [{"ours": {"receive_wall_s": 2.0}, "rival": {"receive_wall_s": 5.0}}]
    contestants = [Ran("ours"), Ran("rival", version="9.9")]
    result = case_result("file", {"bytes": 10**9}, contestants, rounds, ["no third"], Path("/w"))
    assert result["ratios"] == {"rival": {"receive_wall_s": 2.5}}
    table = case_table(result)
    assert "| ours | 500 |" in table
    assert "| rival | 200 |" in table
    assert "2.50 x" in table
    for part in ("9.9", "`program --option`", "not compared: no third"):
        assert part in table


def test_no_result_replaces_an_earlier_one(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        write_results(tmp_path, "day-file", {"run": number}, f"run {number}")
    assert (tmp_path / "day-file.md").read_text() == "run 1"
    assert (tmp_path / "day-file-2.md").read_text() == "run 2"
    assert (tmp_path / "day-file-3.md").read_text() == "run 3"


def test_no_folder_is_left_inside_of_an_argument() -> None:
    command = ["rsync", "-e", "ssh -i /dev/shm/work-1/key", "--home=/dev/shm/work-1/home"]
    assert (
        portable(command, Path("/dev/shm/work-1")) == "rsync -e 'ssh -i WORK/key' --home=WORK/home"
    )


def test_each_work_folder_has_its_name() -> None:
    work, disk = Path("/dev/shm/work-1"), ROOT / "benchmarks" / "work" / "disk-1"
    command = ["rsync", str(disk), f"me@127.0.0.1:{work}/tree", f"{disk}/x", str(work)]
    assert portable(command, work, disk) == "rsync DISK me@127.0.0.1:WORK/tree DISK/x WORK"


def test_points_of_a_case_share_a_table() -> None:
    points: list[dict[str, Any]] = []
    for size in (10**6, 10**7):
        rounds = [{"ours": {"receive_wall_s": size / 10**8, "getter_memory": float(50 << 20)}}]
        result = case_result("scaling", {"bytes": size}, [Ran("ours")], rounds, [], Path("/w"))
        points.append(result | {"point": f"{size:,} bytes"})
    table = case_tables(points)
    assert table.startswith("## scaling\n")
    assert "| 1,000,000 bytes | ours | 100 | 0.01 | 50 |" in table
    assert "| 10,000,000 bytes | ours | 100 | 0.10 | 50 |" in table

"""What is called reached is computed from a result, never typed."""

from typing import Any

import pytest

from benchmarks.goals import GOALS, Goal, table

MIB = 1 << 20


def comparison(case: str, ratios: dict[str, Any], median: dict[str, Any], point: str = "") -> Any:
    return {
        "case": case,
        "point": point,
        "ratios": ratios,
        "contestants": {"blobsync": {"median": median}},
    }


def row(comparisons: list[Any], start: str) -> str:
    (found,) = (line for line in table(comparisons).splitlines() if line.startswith(f"| {start}"))
    return found


def test_what_was_not_measured_is_not_reached() -> None:
    rows = table([]).splitlines()[2:]
    assert len(rows) == len(GOALS)
    assert all(line.endswith("| not measured | - |") for line in rows)


def test_speed_is_how_much_longer_the_rival_took() -> None:
    file = comparison("file", {"sendme": {"receive_wall_s": 1.7, "cpu_s": 1.25}}, {})
    assert row([file], "1 GiB file, MB/s against sendme").endswith("| 1.70 x | yes |")
    assert row([file], "1 GiB file, CPU against sendme").endswith("| 0.80 x | **no** |")
    # The rival was not there.
    assert "not measured" in row([file], "1 GiB file, MB/s against a raw")


def test_a_short_run_reaches_nothing() -> None:
    short = comparison("file", {"sendme": {"receive_wall_s": 9.0}}, {}) | {"is_short": True}
    assert row([short], "1 GiB file, MB/s against sendme").endswith("| 9.00 x | short run |")
    full = comparison("file", {"sendme": {"receive_wall_s": 1.5}}, {})
    assert row([short, full], "1 GiB file, MB/s against sendme").endswith("| 1.50 x | **no** |")


def test_memory_is_the_largest_of_all_sizes() -> None:
    results = [
        comparison("file", {}, {"provider_memory": 60 * MIB, "getter_memory": 50 * MIB}),
        comparison("huge", {}, {"provider_memory": 40 * MIB, "getter_memory": 151 * MIB}),
        comparison("scaling-files", {}, {"getter_memory": 500 * MIB}, "100,000 files"),
    ]
    assert row(results, "peak memory of a process, any").endswith("| 151.00 MiB | **no** |")
    assert "not measured" in row(results, "peak memory of a process, 1,000,000")


def test_of_links_the_worst_counts_against_the_best_raw_streams() -> None:
    results = [
        comparison(
            "ladder",
            {
                "sendme": {"receive_wall_s": 0.1},
                "raw-streams-1x16": {"receive_wall_s": first},
                "raw-streams-4x4": {"receive_wall_s": second},
            },
            {},
            point,
        )
        for point, first, second in [("0 ms, 0 %", 0.9, 1.2), ("20 ms, 0 %", 0.95, 0.81)]
    ]
    assert row(results, "far links").endswith("| 0.81 x | yes |")


@pytest.mark.parametrize(("is_at_least", "value", "reached"), [(True, 2, True), (False, 3, False)])
def test_a_limit_itself_is_good_enough(is_at_least: bool, value: float, reached: bool) -> None:
    goal = Goal("x", 2, "x", is_at_least, lambda _: value)
    assert goal.is_reached(value) is reached

"""Plots are drawn from a result alone, the same each time, and load nothing."""

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from benchmarks.plot import draw_all, format_bytes, ticks

MIB = 1 << 20


def ours(seconds: float, memory: int) -> dict[str, Any]:
    measures = {
        f"{what}_{unit}_s": seconds for what in ("add", "receive") for unit in ("wall", "cpu")
    }
    sizes = {
        f"{end}_{part}": memory for end in ("provider", "getter") for part in ("memory", "anon")
    }
    return {"median": measures | sizes}


def comparison(case: str, point: str, sent: dict[str, int], seconds: float) -> dict[str, Any]:
    return {
        "case": case,
        "point": point,
        "sent": sent,
        "contestants": {"blobsync": ours(seconds, 50 * MIB), "sendme": ours(seconds * 3, MIB)},
        "ratios": {"sendme": {"receive_wall_s": 3.0, "receive_cpu_s": 0.5}},
    }


SAMPLE: list[dict[str, Any]] = [
    comparison("file", "", {"bytes": 1 << 30}, 4),
    *(comparison("scaling-size", f"{n}", {"bytes": n * MIB}, n / 100) for n in (10, 100, 1000)),
    *(
        comparison("scaling-files", f"{n}", {"files": n, "bytes": n}, n / 900)
        for n in (1000, 10000)
    ),
    comparison("ladder", "20 ms, 1 %", {"bytes": MIB}, 2),
    {"case": "micro", "point": "", "figures": []},
]

NAMES = {
    "cpu.svg": "CPU time of both ends",
    "ladder.svg": "20 ms, 1 %",
    "memory-files.svg": "number of files",
    "memory-size.svg": "MiB",
    "receive.svg": "Time to receive",
    "scaling-files.svg": "10,000",
    "scaling-size.svg": "seconds",
}


def test_each_plot_is_svg_that_loads_nothing(tmp_path: Path) -> None:
    drawn = draw_all(SAMPLE, tmp_path)
    assert sorted(path.name for path in drawn) == sorted(NAMES)
    for path in drawn:
        text = path.read_text()
        assert ET.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
        assert NAMES[path.name] in text
        assert "prefers-color-scheme" in text
        for loads in ("<script", "@import", "url(", "<image"):
            assert loads not in text


def test_the_same_result_gives_the_same_plots(tmp_path: Path) -> None:
    first = {path.name: path.read_text() for path in draw_all(SAMPLE, tmp_path / "a")}
    assert first == {path.name: path.read_text() for path in draw_all(SAMPLE, tmp_path / "b")}


def test_what_was_not_measured_is_not_drawn(tmp_path: Path) -> None:
    assert draw_all([SAMPLE[-1]], tmp_path) == []


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0.3, 4], [0.2, 0.5, 1, 2, 5]), ([1], [1]), ([20, 99], [20, 50, 100])],
)
def test_ticks_enclose_the_values(values: list[float], expected: list[float]) -> None:
    assert ticks(values) == expected


def test_sizes() -> None:
    assert [format_bytes(value) for value in (10, 1536, 10 * MIB, 10 << 30)] == [
        "10 B",
        "1.5 KiB",
        "10 MiB",
        "10 GiB",
    ]

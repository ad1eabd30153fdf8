"""What is to be reached, and what a result reaches. The numbers stand here and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

MIB = 1 << 20
OURS = "blobsync"


@dataclass(frozen=True, slots=True)
class Goal:
    """One line of the table."""

    what: str
    limit: float | None
    """None: printed without a goal."""
    unit: str
    is_at_least: bool
    reach: Callable[[Sequence[dict[str, Any]]], float | None]
    """What a result reaches; None if it does not hold the case."""

    def shown_limit(self) -> str:
        """For people."""
        if self.limit is None:
            return "-"
        return f"{'≥' if self.is_at_least else '≤'} {self.limit:g} {self.unit}"

    def is_reached(self, value: float) -> bool:
        """Whether a figure is good enough."""
        if self.limit is None:
            return True
        return value >= self.limit if self.is_at_least else value <= self.limit


def find(
    comparisons: Sequence[dict[str, Any]], case: str, point: str = ""
) -> dict[str, Any] | None:
    """The comparison of a case, or of one of its points."""
    for each in comparisons:
        if each["case"] == case and each.get("point", "") == point:
            return each
    return None


def rival_over_ours(
    case: str, rival: str, measure: str, point: str = ""
) -> Callable[[Sequence[dict[str, Any]]], float | None]:
    """How many times as much of a measure the rival needed."""

    def reach(comparisons: Sequence[dict[str, Any]]) -> float | None:
        found = find(comparisons, case, point)
        return found["ratios"].get(rival, {}).get(measure) if found else None

    return reach


def ours_over_rival(
    case: str, rival: str, measure: str
) -> Callable[[Sequence[dict[str, Any]]], float | None]:
    """How many times as much of a measure we needed."""
    inverse = rival_over_ours(case, rival, measure)

    def reach(comparisons: Sequence[dict[str, Any]]) -> float | None:
        value = inverse(comparisons)
        return 1 / value if value else None

    return reach


def memory_peak(
    cases: Iterable[str], point: str | None = None
) -> Callable[[Sequence[dict[str, Any]]], float | None]:
    """MiB of the largest process of ours, in any of these cases."""

    def reach(comparisons: Sequence[dict[str, Any]]) -> float | None:
        peaks = [
            value / MIB
            for each in comparisons
            if each["case"] in cases and point in (None, each.get("point"))
            for key, value in each["contestants"][OURS]["median"].items()
            if key.endswith("_memory")
        ]
        return max(peaks, default=None)

    return reach


def figure(name: str) -> Callable[[Sequence[dict[str, Any]]], float | None]:
    """One figure of the micro benchmarks."""

    def reach(comparisons: Sequence[dict[str, Any]]) -> float | None:
        found = find(comparisons, "micro")
        values = (
            [each["value"] for each in found["figures"] if each["name"] == name] if found else []
        )
        return values[0] if values else None

    return reach


def wire_mib(comparisons: Sequence[dict[str, Any]]) -> float | None:
    """MiB of UDP payload that the range took."""
    found = find(comparisons, "range")
    return found["contestants"][OURS]["median"]["wire_bytes"] / MIB if found else None


def worst_link(comparisons: Sequence[dict[str, Any]]) -> float | None:
    """Of all links the one where we stay farthest below the best of parallel raw streams."""
    factors = [
        found["receive_wall_s"]
        for each in comparisons
        if each["case"] == "ladder"
        for name, found in each["ratios"].items()
        if name.startswith("raw-stream")
    ]
    return min(factors, default=None)


GOALS = (
    Goal(
        "1 GiB file, MB/s against sendme",
        1.6,
        "x",
        True,
        rival_over_ours("file", "sendme", "receive_wall_s"),
    ),
    Goal(
        "1 GiB file, CPU against sendme",
        0.7,
        "x",
        False,
        ours_over_rival("file", "sendme", "cpu_s"),
    ),
    Goal(
        "1 GiB file, MB/s against a raw iroh stream",
        0.75,
        "x",
        True,
        rival_over_ours("file", "raw-stream", "receive_wall_s"),
    ),
    Goal(
        "tree, receive in memory: times as fast as sendme",
        5,
        "x",
        True,
        rival_over_ours("tree", "sendme", "receive_wall_s"),
    ),
    Goal(
        "tree, receive in memory: time against `rsync -a`",
        1.5,
        "x",
        False,
        ours_over_rival("tree", "rsync", "receive_wall_s"),
    ),
    Goal(
        "tree, receive on a disk: times as fast as sendme",
        None,
        "x",
        True,
        rival_over_ours("tree-disk", "sendme", "receive_wall_s"),
    ),
    Goal(
        "tree, receive on a disk: time against `rsync -a`",
        None,
        "x",
        False,
        ours_over_rival("tree-disk", "rsync", "receive_wall_s"),
    ),
    Goal(
        "tree, add: times as fast as sendme",
        4,
        "x",
        True,
        rival_over_ours("tree", "sendme", "add_wall_s"),
    ),
    Goal(
        "100,000 files of 4 KiB, receive: times as fast as sendme",
        5,
        "x",
        True,
        rival_over_ours("small", "sendme", "receive_wall_s"),
    ),
    Goal(
        "rescan of the unchanged tree: time against `rsync -a`",
        2,
        "x",
        False,
        ours_over_rival("rescan", "rsync", "rescan_wall_s"),
    ),
    Goal(
        "hash and outboard of 1 GiB, 1 thread: speed against b3sum",
        0.9,
        "x",
        True,
        rival_over_ours("hash", "b3sum", "hash_wall_s", "1 thread"),
    ),
    Goal(
        "hash and outboard of 1 GiB, 2 threads: speed against b3sum",
        0.9,
        "x",
        True,
        rival_over_ours("hash", "b3sum", "hash_wall_s", "2 threads"),
    ),
    Goal("encode in memory, 1 thread", 1.5, "GB/s", True, figure("encode, 1 thread")),
    Goal("decode in memory, 1 thread", 1.5, "GB/s", True, figure("decode, 1 thread")),
    Goal(
        "peak memory of a process, any file size",
        150,
        "MiB",
        False,
        memory_peak(("file", "huge", "scaling-size")),
    ),
    Goal(
        "peak memory of a process, 1,000,000 files",
        400,
        "MiB",
        False,
        memory_peak(("scaling-files",), "1,000,000 files"),
    ),
    Goal(
        "aioquic transport, sending: CPU against pyiroh",
        4,
        "x",
        False,
        ours_over_rival("transports", "iroh", "send_cpu_s"),
    ),
    Goal(
        "aioquic transport, receiving: CPU against pyiroh",
        7,
        "x",
        False,
        ours_over_rival("transports", "iroh", "receive_cpu_s"),
    ),
    Goal(
        "aioquic transport, sending: CPU of aioquic as it comes",
        4,
        "x",
        True,
        rival_over_ours("transports", "aioquic-as-it-comes", "send_cpu_s"),
    ),
    Goal(
        "aioquic transport, receiving: CPU of aioquic as it comes",
        4,
        "x",
        True,
        rival_over_ours("transports", "aioquic-as-it-comes", "receive_cpu_s"),
    ),
    Goal("1 MiB out of 10 GiB, bytes on the wire", 1.1, "MiB", False, wire_mib),
    Goal("far links, the worst one: MB/s against parallel raw streams", 0.8, "x", True, worst_link),
)


def table(comparisons: Sequence[dict[str, Any]]) -> str:
    """Goals beside what these comparisons reach, as Markdown.

    A short run reaches nothing: what it measured is shown where there is nothing better.
    """
    full = [each for each in comparisons if not each.get("is_short")]
    lines = ["| case | goal | measured | reached |", "|---|---|---|---|"]
    for goal in GOALS:
        value = goal.reach(full)
        if value is not None:
            verdict = "yes" if goal.is_reached(value) else "**no**"
        else:
            value = goal.reach(comparisons)
            verdict = "-" if value is None else "short run"
        if goal.limit is None:
            verdict = "-"
        shown = "not measured" if value is None else f"{value:.2f} {goal.unit}"
        lines.append(f"| {goal.what} | {goal.shown_limit()} | {shown} | {verdict} |")
    return "\n".join(lines) + "\n"

"""Every micro benchmark runs once, on little data."""

from pathlib import Path

from benchmarks.micro import Figure, MicroSize, store, trees, wire
from benchmarks.report import micro_table

TINY = MicroSize(blob_bytes=100_000, items=50, repeats=1)


def check(figures: list[Figure]) -> None:
    assert all(figure.value > 0 for figure in figures)
    table = micro_table(figures)
    assert all(figure.name in table for figure in figures)


def test_trees(tmp_path: Path) -> None:
    check(trees.measure(TINY, tmp_path))


def test_wire() -> None:
    check(wire.measure(TINY))


def test_store(tmp_path: Path) -> None:
    check(store.measure(TINY, tmp_path))

"""The vectors made with the Rust crates, and the data they are about."""

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "vectors"


def load(name: str) -> Any:
    return json.loads((FOLDER / name).read_text())


PERIOD = 251 * 256
PATTERN = bytes((i * 31 + i // 251) & 0xFF for i in range(PERIOD))


def data(size: int) -> bytes:
    """Byte i is (i * 31 + i // 251) mod 256, which begins anew after `PERIOD` bytes."""
    return (PATTERN * (size // PERIOD + 1))[:size]


def boundaries(intervals: list[list[int | None]]) -> list[int]:
    """From half-open intervals, `None` for an open end."""
    return [point for interval in intervals for point in interval if point is not None]

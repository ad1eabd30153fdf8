"""Functions alone, on one thread unless the name says otherwise."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from benchmarks.micro import FULL, SHORT, store, trees, wire

if TYPE_CHECKING:
    from benchmarks.cases import Setting


def run(setting: Setting) -> list[dict[str, Any]]:
    """Every function once more than `repeats` says."""
    size = SHORT if setting.is_short else FULL
    folder = setting.work.path
    figures = [*trees.measure(size, folder), *wire.measure(size), *store.measure(size, folder)]
    return [
        {
            "case": "micro",
            "point": "",
            "is_short": setting.is_short,
            "figures": [dataclasses.asdict(each) for each in figures],
        }
    ]

"""Other programs to compare with; one that is missing is skipped by name, and fails in CI."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from benchmarks.harness import MissingRivalError


def find_program(name: str, variable: str, *cached: str) -> str:
    """The path of a program: from the environment, the cache of `make peers`, or PATH.

    Raises:
        MissingRivalError: it is in none of them.
    """
    cache = Path(os.environ.get("BLOBSYNC_CACHE", Path.home() / ".cache" / "blobsync"))
    candidates = [os.environ.get(variable), str(cache.joinpath(*cached)), shutil.which(name)]
    for candidate in candidates:
        if candidate and Path(candidate).is_file():
            return candidate
    raise MissingRivalError(f"{name} is not on this machine (`make peers` installs what we need)")

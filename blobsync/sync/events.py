"""What a running fetch tells: frozen values, the last of them `FetchDone`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from blobstore import Hash


@dataclass(frozen=True, slots=True)
class FetchStarted:
    """The names are known and checked; nothing was written yet."""

    hash: Hash
    files: int
    bytes_total: int | None
    """Bytes of all files, None where asking every size would cost more than it tells."""
    destination: Path


@dataclass(frozen=True, slots=True)
class FetchProgress:
    """Where a fetch stands, some times a second."""

    files_done: int
    files_total: int
    bytes_done: int
    """Bytes at the destination, fetched or found there or copied from the store."""
    bytes_total: int | None
    bytes_fetched: int
    """Bytes of file content that came over the network in this run."""
    path: str | None
    """`direct`, `relayed`, or None while there is no connection."""


@dataclass(frozen=True, slots=True)
class FetchDone:
    """Everything is at the destination, verified and durable."""

    hash: Hash
    files: int
    bytes: int
    bytes_fetched: int
    seconds: float
    destination: Path


FetchEvent = FetchStarted | FetchProgress | FetchDone

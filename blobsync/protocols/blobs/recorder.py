"""Records what is proven while it is being received, for all streams of a fetch together.

A kill may cost at most what was proven and not recorded yet. So nothing is received that was not
granted, and all grants together are at most `UNRECORDED_MAX`, however many streams there are.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blobstore import ChunkRanges

if TYPE_CHECKING:
    from blobstore import PartialBlob
    from blobsync.protocols.blobs.pumps import BlobBody

UNRECORDED_MAX = 8 << 20
"""Bytes that are received or may be, and are not recorded."""

STEP_MIN = 256 << 10
"""The least that is granted at a time."""

INTERVAL_S = 1.0
"""Seconds between two records on a slow connection."""


@dataclass(eq=False, slots=True)
class Piece:
    """A body that is being received."""

    body: BlobBody
    partial: PartialBlob
    granted: int = 0
    """Bytes that count as not recorded: those written, and those that may be."""
    recorded: int = 0
    """Bytes written of which the record tells."""
    counted: int = 0
    """Bytes written that `Recorder.bytes_received` contains."""


class Recorder:
    """Grants steps to the bodies that are received, and records what became of them."""

    def __init__(self, unrecorded_max: int = UNRECORDED_MAX) -> None:
        self._unrecorded_max = unrecorded_max
        self._granted = 0
        self._pieces: set[Piece] = set()
        self._recording = asyncio.Lock()
        self._is_due = asyncio.Event()
        self._room = asyncio.Condition()
        self._bytes = 0

    @property
    def bytes_received(self) -> int:
        """Verified bytes written by all bodies so far."""
        for piece in self._pieces:
            self._count(piece)
        return self._bytes

    def add(self, body: BlobBody, partial: PartialBlob) -> Piece:
        """A body was opened; `remove` it when it is settled."""
        piece = Piece(body, partial)
        self._pieces.add(piece)
        return piece

    async def grant(self, piece: Piece, left: int, streams: int) -> int:
        """Wait until a body may receive a step; returns how many bytes, at least 1.

        `left` is what it lacks, `streams` how many there will be soon.
        """
        # Half of all may wait for its record while the other half is received.
        share = self._unrecorded_max // (2 * max(streams, len(self._pieces)))
        step = max(1, min(left, max(STEP_MIN, share)))
        async with self._room:
            while self._granted > 0 and self._granted + step > self._unrecorded_max:
                self._is_due.set()
                await self._room.wait()
            self._granted += step
            piece.granted += step
        return step

    def end_step(self, piece: Piece) -> None:
        """A granted step was received."""
        self._count(piece)
        self._keep(piece, piece.body.bytes_received - piece.recorded)
        if self._granted >= self._unrecorded_max // 2:
            self._is_due.set()

    async def remove(self, piece: Piece) -> None:
        """A body was settled: record the rest of it."""
        try:
            await self._record([piece])
        finally:
            self._count(piece)
            self._pieces.discard(piece)
            self._keep(piece, 0)
            async with self._room:
                self._room.notify_all()

    async def run(self) -> None:
        """Record whenever it is due; runs until it is cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(INTERVAL_S):
                    await self._is_due.wait()
            self._is_due.clear()
            await self._record(self._pieces)

    async def _record(self, pieces: set[Piece] | list[Piece]) -> None:
        async with self._recording:
            by_partial: dict[PartialBlob, list[Piece]] = {}
            for piece in pieces:
                if piece.body.bytes_written > piece.recorded:
                    by_partial.setdefault(piece.partial, []).append(piece)
            for partial, group in by_partial.items():
                await self._record_blob(partial, group)
        async with self._room:
            self._room.notify_all()

    async def _record_blob(self, partial: PartialBlob, pieces: list[Piece]) -> None:
        # Bytes first: what is proven between the two looks is recorded, and counts next time.
        written = [piece.body.bytes_written for piece in pieces]
        proven = ChunkRanges.empty()
        for piece in pieces:
            proven |= piece.body.proven
        size_proven = any(piece.body.size_proven for piece in pieces)
        if proven and not proven.issubset(partial.bitfield):
            await partial.record(proven, pieces[0].body.size, size_proven=size_proven)
        for piece, bytes_written in zip(pieces, written, strict=True):
            self._keep(piece, piece.granted - (bytes_written - piece.recorded))
            piece.recorded = bytes_written

    def _keep(self, piece: Piece, granted: int) -> None:
        self._granted += max(granted, 0) - piece.granted
        piece.granted = max(granted, 0)

    def _count(self, piece: Piece) -> None:
        written = piece.body.bytes_written
        self._bytes += written - piece.counted
        piece.counted = written

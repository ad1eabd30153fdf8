"""One file over a link of 1 Gbit/s between two hosts: far and near, with and without loss."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks.cases import compare, tell
from benchmarks.data import make_file
from benchmarks.e2e.blobsync_transfer import BlobsyncTransfer
from benchmarks.e2e.transfer import End
from benchmarks.harness import BenchmarkError, MissingRivalError
from benchmarks.rivals import find_peer
from benchmarks.rivals.raw_stream import RawStream
from benchmarks.rivals.sendme import SendmeTransfer
from tests.netns.link import LinkShape, linked, why_impossible

if TYPE_CHECKING:
    from benchmarks.cases import Setting
    from tests.netns.link import Host

RATE = 1_000_000_000
SEED = 4


@dataclass(frozen=True, slots=True)
class Rung:
    """One link, and a file that takes some seconds over it, or a minute of one lossy stream."""

    round_trip_ms: int
    loss_percent: int
    size: int

    def point(self) -> str:
        """What the tables call it."""
        return f"{self.round_trip_ms} ms, {self.loss_percent} %"


MIB = 1 << 20

RUNGS = (
    Rung(0, 0, 256 * MIB),
    Rung(0, 1, 128 * MIB),
    Rung(20, 0, 256 * MIB),
    Rung(20, 1, 16 * MIB),
    Rung(100, 0, 256 * MIB),
    Rung(100, 1, 8 * MIB),
)
RUNGS_SHORT = (Rung(0, 0, 32 * MIB), Rung(20, 0, 32 * MIB), Rung(20, 1, 2 * MIB))

RAW_STREAMS = ((1, 16), (4, 4))
"""Connections and streams of each: which one is better depends on the link."""


def run(setting: Setting) -> list[dict[str, Any]]:
    """By blobsync, sendme, and parallel bare streams."""
    try:
        peer = find_peer()
    except MissingRivalError as error:
        return _skip(str(error))
    if reason := why_impossible():
        return _skip(f"no two hosts on this machine: {reason}")
    results: list[dict[str, Any]] = []
    for rung in RUNGS_SHORT if setting.is_short else RUNGS:
        shape = LinkShape(
            delay_s=rung.round_trip_ms / 2e3, loss=rung.loss_percent / 100, rate=RATE, seed=SEED
        )
        try:
            with linked(peer, shape) as hosts:
                link = f"blobsync-peer link {' '.join(shape.options())}"
                results += _run_rung(setting, rung, link, *map(_end, hosts))
        except OSError as error:
            raise BenchmarkError(f"no link: {error}") from error
    return results


def _skip(reason: str) -> list[dict[str, Any]]:
    tell(f"skipped: ladder: {reason}")
    return []


def _end(host: Host) -> End:
    return End(host.ip, host.command(()))


def _run_rung(
    setting: Setting, rung: Rung, link: str, provider: End, getter: End
) -> list[dict[str, Any]]:
    path = setting.work.path / "ladder.bin"
    make_file(path, rung.size)
    makers = [
        lambda: BlobsyncTransfer(path, provider=provider, getter=getter),
        lambda: SendmeTransfer(path, provider=provider, getter=getter),
        *(
            partial(
                RawStream,
                rung.size,
                streams=streams,
                connections=connections,
                provider=provider,
                getter=getter,
            )
            for connections, streams in RAW_STREAMS
        ),
    ]
    sent = {"bytes": rung.size, "link": link}
    result = compare(setting, "ladder", sent, makers, point=rung.point())
    setting.work.drop(path)
    return result

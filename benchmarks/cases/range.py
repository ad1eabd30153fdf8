"""1 MiB out of the middle of a 10 GiB file: how many bytes that moves over the network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.cases import compare
from benchmarks.data import HOLE_SIZE, make_mostly_holes
from benchmarks.e2e.blobsync_transfer import PROGRAM, BlobsyncTransfer, network_options
from benchmarks.harness import BenchmarkError, Process, run_to_end
from benchmarks.wire_count import WireCount

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.cases import Setting
    from benchmarks.harness import Measures

SIZE, SIZE_SHORT = 10 << 30, 1 << 30
RANGE_SIZE = 1 << 20


def run(setting: Setting) -> list[dict[str, Any]]:
    """Ours alone: no rival here reads a verified range."""
    size = SIZE_SHORT if setting.is_short else SIZE
    path = setting.work.path / "range.bin"
    make_mostly_holes(path, size)
    sent = {"bytes": size, "range_bytes": RANGE_SIZE}
    result = compare(setting, "range", sent, [lambda: RangeRead(path, size)])
    setting.work.drop(path)
    return result


class RangeRead:
    """`blobsync cat --range` from a `blobsync share`, each a process of its own."""

    name = "blobsync"

    def __init__(self, path: Path, size: int) -> None:
        WireCount.now()
        self._transfer = BlobsyncTransfer(path)
        self.version = self._transfer.version
        self.commands: Sequence[Sequence[str]] = ()
        # Where there are random bytes, and not at the boundary of a subtree: the worst place.
        self._start = size // 2 // HOLE_SIZE * HOLE_SIZE + 12_345

    def run(self, folder: Path) -> Measures:
        """Counted from the start of the getter until both have ended: dialing and closing too."""
        transfer, output = self._transfer, folder / "range"
        command = transfer.provide_command(folder)
        provider_env = transfer.environment(folder)
        getter_env = provider_env | {"BLOBSYNC_HOME": str(folder / ".getter")}
        end = self._start + RANGE_SIZE
        get_command = [*PROGRAM, "cat", *network_options(), "--range", f"{self._start}:{end}"]
        with Process(command, cwd=folder, env=provider_env) as provider:
            ticket = provider.line_where(transfer.parse_ticket)
            before = WireCount.now()
            used = run_to_end([*get_command, ticket], cwd=folder, env=getter_env, output=output)
            provider.end()
            count = WireCount.now() - before
        with transfer.sent.open("rb") as file:
            file.seek(self._start)
            if output.read_bytes() != file.read(RANGE_SIZE):
                raise BenchmarkError("the range that was read is not the one of the file")
        self.commands = [command, [*get_command, "TICKET"]]
        return {
            "receive_wall_s": used.wall_s,
            "wire_bytes": float(count.udp_bytes),
            "wire_ip_bytes": float(count.ip_bytes),
            **used.memory_measures("getter"),
        }

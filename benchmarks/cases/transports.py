"""A bare stream over each transport: what a byte costs the sender and the receiver.

Processor time tells most: on one machine the slower end holds back the other. Each
transport of ours is measured with pyiroh at the other end, so that only one end changes, and the
aioquic one with itself as well; aioquic as it comes only knows itself.
"""

from __future__ import annotations

import json
import os
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from benchmarks.cases import compare
from benchmarks.harness import Process, run_to_end
from benchmarks.machine import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.cases import Setting
    from benchmarks.harness import Measures

MIB = 1 << 20
SIZE, SIZE_SHORT = 256 * MIB, 8 * MIB

PROGRAM = (sys.executable, "-m", "benchmarks.e2e.stream_end")
PLAIN = "aioquic-as-it-comes"


def run(setting: Setting) -> list[dict[str, Any]]:
    """The aioquic transport against pyiroh, itself, and aioquic as it comes."""
    size = SIZE_SHORT if setting.is_short else SIZE
    makers = [
        lambda: Stream("aioquic", "aioquic", size, peer="iroh"),
        lambda: Stream("iroh", "iroh", size, peer="iroh"),
        lambda: Stream("aioquic-with-itself", "aioquic", size, peer="aioquic"),
        lambda: Stream(PLAIN, PLAIN, size, peer=PLAIN),
    ]
    return compare(setting, "transports", {"bytes": size}, makers)


class Stream:
    """One stream each way between a transport and its peer; the measures are of the first."""

    def __init__(self, name: str, kind: str, size: int, *, peer: str) -> None:
        self.name = name
        self.version = version("pyiroh" if kind == "iroh" else "aioquic")
        self.commands: Sequence[Sequence[str]] = ()
        self._kind, self._peer, self._size = kind, peer, size

    def run(self, folder: Path) -> Measures:
        """Send `size` bytes, then receive as many."""
        sent, _ = self._transfer(folder, self._kind, self._peer)
        _, received = self._transfer(folder, self._peer, self._kind)
        return {
            "send_cpu_s": sent["cpu_s"],
            "send_wall_s": sent["wall_s"],
            "receive_cpu_s": received["cpu_s"],
            "receive_wall_s": received["wall_s"],
        }

    def _transfer(self, folder: Path, sender: str, receiver: str) -> tuple[Measures, Measures]:
        env = dict(os.environ, PYTHONPATH=str(ROOT))
        output = folder / "received"
        command = [*PROGRAM, "serve", sender, "--size", str(self._size)]
        with Process(command, cwd=folder, env=env) as serving:
            about: dict[str, Any] = serving.line_where(json.loads)
            get = [*PROGRAM, "get", receiver, "--id", about["id"], "--port", str(about["port"])]
            run_to_end(get, cwd=folder, env=env, output=output)
            # It ends with its peer, and aioquic as it comes when its standard input does.
            serving.end(None)
            sent: Measures = serving.line_where(json.loads)
        self.commands = [command, [*get[:-3], "ID", "--port", "PORT"]]
        received: Measures = json.loads(output.read_text())
        return sent, received

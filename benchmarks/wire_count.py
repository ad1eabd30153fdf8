"""Bytes on the wire, counted by the kernel at the loopback interface."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from benchmarks.harness import MissingRivalError

DEVICES = Path("/proc/net/dev")

HEADERS_SIZE = 20 + 8
"""IPv4 and UDP."""


@dataclass(frozen=True, slots=True)
class WireCount:
    """What has passed, both directions together."""

    ip_bytes: int
    packets: int

    @property
    def udp_bytes(self) -> int:
        """Payload of the datagrams, if all packets were UDP over IPv4.

        The kernel counts several datagrams that it was handed as one as one packet, which leaves
        a few bytes of headers in: never too little.
        """
        return self.ip_bytes - self.packets * HEADERS_SIZE

    @classmethod
    def now(cls) -> Self:
        """Count up to now.

        Raises:
            MissingRivalError: others may use this network, so the count would say nothing.
        """
        found = parse_devices(DEVICES.read_text()) if DEVICES.exists() else {}
        if set(found) != {"lo"}:
            raise MissingRivalError(
                "bytes on the wire: not counted without a network namespace of its own"
            )
        return cls(*found["lo"])

    def __sub__(self, earlier: WireCount) -> WireCount:
        return WireCount(self.ip_bytes - earlier.ip_bytes, self.packets - earlier.packets)


def parse_devices(text: str) -> dict[str, tuple[int, int]]:
    """Bytes and packets received by each interface; on loopback all that is sent is received."""
    found: dict[str, tuple[int, int]] = {}
    for line in text.splitlines()[2:]:
        name, _, counters = line.partition(":")
        size, packets = counters.split()[:2]
        found[name.strip()] = int(size), int(packets)
    return found

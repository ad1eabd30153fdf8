"""The link itself: what it promises to the tests that stand on it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.netns.link import LinkShape, linked

if TYPE_CHECKING:
    from tests.netns.link import Host

# Prints the seconds of each of COUNT round trips; a packet without an echo is not printed.
PING = """
import socket, sys, time
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(1.0)
for i in range(int(sys.argv[2])):
    begin = time.monotonic()
    sock.sendto(i.to_bytes(4, "big"), (sys.argv[1], 9))
    try:
        while int.from_bytes(sock.recv(4), "big") != i:
            pass
    except TimeoutError:
        continue
    print(time.monotonic() - begin)
"""

ECHO = """
import socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind((sys.argv[1], 9))
print("ready", flush=True)
while True:
    sock.sendto(*sock.recvfrom(2048))
"""


def ping(ours: Host, theirs: Host, count: int) -> list[float]:
    """Seconds of the round trips that came back."""
    echo = theirs.command([sys.executable, "-c", ECHO, theirs.ip])
    with subprocess.Popen(echo, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"ready\n"
            command = ours.command([sys.executable, "-c", PING, theirs.ip, str(count)])
            ran = subprocess.run(command, check=True, stdout=subprocess.PIPE)
        finally:
            process.kill()
    return [json.loads(line) for line in ran.stdout.splitlines()]


def test_a_packet_takes_the_delay_in_both_directions(peer: str) -> None:
    with linked(peer, LinkShape(delay_s=0.030)) as (a, b):
        for times in (ping(a, b, 5), ping(b, a, 5)):
            assert len(times) == 5
            assert min(times) >= 0.060


def test_losses_follow_from_the_seed(peer: str) -> None:
    with linked(peer, LinkShape(loss=1.0)) as (a, b):
        assert ping(a, b, 1) == []

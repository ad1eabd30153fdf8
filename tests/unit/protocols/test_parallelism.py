"""How many streams and connections come about on links that a few lines describe."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from blobsync.protocols.blobs.parallelism import (
    CONNECTIONS_MAX,
    NEAR_CONNECTIONS,
    STREAM_WINDOW,
    STREAMS_MAX,
    Measured,
    Parallelism,
)

GIB = 1 << 30


@dataclass
class Link:
    """A link that streams fill as far as their windows allow."""

    rtt_s: float
    rate: float
    """Bytes per second of all connections together."""
    connection_rate: float = float("inf")
    """What losses allow one connection."""

    def carried(self, streams: int, connections: int) -> float:
        """Bytes per second."""
        return min(
            self.rate, connections * self.connection_rate, streams * STREAM_WINDOW / self.rtt_s
        )


def fetch(link: Link, size: int) -> Parallelism:
    """Fetch over a link, with a look every 50 ms."""
    parallelism = Parallelism(link.rtt_s)
    now_s, fetched = 0.0, 0.0
    while fetched < size:
        left = int(size - fetched)
        parallelism.look(Measured(now_s, int(fetched), 0, left, link.rtt_s))
        fetched += 0.05 * link.carried(parallelism.streams, parallelism.connections)
        now_s += 0.05
        assert now_s < 3600
    return parallelism


@pytest.mark.parametrize("rtt_s", [0.01, 0.02, 0.1])
def test_a_far_peer_gets_the_streams_that_fill_the_link(rtt_s: float):
    link = Link(rtt_s, 125e6)
    parallelism = fetch(link, 2 * GIB)
    assert link.carried(parallelism.streams, 1) == link.rate
    assert parallelism.streams <= 4 * link.rate * rtt_s / STREAM_WINDOW + 2, "not many more"
    assert parallelism.connections <= 2, "a second one that gains nothing is the last"


def test_streams_have_a_limit():
    assert fetch(Link(0.3, 1e9), 4 * GIB).streams == STREAMS_MAX


def test_a_slow_far_peer_gets_few_streams():
    parallelism = fetch(Link(0.1, 1e6), 40 << 20)
    assert parallelism.streams <= 2 * CONNECTIONS_MAX, "it looks like one with losses"


def test_losses_are_answered_by_connections():
    parallelism = fetch(Link(0.02, 125e6, connection_rate=2e6), GIB)
    assert parallelism.connections == CONNECTIONS_MAX
    assert parallelism.streams >= CONNECTIONS_MAX


def test_a_near_fast_peer_gets_connections_for_much():
    parallelism = fetch(Link(0.0002, 400e6), GIB)
    assert parallelism.connections == parallelism.streams == NEAR_CONNECTIONS


@pytest.mark.parametrize(
    ("link", "size"),
    [
        (Link(0.0002, 400e6), 20 << 20),  # done before it would pay
        (Link(0.0002, 10e6), GIB),  # the path is what holds it back
        (Link(0.0002, 118e6), GIB),  # also here: it is full
    ],
)
def test_a_near_peer_gets_one_stream_else(link: Link, size: int):
    parallelism = fetch(link, size)
    assert (parallelism.streams, parallelism.connections) == (1, 1)


def test_an_unknown_round_trip_is_a_near_one():
    parallelism = Parallelism(None)
    assert parallelism.streams == 1
    parallelism.look(Measured(0.0, 0, 0, 0, None))
    parallelism.look(Measured(5.0, GIB, 0, GIB, None))
    assert parallelism.connections == NEAR_CONNECTIONS


def test_refused_connections_are_not_asked_for_again():
    parallelism = Parallelism(0.0002)
    parallelism.look(Measured(0.0, 0, 0, GIB, 0.0002))
    parallelism.look(Measured(1.0, GIB // 2, 0, GIB, 0.0002))
    assert parallelism.connections == NEAR_CONNECTIONS
    parallelism.limit_connections(1)
    parallelism.look(Measured(2.0, GIB, 0, GIB, 0.0002))
    assert parallelism.connections == 1


def test_jobs_of_a_near_peer_shrink_to_the_end():
    parallelism = Parallelism(0.0002)
    sizes: list[int] = []
    for left in (GIB, 64 << 20, 1 << 20):
        parallelism.look(Measured(0.0, 0, 0, left, 0.0002))
        sizes.append(parallelism.job_size.bytes)
        assert parallelism.job_size.elements is None
    assert sizes == [32 << 20, 16 << 20, 4 << 20]


def test_jobs_of_a_far_peer_follow_the_size_of_its_blobs():
    parallelism = Parallelism(0.1)
    first = parallelism.job_size
    assert first.elements == 256
    parallelism.look(Measured(0.0, 1000 * 4096, 1000, 0, 0.1))
    assert parallelism.job_size.elements == 1024
    parallelism.look(Measured(0.0, 1000 << 20, 1000, 0, 0.1))
    assert parallelism.job_size.elements == 4


def test_jobs_of_a_far_peer_follow_its_rate():
    parallelism = Parallelism(0.1)
    assert parallelism.job_size.bytes == 512 << 10
    parallelism.look(Measured(0.0, 0, 0, GIB, 0.1))
    parallelism.look(Measured(1.0, 100_000_000, 0, GIB, 0.1))
    assert parallelism.job_size.bytes == 4 << 20

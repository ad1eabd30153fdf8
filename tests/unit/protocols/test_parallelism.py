"""How many streams and connections come about on links that a few lines describe."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from blobsync.protocols.blobs.parallelism import (
    CONNECTIONS_MAX,
    NEAR_CONNECTIONS,
    STREAM_WINDOW,
    STREAMS_MAX,
    VERY_FAR_CONNECTIONS,
    VERY_FAR_STREAMS,
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


def fetch(link: Link, size: int, *, until_s: float = 3600.0) -> Parallelism:
    """Fetch over a link, with a look every 50 ms, or only the beginning."""
    parallelism = Parallelism(link.rtt_s)
    now_s, fetched = 0.0, 0.0
    while fetched < size and now_s <= until_s:
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
    begun = fetch(link, 2 * GIB, until_s=0.0).connections
    assert parallelism.connections <= 2 * begun, "more that gain nothing are the last"


def test_streams_have_a_limit():
    assert fetch(Link(0.3, 1e9), 4 * GIB).streams == STREAMS_MAX


def test_much_of_a_very_far_peer_is_asked_for_over_several_at_once():
    link = Link(0.1, 125e6)
    begun = fetch(link, GIB, until_s=0.0)
    assert (begun.streams, begun.connections) == (VERY_FAR_STREAMS, VERY_FAR_CONNECTIONS)
    little = fetch(link, 1 << 20, until_s=0.0)
    assert (little.streams, little.connections) == (2, 1)
    less_far = fetch(Link(0.02, 125e6), GIB, until_s=0.0)
    assert (less_far.streams, less_far.connections) == (2, 1)
    alone = Parallelism(link.rtt_s, connections_max=1)
    alone.look(Measured(0.0, 0, 0, GIB, link.rtt_s))
    assert (alone.streams, alone.connections) == (VERY_FAR_STREAMS, 1)


def test_a_slow_far_peer_gets_few_streams():
    parallelism = fetch(Link(0.1, 1e6), 40 << 20)
    assert parallelism.streams <= 2 * CONNECTIONS_MAX, "it looks like one with losses"


def test_losses_are_answered_by_connections():
    parallelism = fetch(Link(0.02, 125e6, connection_rate=2e6), GIB)
    assert parallelism.connections == CONNECTIONS_MAX
    assert parallelism.streams >= CONNECTIONS_MAX


def test_losses_of_a_far_peer_are_answered_soon():
    """A connection carries so little that two MB take ten seconds."""
    link = Link(0.1, 125e6, connection_rate=0.2e6)
    assert fetch(link, 8 << 20, until_s=2.0).connections == CONNECTIONS_MAX
    assert fetch(link, 300 << 10, until_s=2.0).connections == 1, "done before it would pay"


def test_nothing_for_a_second_is_little():
    """What arrives is counted in lumps."""
    parallelism = Parallelism(0.1)
    for look in range(4):
        parallelism.look(Measured(look * 0.5, 0, 0, 8 << 20, 0.1))
    assert parallelism.connections == CONNECTIONS_MAX


def test_a_rate_that_grows_is_not_held_back_by_losses():
    parallelism = Parallelism(0.3)
    fetched = 0
    for look in range(9):
        parallelism.look(Measured(look * 0.5, fetched, 0, GIB, 0.3))
        fetched += 10_000 << look
    assert parallelism.connections == VERY_FAR_CONNECTIONS, "as it began"


def test_losses_of_a_near_peer_are_answered_by_connections():
    link = Link(0.0002, 125e6, connection_rate=16e6)
    parallelism = fetch(link, 128 << 20, until_s=0.5)
    assert parallelism.connections == parallelism.streams == CONNECTIONS_MAX
    assert fetch(link, 12 << 20).connections == 1, "done before it would pay"


def test_a_near_peer_that_was_slow_for_a_moment_gets_none():
    parallelism = Parallelism(0.0002)
    fetched = 0
    for look in range(40):
        parallelism.look(Measured(look * 0.1, fetched, 0, GIB, 0.0002))
        fetched += 1_000_000 if look % 4 == 0 else 11_800_000
    assert parallelism.connections == 1


def test_blobs_of_unknown_size_are_worth_no_connection():
    parallelism = Parallelism(0.0002)
    for look in range(40):
        parallelism.look(Measured(look * 0.1, look * 1_000_000, look * 1000, 0, 0.0002))
    assert parallelism.connections == 1


def test_jobs_are_small_where_losses_are_shared():
    """What waits on a slow connection does not come on another one."""
    for link in (Link(0.1, 125e6, 0.2e6), Link(0.0002, 125e6, 2e6)):
        parallelism = fetch(link, GIB, until_s=3.0)
        parallelism.look(Measured(1000.0, GIB, 0, GIB, link.rtt_s))
        parallelism.look(Measured(1001.0, GIB + 800_000, 0, 1 << 20, link.rtt_s))
        assert parallelism.job_size.bytes <= 200_000
        assert parallelism.ahead_bytes == (64 << 10 if parallelism.is_far else 2 << 20)


def test_a_near_fast_peer_gets_connections_for_much():
    parallelism = fetch(Link(0.0002, 400e6), GIB)
    assert parallelism.connections == parallelism.streams == NEAR_CONNECTIONS


@pytest.mark.parametrize(
    ("link", "size"),
    [
        (Link(0.0002, 400e6), 20 << 20),  # done before it would pay
        (Link(0.0002, 70e6), GIB),  # the path is what holds it back
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
    assert parallelism.job_size.bytes == 256 << 10
    parallelism.look(Measured(0.0, 0, 0, GIB, 0.1))
    parallelism.look(Measured(0.5, 400_000, 0, GIB, 0.1))
    assert parallelism.job_size.bytes == 512 << 10
    parallelism.look(Measured(1.0, 100_000_000, 0, GIB, 0.1))
    assert parallelism.job_size.bytes == 4 << 20

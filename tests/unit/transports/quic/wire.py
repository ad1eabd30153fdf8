"""Two connections joined in memory, without sockets or clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aioquic.quic.events import (
    DatagramFrameReceived,
    HandshakeCompleted,
    StopSendingReceived,
    StreamDataReceived,
    StreamReset,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from aioquic.quic.events import QuicEvent

    from blobsync.transports.quic.raw_connection import RawKeyConnection

CLIENT_ADDR = ("192.0.2.1", 1111)
SERVER_ADDR = ("192.0.2.2", 2222)

__all__ = [
    "DatagramFrameReceived",
    "HandshakeCompleted",
    "StopSendingReceived",
    "StreamDataReceived",
    "StreamReset",
    "Wire",
]


class Wire:
    """Carries datagrams between a client and the server that `answer` makes for it.

    `now` moves on by itself: by `step_s` for each round, or to the next timer if nothing is said.
    """

    def __init__(
        self,
        client: RawKeyConnection,
        answer: Callable[[bytes], RawKeyConnection],
        *,
        step_s: float = 0.001,
        lost: Callable[[bytes], bool] = lambda datagram: False,
    ) -> None:
        self.client = client
        self.server = answer(client.original_destination_connection_id)
        self.client_addr = CLIENT_ADDR
        """Where the client's packets come from."""
        self.step_s = step_s
        self.now = 1000.0
        self.lost = lost
        self.events: dict[RawKeyConnection, list[QuicEvent]] = {client: [], self.server: []}
        client.connect(SERVER_ADDR, now=self.now)

    def round(self) -> int:
        """Both send what they have; returns the number of datagrams."""
        count = 0
        for sender, receiver, addr in (
            (self.client, self.server, self.client_addr),
            (self.server, self.client, SERVER_ADDR),
        ):
            if not sender.can_send:
                continue
            for data, _ in sender.datagrams_to_send(self.now):
                count += 1
                if not self.lost(data):
                    receiver.receive_datagram(data, addr, now=self.now)
            self._collect(receiver)
        self.now += self.step_s
        return count

    def _collect(self, connection: RawKeyConnection) -> None:
        while (event := connection.next_event()) is not None:
            self.events[connection].append(event)

    def run(self, rounds: int = 200) -> None:
        """Until both are silent and no timer is due within a second."""
        for _ in range(rounds):
            if self.round():
                continue
            timers = [
                timer
                for each in (self.client, self.server)
                if (timer := each.get_timer()) is not None
            ]
            if not timers or min(timers) > self.now + 1:
                return
            self.now = max(self.now, min(timers))
            for each in (self.client, self.server):
                timer = each.get_timer()
                if timer is not None and timer <= self.now:
                    each.handle_timer(self.now)
                    self._collect(each)

    def seen(self, connection: RawKeyConnection, kind: type) -> list:
        return [event for event in self.events[connection] if isinstance(event, kind)]

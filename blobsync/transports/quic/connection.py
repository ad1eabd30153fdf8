"""A connection in the event loop: aioquic's state, its timer, and everybody who waits for it.

All work on the state is done here, in callbacks that never wait: datagrams in, events out to the
streams, datagrams out, timer set. An exception in any of it ends the connection with an
internal error; aioquic by itself would lose the packet and hang until the idle timeout.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from aioquic.quic.events import (
    DatagramFrameReceived,
    StopSendingReceived,
    StreamDataReceived,
    StreamReset,
)

from blobsync.errors import LocalProtocolError, UnreachableError
from blobsync.transports.api import BiStream, Connection, ConnectionClosedError, PathInfo
from blobsync.transports.quic.closing import Lost, closed_by_us, handshake_error, lost_of
from blobsync.transports.quic.raw_connection import STREAMS_MAX
from blobsync.transports.quic.streams import AioquicRecvStream, AioquicSendStream
from blobsync.transports.quic.waiting import Change

if TYPE_CHECKING:
    import asyncio

    from aioquic.quic.stream import QuicStream

    from blobsync.address import EndpointId
    from blobsync.transports.quic.raw_connection import RawKeyConnection
    from blobsync.transports.quic.udp import Ancillary, Datagram

logger = logging.getLogger(__name__)

PING_S = 5.0
"""Between two pings: aioquic sends none by itself, and two endpoints of it would fall asleep."""

DATAGRAM_OVERHEAD = 30
"""Bytes of a UDP payload that are not the datagram: header, frame, tag."""

DATAGRAMS_WAITING_MAX = 256
"""Datagrams to be read, or to be sent; older ones are dropped for newer ones."""

TIMER_SLACK_S = 0.0005
"""Timers of the loop are not finer, so an earlier one of ours is left as it is."""


FAULT = "a fault in the connection with %s"


class Carrier(Protocol):
    """What a connection needs of its endpoint."""

    def send(
        self, connection: AioquicConnection, datagrams: list[tuple[bytes, Any]]
    ) -> OSError | None:
        """Send datagrams, or keep them until the socket takes more."""
        ...

    def is_blocked(self, connection: AioquicConnection) -> bool:
        """Whether the socket takes nothing now; if so, the connection is called when it does."""
        ...

    def route(self, connection: AioquicConnection) -> None:
        """Bring packets under all connection ids of the connection to it."""
        ...

    def forget(self, connection: AioquicConnection) -> None:
        """The connection is over."""
        ...


class AioquicConnection(Connection):
    """Over `RawKeyConnection`. Made by the endpoint."""

    def __init__(
        self, quic: RawKeyConnection, carrier: Carrier, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.quic = quic
        self.routed_sequence: tuple[int, int] | None = None
        """For the carrier: `quic.cid_sequence` when packets were routed to us last."""
        self.routed: set[bytes] = set()
        """For the carrier: the connection ids that lead here."""
        self.original_cid = b""
        """For the carrier: what a client that we accepted called us first."""
        self.source: Ancillary | None = None
        """For the carrier: what makes packets leave from the address that the peer knows."""
        self._carrier = carrier
        self._loop = loop
        self._lost: Lost | None = None
        self._changed = Change()
        self._streams: dict[int, tuple[AioquicSendStream, AioquicRecvStream]] = {}
        self._next_theirs = 1 if quic.is_client else 0
        self._opened: deque[BiStream] = deque()
        self._watching: set[AioquicSendStream] = set()
        self._datagrams: deque[bytes] = deque(maxlen=DATAGRAMS_WAITING_MAX)
        self._timer: asyncio.TimerHandle | None = None
        self._pinger: asyncio.TimerHandle | None = None
        self._will_send = False
        self._is_over = False
        self._close_packets: list[tuple[bytes, Any]] = []
        self._packets_after_close = 0

    # The contract

    @property
    def remote_id(self) -> EndpointId:
        id = self.quic.remote_id
        assert id is not None, "handed out before the peer has proven its key"
        return id

    @property
    def alpn(self) -> bytes:
        return self.quic.alpn

    async def open_bi(self) -> BiStream:
        while True:
            self._check_open()
            if self.quic.may_open_stream:
                return self._add_stream(self.quic.open_stream())
            await self._changed.wait()

    async def accept_bi(self) -> BiStream | None:
        while True:
            if self._lost is not None:
                return None
            if self._opened:
                return self._opened.popleft()
            await self._changed.wait()

    async def close(self, code: int = 0, reason: bytes = b"") -> None:
        self.close_now(code, reason)

    async def wait_closed(self) -> ConnectionClosedError:
        while self._lost is None:
            await self._changed.wait()
        return self._lost.error()

    def paths(self) -> list[PathInfo]:
        addr = self.quic.remote_addr
        if self._lost is not None or addr is None:
            return []
        return [
            PathInfo(
                is_relay=False,
                remote=address_text(addr),
                is_selected=True,
                rtt_s=self.quic.rtt_s,
            )
        ]

    # Datagrams: beyond the contract

    @property
    def max_datagram_size(self) -> int | None:
        """Bytes of the longest datagram that can be sent now; None if the peer takes none."""
        frame_max = self.quic.peer_datagram_frame_max
        if not frame_max:
            return None
        return max(min(self.quic.udp_payload_max - DATAGRAM_OVERHEAD, frame_max - 9), 0)

    def send_datagram(self, data: bytes) -> None:
        """Send without any promise that it arrives.

        Raises:
            LocalProtocolError: it is too long, or the peer takes none. In aioquic's queue it would
                hold up all that come after it, for ever.
            ConnectionClosedError: the connection is gone.
        """
        self._check_open()
        size_max = self.max_datagram_size
        if size_max is None:
            raise LocalProtocolError("the peer takes no datagrams")
        if len(data) > size_max:
            raise LocalProtocolError(f"a datagram of {len(data)} bytes, the most is {size_max}")
        self.quic.queue_datagram(data, DATAGRAMS_WAITING_MAX)
        self.send_soon()

    async def read_datagram(self) -> bytes:
        """The next datagram; what nobody reads is dropped when newer ones come.

        Raises:
            ConnectionClosedError: the connection is gone.
        """
        while True:
            if self._datagrams:
                return self._datagrams.popleft()
            self._check_open()
            await self._changed.wait()

    # For the endpoint

    async def wait_confirmed(self) -> None:
        """Wait until both sides have accepted each other's key.

        Raises:
            UnreachableError: one of them did not, or the handshake failed in another way.
        """
        while not self.quic.is_confirmed:
            if self._lost is not None:
                raise self._lost.handshake or self._lost.error()
            await self._changed.wait()
        if self.quic.remote_id is None:
            self.close_now(0, b"")
            raise UnreachableError("the peer has shown no key")

    def dial(self, addr: Any) -> None:
        """Send the first packet."""
        self.quic.connect(addr, now=self._loop.time())
        self._send()

    def take(self, datagram: Datagram, now: float) -> None:
        """A datagram for this connection came; `after_taking` follows."""
        if self.quic.is_closing:
            self._remind_of_close()
            return
        if datagram.source is not None:
            self.source = datagram.source
        try:
            self.quic.receive_datagram(datagram.data, datagram.addr, now=now)
        except Exception:
            logger.exception(FAULT, self.quic.remote_addr)
            self._fail()

    def after_taking(self) -> None:
        """What came is in: tell whoever waits for it, and answer."""
        try:
            self._handle_events()
        except Exception:
            logger.exception(FAULT, self.quic.remote_addr)
            self._fail()
        for stream in [stream for stream in self._watching if not stream.look()]:
            self._watching.discard(stream)
        self._changed.tell()
        self._send()

    def close_now(self, code: int, reason: bytes) -> None:
        """Close and tell the peer, without waiting. Idempotent."""
        if self._lost is None:
            self.quic.close_with(code, reason)
            self._set_lost(closed_by_us())
            self._send()

    def on_writable(self) -> None:
        """The socket takes datagrams again."""
        self._send()

    # For the streams

    def lost_error(self) -> ConnectionClosedError | None:
        """Why the connection is gone, as a new exception; None while it is not."""
        return None if self._lost is None else self._lost.error()

    def grant(self, stream: QuicStream | None, size: int) -> None:
        """So much was taken off a stream, or never will be (None)."""
        if self.quic.grant(stream, size):
            self.send_soon()

    def watch(self, stream: AioquicSendStream) -> None:
        """Tell this stream about acknowledgements until it wants no more of them."""
        self._watching.add(stream)

    def send_soon(self) -> None:
        """Send what there is once the present callbacks are through."""
        if not self._will_send and self._lost is None:
            self._will_send = True
            self._loop.call_soon(self._send)

    # Inside

    def _check_open(self) -> None:
        if (error := self.lost_error()) is not None:
            raise error

    def _add_stream(self, stream: QuicStream) -> BiStream:
        assert stream.stream_id is not None
        halves = AioquicSendStream(self, stream), AioquicRecvStream(self, stream)
        self._streams[stream.stream_id] = halves
        return BiStream(*halves)

    def _handle_events(self) -> None:
        while (event := self.quic.next_event()) is not None:
            match event:
                case StreamDataReceived(data, is_end, stream_id):
                    self.deliver(stream_id, data, is_end)
                case StreamReset(code, stream_id):
                    if (halves := self._halves(stream_id)) is not None:
                        halves[1].deliver_reset(code)
                case StopSendingReceived(code, stream_id):
                    if (halves := self._halves(stream_id)) is not None:
                        halves[0].deliver_stop(code)
                case DatagramFrameReceived(data):
                    self._datagrams.append(data)
                case _:
                    # Others are seen on the connection itself, and earlier.
                    pass

    def deliver(self, stream_id: int, data: bytes, is_end: bool) -> None:
        """Bytes of a stream, in order."""
        halves = self._streams.get(stream_id) or self._halves(stream_id)
        if halves is not None:
            halves[1].deliver(data, is_end)

    def _halves(self, stream_id: int) -> tuple[AioquicSendStream, AioquicRecvStream] | None:
        """A stream by its id; with a new one of the peer's, those before it are open as well."""
        if (stream_id & 1 == 1) == self.quic.is_client:
            while self._next_theirs <= stream_id:
                stream = self.quic.stream(self._next_theirs)
                self._next_theirs += 4
                if stream is not None:
                    self._opened.append(self._add_stream(stream))
                    self._bound_opened()
        return self._streams.get(stream_id)

    def _bound_opened(self) -> None:
        """A peer may open and give up streams faster than they are accepted: those are dropped."""
        if len(self._opened) > 2 * STREAMS_MAX:
            self._opened = deque(
                stream
                for stream in self._opened
                if isinstance(stream.recv, AioquicRecvStream) and not stream.recv.is_over
            )

    def _send(self) -> None:
        self._will_send = False
        if self._is_over:
            return
        if self._carrier.is_blocked(self) and self.quic.close_event is None:
            self._set_timer()
            return
        try:
            datagrams = self.quic.datagrams_to_send(self._loop.time()) if self.quic.can_send else []
        except Exception:
            logger.exception(FAULT, self.quic.remote_addr)
            self._fail(can_tell=False)
            return
        if datagrams:
            if self.quic.is_closing:
                self._close_packets = datagrams
            error = self._carrier.send(self, datagrams)
            if error is not None and not self.quic.is_handshake_complete:
                # Nothing of the sort can get better within a handshake.
                reason = error.strerror or str(error)
                self._set_lost(Lost(f"the network refuses to send: {reason}"))
        self._carrier.route(self)
        self._settle()

    def _settle(self) -> None:
        """After any change: look for the end, let go of streams that are over, set the timer."""
        if self._lost is None and self.quic.close_event is not None:
            lost = lost_of(self.quic.close_event, by_peer=self.quic.was_closed_by_peer)
            if not self.quic.is_confirmed:
                lost = handshake_error(lost)
            self._set_lost(lost)
        if self.quic.is_terminated:
            self._end()
            return
        if len(self._streams) > self.quic.stream_count:
            over = [id for id in self._streams if self.quic.stream(id) is None]
            for stream_id in over:
                del self._streams[stream_id]
        if self._pinger is None and self.quic.is_handshake_complete:
            self._pinger = self._loop.call_later(PING_S, self._ping)
        self._set_timer()

    def _set_lost(self, lost: Lost) -> None:
        if self._lost is not None:
            return
        self._lost = lost
        for send, recv in self._streams.values():
            send.tell()
            recv.tell()
        for stream in self._watching:
            stream.tell()
        self._watching.clear()
        self._opened.clear()
        self._changed.tell()

    def _fail(self, *, can_tell: bool = True) -> None:
        """A fault of ours, perhaps provoked by the peer: it must not hang, nor harm others."""
        if can_tell and self.quic.close_event is None:
            self.quic.close_for_bug()
            self._set_lost(Lost("the connection was lost: a fault of our own; see the log"))
            self._send()
        else:
            self._set_lost(Lost("the connection was lost: a fault of our own; see the log"))
            self._end()

    def _end(self) -> None:
        """Nothing more happens."""
        if self._is_over:
            return
        self._is_over = True
        for timer in (self._timer, self._pinger):
            if timer is not None:
                timer.cancel()
        self._timer = None
        self._carrier.forget(self)

    def abandon(self) -> None:
        """The socket goes away."""
        self._set_lost(closed_by_us())
        self._end()

    def _remind_of_close(self) -> None:
        """The peer still sends: our close was lost. Said again ever less often."""
        self._packets_after_close += 1
        if self._packets_after_close.bit_count() == 1 and self._close_packets:
            self._carrier.send(self, self._close_packets)

    # Timers

    def _set_timer(self) -> None:
        at = self.quic.get_timer() if self.quic.can_send else None
        if at is None:
            return
        if self._timer is not None:
            # One that fires too early sets the next: most are moved on before they come.
            if self._timer.when() <= at + TIMER_SLACK_S:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(at, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        now = self._loop.time()
        at = self.quic.get_timer()
        if at is None:
            return
        if at > now + TIMER_SLACK_S:
            self._set_timer()
            return
        try:
            self.quic.handle_timer(max(now, at))
        except Exception:
            logger.exception(FAULT, self.quic.remote_addr)
            self._fail()
            return
        self.after_taking()

    def _ping(self) -> None:
        self._pinger = self._loop.call_later(PING_S, self._ping)
        if self._lost is None:
            self.quic.send_ping(0)
            self._send()


def address_text(addr: Any) -> str:
    """A socket address as `ip:port`."""
    host, port = addr[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

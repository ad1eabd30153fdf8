"""aioquic's connection as an endpoint of iroh speaks it: bytes in, bytes out, no sockets.

Added to the stock one are raw public keys, and receive windows that follow what was read. The stock
windows double whenever half of one is used, read or not, so that a peer could fill our
memory; these grow by what the application took, and by nothing else.
"""

# aioquic has no public names for most of what has to be adapted (`guard` looks at all of it), and
# not all of its types are written down.
# pyright: reportPrivateUsage=false, reportPrivateImportUsage=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from aioquic.buffer import Buffer
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import (
    CONNECTION_LIMIT_FRAME_CAPACITY,
    MAX_STREAM_DATA_FRAME_CAPACITY,
    Limit,
    QuicConnection,
    QuicConnectionState,
)
from aioquic.quic.packet import (
    QuicErrorCode,
    QuicFrameType,
    QuicProtocolVersion,
    pull_quic_transport_parameters,
)
from aioquic.quic.recovery import QuicPacketPacer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from blobsync.address import EndpointId
from blobsync.errors import LocalProtocolError
from blobsync.transports.quic.raw_keys import RawKey, RawKeyContext

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aioquic.quic.events import ConnectionTerminated
    from aioquic.quic.packet_builder import QuicPacketBuilder
    from aioquic.quic.recovery import QuicPacketSpace
    from aioquic.quic.stream import QuicStream

STREAM_WINDOW = 4 << 20
"""Bytes of a stream that may be under way or unread."""

DIALLED_WINDOW = 128 << 20
"""The same for all streams of a connection that we dialled. A fetch has up to 64 streams open, of
which half are not read yet; what they ask for is less than this together, or they would block the
others."""

ACCEPTED_WINDOW = 16 << 20
"""The same where the peer dialled: it sends requests."""

STREAMS_MAX = 100
"""Streams that a peer may have open at a time, as with iroh."""

DATAGRAM_SIZE_MIN = 1200
"""Bytes of a UDP payload that every path carries."""

DATAGRAM_FRAME_SIZE = 65535
"""Without saying that we take datagram frames, iroh would send none and refuse to try."""

IDLE_TIMEOUT_S = 15.0
"""A peer that is silent for so long is gone. iroh offers 30 s and pings every 5 s."""

KEY_UPDATE_PACKETS = 1 << 21
"""Packets under one key; AES-GCM allows 2^23."""

PACER_BURST = 64
"""Packets that may leave at once: what one call to the kernel takes."""

PACER_BURST_S = 0.002
"""Or what the rate allows in this time, if that is more: timers of the loop are not finer."""

REASON_SIZE_MAX = 512
"""Bytes of the reason of a close; more might not fit into a packet."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The key of an endpoint in the forms that a handshake needs."""

    id: EndpointId
    secret_key: Ed25519PrivateKey

    @classmethod
    def from_bytes(cls, secret_key: bytes) -> Identity:
        """From the 32 secret bytes.

        Raises:
            ValueError: not 32 bytes.
        """
        key = Ed25519PrivateKey.from_private_bytes(secret_key)
        return cls(EndpointId(key.public_key().public_bytes_raw()), key)


def decode_alpn(alpn: bytes) -> str:
    """An ALPN as aioquic wants it.

    Raises:
        LocalProtocolError: aioquic can only do ASCII, and drops anything else silently.
    """
    if not alpn or len(alpn) > 255 or not alpn.isascii():
        raise LocalProtocolError(f"not an ALPN that this transport can speak: {alpn!r}")
    return alpn.decode("ascii")


class BurstPacer(QuicPacketPacer):
    """Spreads packets over the round trip, in bursts that the loop's timers can keep up with."""

    def update_rate(self, congestion_window: int, smoothed_rtt: float) -> None:
        super().update_rate(congestion_window=congestion_window, smoothed_rtt=smoothed_rtt)
        if self.packet_time is not None:
            # A quarter more than the window in a round trip, so that pacing itself never limits.
            self.packet_time *= 0.8
            self.bucket_max = max(PACER_BURST * self.packet_time, PACER_BURST_S)

    def take(self, count: int, now: float) -> int:
        """How many of `count` packets may leave now; they count as sent."""
        if self.packet_time is None:
            return count
        self.update_bucket(now=now)
        count = min(count, int(self.bucket_time / self.packet_time))
        self.bucket_time -= count * self.packet_time
        return count


class RawKeyConnection(QuicConnection):
    """One connection with an endpoint of iroh.

    Args:
        expected_id: whom we dial; None for a server.
        original_cid: the connection id that the client chose for us, for a server.
    """

    def __init__(
        self,
        identity: Identity,
        alpns: Sequence[bytes],
        *,
        expected_id: EndpointId | None = None,
        original_cid: bytes | None = None,
        idle_timeout_s: float = IDLE_TIMEOUT_S,
    ) -> None:
        is_client = expected_id is not None
        super().__init__(
            configuration=QuicConfiguration(
                is_client=is_client,
                alpn_protocols=[decode_alpn(alpn) for alpn in alpns],
                # Set so that a server can be made at all; `_initialize` is what uses them.
                certificate=RawKey(identity.id),
                private_key=identity.secret_key,
                # With a second version the stock handler would replace the list of extensions.
                supported_versions=[QuicProtocolVersion.VERSION_1],
                congestion_control_algorithm="cubic",
                idle_timeout=idle_timeout_s,
                max_data=DIALLED_WINDOW if is_client else ACCEPTED_WINDOW,
                max_stream_data=STREAM_WINDOW,
                max_datagram_size=DATAGRAM_SIZE_MIN,
                max_datagram_frame_size=DATAGRAM_FRAME_SIZE,
            ),
            original_destination_connection_id=original_cid,
        )
        self._identity = identity
        self._expected_id = expected_id
        self._connection_window = self._local_max_data.value
        _set_limit(self._local_max_streams_bidi, STREAMS_MAX)
        # The contract of transports has no streams in one direction.
        _set_limit(self._local_max_streams_uni, 0)
        self._loss._pacer = BurstPacer(max_datagram_size=self._max_datagram_size)
        self._key_update_at = KEY_UPDATE_PACKETS
        self.peer_udp_payload_max = 65527

    # What is known of the connection

    @property
    def is_client(self) -> bool:
        return self._is_client

    @property
    def is_handshake_complete(self) -> bool:
        """The peer has proven its key. A server that we dialled may still refuse ours."""
        return self._handshake_complete

    @property
    def is_confirmed(self) -> bool:
        """Both sides have accepted each other's key."""
        return self._handshake_confirmed

    @property
    def remote_id(self) -> EndpointId | None:
        """Whose key was proven; None before, and if the peer showed none."""
        if not self._handshake_complete:
            return None
        assert isinstance(self.tls, RawKeyContext)
        return self.tls.shown_id

    @property
    def alpn(self) -> bytes:
        """The protocol that was agreed on."""
        return (self.tls.alpn_negotiated or "").encode()

    @property
    def close_event(self) -> ConnectionTerminated | None:
        """Why the connection ends, from the moment on when that is certain.

        aioquic's own event comes only when the closing period is over.
        """
        return self._close_event

    @property
    def was_closed_by_peer(self) -> bool:
        """Whether it was the peer who said that it ends."""
        return self._state is QuicConnectionState.DRAINING

    @property
    def is_terminated(self) -> bool:
        """Nothing more will be sent or taken, and the closing period is over."""
        return self._state is QuicConnectionState.TERMINATED

    @property
    def is_closing(self) -> bool:
        """We said that it ends; packets of a peer that does not know yet may still come."""
        return self._state is QuicConnectionState.CLOSING

    @property
    def can_send(self) -> bool:
        """Whether there is an address to send to."""
        return bool(self._network_paths)

    @property
    def host_cids(self) -> list[bytes]:
        """The connection ids under which packets for us may come."""
        return [connection_id.cid for connection_id in self._host_cids]

    @property
    def cid_sequence(self) -> tuple[int, int]:
        """Changes when `host_cids` does."""
        return self._host_cid_seq, len(self._host_cids)

    @property
    def remote_addr(self) -> Any:
        """The socket address that packets go to; None before the first."""
        return self.get_peer_address()

    @property
    def rtt_s(self) -> float | None:
        """Seconds of a round trip, smoothed; None before one was measured."""
        loss = self._loss
        return loss._rtt_smoothed if loss._rtt_initialized else None

    @property
    def peer_datagram_frame_max(self) -> int | None:
        """Bytes of the longest datagram frame that the peer takes; None: it takes none."""
        return self._remote_max_datagram_frame_size

    @property
    def udp_payload_max(self) -> int:
        """Bytes of UDP payload that we send at most."""
        return self._max_datagram_size

    # Streams

    @property
    def may_open_stream(self) -> bool:
        """Whether the peer's limit allows one more stream."""
        return self._local_next_stream_id_bidi // 4 < self._remote_max_streams_bidi

    def open_stream(self) -> QuicStream:
        """A new stream in both directions; nothing is sent for it yet."""
        return self._get_or_create_stream_for_send(self._local_next_stream_id_bidi)

    def stream(self, stream_id: int) -> QuicStream | None:
        """A stream that both sides know and that is not over."""
        return self._streams.get(stream_id)

    @property
    def stream_count(self) -> int:
        """Streams that are not over."""
        return len(self._streams)

    def grant(self, stream: QuicStream | None, size: int) -> bool:
        """The application took `size` bytes of a stream: the peer may send as many again.

        Args:
            stream: None if nothing more of it can come, which frees room of the connection alone.

        Returns whether the peer should be told soon.
        """
        limit = self._local_max_data
        limit.value += size
        is_due = 2 * (limit.value - limit.sent) >= self._connection_window
        if stream is not None:
            stream.max_stream_data_local += size
            is_due = is_due or self._is_stream_limit_due(stream)
        return is_due

    def _is_stream_limit_due(self, stream: QuicStream) -> bool:
        """Whether the peer should learn of a larger window: half of one is free, or it was lost."""
        limit = stream.max_stream_data_local
        receiver = stream.receiver
        if receiver.is_finished or receiver._final_size is not None:
            return False
        return 2 * (limit - stream.max_stream_data_local_sent) >= STREAM_WINDOW

    # Raw public keys

    def _initialize(self, peer_cid: bytes) -> None:
        # Runs again after a Retry, which makes a new TLS object.
        super()._initialize(peer_cid)
        stock = self.tls
        raw = RawKeyContext(
            is_client=self._is_client,
            alpn_protocols=self._configuration.alpn_protocols,
            id=self._identity.id,
            secret_key=self._identity.secret_key,
            expected_id=self._expected_id,
            logger=self._logger,
        )
        # No callbacks for tickets: a session that is resumed shows no key.
        raw.handshake_extensions = [
            *stock.handshake_extensions,
            *raw.certificate_type_extensions,
        ]
        raw.alpn_cb = stock.alpn_cb
        raw.update_traffic_key_cb = stock.update_traffic_key_cb
        self.tls = raw

    def _alpn_handler(self, alpn_protocol: str) -> None:
        # Called once in either role, when the extensions of the peer are there.
        assert isinstance(self.tls, RawKeyContext)
        self.tls.check_certificate_types()
        super()._alpn_handler(alpn_protocol)

    def _parse_transport_parameters(self, data: bytes, from_session_ticket: bool = False) -> None:
        super()._parse_transport_parameters(data, from_session_ticket)
        size = pull_quic_transport_parameters(Buffer(data=data)).max_udp_payload_size
        if size is not None:
            self.peer_udp_payload_max = min(size, self.peer_udp_payload_max)

    # Windows that follow what was read

    def _write_connection_limits(self, builder: QuicPacketBuilder, space: QuicPacketSpace) -> None:
        data = self._local_max_data
        if 2 * (data.value - data.sent) >= self._connection_window:
            self._write_limit(builder, data)
        for streams in (self._local_max_streams_bidi, self._local_max_streams_uni):
            granted = streams.value - streams.sent
            # Told when the peer has fewer streams left than it would get.
            if granted and granted > streams.sent - streams.used:
                self._write_limit(builder, streams)

    def _write_limit(self, builder: QuicPacketBuilder, limit: Limit) -> None:
        frame = builder.start_frame(
            limit.frame_type,
            capacity=CONNECTION_LIMIT_FRAME_CAPACITY,
            handler=self._on_connection_limit_delivery,
            handler_args=(limit,),
        )
        frame.push_uint_var(limit.value)
        limit.sent = limit.value

    def _write_stream_limits(
        self, builder: QuicPacketBuilder, space: QuicPacketSpace, stream: QuicStream
    ) -> None:
        if not self._is_stream_limit_due(stream):
            return
        frame = builder.start_frame(
            QuicFrameType.MAX_STREAM_DATA,
            capacity=MAX_STREAM_DATA_FRAME_CAPACITY,
            handler=self._on_max_stream_data_delivery,
            handler_args=(stream,),
        )
        frame.push_uint_var(cast("int", stream.stream_id))
        frame.push_uint_var(stream.max_stream_data_local)
        stream.max_stream_data_local_sent = stream.max_stream_data_local

    # Sending

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Any]]:
        if self._packet_number >= self._key_update_at and self._handshake_confirmed:
            self._key_update_at = self._packet_number + KEY_UPDATE_PACKETS
            self.request_key_update()
        return super().datagrams_to_send(now)

    def queue_datagram(self, data: bytes, waiting_max: int) -> None:
        """Send a datagram whose size was checked; the oldest that waits are dropped for it."""
        while len(self._datagrams_pending) >= waiting_max:
            self._datagrams_pending.popleft()
        self._datagrams_pending.append(data)

    def close_with(self, code: int, reason: bytes) -> None:
        """Close as an application, with what can be said of the reason in UTF-8."""
        text = reason[:REASON_SIZE_MAX].decode(errors="ignore")
        self.close(error_code=code, frame_type=None, reason_phrase=text)

    def close_for_bug(self) -> None:
        """Close because of a fault of our own."""
        self.close(
            error_code=QuicErrorCode.INTERNAL_ERROR,
            frame_type=QuicFrameType.PADDING,
            reason_phrase="internal error",
        )


def _set_limit(limit: Limit, value: int) -> None:
    limit.value = limit.sent = value


def unacknowledged(stream: QuicStream) -> int:
    """Bytes written to a stream that the peer has not acknowledged."""
    sender = stream.sender
    return sender._buffer_stop - sender._buffer_start


def received_size(stream: QuicStream) -> int:
    """Bytes of a stream that count against our windows: up to the highest that was announced."""
    return stream.receiver.highest_offset

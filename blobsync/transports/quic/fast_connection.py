"""Shortcuts for packets that carry nothing but stream data, and larger datagrams.

Nearly all packets of a transfer are of one kind: under the same keys, on the same path, one STREAM
frame that goes on where the last one ended. Those are taken apart and put together here; anything
else, and whatever is odd about a packet, takes aioquic's own way, untouched. What both ways keep
in common is the state: the same counters, the same records of what was sent.
"""

# This is aioquic's inside, which has no public names; `guard` looks at all of it.
# pyright: reportPrivateUsage=false, reportPrivateImportUsage=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from aioquic.quic.connection import (
    END_STATES,
    QuicConnectionError,
    QuicConnectionState,
    QuicReceiveContext,
)
from aioquic.quic.events import StreamDataReceived
from aioquic.quic.packet import QuicFrameType, QuicPacketType
from aioquic.quic.packet_builder import QuicDeliveryState, QuicPacketBuilder
from aioquic.quic.recovery import MAX_ACK_RANGES
from aioquic.tls import CipherSuite, Epoch
from cryptography.exceptions import InvalidTag

from blobsync.transports.quic.raw_connection import (
    DATAGRAM_SIZE_MIN,
    BurstPacer,
    RawKeyConnection,
)

if TYPE_CHECKING:
    from aioquic.buffer import Buffer
    from aioquic.quic.crypto import CryptoPair
    from aioquic.quic.packet_builder import QuicDeliveryHandler
    from aioquic.quic.recovery import QuicPacketSpace
    from aioquic.quic.stream import QuicStream, QuicStreamSender

PROBED_SIZES = (1452, 8952)
"""Datagrams that are tried, one after the other: a common Ethernet, one with jumbo frames. The
length of a STREAM frame is written with two bytes, so that 16,000 would be the most."""

BATCH_PACKETS = 64
"""Packets that are made at once; also what one call to the kernel takes."""

FULL_PACKETS_MIN = 2
"""Below this the ordinary way is as good."""

LOST_IN_A_ROW_MAX = 2
"""Time-outs without any answer after which large datagrams are given up: the path may have
changed to one that does not carry them."""

_AES = (CipherSuite.AES_128_GCM_SHA256, CipherSuite.AES_256_GCM_SHA384)
_CID_SIZE = 8
_PN_SIZE = 2
_TAG_SIZE = 16
_SAMPLE_SIZE = 16


class SentStreamPacket:
    """What is remembered of a packet of stream data: as aioquic's `QuicSentPacket`, but small."""

    __slots__ = ("delivery_handlers", "packet_number", "sent_bytes", "sent_time")

    epoch = Epoch.ONE_RTT
    in_flight = True
    is_ack_eliciting = True
    is_crypto_packet = False
    packet_type = QuicPacketType.ONE_RTT
    quic_logger_frames: tuple[dict[str, Any], ...] = ()

    def __init__(
        self,
        packet_number: int,
        sent_time: float,
        sent_bytes: int,
        delivery_handlers: tuple[tuple[QuicDeliveryHandler, Any], ...],
    ) -> None:
        self.packet_number = packet_number
        self.sent_time = sent_time
        self.sent_bytes = sent_bytes
        self.delivery_handlers = delivery_handlers


class FastConnection(RawKeyConnection):
    """`RawKeyConnection` with shortcuts for bulk data, and datagrams as large as the path takes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._probes_left = list(PROBED_SIZES)
        self._probe_under_way = False
        self._received_at = 0.0
        """When a packet moved the idle timeout on last; what comes at one time moves it once."""
        self._acked: tuple[QuicStreamSender, int, int] | None = None
        """Bytes that an acknowledgement under way covers, not told to their stream yet."""
        self.packets_received_fast = 0
        self.packets_sent_fast = 0

    # Receiving

    def receive_datagram(self, data: bytes, addr: Any, now: float) -> None:
        if not self._receive_fast(data, addr, now):
            super().receive_datagram(data, addr, now)

    def _receive_fast(self, data: bytes, addr: Any, now: float) -> bool:
        """Take a packet under the present keys; False if nothing was done with it."""
        if (
            not self._handshake_confirmed
            or data[0] & 0xC0 != 0x40
            or len(data) < 1 + _CID_SIZE + 4 + _SAMPLE_SIZE
            or self._state is not QuicConnectionState.CONNECTED
            or addr != self._network_paths[0].addr
        ):
            return False
        cid = data[1:9]
        # A server follows the client to another id, which is not for here. A client may be called
        # by any of its ids.
        if cid != self.host_cid and (
            not self._is_client or all(cid != each.cid for each in self._host_cids)
        ):
            return False
        keys = self._one_rtt_keys.recv
        aead, protection = keys.aead, keys.hp
        if keys.cipher_suite not in _AES or aead is None or protection is None:
            return False

        mask = protection._encryptor.update(data[13:29])
        first = data[0] ^ (mask[0] & 0x1F)
        if (first & 0x04) >> 2 != keys.key_phase or first & 0x18:
            return False
        pn_size = (first & 0x03) + 1
        start = 9 + pn_size
        truncated = int.from_bytes(data[9:start], "big") ^ int.from_bytes(
            mask[1 : 1 + pn_size], "big"
        )
        space = self._one_rtt_space
        packet_number = _full_number(truncated, pn_size, space.expected_packet_number)
        header = b"".join((bytes((first,)), cid, truncated.to_bytes(pn_size, "big")))
        nonce = (aead._iv ^ packet_number).to_bytes(12, "big")
        try:
            plain = aead._aead.decrypt(nonce, data[start:], header)
        except InvalidTag:
            return False
        if packet_number in space.received_packets:
            return True

        if packet_number > space.expected_packet_number:
            space.expected_packet_number = packet_number + 1
        if packet_number > self._spin_highest_pn:
            spin = bool(first & 0x20)
            self._spin_bit = not spin if self._is_client else spin
            self._spin_highest_pn = packet_number

        is_ack_eliciting = True
        if not self._take_stream_frame(plain):
            context = QuicReceiveContext(
                epoch=Epoch.ONE_RTT,
                host_cid=cid,
                network_path=self._network_paths[0],
                quic_logger_frames=None,
                time=now,
                version=None,
            )
            try:
                is_ack_eliciting, _ = self._payload_received(context, plain)
            except QuicConnectionError as error:
                self._logger.warning(error)
                self.close(
                    error_code=error.error_code,
                    frame_type=error.frame_type,
                    reason_phrase=error.reason_phrase,
                )
            if self._state in END_STATES or self._close_pending:
                return True
        else:
            self.packets_received_fast += 1

        if now != self._received_at:
            self._received_at = now
            self._close_at = now + self._idle_timeout()
        self._ack_eliciting_sent_since_receipt = False
        if packet_number > space.largest_received_packet:
            space.largest_received_packet = packet_number
            space.largest_received_time = now
        space.ack_queue.add(packet_number)
        space.received_packets.add(packet_number)
        if len(space.ack_queue) > MAX_ACK_RANGES:
            space.ack_queue.shift()
        if is_ack_eliciting and space.ack_at is None:
            space.ack_at = now + self._ack_delay
        return True

    def _take_stream_frame(self, plain: bytes) -> bool:
        """Take a payload that is one STREAM frame, the next of a known stream and not its last."""
        # Type 8 to 15; without the bit that says that it is the last. A packet may hold nothing.
        if not plain or plain[0] & 0xF9 != 0x08:
            return False
        kind = plain[0]
        end = len(plain)
        try:
            stream_id, position = _varint(plain, 1)
            offset = 0
            if kind & 0x04:
                offset, position = _varint(plain, position)
            if kind & 0x02:
                size, position = _varint(plain, position)
                if position + size != end:
                    return False
        except IndexError:
            return False
        size = end - position
        stream = self._streams.get(stream_id)
        # In one direction only, it might be one of ours.
        if stream is None or size == 0 or stream_id & 2:
            return False
        receiver, limit = stream.receiver, self._local_max_data
        stop = offset + size
        if (
            receiver._buffer_start != offset
            or receiver.highest_offset != offset
            or receiver._final_size is not None
            or receiver.is_finished
            or receiver._buffer
            or stop > stream.max_stream_data_local
            or limit.used + size > limit.value
        ):
            return False
        receiver._buffer_start = receiver.highest_offset = stop
        limit.used += size
        self._events.append(StreamDataReceived(plain[position:], False, stream_id))
        return True

    @cached_property
    def _one_rtt_keys(self) -> CryptoPair:
        """Asked for once the handshake is confirmed: the same from then on."""
        return self._cryptos[Epoch.ONE_RTT]

    @cached_property
    def _one_rtt_space(self) -> QuicPacketSpace:
        """As `_one_rtt_keys`."""
        return self._spaces[Epoch.ONE_RTT]

    # Sending

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Any]]:
        if not self._handshake_confirmed or self._state is not QuicConnectionState.CONNECTED:
            return super().datagrams_to_send(now)
        if (
            self._max_datagram_size > DATAGRAM_SIZE_MIN
            and self._loss._pto_count >= LOST_IN_A_ROW_MAX
        ):
            # Tried again once something is heard: it may have been silence of another kind.
            self._probes_left = list(PROBED_SIZES)
            self._probe_under_way = False
            self._set_datagram_size(DATAGRAM_SIZE_MIN)
        datagrams: list[tuple[bytes, Any]] = []
        if (
            self._probes_left
            and not self._probe_under_way
            and not self._close_pending
            and self._loss._pto_count == 0
        ):
            datagrams += self._probe(now)
        if self._may_send_fast():
            for stream in self._streams_queue:
                if not stream.is_blocked and not stream.sender.buffer_is_empty:
                    datagrams += self._send_fast(stream, now)
        return datagrams + super().datagrams_to_send(now)

    def _may_send_fast(self) -> bool:
        pair = self._one_rtt_keys
        return (
            not self._close_pending
            and not self._probe_pending
            and self._network_paths[0].is_validated
            and pair.send.cipher_suite in _AES
            # The first packet under new keys is aioquic's own.
            and not pair._update_key_requested
        )

    def _send_fast(self, stream: QuicStream, now: float) -> list[tuple[bytes, Any]]:
        """Full packets of data that was never sent before, as the windows and the pacer allow."""
        sender = stream.sender
        if sender.reset_pending or sender._reset_error_code is not None or not len(sender._pending):
            return []
        pending = sender._pending[0]
        start = pending.start
        if start != sender.highest_offset:
            # Lost before: to be sent again, first.
            return []
        stop_max = min(
            pending.stop,
            stream.max_stream_data_remote,
            start + self._remote_max_data - self._remote_max_data_used,
        )
        peer_cid = self._peer_cid.cid
        size = self._max_datagram_size
        assert stream.stream_id is not None
        # The offset is written with eight bytes; then no frame has another size.
        prefix = bytes((0x0C,)) + _encode_varint(stream.stream_id)
        room = size - 1 - len(peer_cid) - _PN_SIZE - len(prefix) - 8 - _TAG_SIZE
        cc, pacer = self._loss._cc, self._loss._pacer
        count = min(
            (stop_max - start) // room,
            (cc.congestion_window - cc.bytes_in_flight) // size,
        )
        assert isinstance(pacer, BurstPacer)
        if count >= FULL_PACKETS_MIN:
            count = pacer.take(count, now)
        if count < FULL_PACKETS_MIN:
            return []

        keys = self._one_rtt_keys.send
        assert keys.aead is not None
        assert keys.hp is not None
        encrypt, iv = keys.aead._aead.encrypt, keys.aead._iv
        first = 0x40 | (self._spin_bit << 5) | (keys.key_phase << 2) | (_PN_SIZE - 1)
        head = bytes((first,)) + peer_cid
        space, number = self._one_rtt_space, self._packet_number
        sent, deliver = space.sent_packets, self._on_data_delivery
        source, base = memoryview(sender._buffer), sender._buffer_start
        sealed: list[bytes] = []
        offset = start
        for packet_number in range(number, number + count):
            stop = offset + room
            sealed.append(
                encrypt(
                    (iv ^ packet_number).to_bytes(12, "big"),
                    b"".join(
                        (
                            prefix,
                            (offset | 0xC000000000000000).to_bytes(8, "big"),
                            source[offset - base : stop - base],
                        )
                    ),
                    head + (packet_number & 0xFFFF).to_bytes(_PN_SIZE, "big"),
                )
            )
            sent[packet_number] = SentStreamPacket(  # pyright: ignore[reportArgumentType] - alike
                packet_number, now, size, ((deliver, (sender, offset, stop)),)
            )
            offset = stop
        # A buffer that is looked at cannot shrink.
        source.release()

        # One call for all masks: the samples of the batch, back to back.
        masks = keys.hp._encryptor.update(b"".join([text[2:18] for text in sealed]))
        addr = self._network_paths[0].addr
        datagrams: list[tuple[bytes, Any]] = []
        for i, text in enumerate(sealed):
            at = i * _SAMPLE_SIZE
            masked = ((number + i) & 0xFFFF) ^ (masks[at + 1] << 8 | masks[at + 2])
            datagrams.append(
                (
                    b"".join(
                        (
                            bytes((first ^ (masks[at] & 0x1F),)),
                            peer_cid,
                            masked.to_bytes(_PN_SIZE, "big"),
                            text,
                        )
                    ),
                    addr,
                )
            )

        sender._pending.subtract(start, offset)
        sender.highest_offset = offset
        self._remote_max_data_used += offset - start
        self._packet_number = number + count
        space.ack_eliciting_in_flight += count
        self._loss._time_of_last_sent_ack_eliciting_packet = now
        cc.on_packet_sent(packet=sent[number])
        cc.bytes_in_flight += (count - 1) * size
        self._network_paths[0].bytes_sent += count * size
        if not self._ack_eliciting_sent_since_receipt:
            self._close_at = now + self._idle_timeout()
            self._ack_eliciting_sent_since_receipt = True
        self.packets_sent_fast += count
        return datagrams

    # Acknowledgements

    def _on_data_delivery(
        self, delivery: QuicDeliveryState, sender: QuicStreamSender, start: int, stop: int
    ) -> None:
        """As `QuicStreamSender.on_data_delivery`, but neighbours of one ACK frame are told
        together: they come by the hundred, in order."""
        if delivery is not QuicDeliveryState.ACKED:
            sender.on_data_delivery(delivery, start, stop, False)
        elif self._acked is not None and self._acked[0] is sender and self._acked[2] == start:
            self._acked = sender, self._acked[1], stop
        else:
            self._tell_acked()
            self._acked = sender, start, stop

    def _tell_acked(self) -> None:
        if self._acked is not None:
            sender, start, stop = self._acked
            self._acked = None
            sender.on_data_delivery(QuicDeliveryState.ACKED, start, stop, False)

    def _handle_ack_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        try:
            super()._handle_ack_frame(context, frame_type, buf)
        finally:
            self._tell_acked()

    # The size of datagrams

    def _probe(self, now: float) -> list[tuple[bytes, Any]]:
        """A packet of padding, as large as datagrams might be; its loss says nothing of the path's
        rate and costs nothing."""
        size = self._probes_left[0]
        if size > self.peer_udp_payload_max or size <= self._max_datagram_size:
            self._probes_left.pop(0)
            return []
        self._probe_under_way = True
        pair = self._one_rtt_keys
        builder = QuicPacketBuilder(
            host_cid=self.host_cid,
            is_client=self._is_client,
            max_datagram_size=size,
            packet_number=self._packet_number,
            peer_cid=self._peer_cid.cid,
            spin_bit=self._spin_bit,
            version=self._version or 1,
        )
        builder.start_packet(QuicPacketType.ONE_RTT, pair)
        frame = builder.start_frame(
            QuicFrameType.PING, handler=self._on_probe_delivery, handler_args=(size,)
        )
        frame.push_bytes(bytes(builder.remaining_buffer_space))
        datagrams, packets = builder.flush()
        self._packet_number = builder.packet_number
        for packet in packets:
            packet.sent_time = now
            packet.in_flight = False
            self._loss.on_packet_sent(packet=packet, space=self._one_rtt_space)
        return [(datagram, self._network_paths[0].addr) for datagram in datagrams]

    def _on_probe_delivery(self, delivery: QuicDeliveryState, size: int) -> None:
        self._probe_under_way = False
        if not self._probes_left or self._probes_left[0] != size:
            # One from before they were given up.
            return
        if delivery is QuicDeliveryState.ACKED:
            self._probes_left.pop(0)
            self._set_datagram_size(size)
        else:
            self._probes_left.clear()

    def _set_datagram_size(self, size: int) -> None:
        self._max_datagram_size = size
        self._loss._pacer._max_datagram_size = size
        cc: Any = self._loss._cc
        cc._max_datagram_size = size
        cc.additive_increase_factor = size


def _full_number(truncated: int, size: int, expected: int) -> int:
    """A packet number from its lowest bytes: the nearest to the one that is expected."""
    window = 1 << (8 * size)
    candidate = (expected & -window) | truncated
    if candidate <= expected - window // 2 and candidate < (1 << 62) - window:
        return candidate + window
    if candidate > expected + window // 2 and candidate >= window:
        return candidate - window
    return candidate


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """A variable-length integer and where it ends.

    Raises:
        IndexError: it does not end within the data.
    """
    head = data[position]
    size = 1 << (head >> 6)
    if size == 1:
        return head, position + 1
    end = position + size
    if end > len(data):
        raise IndexError
    value = int.from_bytes(data[position:end], "big") & ((1 << (8 * size - 2)) - 1)
    return value, end


def _encode_varint(value: int) -> bytes:
    if value < 1 << 6:
        return bytes((value,))
    if value < 1 << 14:
        return (value | 0x4000).to_bytes(2, "big")
    if value < 1 << 30:
        return (value | 0x80000000).to_bytes(4, "big")
    return (value | 0xC000000000000000).to_bytes(8, "big")

"""What an endpoint reads of a packet that it has no connection for, and its answers without one."""

# `Buffer` is public in one of aioquic's modules only.
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import os
from dataclasses import dataclass

from aioquic.buffer import Buffer
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.packet import (
    QuicErrorCode,
    QuicFrameType,
    QuicPacketType,
    QuicProtocolVersion,
    encode_quic_version_negotiation,
    pull_quic_header,
)
from aioquic.quic.packet_builder import QuicPacketBuilder

CID_SIZE = 8
"""Bytes of the connection ids that we give out."""

FIRST_DATAGRAM_SIZE_MIN = 1200
"""A client must fill its first datagrams up to this, so that an answer amplifies nothing."""


@dataclass(frozen=True, slots=True)
class FirstPacket:
    """The header of a packet that may begin a connection."""

    destination_cid: bytes
    """What the client calls us, for now."""
    source_cid: bytes
    is_version_1: bool


def destination_cid(datagram: bytes) -> bytes:
    """The connection id that a datagram is for; empty if it is no packet."""
    if not datagram:
        return b""
    if not datagram[0] & 0x80:
        return datagram[1 : 1 + CID_SIZE]
    if len(datagram) < 6:
        return b""
    return datagram[6 : 6 + datagram[5]]


def first_packet(datagram: bytes) -> FirstPacket | None:
    """The header, if the datagram can begin a connection; None for anything else."""
    if len(datagram) < FIRST_DATAGRAM_SIZE_MIN or not datagram[0] & 0x80:
        return None
    version = int.from_bytes(datagram[1:5], "big")
    if version not in (QuicProtocolVersion.NEGOTIATION, QuicProtocolVersion.VERSION_1):
        # Of other versions only the connection ids have a known place (RFC 8999).
        destination = datagram[6 : 6 + datagram[5]]
        start = 6 + len(destination)
        source = datagram[start + 1 : start + 1 + datagram[start]]
        return FirstPacket(destination, source, is_version_1=False)
    try:
        header = pull_quic_header(Buffer(data=datagram), host_cid_length=CID_SIZE)
    except ValueError:
        return None
    # A shorter id would make guesses easy (RFC 9000 section 7.2).
    if header.packet_type is not QuicPacketType.INITIAL or len(header.destination_cid) < CID_SIZE:
        return None
    return FirstPacket(header.destination_cid, header.source_cid, is_version_1=True)


def encode_version_negotiation(packet: FirstPacket) -> bytes:
    """The answer to a version that we do not speak."""
    return encode_quic_version_negotiation(
        source_cid=packet.destination_cid,
        destination_cid=packet.source_cid,
        supported_versions=[QuicProtocolVersion.VERSION_1],
    )


def encode_refusal(packet: FirstPacket) -> bytes:
    """A datagram that ends the attempt: CONNECTION_REFUSED, under the keys of first packets."""
    crypto = CryptoPair()
    crypto.setup_initial(
        cid=packet.destination_cid, is_client=False, version=QuicProtocolVersion.VERSION_1
    )
    builder = QuicPacketBuilder(
        host_cid=os.urandom(CID_SIZE),
        peer_cid=packet.source_cid,
        version=QuicProtocolVersion.VERSION_1,
        is_client=False,
        max_datagram_size=FIRST_DATAGRAM_SIZE_MIN,
    )
    builder.start_packet(QuicPacketType.INITIAL, crypto)
    frame = builder.start_frame(QuicFrameType.TRANSPORT_CLOSE, capacity=16)
    frame.push_uint_var(QuicErrorCode.CONNECTION_REFUSED)
    frame.push_uint_var(QuicFrameType.PADDING)
    frame.push_uint_var(0)
    datagrams, _ = builder.flush()
    return datagrams[0]

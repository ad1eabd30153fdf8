"""Connections between endpoints, dialled by public key: one contract, several implementations."""

from blobsync.transports.api import (
    BindError,
    BiStream,
    Connection,
    ConnectionClosedError,
    Endpoint,
    Incoming,
    NetworkEndpoint,
    NoAddressError,
    PathInfo,
    RecvStream,
    SendStream,
    StreamResetError,
    StreamStoppedError,
)

__all__ = [
    "BiStream",
    "BindError",
    "Connection",
    "ConnectionClosedError",
    "Endpoint",
    "Incoming",
    "NetworkEndpoint",
    "NoAddressError",
    "PathInfo",
    "RecvStream",
    "SendStream",
    "StreamResetError",
    "StreamStoppedError",
]

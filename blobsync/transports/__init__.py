"""Connections between endpoints, dialled by public key: one contract, several implementations."""

from blobsync.transports.api import (
    BiStream,
    Connection,
    ConnectionClosedError,
    Endpoint,
    Incoming,
    PathInfo,
    RecvStream,
    SendStream,
    StreamResetError,
    StreamStoppedError,
)

__all__ = [
    "BiStream",
    "Connection",
    "ConnectionClosedError",
    "Endpoint",
    "Incoming",
    "PathInfo",
    "RecvStream",
    "SendStream",
    "StreamResetError",
    "StreamStoppedError",
]

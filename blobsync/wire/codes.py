"""The numbers by which the peers of the blobs protocol say why they end something.

A stream is reset by its sender or stopped by its receiver with a code, a connection closed with
a code and a word. The protocol has four, and no other way to report an error: "I do not hold it"
and "I failed" are both `INTERNAL`.
"""

from __future__ import annotations

import enum

from blobsync.errors import (
    BlobsyncError,
    PeerFailedError,
    RateLimitedError,
    RefusedError,
    UnreachableError,
)


class StreamCode(enum.IntEnum):
    """Why a stream was reset (by who sends on it) or stopped (by who receives)."""

    LOST_INTEREST = 0
    """Stop only: the rest is not wanted. Also what a provider stops an unread request with."""
    PERMISSION = 1
    """The provider does not serve this."""
    LIMIT = 2
    """The provider does not serve this now; may come in the middle of an answer."""
    INTERNAL = 3
    """A piece is missing, or the provider failed. As a stop: pushed data was bad."""


class CloseCode(enum.IntEnum):
    """Why a connection was closed."""

    SHUTDOWN = 0
    """The endpoint ends, or has nothing more to ask."""
    PERMISSION = 1
    """The provider does not serve this peer at all."""
    LIMIT = 2
    """The provider does not serve this peer now."""
    INTERNAL = 3

    @property
    def reason(self) -> bytes:
        """The word that goes with the code."""
        return b"" if self is CloseCode.SHUTDOWN else self.name.lower().encode()


def error_of_reset(code: int, peer: str) -> BlobsyncError:
    """What it means that `peer` reset its answer with `code`; codes unknown to us are failures."""
    match code:
        case StreamCode.PERMISSION:
            return RefusedError(f"{peer} does not serve us this")
        case StreamCode.LIMIT:
            return RateLimitedError(f"{peer} asks us to come back later")
        case StreamCode.INTERNAL:
            return PeerFailedError(f"{peer} lacks a part of what we asked for, or failed")
        case _:
            return PeerFailedError(f"{peer} gave up its answer with code {code}")


def reset_of_error(error: BaseException) -> StreamCode:
    """The code with which a provider that met `error` resets its answer."""
    match error:
        case RateLimitedError():
            return StreamCode.LIMIT
        case RefusedError():
            return StreamCode.PERMISSION
        case _:
            return StreamCode.INTERNAL


def error_of_close(code: int | None, peer: str) -> BlobsyncError:
    """What it means that the connection to `peer` ended with `code` (None: without any)."""
    match code:
        case CloseCode.PERMISSION:
            return RefusedError(f"{peer} does not serve us")
        case CloseCode.LIMIT:
            return RateLimitedError(f"{peer} asks us to come back later")
        case None:
            return UnreachableError(f"the connection to {peer} was lost")
        case _:
            return UnreachableError(f"{peer} closed the connection with code {code}")

"""Errors of the application, and the exit code that a shell sees for each.

Every error of ours outside the store derives from `BlobsyncError`. A class says whose fault it
was by its name, whether trying again can help by `is_permanent`, and what the shell gets by
`exit_code`. The store has a family of its own (`blobstore.errors`), which the command line maps
to the same codes.
"""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """What a command of ours returns to the shell."""

    OK = 0
    FAILURE = 1
    """An unexpected failure: look at the message."""
    USAGE = 2
    """The command line is wrong."""
    BAD_INPUT = 3
    """A ticket, hash, address or path is not one."""
    UNREACHABLE = 4
    """No way to the peer, or the connection was lost."""
    REFUSED = 5
    """The peer does not serve us this, or not now."""
    NOT_FOUND = 6
    """The peer (or every peer) lacks what we asked for."""
    BAD_DATA = 7
    """A peer sent bytes that do not match their hash."""
    PROTOCOL = 8
    """A peer does not speak the protocol."""
    CONFLICT = 9
    """The destination exists or clashes."""
    DISK_FULL = 10
    STORE = 11
    """The store is damaged, or of a format that we do not read."""
    HOSTILE = 12
    """A collection holds names that would leave the destination, or other traps."""
    INTERRUPTED = 130
    """Ended by Ctrl-C."""


class BlobsyncError(Exception):
    """Base of all errors of the application.

    Attributes:
        exit_code: what the shell sees when this error ends a command.
        is_permanent: trying the same again, with the same peer, cannot help.
    """

    exit_code: ExitCode = ExitCode.FAILURE
    is_permanent: bool = True


class LocalProtocolError(BlobsyncError):
    """We did something that the protocol does not allow: a bug of ours or of a caller."""


class RemoteProtocolError(BlobsyncError):
    """The peer did something that the protocol does not allow."""

    exit_code = ExitCode.PROTOCOL


class TicketError(BlobsyncError, ValueError):
    """A text is not a ticket that we can use."""

    exit_code = ExitCode.BAD_INPUT


class UnreachableError(BlobsyncError):
    """No way to the peer, or none any more."""

    exit_code = ExitCode.UNREACHABLE
    is_permanent = False


class RefusedError(BlobsyncError):
    """The peer does not serve us this."""

    exit_code = ExitCode.REFUSED


class RateLimitedError(RefusedError):
    """The peer asks us to come back later."""

    is_permanent = False


class PeerFailedError(BlobsyncError):
    """The peer gave up in the middle: it lacks a piece, or failed; it does not say which."""

    exit_code = ExitCode.NOT_FOUND


class NotFoundError(BlobsyncError, LookupError):
    """The peer ended its answer where a piece was due: it does not hold it.

    Attributes:
        hash: the blob.
        chunk: first chunk that did not come, None if nothing of the blob did.
        index: element of the request: 0 is the root, i + 1 its child i.
    """

    exit_code = ExitCode.NOT_FOUND

    def __init__(
        self, message: str, *, hash: bytes = b"", chunk: int | None = None, index: int | None = None
    ) -> None:
        super().__init__(message)
        self.hash = hash
        self.chunk = chunk
        self.index = index


class PeerDataError(BlobsyncError):
    """The peer sent bytes that do not match the hash they were to have. Drop the peer.

    Attributes:
        hash: the blob.
        chunk: first chunk of the piece that does not match, if known.
        peer: who sent it, as text for people.
    """

    exit_code = ExitCode.BAD_DATA

    def __init__(self, hash: bytes, chunk: int | None = None, *, peer: str = "") -> None:
        where = "data" if chunk is None else f"chunk {chunk}"
        source = f" (from {peer})" if peer else ""
        super().__init__(f"{where} of {hash.hex()} does not match its parent{source}")
        self.hash = hash
        self.chunk = chunk
        self.peer = peer


class HostileCollectionError(BlobsyncError):
    """A collection holds names that no honest sender makes; nothing of it was written."""

    exit_code = ExitCode.HOSTILE


class TargetExistsError(BlobsyncError, FileExistsError):
    """The destination is there already and was left as it is."""

    exit_code = ExitCode.CONFLICT


class DiskFullError(BlobsyncError):
    """No room left at the destination; what was fetched so far is kept for the next try."""

    exit_code = ExitCode.DISK_FULL
    is_permanent = False

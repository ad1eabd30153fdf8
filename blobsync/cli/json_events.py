"""The objects that `--json` prints, one a line: their names and fields are a contract.

Sizes are bytes, times seconds, hashes 64 hex digits. `docs/cli.md` describes each for readers.
A new field may be added; one that is there keeps its meaning.
"""

from __future__ import annotations

from typing import Literal, TypedDict


class TicketEvent(TypedDict):
    """First object of `share`: peers can fetch from now on."""

    event: Literal["ticket"]
    ticket: str
    hash: str
    files: int
    bytes: int
    skipped: int
    transport: str
    id_is_temporary: bool
    relay_is_missing: bool
    refused_name: str | None
    """Why receivers that check names will refuse the collection."""


class SkippedEvent(TypedDict):
    """A path that an import left out."""

    event: Literal["skipped"]
    path: str
    """The path with the reason."""


class ServingEvent(TypedDict):
    """What a share has served so far, when that changed."""

    event: Literal["serving"]
    connections: int
    requests: int
    requests_refused: int
    bytes_sent: int
    rate: float | None


class StoppedEvent(TypedDict):
    """Last object of `share`."""

    event: Literal["stopped"]
    requests: int
    requests_refused: int
    bytes_sent: int
    seconds: float


class StartedEvent(TypedDict):
    """A fetch knows the names and has checked them."""

    event: Literal["started"]
    hash: str
    files: int
    bytes_total: int | None
    destination: str


class ProgressEvent(TypedDict):
    """Where a fetch stands."""

    event: Literal["progress"]
    files_done: int
    files_total: int
    bytes_done: int
    bytes_total: int | None
    bytes_fetched: int
    rate: float | None
    eta_s: float | None
    path: str | None


class DoneEvent(TypedDict):
    """A fetch is complete."""

    event: Literal["done"]
    hash: str
    files: int
    bytes: int
    bytes_fetched: int
    seconds: float
    destination: str


class AddedEvent(TypedDict):
    """`add` has imported a collection."""

    event: Literal["added"]
    hash: str
    files: int
    bytes: int
    skipped: int


class FileEvent(TypedDict):
    """One file of a collection, from `ls`."""

    event: Literal["file"]
    name: str
    hash: str
    bytes: int


class TagEvent(TypedDict):
    """One tag."""

    event: Literal["tag"]
    name: str
    hash: str
    format: str


class BlobEvent(TypedDict):
    """One blob of the store, from `ls`."""

    event: Literal["blob"]
    hash: str
    bytes: int
    bytes_held: int
    complete: bool
    location: str
    paths: list[str]


class VerifiedEvent(TypedDict):
    """One blob that `verify` has re-hashed."""

    event: Literal["verified"]
    hash: str
    bytes: int
    bytes_damaged: int
    paths: list[str]


class VerifySummaryEvent(TypedDict):
    """Last object of `verify`."""

    event: Literal["verify_done"]
    blobs: int
    bytes: int
    damaged: int


class GcEvent(TypedDict):
    """What `gc` removed, or would remove."""

    event: Literal["gc"]
    dry_run: bool
    blobs: int
    bytes_freed: int
    files_removed: int
    kept: int


class TicketInfoEvent(TypedDict):
    """What a ticket says, from `ticket show`."""

    event: Literal["ticket_info"]
    id: str
    relay: str | None
    addresses: list[str]
    hash: str
    format: str


class IdEvent(TypedDict):
    """The endpoint id of a home folder."""

    event: Literal["id"]
    id: str


class VersionEvent(TypedDict):
    """The version of the program."""

    event: Literal["version"]
    version: str
    python: str


class ErrorEvent(TypedDict):
    """A command failed; nothing follows."""

    event: Literal["error"]
    kind: str
    """Name of the exit code, in lower case."""
    message: str
    exit_code: int
    retry: bool
    """Running the same command again may help."""


JsonEvent = (
    TicketEvent
    | SkippedEvent
    | ServingEvent
    | StoppedEvent
    | StartedEvent
    | ProgressEvent
    | DoneEvent
    | AddedEvent
    | FileEvent
    | TagEvent
    | BlobEvent
    | VerifiedEvent
    | VerifySummaryEvent
    | GcEvent
    | TicketInfoEvent
    | IdEvent
    | VersionEvent
    | ErrorEvent
)

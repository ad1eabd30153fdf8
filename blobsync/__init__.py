"""Share folders by ticket and fetch them verified, whole or by range, over iroh."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blobsync.app import App, NetworkOptions, Overwrite
    from blobsync.wire.ticket import BlobTicket

__all__ = ["App", "BlobTicket", "NetworkOptions", "Overwrite"]


def __getattr__(name: str) -> object:
    # The command line must start quickly, and most of its commands need little of this.
    if name == "BlobTicket":
        from blobsync.wire.ticket import BlobTicket

        return BlobTicket
    if name in __all__:
        from blobsync import app

        return getattr(app, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

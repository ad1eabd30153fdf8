"""Errors of the store. Every one derives from `BlobError` and says whether trying again helps."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blobstore.codec.hash import Hash


class BlobError(Exception):
    """Base of all errors of this package.

    Attributes:
        is_permanent: trying the same again cannot help.
    """

    is_permanent = True


class BlobNotFoundError(BlobError, LookupError):
    """The store does not hold this blob, or not the ranges asked for."""

    def __init__(self, hash: Hash, detail: str = "") -> None:
        super().__init__(f"blob {hash} is not in the store{': ' + detail if detail else ''}")
        self.hash = hash


class VerificationError(BlobError):
    """Bytes do not match the hash they were to have.

    Attributes:
        hash: the blob's root.
        chunk: first chunk of the piece that does not match, if known.
    """

    def __init__(self, hash: Hash, chunk: int | None = None, detail: str = "") -> None:
        where = "" if chunk is None else f"chunk {chunk} of "
        super().__init__(f"{where}{hash} does not match its hash{': ' + detail if detail else ''}")
        self.hash = hash
        self.chunk = chunk


class FileChangedError(BlobError):
    """A referenced file is gone or no longer what was imported; import it again."""


class ImportFileError(BlobError):
    """A file or folder cannot be imported: unreadable, not a regular file, changed meanwhile."""


class TagNotFoundError(BlobError, LookupError):
    """No tag of this name."""


class ProtectedError(BlobError):
    """The blob is needed by a tag, a temp tag or a running operation."""


class PartialBusyError(BlobError):
    """Another process (or task) is filling this partial blob right now."""

    is_permanent = False


class StoreFormatError(BlobError):
    """The folder is not a store of ours, or of a version that we cannot read."""


class StoreDamagedError(BlobError):
    """The database cannot be read; nothing was changed."""


class StoreFullError(BlobError):
    """The disk is full; the operation changed nothing that is called complete."""

    is_permanent = False


class StoreBusyError(BlobError):
    """This process has the store open already; share that handle instead."""


class StoreClosedError(BlobError):
    """The store was closed."""

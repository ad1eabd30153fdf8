"""Errors of pybao. They carry numbers, not prose; callers know which blob they worked on."""

from __future__ import annotations


class BaoError(Exception):
    """Base of all errors of this package."""


class _TreeError(BaoError):
    """An item of the tree does not fit. Exactly one of `node` and `chunk` is set, if any.

    Attributes:
        kind: what is wrong, one of the words listed in the subclass.
        node: in-order number of the tree node (see bao-tree).
        chunk: first chunk of the leaf.
    """

    def __init__(self, kind: str, node: int | None = None, chunk: int | None = None) -> None:
        super().__init__(kind, node, chunk)
        self.kind = kind
        self.node = node
        self.chunk = chunk

    def __str__(self) -> str:
        where = ""
        if self.node is not None:
            where = f" at node {self.node}"
        elif self.chunk is not None:
            where = f" at chunk {self.chunk}"
        return self.kind.replace("_", " ") + where


class DecodeError(_TreeError):
    """Received bytes are not the blob asked for.

    `kind` is `parent_hash_mismatch` or `leaf_hash_mismatch` (bad data), `size_invalid` (the claimed
    size is impossible), `size_not_found`, `parent_not_found` or `leaf_not_found` (the stream
    ended where an item was due), `truncated` (it ended within an item).
    """


class EncodeError(_TreeError):
    """Local data is not what its root says: `parent_hash_mismatch`, `leaf_hash_mismatch`, or
    `size_mismatch` (data or outboard end too early)."""


class FileShorter(BaoError):  # noqa: N818 - says what happened, as `Cancelled` does
    """The file ended before the given size."""


class Cancelled(BaoError):  # noqa: N818 - the word of asyncio and concurrent.futures
    """The call was cancelled through its `Progress`."""

"""Child processes that share a store with a test."""

from __future__ import annotations

import multiprocessing
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from multiprocessing.context import ForkServerContext, ForkServerProcess


class Children:
    """Starts children from a process that has imported all they need."""

    def __init__(self) -> None:
        self._context: ForkServerContext = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["blobstore.testing.crash"])

    def start(
        self, run: Callable[..., None], folder: object, *args: object
    ) -> tuple[ForkServerProcess, Connection]:
        """A child that runs `run(folder, connection, *args)`, and our end of its connection."""
        ours, theirs = self._context.Pipe(duplex=False)
        child = self._context.Process(target=run, args=(folder, theirs, *args))
        child.start()
        theirs.close()
        return child, ours

    def finish(self, child: ForkServerProcess, connection: Connection) -> list[tuple[str, Any]]:
        """All that it says until it ends."""
        messages: list[tuple[str, Any]] = []
        while True:
            try:
                messages.append(connection.recv())
            except EOFError:
                break
        connection.close()
        child.join()
        return messages


@pytest.fixture(scope="session")
def children() -> Children:
    return Children()

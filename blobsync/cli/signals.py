"""Ctrl-C and SIGTERM: the first one cancels the command, the second one does not wait for it.

Leaving at once is safe: the store and the destination survive SIGKILL at any moment.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from blobsync.cli.failures import InterruptedBySignalError
from blobsync.cli.output import is_terminal, write_stderr

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

SIGNALS = (signal.SIGINT, signal.SIGTERM)

IMPATIENCE_S = 0.5
"""A signal this soon after the first is the same one: a terminal and a parent may both send it."""

SHOW_CURSOR = "\x1b[?25h"


class Interrupts:
    """The signals that arrived while one command runs."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.first: int | None = None
        """Number of the first signal."""
        self._clock = clock
        self._first_at_s = 0.0
        self._task: asyncio.Task[None] | None = None
        self._stop: asyncio.Event | None = None

    def watch(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[None]) -> None:
        """From now until the loop closes, a signal cancels `task`."""
        self._task = task
        for number in SIGNALS:
            loop.add_signal_handler(number, self._deliver, number)

    @contextmanager
    def regular_end(self) -> Generator[asyncio.Event]:
        """While this is open, the first signal sets the event instead of cancelling anything."""
        self._stop = asyncio.Event()
        try:
            yield self._stop
        finally:
            self._stop = None

    def _deliver(self, number: int) -> None:
        if self.first is not None:
            if self._clock() - self._first_at_s < IMPATIENCE_S:
                return
            if is_terminal(sys.stderr):
                write_stderr(SHOW_CURSOR + "\n")
            os._exit(128 + number)
        self.first = number
        self._first_at_s = self._clock()
        if self._stop is not None:
            self._stop.set()
        elif self._task is not None:
            self._task.cancel()


def run_until_done(main: Coroutine[None, None, None], interrupts: Interrupts, *, kept: str) -> None:
    """Run one command's coroutine to its end; `kept` says what an interrupted one leaves.

    Raises:
        InterruptedBySignalError: a signal cancelled it.
    """

    async def watched() -> None:
        task = asyncio.current_task()
        if task is not None:
            interrupts.watch(asyncio.get_running_loop(), task)
        await main

    try:
        asyncio.run(watched())
    except (asyncio.CancelledError, KeyboardInterrupt):
        number = signal.SIGINT if interrupts.first is None else interrupts.first
        raise InterruptedBySignalError(128 + number, kept) from None

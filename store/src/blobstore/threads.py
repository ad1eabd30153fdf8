"""Blocking work beside the event loop, awaited so that a cancel never leaves it running."""

from __future__ import annotations

import asyncio
import contextlib
import os
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

THREADS_MAX = min(32, (os.cpu_count() or 1) + 8)
TICK_S = 0.1
"""How often the counters of a long operation are brought up to date."""


class Workers:
    """Worker threads of one store, and all work that is under way."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS_MAX, thread_name_prefix="blobstore")
        self._pending: set[asyncio.Future[Any]] = set()

    async def run(
        self,
        work: Callable[[], T],
        *,
        cancel: Callable[[], None] | None = None,
        tick: Callable[[], None] | None = None,
    ) -> T:
        """Run `work` in a thread. A cancel of the task calls `cancel`, then waits for its end."""
        return await self.finish(self._pool.submit(work), cancel=cancel, tick=tick)

    async def finish(
        self,
        future: Future[T],
        *,
        cancel: Callable[[], None] | None = None,
        tick: Callable[[], None] | None = None,
    ) -> T:
        """Await work of another thread to its end, be the task cancelled or not.

        Work that has not begun when the task is cancelled never begins.
        """
        waiting = asyncio.wrap_future(future)
        self._pending.add(waiting)
        try:
            await self._wait(waiting, tick)
        except asyncio.CancelledError:
            future.cancel()
            if cancel is not None:
                cancel()
            while not waiting.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait((waiting,))
            if not waiting.cancelled():
                # Seen, so that nobody logs it: the cancel is what the caller hears of.
                waiting.exception()
            raise
        finally:
            self._pending.discard(waiting)
        return waiting.result()

    @staticmethod
    async def _wait(waiting: asyncio.Future[Any], tick: Callable[[], None] | None) -> None:
        while True:
            await asyncio.wait((waiting,), timeout=None if tick is None else TICK_S)
            if tick is not None:
                tick()
            if waiting.done():
                return

    async def drain(self) -> None:
        """Wait until nothing runs."""
        while self._pending:
            await asyncio.wait(self._pending)

    def close(self) -> None:
        """Let the threads end; nothing runs any more."""
        self._pool.shutdown()

"""Waiting for something to change: the one primitive that streams and connections need."""

from __future__ import annotations

import asyncio


class Change:
    """What many may wait for; `tell` lets all of them look again.

    A waiter that is cancelled has taken nothing.
    """

    __slots__ = ("_waiters",)

    def __init__(self) -> None:
        self._waiters: list[asyncio.Future[None]] = []

    def tell(self) -> None:
        """Something changed."""
        if self._waiters:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits."""
        return bool(self._waiters)

    async def wait(self) -> None:
        """Wait for the next `tell`."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            raise

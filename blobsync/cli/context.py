"""What all commands share: the options that every one has, and how its coroutine is run."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from blobsync.cli.output import Output

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from blobsync.app import App, NetworkOptions
    from blobsync.cli.signals import Interrupts

Item = TypeVar("Item")

RUN_AGAIN = "run the same command again to go on"

NOTHING_LOST = f"nothing is lost; {RUN_AGAIN}"


GARBAGE_THRESHOLD = 50_000
"""Objects made between two searches for garbage among the young ones."""


class OpenApp(Protocol):
    """`App.open`, or a stand-in."""

    def __call__(
        self, home: Path | None = None, *, network: NetworkOptions | None = None
    ) -> AbstractAsyncContextManager[App]: ...


@dataclass(slots=True)
class CommandContext:
    """The state of one run of the program; click hands it to each command."""

    open_app_with: OpenApp | None = None
    """What opens the application; None: `App.open`."""
    home: Path | None = None
    debug: bool = False
    json: bool = False
    quiet: bool = False
    interrupts: Interrupts | None = None

    @property
    def output(self) -> Output:
        """Where this run's lines go."""
        return Output(json=self.json, quiet=self.quiet)

    def open_app(self, network: NetworkOptions | None = None) -> AbstractAsyncContextManager[App]:
        """The application of the home folder that the options name."""
        if self.open_app_with is not None:
            return self.open_app_with(self.home, network=network)
        # The application brings the store and the endpoint along: not for `--help`.
        from blobsync.app import App

        return App.open(self.home, network=network)

    def run(self, main: Coroutine[None, None, None], *, kept: str = NOTHING_LOST) -> None:
        """Run a command's coroutine; `kept` tells the person what an interrupt leaves."""
        import gc
        import logging

        from blobsync.cli.signals import Interrupts, run_until_done

        if self.debug:
            logging.basicConfig(level=logging.DEBUG)
        else:
            # Without any handler Python would print warnings, with stack traces, by itself.
            logging.getLogger().addHandler(logging.NullHandler())
        # What a command makes by the thousands is no garbage: to look for some after every 700
        # objects takes a tenth of the time of a large tree and finds nothing.
        gc.set_threshold(GARBAGE_THRESHOLD, 20, 20)
        self.interrupts = Interrupts()
        run_until_done(main, self.interrupts, kept=kept)


@asynccontextmanager
async def closed_after(items: AsyncIterator[Item]) -> AsyncGenerator[AsyncIterator[Item]]:
    """Iterate over `items` in here: it has ended, with all it holds, when this ends.

    Without this, a loop that is left early leaves a generator to the garbage collector, which may
    come after the application was closed.
    """
    try:
        yield items
    finally:
        if isinstance(items, AsyncGenerator):
            await items.aclose()

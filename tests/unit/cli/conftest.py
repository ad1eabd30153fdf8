"""A stand-in for the application, and a way to run one command line against it in this process."""

from __future__ import annotations

import asyncio
import json
import typing
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from blobsync.cli import json_events, main

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from blobsync.app import NetworkOptions

TICKET = (
    "blobacfiry65oqe7dfp5klns2pf2lvzmuzyjx4ozieq36n2iqanub5xvyaaaaehihnso536mr2xr2kpnigz7a2"
    "klc5tgqzlszo4fapfkxapwau3zk"
)
"""Of a hash seq, without any address: from vectors/tickets.json."""


@dataclass
class Result:
    """What one run of the program came to."""

    code: int
    out: str
    err: str

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass
class FakeApp:
    """Plays what it is told; records how it was used."""

    script: list[Any] = field(default_factory=list[Any])
    """What a call yields or returns, in order. An exception is raised, a function is called,
    and `...` waits until cancelled."""
    calls: list[tuple[str, Any]] = field(default_factory=list[Any])

    @asynccontextmanager
    async def open(
        self, home: Path | None = None, *, network: NetworkOptions | None = None
    ) -> AsyncIterator[Any]:
        self.calls.append(("open", (home, network)))
        try:
            yield self
        finally:
            self.calls.append(("closed", None))

    async def _play(self) -> AsyncIterator[Any]:
        try:
            for item in self.script:
                if isinstance(item, BaseException):
                    raise item
                if item is ...:
                    await asyncio.Event().wait()
                elif callable(item):
                    item()
                else:
                    yield item
        finally:
            self.calls.append(("ended", None))

    def get(self, ticket: Any, destination: Any, *, overwrite: Any) -> AsyncIterator[Any]:
        self.calls.append(("get", (ticket, destination, overwrite)))
        return self._play()

    def cat(self, source: Any, *, start: int, end: int | None) -> AsyncIterator[Any]:
        self.calls.append(("cat", (source, start, end)))
        return self._play()

    def verify(self, hashes: Any) -> AsyncIterator[Any]:
        self.calls.append(("verify", hashes))
        return self._play()

    async def _one(self) -> Any:
        async for item in self._play():
            return item
        raise AssertionError("the script holds nothing to return")

    async def share(self, paths: Any, *, mode: Any, progress: Any) -> Any:
        self.calls.append(("share", (paths, mode)))
        return await self._one()

    async def add(self, paths: Any, *, mode: Any, progress: Any) -> Any:
        self.calls.append(("add", (paths, mode)))
        return await self._one()

    async def list_remote(self, ticket: Any) -> Any:
        self.calls.append(("list_remote", ticket))
        return await self._one()

    async def gc(self, *, dry_run: bool) -> Any:
        self.calls.append(("gc", dry_run))
        return await self._one()

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.calls]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run a command line against a script or a `FakeApp`."""

    def run(*args: str, app: FakeApp | None = None, script: list[Any] | None = None) -> Result:
        fake = app or FakeApp(script or [])
        capfd.readouterr()
        code = main(list(args), open_app=fake.open)
        out, err = capfd.readouterr()
        return Result(code, out, err)

    return run


@pytest.fixture
def ticket() -> str:
    return TICKET


@pytest.fixture
def fake_app() -> Callable[..., FakeApp]:
    return lambda *script: FakeApp(list(script))


EVENT_TYPES: dict[str, type] = {
    typing.get_args(typing.get_type_hints(kind)["event"])[0]: kind
    for kind in typing.get_args(json_events.JsonEvent)
}


@pytest.fixture
def check_event() -> Callable[[dict[str, Any]], None]:
    """Fails if an object is not exactly what `json_events` says of its kind."""

    def check(event: dict[str, Any]) -> None:
        hints = typing.get_type_hints(EVENT_TYPES[event["event"]])
        assert set(event) == set(hints)
        for name, hint in hints.items():
            assert _fits(event[name], hint), f"{name} of {event}"

    return check


def _fits(value: Any, hint: Any) -> bool:
    if typing.get_origin(hint) is typing.Literal:
        return value in typing.get_args(hint)
    if typing.get_origin(hint) is list:
        return isinstance(value, list) and all(_fits(v, typing.get_args(hint)[0]) for v in value)
    if args := typing.get_args(hint):
        return any(_fits(value, arg) for arg in args)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is hint

"""The first signal cancels or ends, the second one does not wait."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from blobsync.cli.failures import InterruptedBySignalError
from blobsync.cli.signals import IMPATIENCE_S, Interrupts, run_until_done


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cancels_and_lets_clean_up(number: int) -> None:
    steps: list[str] = []

    async def main() -> None:
        try:
            send(number)
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            steps.append("cleaned up")

    with pytest.raises(InterruptedBySignalError) as caught:
        run_until_done(main(), Interrupts(), kept="all is kept")
    assert caught.value.exit_code == 128 + number
    assert str(caught.value) == "interrupted; all is kept"
    assert steps == ["cleaned up"]


def test_a_regular_end_is_not_an_interrupt() -> None:
    interrupts = Interrupts()

    async def main() -> None:
        with interrupts.regular_end() as stop:
            send(signal.SIGTERM)
            await stop.wait()

    run_until_done(main(), interrupts, kept="")
    assert interrupts.first == signal.SIGTERM


def test_the_second_signal_leaves_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    codes: list[int] = []
    now_s = 100.0

    async def main() -> None:
        nonlocal now_s
        left = asyncio.Event()

        def leave(code: int) -> None:
            codes.append(code)
            left.set()

        monkeypatch.setattr(os, "_exit", leave)
        try:
            send(signal.SIGINT)
            await asyncio.Event().wait()
        finally:
            now_s += IMPATIENCE_S
            send(signal.SIGTERM)
            await left.wait()

    with pytest.raises(InterruptedBySignalError):
        run_until_done(main(), Interrupts(clock=lambda: now_s), kept="")
    assert codes == [143]


def test_one_signal_that_arrives_twice_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    # `timeout` signals its child and its child's group; a shell script may do the same.
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    seen: list[float] = []

    def clock() -> float:
        seen.append(100.0 + 0.1 * len(seen))
        return seen[-1]

    interrupts = Interrupts(clock)

    async def main() -> None:
        with interrupts.regular_end() as stop:
            send(signal.SIGINT)
            await stop.wait()
            send(signal.SIGINT)
            while len(seen) < 2:  # noqa: ASYNC110 - what is waited for leaves no other trace
                await asyncio.sleep(0)

    run_until_done(main(), interrupts, kept="")
    assert codes == []
    assert interrupts.first == signal.SIGINT


def test_an_error_of_the_command_passes() -> None:
    async def main() -> None:
        raise LookupError("x")

    with pytest.raises(LookupError):
        run_until_done(main(), Interrupts(), kept="")


def test_the_handlers_are_gone_afterwards() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    async def main() -> None:
        pass

    run_until_done(main(), Interrupts(), kept="")
    after = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert after == before

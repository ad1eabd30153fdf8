"""A process is killed at every file verb, and at moments of our choosing; the store is reopened.

LMDB maps its own file, so that a crash is tested with real processes: SIGKILL keeps the page
cache, which is what a bitfield may rely on within one boot.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest

from blobstore.testing.crash import check_after_crash, run_forever, run_scenario

if TYPE_CHECKING:
    from pathlib import Path


def count_calls(children: Any, folder: Path) -> int:
    """How many file verbs the whole scenario takes."""
    folder.mkdir()
    child, connection = children.start(run_scenario, folder, 0, False)
    messages = children.finish(child, connection)
    assert child.exitcode == 0
    kind, calls = messages[-1]
    assert kind == "calls"
    return calls


@pytest.mark.timeout(600)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", [9, pytest.param(2, marks=pytest.mark.slow)])
async def test_killed_at_every_call(children: Any, tmp_path: Path, after: bool, step: int) -> None:
    """Before each second call and after the same ones is every moment between two calls."""
    calls = count_calls(children, tmp_path / "whole")
    assert calls > 100
    for number in range(1, calls + 1, step):
        folder = tmp_path / str(number)
        folder.mkdir()
        child, connection = children.start(run_scenario, folder, number, after)
        messages = children.finish(child, connection)
        assert child.exitcode == -signal.SIGKILL
        await check_after_crash(folder, messages)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("messages_before", [1, 2, 7, 20, 41])
async def test_killed_from_outside(children: Any, tmp_path: Path, messages_before: int) -> None:
    child, connection = children.start(run_forever, tmp_path)
    messages = [connection.recv() for _ in range(messages_before)]
    child.kill()
    messages += children.finish(child, connection)
    assert child.exitcode == -signal.SIGKILL
    await check_after_crash(tmp_path, messages)

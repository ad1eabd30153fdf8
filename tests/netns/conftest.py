"""Tests on emulated links. They need the Rust peer, root, `ip` and TUN: what lacks skips them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interop.conftest import cached, lacking
from tests.netns.link import why_impossible

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks every test of this folder, before `-m` selects."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.interop)


@pytest.fixture(scope="session")
def peer() -> str:
    """The Rust peer that carries the link."""
    if reason := why_impossible():
        pytest.skip(f"no network namespaces here: {reason}")
    path = cached("BLOBSYNC_PEER", "target-peer", "release", "blobsync-peer")
    if not path.is_file():
        lacking(f"no blobsync-peer at {path}")
    return str(path)

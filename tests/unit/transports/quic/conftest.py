"""Fixtures of the aioquic transport."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from tests.unit.transports.quic.loopback import Endpoints

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TIMEOUT_S = 60


@pytest.fixture
async def endpoints() -> AsyncIterator[Endpoints]:
    """Opens endpoints that are closed after the test."""
    async with asyncio.timeout(TIMEOUT_S), AsyncExitStack() as stack:
        yield Endpoints(stack)

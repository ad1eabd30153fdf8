from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.pyiroh.ends import Ends, connected

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    async with connected() as both:
        yield both

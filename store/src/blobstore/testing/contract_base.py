"""What the cases of the store contract begin with: a store."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import pytest_asyncio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from blobstore.api import Store


class ContractBase(ABC):
    """Says how a store is opened."""

    @abstractmethod
    def open_store(self, path: Path) -> AbstractAsyncContextManager[Store]:
        """A new store; what is in `path` may be used for it."""

    @pytest_asyncio.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Store]:
        async with self.open_store(tmp_path / "store") as store:
            yield store

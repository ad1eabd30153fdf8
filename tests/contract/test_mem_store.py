"""MemStore keeps the contract."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blobstore import MemStore
from blobstore.testing import StoreContract

if TYPE_CHECKING:
    from pathlib import Path


class TestMemStore(StoreContract):
    def open_store(self, path: Path) -> MemStore:
        return MemStore()

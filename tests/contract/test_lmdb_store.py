"""LmdbStore keeps the contract."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blobstore import LmdbStore
from blobstore.testing import StoreContract

if TYPE_CHECKING:
    from pathlib import Path


class TestLmdbStore(StoreContract):
    def open_store(self, path: Path) -> LmdbStore:
        return LmdbStore.open(path)

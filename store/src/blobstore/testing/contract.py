"""What every store must do: subclass `StoreContract`, say how one is opened, run pytest."""

from __future__ import annotations

from blobstore.testing.adding_cases import AddingCases
from blobstore.testing.keeping_cases import KeepingCases
from blobstore.testing.partial_cases import PartialCases
from blobstore.testing.reading_cases import ReadingCases


class StoreContract(AddingCases, ReadingCases, PartialCases, KeepingCases):
    """All cases. A store that loses one of them is not a store."""

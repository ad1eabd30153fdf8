"""For tests of stores and of what is built on them: contract suite, strategies, faults.

Needs pytest and hypothesis, which the package itself does not.
"""

import pytest

pytest.register_assert_rewrite(
    "blobstore.testing.adding_cases",
    "blobstore.testing.keeping_cases",
    "blobstore.testing.partial_cases",
    "blobstore.testing.reading_cases",
)

# Only modules imported from here on are rewritten.
from blobstore.testing.contract import StoreContract  # noqa: E402 - after the above
from blobstore.testing.data import INTERESTING_SIZES, fill, pattern  # noqa: E402 - after the above
from blobstore.testing.faults import CrashFiles, FaultyFiles  # noqa: E402 - after the above

__all__ = [
    "INTERESTING_SIZES",
    "CrashFiles",
    "FaultyFiles",
    "StoreContract",
    "fill",
    "pattern",
]

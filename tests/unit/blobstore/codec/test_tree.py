"""Geometry against the Rust crate."""

import json
from pathlib import Path

import pytest

from blobstore.codec.tree import chunk_count, group_count, outboard_size

VECTORS = Path(__file__).parents[3] / "vectors"
BLOBS = json.loads((VECTORS / "blobs.json").read_text())


@pytest.mark.parametrize("blob", [*BLOBS["blobs"], *BLOBS["more"]], ids=lambda blob: blob["size"])
def test_outboard_size(blob):
    assert outboard_size(blob["size"]) == blob["outboard_len"]


@pytest.mark.parametrize("blob", BLOBS["blobs"], ids=lambda blob: blob["size"])
def test_counts(blob):
    # The crate says that the empty blob has no chunk; it still encodes as one that is empty.
    assert chunk_count(blob["size"]) == max(1, blob["chunks"])
    assert group_count(blob["size"]) == blob["groups"]


@pytest.mark.parametrize("function", [chunk_count, group_count, outboard_size])
def test_a_size_is_not_negative(function):
    with pytest.raises(ValueError, match="negative"):
        function(-1)

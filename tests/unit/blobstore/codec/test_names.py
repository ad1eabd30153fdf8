"""Names kept as bytes: the same sequence as a list of text."""

from __future__ import annotations

import pytest

from blobstore.codec.names import Names

TEXTS = ["a", "", "dir/ünïcode ☃", "x" * 127, "y" * 128, "z" * 300, "last"]


def names_of(texts: list[str]) -> Names:
    return Names.encode(len(texts), (text.encode() for text in texts))


@pytest.mark.parametrize("texts", [[], ["one"], TEXTS])
def test_they_are_a_sequence_of_text(texts: list[str]):
    for names in (names_of(texts), Names.decode(names_of(texts).meta, len(texts))):
        assert list(names) == texts
        assert len(names) == len(texts)
        assert [names[i] for i in range(len(texts))] == texts
        assert list(names[1:-1]) == texts[1:-1]
        if texts:
            assert names[-1] == texts[-1]
        with pytest.raises(IndexError):
            names[len(texts)]


def test_a_length_may_be_longer_than_needed():
    meta = b"CollectionV0." + b"\x01" + b"\x83\x00abc"
    assert list(Names.decode(meta, 1)) == ["abc"]


@pytest.mark.parametrize(
    ("meta", "count", "what"),
    [
        (b"", 0, "not the metadata"),
        (b"CollectionV1.\x00", 0, "not the metadata"),
        (b"CollectionV0.", 0, "ends early"),
        (b"CollectionV0.\x01", 1, "ends early"),
        (b"CollectionV0.\x01\x80", 1, "ends early"),
        (b"CollectionV0.\x01\x02a", 1, "within a name"),
        (b"CollectionV0.\x01\xff\xff\x03a", 1, "within a name"),
        (b"CollectionV0.\x01\x01a", 2, "2 files but 1 names"),
        (b"CollectionV0.\x01\x01ab", 1, "1 bytes too many"),
        (b"CollectionV0.\x01\x01\xff", 1, "not UTF-8"),
        (b"CollectionV0.\x00", -1, "no child at all"),
    ],
)
def test_what_is_not_the_metadata_is_refused(meta: bytes, count: int, what: str):
    with pytest.raises(ValueError, match=what):
        Names.decode(meta, count)

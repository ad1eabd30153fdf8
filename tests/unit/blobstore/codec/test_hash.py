"""Hashes and what they name: text forms, as iroh reads them."""

import json
import pickle
from pathlib import Path

import pytest

from blobstore.codec.hash import EMPTY_HASH, BlobFormat, Hash, HashAndFormat

TEXT = json.loads((Path(__file__).parents[3] / "vectors/tickets.json").read_text())["hash_text"]
HASH = Hash(bytes.fromhex(TEXT["hex"]))


def test_text_forms_of_the_rust_peer():
    assert Hash.from_text(TEXT["hex"]) == HASH
    assert Hash.from_text(TEXT["base32"]) == HASH
    assert Hash.from_text(TEXT["base32"].upper()) == HASH
    assert HASH.to_base32() == TEXT["base32"]
    assert str(HASH) == f"{HASH}" == TEXT["hex"]
    assert HASH.short() == TEXT["hex"][:10]


@pytest.mark.parametrize(
    "text",
    [
        TEXT["hex"].upper(),
        TEXT["hex"][:-1],
        TEXT["hex"] + "0",
        TEXT["hex"][:-1] + "g",
        TEXT["hex"][:-1] + "٣",
        TEXT["base32"][:-1],
        TEXT["base32"][:-1] + "1",
        TEXT["base32"][:-1] + "=",
        TEXT["base32"][:-2] + "==",
        TEXT["base32"][:-1] + "l",  # the last character has four bits that must be 0
        TEXT["base32"][:-1] + "ß",
        " " * 64,
        " " * 52,
        "",
    ],
)
def test_refused_texts(text: str):
    with pytest.raises(ValueError, match="hash"):
        Hash.from_text(text)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_hash_has_32_bytes(size: int):
    with pytest.raises(ValueError, match="32 bytes"):
        Hash(bytes(size))


def test_hash_is_a_value():
    assert {HASH: 1}[Hash(bytes(HASH))] == 1
    assert pickle.loads(pickle.dumps(HASH)) == HASH
    assert isinstance(pickle.loads(pickle.dumps(HASH)), Hash)
    assert repr(HASH) == f"Hash({TEXT['hex']})"


def test_empty_hash():
    assert EMPTY_HASH.hex().startswith("af1349b9f5f9a1a6")


@pytest.mark.parametrize("format", BlobFormat)
@pytest.mark.parametrize("text", [TEXT["hex"], TEXT["base32"]])
def test_hash_and_format_text(format: BlobFormat, text: str):
    prefix = "s" if format is BlobFormat.HASH_SEQ else ""
    value = HashAndFormat.from_text(prefix + text)
    assert value == HashAndFormat(HASH, format)
    assert str(value) == prefix + TEXT["hex"]


@pytest.mark.parametrize(
    "text", ["s", "", "S" + TEXT["hex"], "ss" + TEXT["hex"], "x" + TEXT["hex"]]
)
def test_refused_hash_and_format_texts(text: str):
    with pytest.raises(ValueError, match="hash"):
        HashAndFormat.from_text(text)

"""Names that a peer may and may not give to files of ours."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from blobsync.errors import ExitCode, HostileCollectionError
from blobsync.sync import names as names_module
from blobsync.sync.names import (
    COMPONENT_BYTES_MAX,
    DEPTH_MAX,
    HIDDEN_SUFFIX,
    NAME_BYTES_MAX,
    components_of,
    fold_key,
    partial_name,
)


def check_names(names: list[str], *, fold: bool = False) -> list[tuple[str, ...]]:
    """The components of names that pass."""
    names_module.check_names(names, fold=fold)
    return [components_of(name) for name in names]


VECTORS = Path(__file__).parents[2] / "vectors" / "collections.json"
HASH = "3f9a" * 16

HOSTILE = [
    # (name, a part of the rule that the message has to state)
    ("", "empty"),
    ("/", "absolute"),
    ("//", "absolute"),
    ("/etc/passwd", "absolute"),
    ("//host/share/x", "absolute"),
    ("a/", "empty"),
    ("a//b", "empty"),
    ("a/b//", "empty"),
    (".", "`.` or `..`"),
    ("..", "`.` or `..`"),
    ("../x", "`.` or `..`"),
    ("./x", "`.` or `..`"),
    ("a/..", "`.` or `..`"),
    ("a/.", "`.` or `..`"),
    ("a/../b", "`.` or `..`"),
    ("a/./b", "`.` or `..`"),
    ("a/b/../../../x", "`.` or `..`"),
    ("../../../../../../root/.ssh/authorized_keys", "`.` or `..`"),
    (".\u200d.", "`.` or `..`"),
    ("...", "ends in a dot"),
    ("\\", "backslash"),
    ("..\\x", "backslash"),
    ("a\\b", "backslash"),
    ("\\\\host\\share", "backslash"),
    ("C:\\x", "drive"),
    ("a/C:\\x", "backslash"),
    ("\0", "control"),
    ("a\0b", "control"),
    ("a/b\0", "control"),
    ("x\0/../y", "control"),
    ("a\nb", "control"),
    ("\n", "control"),
    ("a\n", "control"),
    ("a\rb", "control"),
    ("a\tb", "control"),
    ("\x1b[2J", "control"),
    ("a\x1f", "control"),
    ("a\x7fb", "control"),
    ("\ud800", "not Unicode"),
    ("a/\udcff/b", "not Unicode"),
    ("C:", "drive"),
    ("c:", "drive"),
    ("C:x", "drive"),
    ("C:/x", "drive"),
    ("z:/x/y", "drive"),
    ("a/C:/x", "drive"),
    ("a/b/d:", "drive"),
    ("CON", "device"),
    ("con", "device"),
    ("Con.txt", "device"),
    ("PRN", "device"),
    ("aux.c", "device"),
    ("src/aux/x", "device"),
    ("nul", "device"),
    ("NUL.tar.gz", "device"),
    ("nul .txt", "device"),
    ("COM1", "device"),
    ("com9.log", "device"),
    ("COM¹", "device"),
    ("LPT1", "device"),
    ("lpt9.x/y", "device"),
    ("lpt³", "device"),
    ("conin$", "device"),
    ("CONOUT$.x", "device"),
    ("a.", "ends in a dot or a space"),
    ("a ", "ends in a dot or a space"),
    (" ", "ends in a dot or a space"),
    ("a./b", "ends in a dot or a space"),
    ("a /b", "ends in a dot or a space"),
    ("x" * (COMPONENT_BYTES_MAX + 1), "255 bytes"),
    ("é" * 128, "255 bytes"),
    ("a/" + "x" * 256 + "/b", "255 bytes"),
    ("/".join(["x" * 250] * 17), "4096 bytes"),
    ("é" * (NAME_BYTES_MAX // 2 + 1), "4096 bytes"),
    ("x" * 10_000_000, "4096 bytes"),
    ("/".join("a" * (DEPTH_MAX + 1)), "components"),
    (partial_name("a", HASH), HIDDEN_SUFFIX),
    ("a/" + partial_name("b", HASH), HIDDEN_SUFFIX),
    (partial_name("x" * 255, HASH), HIDDEN_SUFFIX),
    (".A.BLOBSYNC-PARTIAL", HIDDEN_SUFFIX),
    (".a.blobsync-partial/x", HIDDEN_SUFFIX),
    (".ä.blob\u200csync-partial", HIDDEN_SUFFIX),
    (".a.blob\u017fync-partial", HIDDEN_SUFFIX),
]

GOOD = [
    "a",
    "a/b/c",
    "...a",
    "..a",
    ".hidden",
    ".config/.x",
    "a b",
    " a",
    "-rf",
    "~",
    "$HOME",
    "ab:c:d.txt/x",
    "man3/B::Op.3pm",
    "top/a:b.txt",
    'what?<>|*"',
    "console.log",
    "auxiliary",
    "null",
    "com10",
    "com0",
    "lpt",
    "xcon",
    "x.con",
    "x.blobsync",
    "blobsync-partial",
    "grüße/ñandú.txt",
    "日本語/ファイル.txt",
    "emoji/🦀.rs",
    "👩\u200d💻",
    "nfd/e\u0301.txt",
    "nfc/\u00e9.txt",
    "x" * COMPONENT_BYTES_MAX,
    "é" * 127,
    "/".join("a" * DEPTH_MAX),
]


@pytest.mark.parametrize(("name", "rule"), HOSTILE, ids=lambda value: ascii(value)[:40])
def test_a_hostile_name_is_refused_alone_and_among_others(name: str, rule: str):
    for names in ([name], ["top/a", name, "top/b"]):
        with pytest.raises(HostileCollectionError) as caught:
            check_names(names)
        message = str(caught.value)
        assert rule in message
        assert repr(name)[1:40].rstrip("'\"") in message
        assert len(message) < 600
        assert message.isprintable()
        assert caught.value.exit_code is ExitCode.HOSTILE


@pytest.mark.parametrize("name", GOOD, ids=lambda value: ascii(value)[:40])
def test_a_plain_name_is_accepted(name: str):
    assert check_names([name]) == [tuple(name.split("/"))]


def test_all_plain_names_are_accepted_together_in_their_order():
    names = [name for name in reversed(GOOD) if name not in {"a", "top"}]
    assert check_names(names) == [tuple(name.split("/")) for name in names]
    assert check_names([]) == []


@pytest.mark.parametrize(
    ("names", "culprit", "rule"),
    [
        (["a", "a"], "'a'", "twice"),
        (["top/ab", "top/c", "top/ab"], "'top/ab'", "twice"),
        (["a", "a/b"], "'a'", "file and a folder"),
        (["a/b", "a"], "'a'", "file and a folder"),
        (["x/a/b/c/d", "x/a/b"], "'x/a/b'", "file and a folder"),
        (["x/a", "y", "x/a/b/c/d"], "'x/a'", "file and a folder"),
    ],
)
@pytest.mark.parametrize("fold", [False, True])
def test_two_entries_of_one_place_are_refused(
    names: list[str], culprit: str, rule: str, fold: bool
):
    with pytest.raises(HostileCollectionError, match=rule) as caught:
        check_names(names, fold=fold)
    assert culprit in str(caught.value)


@pytest.mark.parametrize(
    "names",
    [
        ["a", "A"],
        ["x/a", "X/b"],
        ["x/a/b", "x/A/c"],
        ["a/b", "A"],
        ["A", "a/b"],
        ["top/\u00e9", "top/e\u0301"],
        ["stra\u00dfe", "STRASSE"],
        ["k", "\u212a"],
        ["i\u0307", "\u0130"],
        ["a\u200cb\u00e9", "ab\u00e9"],
    ],
    ids=ascii,
)
def test_names_that_a_folding_destination_takes_for_one_are_refused_only_there(names: list[str]):
    assert len(check_names(names)) == 2
    with pytest.raises(HostileCollectionError, match="destination takes"):
        check_names(names, fold=True)


def test_folding_keeps_the_spelling_of_what_it_accepts():
    names = ["Top/A", "Top/b", "Top/É/x", "Top/É/Y"]
    assert check_names(names, fold=True) == [tuple(name.split("/")) for name in names]


def test_the_fold_key_of_a_key_is_itself():
    for name in [*GOOD, "ΐ", "ß", "ŉ", "ᾳ", "Å"]:
        assert fold_key(fold_key(name)) == fold_key(name)


def test_more_folders_than_the_limit_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(names_module, "FOLDERS_MAX", 10)
    assert check_names(["a/b/c/d/e/f/g/h/i/j/file", "a/b/other"])
    with pytest.raises(HostileCollectionError, match="more than 10 folders"):
        check_names(["a/b/c/d/e/f/g/h/i/j/file", "a/k/file"])


def test_every_collection_of_the_vectors_is_judged():
    """Two are refused: one for its traps, one for a component of 300 bytes."""
    reasons: dict[str, str] = {}
    cases = json.loads(VECTORS.read_text())["collections"]
    listed = [case for case in cases if isinstance(case["names"], list)]
    for case in listed:
        try:
            check_names(case["names"])
        except HostileCollectionError as error:
            reasons[case["name"]] = str(error)
    assert len(listed) >= 6
    assert len(reasons) == 2
    assert "empty" in reasons["odd names that sendme would not produce"]
    assert "255 bytes" in reasons["name longer than 127 bytes (2-byte length varint)"]


def test_each_odd_name_of_the_vectors_is_refused_by_itself():
    cases = json.loads(VECTORS.read_text())["collections"]
    odd = next(case["names"] for case in cases if case["name"].startswith("odd names"))
    accepted = []
    for name in odd:
        try:
            accepted.append(check_names([name]))
        except HostileCollectionError:
            continue
    assert accepted == [[("same",)], [("same",)]]


def test_a_partial_name_is_hidden_bound_to_the_hash_and_fits():
    assert partial_name("a.txt", HASH) == ".a.txt.3f9a3f9a3f.blobsync-partial"
    names = {
        partial_name(final, hash_hex)
        for final in ["a", "b", "x" * 227, "x" * 228, "x" * 255, "y" * 255, "é" * 127, "\udcff"]
        for hash_hex in [HASH, "0" * 64]
    }
    assert len(names) == 16
    for name in names:
        assert name.startswith(".")
        assert name.endswith(HIDDEN_SUFFIX)
        assert len(os.fsencode(name)) <= COMPONENT_BYTES_MAX


def test_a_shortened_partial_name_is_no_other_files():
    long = "x" * 255
    stem = partial_name(long, HASH).removeprefix(".").removesuffix(f"3f9a3f9a3f{HIDDEN_SUFFIX}")
    for other in (stem, stem[:-1]):
        assert partial_name(other, HASH) != partial_name(long, HASH)


@pytest.mark.parametrize("text", ["", "3f9a", "../../../../x", "3F9A" * 16, HASH + "/", "g" * 64])
def test_a_partial_name_needs_a_hash(text: str):
    with pytest.raises(ValueError, match="not a hash"):
        partial_name("a", text)

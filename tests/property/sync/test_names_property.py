"""Any list of names is refused, or becomes exactly the tree that it spells and nothing else."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from blobsync.errors import HostileCollectionError
from blobsync.sync.names import check_names, components_of, fold_key
from blobsync.sync.root import Root

HASH = "3f9a" * 16

COMPONENTS = st.one_of(
    st.sampled_from(
        ["a", "b", "A", "..", ".", "", "C:", "con", "aux.c", "a.", "\u00e9", "e\u0301", "dest"]
    ),
    st.text(max_size=6),
    st.text("ab./\\\0:~ \u200d", max_size=6),
)
NAMES = st.one_of(st.lists(COMPONENTS, max_size=5).map("/".join), st.text(max_size=12))
PLAIN_NAMES = st.lists(st.sampled_from(["a", "b", "c", "A", "\u00e9"]), min_size=1, max_size=4).map(
    "/".join
)


@settings(max_examples=300, deadline=None)
@given(st.lists(NAMES, max_size=6) | st.lists(PLAIN_NAMES, max_size=8), st.booleans())
def test_names_are_refused_or_become_exactly_their_tree(names: list[str], whole: bool):
    try:
        check_names(names)
        checked = [components_of(name) for name in names]
    except HostileCollectionError:
        return
    with tempfile.TemporaryDirectory() as base:
        dest = Path(base, "around", "dest")
        beside = Path(base, "around", "sentinel")
        with Root.open(dest) as root:
            beside.write_bytes(b"untouched")
            if whole:
                root.write_files((file, "/".join(file).encode()) for file in checked)
            else:
                for file in checked:
                    with root.open_partial(file, HASH) as partial:
                        os.write(partial.fd, "/".join(file).encode())
                        root.publish(partial)
        found = [path for path in Path(base).rglob("*") if not path.is_dir()]
        found.remove(beside)
        assert beside.read_bytes() == b"untouched"
        assert {os.fspath(path.relative_to(dest)) for path in found} == set(names)
        assert all(path.read_bytes() == str(path.relative_to(dest)).encode() for path in found)
        folders = {path for path in dest.rglob("*") if path.is_dir()}
        assert folders == {
            above for path in found for above in path.parents if dest in above.parents
        }


@settings(max_examples=300, deadline=None)
@given(st.lists(PLAIN_NAMES, max_size=6))
def test_clashes_are_what_a_plain_comparison_finds(names: list[str]):
    for fold in (False, True):
        assert _is_accepted(names, fold=fold) == _is_accepted_reference(names, fold=fold)


@given(st.lists(NAMES, max_size=6))
def test_folding_only_refuses_more(names: list[str]):
    if _is_accepted(names, fold=True):
        assert _is_accepted(names, fold=False)


@given(st.text(max_size=30))
def test_a_fold_key_is_one_for_all_spellings(name: str):
    key = fold_key(name)
    assert fold_key(key) == key
    assert key.count("/") == name.count("/")
    if name.isascii():
        assert fold_key(name.upper()) == key


def _is_accepted(names: list[str], *, fold: bool) -> bool:
    try:
        check_names(names, fold=fold)
    except HostileCollectionError:
        return False
    return True


def _is_accepted_reference(names: list[str], *, fold: bool) -> bool:
    """Places one by one: no file twice, no file that is a folder, one spelling for a place."""

    def key(name: str) -> str:
        return fold_key(name) if fold else name

    files = Counter(key(name) for name in names)
    prefixes = [name[:i] for name in names for i, letter in enumerate(name) if letter == "/"]
    spellings: dict[str, set[str]] = {}
    for place in [*names, *prefixes]:
        spellings.setdefault(key(place), set()).add(place)
    return (
        all(count == 1 for count in files.values())
        and not any(key(prefix) in files for prefix in prefixes)
        and all(len(spelled) == 1 for spelled in spellings.values())
    )

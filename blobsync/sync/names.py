"""Names of a collection: which of them may become files below a destination.

Names are free text that a peer chose. `check_names` refuses a collection as a whole, before
anything of it is written, unless each name is a plain relative path that means the same on every
system and no two of them need the same place. The rules are the same everywhere, so that a
collection is either good for all or refused by all; only `fold` depends on the destination.

What is allowed on purpose, since trees on Unix hold it and it stays below the destination: `:`
(manual pages such as `man3/B::Op.3pm`) except where it makes a drive, and `<>"|?*`.
"""

from __future__ import annotations

import hashlib
import itertools
import operator
import re
import unicodedata
from array import array
from typing import TYPE_CHECKING

from blobsync.errors import HostileCollectionError

if TYPE_CHECKING:
    from collections.abc import Sequence

COMPONENT_BYTES_MAX = 255
"""Longest component in UTF-8: the limit of nearly every file system."""
NAME_BYTES_MAX = 4096
"""Longest name in UTF-8."""
DEPTH_MAX = 128
"""Most components of a name."""
FOLDERS_MAX = 1 << 20
"""Most distinct folders of a collection, which bounds what deep names cost us in memory."""
HIDDEN_SUFFIX = ".blobsync-partial"
"""How every file of ours ends that is not whole yet; it also begins with a dot."""

_TOP = 0
_HASH_DIGITS = 10
_SHOWN_MAX = 80

# Characters that no component may hold: C0 controls, DEL, backslash, lone surrogates.
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f\\\ud800-\udfff]")
# Names of devices and drives, in any case and with anything after a dot.
_RESERVED = re.compile(
    r"(?P<device>(?:con|prn|aux|nul|com[1-9¹²³]|lpt[1-9¹²³]|conin\$|conout\$)\ *(?:\.|\Z))"
    r"|(?P<drive>[a-z]:\Z)",
    re.IGNORECASE,
)
_DRIVE_START = re.compile(r"[A-Za-z]:")
_HASH_HEX = re.compile(rf"[0-9a-f]{{{_HASH_DIGITS},}}")
# Code points that HFS+ leaves out when it compares names.
_IGNORABLE = re.compile("[\u200c-\u200f\u202a-\u202e\u206a-\u206f\ufeff]")


def check_names(names: Sequence[str], *, fold: bool = False) -> None:
    """Refuse a collection unless every name is safe to write.

    Args:
        names: the names of a collection, components joined by `/`.
        fold: the destination takes names that differ only in case or in Unicode normalisation
            for one (`Root.folds_names`), so names that would meet there are refused as well.

    Raises:
        HostileCollectionError: a name breaks a rule, appears twice, or is both a file and a
            folder. The message has the first such name and the rule.
    """
    tree = _Folders(fold)
    homes = array("I")
    # Of all files, for a first look at whether two may meet: a million places themselves would not
    # fit into memory.
    places = array("q")
    last_parent, last_home = "", _TOP
    for name in names:
        # A character has four bytes at most, so short names need not be encoded to be measured.
        if len(name) > NAME_BYTES_MAX // 4 and _utf8_size(name) > NAME_BYTES_MAX:
            raise _refusal(name, f"it is longer than {NAME_BYTES_MAX} bytes")
        parent, slash, leaf = name.rpartition("/")
        home = _TOP
        if not slash:
            if _DRIVE_START.match(name):
                raise _refusal(name, "it begins with a drive")
        else:
            # Names come sorted as a rule, so neighbours share their folder.
            if last_home == _TOP or parent != last_parent:
                last_parent, last_home = parent, tree.enter(name, parent)
            home = last_home
        fault = _component_fault(leaf)
        if fault is not None:
            raise _refusal(name, fault)
        homes.append(home)
        places.append(hash(tree.place(home, leaf)))
    if tree.may_meet(places):
        tree.check_files(names, homes)


def components_of(name: str) -> tuple[str, ...]:
    """The components of a name that was checked."""
    return tuple(name.split("/"))


def fold_key(name: str) -> str:
    """What a file system compares that ignores case and Unicode normalisation.

    Coarser than any single system, so that names with different keys never meet on one.
    """
    if name.isascii():
        return name.lower()
    text = unicodedata.normalize("NFD", _IGNORABLE.sub("", name)).casefold()
    return unicodedata.normalize("NFD", text)


def partial_name(final: str, hash_hex: str) -> str:
    """The hidden name under which the file `final` of this hash grows, at most 255 bytes.

    `.{final}.{first 10 digits of the hash}.blobsync-partial`; a name too long for that is
    replaced by 32 digits of its own SHA-256, with `-` before the hash so that the two forms
    never meet.

    Raises:
        ValueError: `hash_hex` is not a hash in lower-case hex.
    """
    if not _HASH_HEX.fullmatch(hash_hex):
        raise ValueError(f"not a hash in hex: {_shown(hash_hex)}")
    ending = f"{hash_hex[:_HASH_DIGITS]}{HIDDEN_SUFFIX}"
    name = f".{final}.{ending}"
    if len(name.encode("utf-8", "surrogateescape")) > COMPONENT_BYTES_MAX:
        digest = hashlib.sha256(final.encode("utf-8", "surrogateescape")).hexdigest()
        name = f".{digest[:32]}-{ending}"
    return name


class _Folders:
    """The folders that the names of one collection need, each with a number.

    A folder is found by the number of the one above it and its own component, so memory grows
    with the number of folders and not with the length of their paths.
    """

    def __init__(self, fold: bool) -> None:
        self._fold = fold
        self._numbers: dict[tuple[int, str], int] = {}
        self._spelled: dict[int, str] = {}

    def enter(self, name: str, folder: str) -> int:
        """The number of `folder`, all of `name` before its last `/`, once checked."""
        if name.startswith("/"):
            raise _refusal(name, "it is absolute")
        if _DRIVE_START.match(name):
            raise _refusal(name, "it begins with a drive")
        components = folder.split("/")
        if len(components) >= DEPTH_MAX:
            raise _refusal(name, f"it has more than {DEPTH_MAX} components")
        number = _TOP
        for component in components:
            place = (number, fold_key(component) if self._fold else component)
            known = self._numbers.get(place)
            if known is None:
                number = self._add(name, place, component)
            elif self._fold and self._spelled[known] != component:
                raise _folded_refusal(name, self._spelled[known])
            else:
                number = known
        return number

    def _add(self, name: str, place: tuple[int, str], component: str) -> int:
        fault = _component_fault(component)
        if fault is not None:
            raise _refusal(name, fault)
        number = len(self._numbers) + 1
        if number > FOLDERS_MAX:
            raise _refusal(name, f"the collection has more than {FOLDERS_MAX} folders")
        self._numbers[place] = number
        if self._fold:
            self._spelled[number] = component
        return number

    def check_files(self, names: Sequence[str], homes: Sequence[int]) -> None:
        """Refuse two files, or a file and a folder, of one place; `homes` are folder numbers."""
        seen: dict[tuple[int, str], str] = {}
        for name, home in zip(names, homes, strict=True):
            leaf = name.rpartition("/")[2]
            place = self.place(home, leaf)
            folder = self._numbers.get(place)
            if folder is not None:
                if self._fold and self._spelled[folder] != leaf:
                    raise _folded_refusal(name, self._spelled[folder])
                raise _refusal(name, "it is a file and a folder at once")
            if place in seen:
                if seen[place] != leaf:
                    raise _folded_refusal(name, seen[place])
                raise _refusal(name, "it appears twice")
            seen[place] = leaf

    def place(self, home: int, leaf: str) -> tuple[int, str]:
        """What two names that need the same place have in common."""
        return (home, fold_key(leaf) if self._fold else leaf)

    def may_meet(self, files: array[int]) -> bool:
        """Whether two places may be one, of files and folders: certain if not.

        `files` are the hashes of the places of all files.
        """
        files.extend(hash(place) for place in self._numbers)
        ordered = sorted(files)
        return any(map(operator.eq, ordered, itertools.islice(ordered, 1, None)))


def _component_fault(component: str) -> str | None:
    """The rule that a component breaks, as text for people; None if it breaks none."""
    if component.isascii():
        fault = _spelling_fault(component, component.lower())
    else:
        # A name that a folding file system takes for a refused one is refused as well.
        fault = _spelling_fault(component, fold_key(component))
    if fault is not None:
        return fault
    if len(component) > COMPONENT_BYTES_MAX // 4 and _utf8_size(component) > COMPONENT_BYTES_MAX:
        return f"a component is longer than {COMPONENT_BYTES_MAX} bytes"
    return None


def _spelling_fault(component: str, key: str) -> str | None:
    if not key:
        return "a component is empty"
    if _FORBIDDEN.search(component):
        return "it holds a control character, a backslash, or what is not Unicode text"
    if key[-1] in ". ":
        if key in {".", ".."}:
            return "a component is `.` or `..`"
        return "a component ends in a dot or a space"
    if reserved := _RESERVED.match(key):
        if reserved.lastgroup == "drive":
            return "a component is a drive"
        return "a component is a device name reserved by Windows"
    if key.endswith(HIDDEN_SUFFIX):
        return f"a component ends in {HIDDEN_SUFFIX}, as only unfinished files of ours do"
    return None


def _utf8_size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _refusal(name: str, rule: str) -> HostileCollectionError:
    return HostileCollectionError(
        f"the collection is refused for its name {_shown(name)}: {rule}; nothing was written"
    )


def _folded_refusal(name: str, other: str) -> HostileCollectionError:
    return _refusal(name, f"the destination takes a component of it for {_shown(other)}")


def _shown(name: str) -> str:
    """The name for people: control, bidirectional and other invisible characters escaped."""
    if len(name) > _SHOWN_MAX:
        return f"{name[:_SHOWN_MAX]!r}... ({len(name)} characters)"
    return repr(name)

"""Tags and leases: the rows that keep blobs alive."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blobstore import catalog
from blobstore.api import Tag
from blobstore.errors import StoreDamagedError, TagNotFoundError
from blobstore.schema import Table, decode_tag, encode_tag

if TYPE_CHECKING:
    from blobstore.codec.hash import HashAndFormat
    from blobstore.database import ReadTxn, WriteTxn

TAG_NAME_SIZE_MAX = 511
"""Bytes of the longest tag name: what fits into a key."""


def tag_key(name: str) -> bytes:
    """The name as a key.

    Raises:
        ValueError: it is empty, too long, or not text that UTF-8 can hold.
    """
    key = name.encode()
    if not 1 <= len(key) <= TAG_NAME_SIZE_MAX:
        raise ValueError(f"a tag name has 1 to {TAG_NAME_SIZE_MAX} bytes, not {len(key)}")
    return key


def set_tag(txn: WriteTxn, name: str, target: HashAndFormat) -> None:
    txn.put(Table.TAGS, tag_key(name), encode_tag(target, catalog.next_protection(txn)))


def get_tag(txn: ReadTxn, name: str) -> HashAndFormat | None:
    value = txn.get(Table.TAGS, tag_key(name))
    return None if value is None else decode_tag(value)[0]


def delete_tag(txn: WriteTxn, name: str) -> None:
    if not txn.delete(Table.TAGS, tag_key(name)):
        raise TagNotFoundError(f"no tag {name!r}")


def rename_tag(txn: WriteTxn, old: str, new: str) -> None:
    target = get_tag(txn, old)
    if target is None:
        raise TagNotFoundError(f"no tag {old!r}")
    delete_tag(txn, old)
    set_tag(txn, new, target)


def list_tags(txn: ReadTxn, prefix: str) -> list[Tag]:
    rows = txn.scan(Table.TAGS, prefix=prefix.encode())
    try:
        return [Tag(key.decode(), decode_tag(value)[0]) for key, value in rows]
    except UnicodeDecodeError:
        raise StoreDamagedError("the name of a tag in the store is damaged") from None

"""How much of a mapped file is in this process's memory, and giving it back.

A page of the database that is read stays mapped, and every page that is touched brings its
neighbours along: keys are hashes, so that looking up some thousands of them maps all of a large
database. Those pages count as ours until the system is told that they are not needed.

Only Linux tells what is mapped; elsewhere nothing is done.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from pathlib import Path
from typing import NamedTuple

_IS_LINUX = sys.platform == "linux"
_STATM = Path("/proc/self/statm")
_MAPS = Path("/proc/self/maps")


class Mapping(NamedTuple):
    """Pages of a file, mapped to be read only and shared with all who map it."""

    address: int
    size: int


class Resident(NamedTuple):
    """Bytes in memory."""

    total: int
    shared: int
    """Of mapped files."""


class _Buffer(ctypes.Structure):
    """`Py_buffer`, as of PEP 3118."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.c_void_p),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_void_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


def resident() -> Resident:
    """What this process has in memory; zeros where that is not known."""
    if not _IS_LINUX:
        return Resident(0, 0)
    try:
        _, total, shared, *_ = _STATM.read_bytes().split()
    except OSError:
        return Resident(0, 0)
    return Resident(int(total) * mmap.PAGESIZE, int(shared) * mmap.PAGESIZE)


def mapping_of(view: memoryview, size: int) -> Mapping | None:
    """The mapping of exactly `size` bytes that a view looks into.

    None if there is none that may be given back. A page of it must come back from the file as it
    was, so nobody may have written to it: private, writable and anonymous ones are none of them.

    Raises:
        OSError: the system does not tell.
    """
    if not _IS_LINUX:
        return None
    address = _address_of(view)
    # As bytes: the names of files are anything.
    for line in _MAPS.read_bytes().splitlines():
        span, access, _, _, inode, *_ = line.split(None, 5)
        begin, _, end = span.partition(b"-")
        start, stop = int(begin, 16), int(end, 16)
        if start <= address < stop:
            fits = access == b"r--s" and int(inode) != 0 and stop - start == size
            return Mapping(start, size) if fits else None
    return None


def give_back(mapping: Mapping) -> None:
    """Take the pages of a mapping out of the memory of this process.

    They stay in the page cache, and whoever touches one gets it again, the same bytes: this is
    safe while others read. It must be certain that the mapping is still there: of memory that
    came to its place, **all that was written would be gone**.

    Raises:
        OSError: nothing was given back.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    address, size = ctypes.c_void_p(mapping.address), ctypes.c_size_t(mapping.size)
    if libc.madvise(address, size, mmap.MADV_DONTNEED):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _address_of(view: memoryview) -> int:
    """Where the first byte of a view is."""
    buffer = _Buffer()
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(view), ctypes.byref(buffer), 0)
    address: int | None = buffer.buf
    ctypes.pythonapi.PyBuffer_Release(ctypes.byref(buffer))
    return address or 0

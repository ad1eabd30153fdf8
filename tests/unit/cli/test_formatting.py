"""Numbers and names as people read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blobsync.cli.formatting import (
    format_bytes,
    format_count,
    format_duration,
    format_rate,
    printable,
)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (16 * 1024, "16.0 KiB"),
        (1536 * 1024, "1.5 MiB"),
        (1024**2 - 1, "1.0 MiB"),
        (1024**3, "1.0 GiB"),
        (5 * 1024**4, "5.0 TiB"),
        (2**64 - 1, "16.0 EiB"),
        (2**80, "1,048,576.0 EiB"),
        (512.7, "512 B"),
    ],
)
def test_bytes(count: float, text: str) -> None:
    assert format_bytes(count) == text


def test_rate() -> None:
    assert format_rate(210.34 * 1024**2) == "210.3 MiB/s"
    assert format_rate(0.0) == "0 B/s"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (0.44, "0.4 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1:00 min"),
        (125, "2:05 min"),
        (3599.6, "1:00:00 h"),
        (3723, "1:02:03 h"),
        (86399, "23:59:59 h"),
        (100 * 3600, "4 d 4 h"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_count() -> None:
    assert format_count(1, "file") == "1 file"
    assert format_count(0, "file") == "0 files"
    assert format_count(24389, "file") == "24,389 files"
    assert format_count(2, "entry", "entries") == "2 entries"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain.txt", "plain.txt"),
        ("with space", "with space"),
        ("schön/日本.txt", "schön/日本.txt"),
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("two\nlines\r", "two\\x0alines\\x0d"),
        ("tab\there", "tab\\x09here"),
        ("del\x7f", "del\\x7f"),
        ("gpj.\u202eexe", "gpj.\\u202eexe"),
        ("zero\u200bwidth", "zero\\u200bwidth"),
        ("line\u2028separator", "line\\u2028separator"),
        ("lone \udc80", "lone \\udc80"),
        ("tag \U000e0001", "tag \\U000e0001"),
        ("[bold]markup[/bold]", "[bold]markup[/bold]"),
    ],
)
def test_printable(name: str, shown: str) -> None:
    assert printable(name) == shown


@given(st.text(alphabet=st.characters()))
def test_nothing_that_acts_on_a_terminal_is_left(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert printable(shown) == shown

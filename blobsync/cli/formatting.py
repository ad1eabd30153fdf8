"""Numbers and foreign text as people read them: pure functions from values to one line."""

from __future__ import annotations

_BYTE_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def printable(text: str) -> str:
    """`text` with everything escaped that a terminal could act on or hide.

    Control characters (so terminal escapes, line ends and tabs), text direction marks, other
    invisible characters and lone surrogates become `\\xNN`, `\\uNNNN` or `\\UNNNNNNNN`.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(ord(char)) for char in text)


def _escaped(code: int) -> str:
    if code < 0x100:
        return f"\\x{code:02x}"
    if code < 0x10000:
        return f"\\u{code:04x}"
    return f"\\U{code:08x}"


def format_bytes(count: float) -> str:
    """`1,023 B`, `16.0 KiB`, `1.5 GiB`: one digit after the point from KiB on."""
    if count < 1024:
        return f"{int(count)} B"
    value = float(count)
    for unit in _BYTE_UNITS:
        value /= 1024
        # 1023.96 would be shown as 1024.0 of its unit.
        if value < 1023.95:
            return f"{value:.1f} {unit}"
    return f"{value:,.1f} {_BYTE_UNITS[-1]}"


def format_rate(bytes_per_s: float) -> str:
    """`210.3 MiB/s`."""
    return f"{format_bytes(bytes_per_s)}/s"


def format_duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `2:05 min`, `1:02:03 h`, `3 d 4 h`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    if minutes == 0:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    if hours == 0:
        return f"{minutes}:{rest:02} min"
    days, hours = divmod(hours, 24)
    if days == 0:
        return f"{hours}:{minutes:02}:{rest:02} h"
    return f"{days} d {hours} h"


def format_count(count: int, noun: str, plural: str = "") -> str:
    """`1 file`, `24,389 files`; `plural` where an `s` is not enough."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"

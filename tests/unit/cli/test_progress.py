"""What a display shows, and that it shows text only."""

from __future__ import annotations

import io
import re
import sys

import pytest

from blobstore import ImportProgress
from blobsync.cli.output import Output
from blobsync.cli.progress import (
    PLAIN_INTERVAL_S,
    LineDisplay,
    SilentDisplay,
    Status,
    display,
    fetch_status,
    import_status,
    share_status,
    ticking,
)
from blobsync.cli.rates import Pace
from blobsync.protocols.blobs import ProviderCounters
from blobsync.sync.events import FetchProgress

MIB = 1024**2


class FakeTerminal(io.StringIO):
    """A stderr that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_fetch_of_known_size() -> None:
    progress = FetchProgress(1, 3, MIB, 4 * MIB, MIB, "direct")
    status = fetch_status(progress, Pace(2 * MIB, 1.5))
    assert status == Status("1.0 MiB of 4.0 MiB  2.0 MiB/s  1.5 s left  1/3 files  direct", 0.25)


def test_a_fetch_of_unknown_size() -> None:
    progress = FetchProgress(1, 4, MIB, None, MIB, None)
    status = fetch_status(progress, Pace(None, None))
    assert status == Status("1.0 MiB  1/4 files", 0.25)


def test_a_fetch_of_nothing() -> None:
    status = fetch_status(FetchProgress(0, 0, 0, 0, 0, "relayed"), Pace(None, 0))
    assert status == Status("0 B of 0 B  0/0 files  relayed", 1.0)


def test_an_import() -> None:
    progress = ImportProgress(files_total=5, bytes_total=4 * MIB, files_done=1, bytes_done=MIB)
    assert import_status(progress) == Status("1.0 MiB of 4.0 MiB+  1/5 files+", None)
    progress.walked = True
    assert import_status(progress) == Status("1.0 MiB of 4.0 MiB  1/5 files", 0.25)


def test_a_share() -> None:
    counters = ProviderCounters(connections_open=1, requests=2, bytes_sent=MIB)
    assert share_status(counters, None).text == "1 connection  2 requests  1.0 MiB sent  0 B/s"
    counters.requests_refused = 3
    assert "  3 refused  " in share_status(counters, 5.0).text


def test_lines_are_sparse(capsys: pytest.CaptureFixture[str]) -> None:
    now_s = 0.0
    shown = LineDisplay("fetching", clock=lambda: now_s)
    for step in range(int(PLAIN_INTERVAL_S) * 3):
        now_s = float(step)
        shown.show(Status(f"step {step}", step / 100))
    assert capsys.readouterr().err == "fetching   10%  step 10\nfetching   20%  step 20\n"


def test_a_line_that_says_nothing_new_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    now_s = 0.0
    shown = LineDisplay("serving", clock=lambda: now_s)
    for step in range(5):
        now_s = step * PLAIN_INTERVAL_S
        shown.show(Status("idle\x1b", None))
    assert capsys.readouterr().err == "serving  idle\\x1b\n"


@pytest.mark.parametrize(("json", "quiet"), [(True, False), (False, True), (True, True)])
def test_no_display_with_json_or_quiet(
    monkeypatch: pytest.MonkeyPatch, json: bool, quiet: bool
) -> None:
    monkeypatch.setattr(sys, "stderr", FakeTerminal())
    with display(Output(json=json, quiet=quiet), "fetching") as shown:
        assert isinstance(shown, SilentDisplay)
        shown.show(Status("x", None))
    assert sys.stderr.getvalue() == ""  # type: ignore[attr-defined] - the fake from above


def test_lines_where_there_is_no_terminal() -> None:
    with display(Output(json=False, quiet=False), "fetching") as shown:
        assert isinstance(shown, LineDisplay)


@pytest.mark.parametrize("columns", [60, 120])
def test_a_terminal_gets_a_live_line_of_plain_text(
    monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    terminal = FakeTerminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", str(columns))
    with display(Output(json=False, quiet=False), "fetching") as shown:
        shown.show(Status("[red]a[/red] \x1b]0;t\x07 :smile:", 0.5))
        shown.show(Status("unknown", None))
    text = terminal.getvalue()
    assert "[red]a[/red] \\x1b]0;t\\x07 :smile:" in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)
    assert "\x07" not in text
    assert text.endswith("\x1b[?25h\r\x1b[1A\x1b[2K") or "\x1b[?25h" in text


async def test_a_tick_at_the_end_whatever_happens() -> None:
    ticks: list[int] = []
    async with ticking(lambda: ticks.append(1), interval_s=3600):
        pass
    assert ticks == [1]
    with pytest.raises(ExceptionGroup):
        async with ticking(lambda: ticks.append(1), interval_s=3600):
            raise RuntimeError("body")

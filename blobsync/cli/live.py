"""The live progress line of a terminal, drawn by rich."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, TextColumn
from rich.table import Column

from blobsync.cli.formatting import printable
from blobsync.cli.progress import Display, Status

if TYPE_CHECKING:
    from collections.abc import Generator

    from rich.progress import TaskID

BAR_WIDTH_MAX = 30

WIDTH_WITH_BAR = 90
"""Columns below which the bar gives its room to the text."""


class LiveDisplay(Display):
    """One line that is drawn anew with each status."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def show(self, status: Status) -> None:
        self._progress.update(
            self._task,
            total=None if status.fraction is None else 1.0,
            completed=status.fraction or 0.0,
            text=printable(status.text),
        )
        self._progress.refresh()


@contextmanager
def live_display(label: str, *, bar: bool) -> Generator[LiveDisplay]:
    """A live line on stderr, gone when this ends, whatever ends it."""
    console = Console(stderr=True, highlight=False, markup=False)
    columns: list[ProgressColumn] = [
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
    ]
    if bar and console.width >= WIDTH_WITH_BAR:
        columns.append(BarColumn(bar_width=BAR_WIDTH_MAX))
    text_column = Column(no_wrap=True, overflow="ellipsis")
    columns.append(TextColumn("{task.fields[text]}", markup=False, table_column=text_column))
    progress = Progress(
        *columns,
        console=console,
        transient=True,
        auto_refresh=False,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    with progress:
        yield LiveDisplay(progress, progress.add_task(label, total=None, text=""))

"""What is compared: a module a case, none of which knows another.

A case is a function from a `Setting` to its comparisons. It makes its data below the work folder
and says with whom it compares; rounds, medians and reports are not its business.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks import report
from benchmarks.harness import BenchmarkError, MissingRivalError, run_rounds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.data import WorkFolder
    from benchmarks.harness import Contestant


@dataclass(frozen=True, slots=True)
class Setting:
    """How and where a case runs."""

    pairs: int
    is_short: bool
    """Small data: does it work, rather than how fast is it."""
    has_all_rivals: bool
    """Also those that CI does without."""
    has_million: bool
    """The scaling series goes up to 1,000,000 files."""
    work: WorkFolder
    """In memory if it has room."""
    disk: WorkFolder
    """On a disk; nothing in it is removed before the end."""


def tell(text: str) -> None:
    """A line of progress."""
    print(text, flush=True)


def contestants_of(
    makers: Sequence[Callable[[], Contestant]],
) -> tuple[list[Contestant], list[str]]:
    """The programs that are here, and what is said of those that are not.

    Raises:
        BenchmarkError: one is missing in CI, and is not optional.
    """
    found: list[Contestant] = []
    missing: list[MissingRivalError] = []
    for make in makers:
        try:
            found.append(make())
        except MissingRivalError as error:
            missing.append(error)
            tell(f"skipped: {error}")
    if os.environ.get("CI") == "true" and not all(error.is_optional for error in missing):
        raise BenchmarkError("in CI every program to compare with must be there")
    return found, [str(error) for error in missing]


def compare(
    setting: Setting,
    case: str,
    sent: dict[str, Any],
    makers: Sequence[Callable[[], Contestant]],
    *,
    point: str = "",
    folder: WorkFolder | None = None,
) -> list[dict[str, Any]]:
    """Interleaved rounds of those that are here; the first maker is ours.

    Returns:
        One comparison; none if nobody is here.

    Args:
        point: which one of the case's comparisons this is.
        folder: where the runs happen, if not in `setting.work`.
    """
    work = folder or setting.work
    contestants, missing = contestants_of(makers)
    if not contestants:
        return []
    tell(f"{case} {point}".strip() + ": " + ", ".join(each.name for each in contestants))
    left_out: dict[str, str] = {}
    rounds = run_rounds(contestants, setting.pairs, work.run_folder, tell, left_out)
    missing += [f"{name}: {why}" for name, why in left_out.items()]
    contestants = [each for each in contestants if any(each.name in held for held in rounds)]
    result = report.case_result(
        case, sent, contestants, rounds, missing, setting.work.path, setting.disk.path
    )
    about = {
        "point": point,
        "is_short": setting.is_short,
        "folder": "in memory (tmpfs)" if work.in_memory else "on a disk",
    }
    return [result | about]

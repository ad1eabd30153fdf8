"""Writes the figures into docs/benchmarks.md: `python -m benchmarks.page`. None is typed by hand.

The page shows of each case the newest result in `benchmarks/results`; a short run counts only
while there is no full one.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from benchmarks import goals, plot, report
from benchmarks.machine import ROOT

if TYPE_CHECKING:
    from pathlib import Path

RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "benchmarks.md"

BEGIN = "<!-- figures: written by `python -m benchmarks.page`, not by hand -->\n"
END = "<!-- end of figures -->\n"


def newest(results: Path) -> list[dict[str, Any]]:
    """The comparisons of the newest result of each case, each with its `result`'s head."""
    chosen: dict[str, tuple[tuple[bool, str], list[dict[str, Any]]]] = {}
    for path in sorted(results.glob("*.json")):
        result = json.loads(path.read_text())
        if result.get("format") != report.FORMAT:
            continue
        rank = (not result["is_short"], result["date"])
        about = {key: result[key] for key in ("date", "is_short", "machine", "versions")}
        about["name"] = path.stem
        for held in report.by_case(result["comparisons"]):
            case = held[0]["case"]
            if case not in chosen or chosen[case][0] < rank:
                chosen[case] = rank, [each | {"result": about} for each in held]
    return [each for _, comparisons in chosen.values() for each in comparisons]


def block(comparisons: list[dict[str, Any]]) -> str:
    """What the page says between its two marks."""
    parts = [f"### Goals\n\n{goals.table(comparisons)}"]
    for name in dict.fromkeys(each["result"]["name"] for each in comparisons):
        held = [each for each in comparisons if each["result"]["name"] == name]
        parts.append(_source(held[0]["result"]))
        # One level below the page's own headings.
        parts += [
            "#" + report.case_tables(each, has_commands=False) for each in report.by_case(held)
        ]
    return "\n".join(parts)


def _source(about: dict[str, Any]) -> str:
    machine = about["machine"]
    short = " A short run: its figures say that it works, no more." if about["is_short"] else ""
    return (
        f"From `benchmarks/results/{about['name']}`: {about['date'][:10]}, commit"
        f" {about['versions']['commit']}, {machine['cpu']}, {machine['cores']} cores,"
        f" {machine['system']} {machine['kernel']}, load {machine['load_1min']} before the run."
        f"{short}\n"
    )


def parts(text: str) -> tuple[str, str, str]:
    """The page before, between and after the marks.

    Raises:
        ValueError: a mark is missing.
    """
    before, begin, rest = text.partition(BEGIN)
    inside, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("the page has no marks to write between")
    return before, inside, after


def update(results: Path, page: Path) -> None:
    """Write the block anew, and leave the rest of the page."""
    before, _, after = parts(page.read_text())
    page.write_text(f"{before}{BEGIN}\n{block(newest(results))}\n{END}{after}")


def main() -> None:
    """The page and its plots, from the results that are here."""
    update(RESULTS, PAGE)
    plot.draw_all(newest(RESULTS), plot.FOLDER)


if __name__ == "__main__":
    sys.exit(main())

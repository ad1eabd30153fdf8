"""The figures of docs/benchmarks.md are those of the results, and nobody typed one."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import page, report

MARKED = f"before\n{page.BEGIN}old\n{page.END}after\n"


def result(
    date: str, seconds: float, cases: list[str], *, is_short: bool = False
) -> dict[str, Any]:
    median = {"receive_wall_s": seconds}
    return {
        "format": report.FORMAT,
        "date": date,
        "is_short": is_short,
        "machine": {"cpu": "C", "cores": 2, "system": "S", "kernel": "K", "load_1min": "0.1"},
        "versions": {"commit": f"at {date}"},
        "comparisons": [
            {
                "case": case,
                "point": "",
                "sent": {"bytes": 1_000_000},
                "contestants": {"blobsync": {"version": "1", "commands": [], "median": median}},
                "ratios": {},
                "rounds": [{"blobsync": median}],
                "missing": [],
            }
            for case in cases
        ],
    }


def test_the_page_is_what_the_newest_results_give() -> None:
    _, inside, _ = page.parts(page.PAGE.read_text())
    assert inside == f"\n{page.block(page.newest(page.RESULTS))}\n", (
        "run `python -m benchmarks.page`"
    )


def test_of_each_case_the_newest_full_result_counts(tmp_path: Path) -> None:
    results: dict[str, dict[str, Any]] = {
        "1-all": result("2026-01-01", 1, ["file", "tree"]),
        "2-tree": result("2026-01-02", 2, ["tree"]),
        "3-short": result("2026-01-03", 3, ["file", "small"], is_short=True),
        "0-old": {"format": 1, "file": {}},
    }
    for name, content in results.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    found = {each["case"]: each["result"]["name"] for each in page.newest(tmp_path)}
    assert found == {"file": "1-all", "tree": "2-tree", "small": "3-short"}
    text = page.block(page.newest(tmp_path))
    assert "commit at 2026-01-02" in text
    assert "A short run" in text
    assert "### tree: 1,000,000 bytes" in text


def test_only_what_is_between_the_marks_changes(tmp_path: Path) -> None:
    (tmp_path / "all.json").write_text(json.dumps(result("2026-01-01", 1, ["file"])))
    target = tmp_path / "page.md"
    target.write_text(MARKED)
    page.update(tmp_path, target)
    before, inside, after = page.parts(target.read_text())
    assert (before, after) == ("before\n", "after\n")
    assert "old" not in inside
    assert "### Goals" in inside
    with pytest.raises(ValueError, match="no marks"):
        page.parts("no marks at all")

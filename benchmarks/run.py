"""Runs the benchmarks: `python -m benchmarks.run`. README.md beside this says how to read them."""

from __future__ import annotations

import argparse
import datetime
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import page, plot, report
from benchmarks.cases import (
    Setting,
    getters,
    hash,
    huge,
    ladder,
    micro,
    rescan,
    scaling,
    small,
    tell,
    transports,
    tree,
)
from benchmarks.cases import file as one_file
from benchmarks.cases import range as one_range
from benchmarks.data import disk_folder, work_folder
from benchmarks.harness import BenchmarkError, own_max_rss
from benchmarks.machine import ROOT, describe_machine, describe_versions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CASES: dict[str, Callable[[Setting], list[dict[str, Any]]]] = {
    "file": one_file.run,
    "huge": huge.run,
    "tree": tree.run,
    "tree-disk": tree.run_on_disk,
    "small": small.run,
    "rescan": rescan.run,
    "range": one_range.run,
    "getters": getters.run,
    "hash": hash.run,
    "micro": micro.run,
    "transports": transports.run,
    "ladder": ladder.run,
    "scaling-size": scaling.run_size,
    "scaling-files": scaling.run_files,
}

SHORT_CASES = ("file", "tree", "small", "rescan", "range", "hash", "micro", "transports")
"""What `--short` runs unless it is told: for CI, a minute and a half at most."""

PAIRS, PAIRS_SHORT = 5, 1

ROOM, ROOM_SHORT = 12 << 30, 1 << 30
"""Bytes that the work folder needs to be in memory."""

LOOPBACK_ONLY = "BLOBSYNC_BENCH_LOOPBACK_ONLY"
"""Set in the run that has been given a network of its own."""

RESULTS = ROOT / "benchmarks" / "results"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--short", action="store_true", help="small data, one round, for CI")
    parser.add_argument("--case", choices=CASES, action="append", help="only this; repeatable")
    parser.add_argument("--pairs", type=int, metavar="N", help="rounds of each case")
    parser.add_argument(
        "--rivals",
        choices=("all", "obligatory"),
        help="obligatory: only those that CI has (default with --short)",
    )
    parser.add_argument(
        "--million", action="store_true", help="scaling-files: up to 1,000,000 files"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="where results are written (benchmarks/results; nowhere with --short)",
    )
    parser.add_argument(
        "--work", type=Path, metavar="FOLDER", help="run there instead of in memory (/dev/shm)"
    )
    options = parser.parse_args(arguments)
    if options.pairs is not None and options.pairs < 1:
        parser.error("--pairs: at least 1")
    return options


def isolate(arguments: Sequence[str]) -> None:
    """Start over where only loopback can be reached, since sendme announces what it sends."""
    if os.environ.get(LOOPBACK_ONLY):
        return
    os.environ[LOOPBACK_ONLY] = "1"
    again = [sys.executable, "-m", "benchmarks.run", *arguments]
    tool = str(ROOT / "tools" / "loopback_only.py")
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, tool, *again])


def main(arguments: Sequence[str]) -> int:
    """Runs what the command line asks for; 1 if a program or a comparison failed."""
    options = parse(arguments)
    isolate(arguments)
    wanted = options.case or (SHORT_CASES if options.short else CASES)
    cases = [case for case in CASES if case in wanted]
    result: dict[str, Any] = {
        "format": report.FORMAT,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        # Where the folders of this machine are is nobody's business.
        "arguments": [
            "FOLDER" if each in {str(options.out), str(options.work)} else each
            for each in arguments
        ],
        "is_short": options.short,
        "machine": describe_machine(),
        "versions": describe_versions(),
        "comparisons": [],
    }
    out = options.out or (None if options.short else RESULTS)
    what = "all" if len(cases) == len(CASES) else "-".join(cases)
    name = f"{result['date'][:10]}-{'short-' * options.short}{what}"
    stem = report.free_stem(out, name) if out else None
    try:
        with (
            disk_folder(options.work) as disk,
            work_folder(options.work, room=ROOM_SHORT if options.short else ROOM) as work,
        ):
            setting = Setting(
                pairs=options.pairs or (PAIRS_SHORT if options.short else PAIRS),
                is_short=options.short,
                has_all_rivals=options.rivals == "all" or not (options.rivals or options.short),
                has_million=options.million,
                work=work,
                disk=disk,
            )
            result["work_folder"] = "memory (tmpfs)" if work.in_memory else "disk"
            tell(f"work folder: {work.path} ({result['work_folder']})")
            for case in cases:
                result["comparisons"] += CASES[case](setting)
                # The kernel counts a program's memory from the fork on (see `memory_peak`).
                result["harness_memory_peak"] = own_max_rss()
                if out and stem:
                    # A run is long: what has been measured stays if a later case fails.
                    report.write_results(out, stem, result, report.document(result), replaces=True)
    except BenchmarkError as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    print(f"\n{report.document(result)}")
    if out and stem:
        print(f"written: {out / stem}.json and .md")
    if out and out.resolve() == RESULTS:
        page.update(RESULTS, page.PAGE)
        plot.draw_all(page.newest(RESULTS), plot.FOLDER)
        print(f"written: {page.PAGE} and the plots beside it")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Runs the benchmarks: `python -m benchmarks.run`. README.md beside this says how to read them."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import os
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import micro, report
from benchmarks.data import copy_tree, make_file, work_folder
from benchmarks.e2e.blobsync_transfer import BlobsyncTransfer
from benchmarks.harness import BenchmarkError, MissingRivalError, max_rss, run_rounds
from benchmarks.machine import ROOT, describe_machine, describe_versions
from benchmarks.micro import store, trees, wire
from benchmarks.rivals.raw_stream import RawStream
from benchmarks.rivals.rsync import RsyncCopy
from benchmarks.rivals.sendme import SendmeTransfer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.data import WorkFolder
    from benchmarks.harness import Contestant

CASES = ("file", "tree", "micro")

LOOPBACK_ONLY = "BLOBSYNC_BENCH_LOOPBACK_ONLY"
"""Set in the run that has been given a network of its own."""


@dataclasses.dataclass(frozen=True, slots=True)
class Scale:
    """How much is sent, and how often."""

    file_bytes: int
    tree_files_min: int
    tree_files_max: int | None
    pairs: int
    room: int
    """Bytes that the work folder may need if it is in memory."""
    has_rsync: bool
    micro: micro.MicroSize


FULL = Scale(1 << 30, 20_000, None, 5, 8 << 30, has_rsync=True, micro=micro.FULL)
SHORT = Scale(64 << 20, 2_000, 2_000, 1, 1 << 30, has_rsync=False, micro=micro.SHORT)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--short", action="store_true", help="small data, one round, for CI")
    parser.add_argument("--case", choices=CASES, action="append", help="only this; repeatable")
    parser.add_argument("--pairs", type=int, metavar="N", help="rounds of each case")
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


def contestants_of(
    makers: Sequence[Callable[[], Contestant]],
) -> tuple[list[Contestant], list[str]]:
    """The programs that are here, and what is said of those that are not.

    Raises:
        BenchmarkError: one is missing in CI.
    """
    found: list[Contestant] = []
    missing: list[str] = []
    for make in makers:
        try:
            found.append(make())
        except MissingRivalError as error:
            missing.append(str(error))
    for each in missing:
        print(f"skipped: {each}")
    if missing and os.environ.get("CI") == "true":
        raise BenchmarkError("in CI every program to compare with must be there")
    return found, missing


def run_file(scale: Scale, pairs: int, work: WorkFolder) -> dict[str, Any]:
    """One file of random bytes."""
    path = work.path / "file.bin"
    make_file(path, scale.file_bytes)
    makers: list[Callable[[], Contestant]] = [
        lambda: BlobsyncTransfer(path),
        lambda: SendmeTransfer(path),
        lambda: RawStream(scale.file_bytes),
    ]
    contestants, missing = contestants_of(makers)
    rounds = run_rounds(contestants, pairs, work.run_folder, tell)
    return report.case_result(
        "file", {"bytes": scale.file_bytes}, contestants, rounds, missing, work.path
    )


def run_tree(scale: Scale, pairs: int, work: WorkFolder) -> dict[str, Any]:
    """A tree of real source files."""
    tree = copy_tree(
        work.path / "tree", files_min=scale.tree_files_min, files_max=scale.tree_files_max
    )
    makers: list[Callable[[], Contestant]] = [
        lambda: BlobsyncTransfer(tree.path),
        lambda: SendmeTransfer(tree.path),
    ]
    if scale.has_rsync:
        makers.append(lambda: RsyncCopy(tree.path))
    contestants, missing = contestants_of(makers)
    rounds = run_rounds(contestants, pairs, work.run_folder, tell)
    sent = {"files": tree.files, "folders": tree.folders, "bytes": tree.bytes}
    return report.case_result("tree", sent, contestants, rounds, missing, work.path)


def run_micro(size: micro.MicroSize, folder: Path) -> list[micro.Figure]:
    """Every function once more than `repeats` says."""
    return [
        *trees.measure(size, folder),
        *wire.measure(size),
        *store.measure(size, folder),
    ]


def tell(text: str) -> None:
    """A line of progress."""
    print(text, flush=True)


def main(arguments: Sequence[str]) -> int:
    """Runs what the command line asks for; 1 if a program or a comparison failed."""
    options = parse(arguments)
    cases = [case for case in CASES if case in (options.case or CASES)]
    if cases != ["micro"]:
        isolate(arguments)
    scale = SHORT if options.short else FULL
    pairs = options.pairs or scale.pairs
    machine, versions = describe_machine(), describe_versions()
    result: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "arguments": list(arguments),
        "machine": machine,
        "versions": versions,
    }
    tables: list[str] = []
    try:
        with work_folder(options.work, room=scale.room) as work:
            result["work_folder"] = "memory (tmpfs)" if work.in_memory else "disk"
            tell(f"work folder: {work.path} ({result['work_folder']})")
            for case in cases:
                if case == "micro":
                    figures = run_micro(scale.micro, work.path)
                    result["micro"] = [dataclasses.asdict(figure) for figure in figures]
                    tables.append(report.micro_table(figures))
                else:
                    run_case = run_file if case == "file" else run_tree
                    result[case] = run_case(scale, pairs, work)
                    # The kernel counts a program's memory from the fork on, so it says no less.
                    own = resource.getrusage(resource.RUSAGE_SELF)
                    result[case]["harness_memory_peak"] = max_rss(own)
                    tables.append(report.case_table(result[case]))
    except BenchmarkError as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    head = report.head(machine, versions, result["work_folder"])
    table = "\n".join([head, *tables])
    print(f"\n{table}")
    out = options.out or (None if options.short else ROOT / "benchmarks" / "results")
    if out is not None:
        stem = f"{result['date'][:10]}-{'-'.join(cases)}"
        for path in report.write_results(out, stem, result, table):
            print(f"written: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

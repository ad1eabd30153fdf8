"""A result as JSON for machines and as a table for people."""

from __future__ import annotations

import itertools
import json
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.harness import medians, ratios
from benchmarks.machine import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.harness import Contestant, Measures, Rounds
    from benchmarks.micro import Figure

MEASURES = {
    "add_wall_s": "add s",
    "add_cpu_s": "add CPU s",
    "receive_wall_s": "receive s",
    "receive_cpu_s": "receive CPU s",
    "cpu_s": "all CPU s",
    "provider_memory": "provider MiB",
    "getter_memory": "getter MiB",
}
"""Columns of the table: our name of a measure and what it is called there."""


def case_result(
    name: str,
    sent: dict[str, Any],
    contestants: Sequence[Contestant],
    rounds: Rounds,
    missing: Sequence[str],
    work: Path,
) -> dict[str, Any]:
    """One case with all of its runs. `ratios` are rival / ours, the median over the rounds."""
    ours, *rivals = contestants
    return {
        "case": name,
        "sent": sent,
        "contestants": {
            each.name: {
                "version": each.version,
                "commands": [portable(command, work) for command in each.commands],
                "median": medians(rounds, each.name),
            }
            for each in contestants
        },
        "ratios": {each.name: ratios(rounds, ours.name, each.name) for each in rivals},
        "rounds": rounds,
        "missing": list(missing),
    }


def portable(command: Sequence[str], work: Path) -> str:
    """A command line without the folders of this machine: `WORK`, the clone as `.`, home as `~`."""
    names = {str(work): "WORK", str(ROOT): ".", str(Path.home()): "~"}
    parts: list[str] = []
    for part in command:
        for folder, name in names.items():
            if part.startswith(folder + os.sep):
                parts.append(name + shlex.quote(part[len(folder) :]))
                break
        else:
            parts.append(shlex.quote(part))
    return " ".join(parts)


def case_table(result: dict[str, Any]) -> str:
    """One case as Markdown: medians of each contestant, then rival / ours."""
    sent = result["sent"]
    what = f"{sent['files']:,} files in {sent['folders']:,} folders, " if "files" in sent else ""
    count = len(result["rounds"])
    lines = [
        f"## {result['case']}: {what}{sent['bytes']:,} bytes",
        "",
        f"Medians of {count} interleaved round{'s' * (count > 1)}; the factors are rival / ours,"
        " the median over the rounds.",
        "",
        "| who | MB/s received | " + " | ".join(MEASURES.values()) + " |",
        "|---|---|" + "---|" * len(MEASURES),
    ]
    for name, contestant in result["contestants"].items():
        median = contestant["median"]
        megabytes = sent["bytes"] / median["receive_wall_s"] / 1e6
        lines.append(f"| {name} | {megabytes:.0f} | " + " | ".join(_cells(median)) + " |")
    for name, factors in result["ratios"].items():
        factor = factors["receive_wall_s"]
        cells = [f"{factors[key]:.2f} x" if key in factors else "-" for key in MEASURES]
        lines.append(f"| {name} / ours | {1 / factor:.2f} x | " + " | ".join(cells) + " |")
    lines += ["", "Commands:", ""]
    for name, contestant in result["contestants"].items():
        lines.append(f"- {name}: {contestant['version']}")
        lines += [f"    - `{command}`" for command in contestant["commands"]]
    lines += [f"- not compared: {each}" for each in result["missing"]]
    return "\n".join(lines) + "\n"


def _cells(measures: Measures) -> list[str]:
    cells: list[str] = []
    for key in MEASURES:
        value = measures.get(key)
        if value is None:
            cells.append("-")
        elif key.endswith("_memory"):
            cells.append(f"{value / (1 << 20):.0f}")
        else:
            cells.append(f"{value:.2f}")
    return cells


def micro_table(figures: Sequence[Figure]) -> str:
    """The functions as Markdown."""
    lines = ["## micro: one function at a time", "", "| what | rate |", "|---|---|"]
    for figure in figures:
        shown = f"{figure.value:.2f}" if figure.value < 100 else f"{figure.value:,.0f}"
        lines.append(f"| {figure.name} | {shown} {figure.unit} |")
    return "\n".join(lines) + "\n"


def head(machine: dict[str, Any], versions: dict[str, str], work: str) -> str:
    """Where and with what it was measured, as Markdown."""
    memory = f"{machine['memory_bytes'] / (1 << 30):.0f} GiB"
    system = f"{machine['system']} {machine['kernel']}"
    listed = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {memory}, {system};"
        f" load {machine['load_1min']} before the run; work folder: {work}.\n\n"
        f"Versions: {listed}.\n"
    )


def write_results(folder: Path, stem: str, result: dict[str, Any], table: str) -> list[Path]:
    """`<stem>.json` and `<stem>.md`, or `<stem>-2` and so on: no earlier run is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    name = stem
    for number in itertools.count(2):
        if not (folder / f"{stem}.json").exists():
            break
        stem = f"{name}-{number}"
    json_path, table_path = folder / f"{stem}.json", folder / f"{stem}.md"
    json_path.write_text(json.dumps(result, indent=1) + "\n")
    table_path.write_text(table)
    return [json_path, table_path]

"""A result as JSON for machines and as a table for people."""

from __future__ import annotations

import itertools
import json
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import goals
from benchmarks.harness import medians, ratios
from benchmarks.machine import ROOT
from benchmarks.micro import Figure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.harness import Contestant, Measures, Rounds

FORMAT = 2
"""Of the JSON. Format 1 had each case under its name, and no points."""

MEASURES = {
    "add_wall_s": "add s",
    "add_cpu_s": "add CPU s",
    "receive_wall_s": "receive s",
    "receive_cpu_s": "receive CPU s",
    "cpu_s": "all CPU s",
    "rescan_wall_s": "rescan s",
    "rescan_cpu_s": "rescan CPU s",
    "hash_wall_s": "hash s",
    "hash_cpu_s": "hash CPU s",
    "wire_bytes": "UDP payload bytes",
    "wire_ip_bytes": "IP bytes",
    "provider_memory": "provider MiB",
    "provider_anon": "anonymous",
    "getter_memory": "getter MiB",
    "getter_anon": "anonymous",
    "rescan_memory": "peak MiB",
    "rescan_anon": "anonymous",
}
"""Columns of the table, if somebody has them: our name of a measure and what it is called there."""


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
            # As in `--home=FOLDER`.
            inside = part
            for folder, name in names.items():
                inside = inside.replace(folder + os.sep, name + os.sep)
            parts.append(shlex.quote(inside))
    return " ".join(parts)


def case_table(result: dict[str, Any], *, has_commands: bool = True) -> str:
    """One comparison as Markdown: medians of each contestant, then rival / ours."""
    if "figures" in result:
        return micro_table([Figure(**figure) for figure in result["figures"]])
    lines = [f"## {title(result)}", "", f"{how_measured(result)}", "", *_figures(result)]
    if has_commands:
        lines += ["", "Commands:", ""]
        for name, contestant in result["contestants"].items():
            lines.append(f"- {name}: {contestant['version']}")
            lines += [f"    - `{command}`" for command in contestant["commands"]]
    elif result["missing"]:
        lines.append("")
    lines += [f"- not compared: {each}" for each in result["missing"]]
    return "\n".join(lines) + "\n"


def title(result: dict[str, Any]) -> str:
    """The case, which one of its comparisons, and what was sent."""
    sent = result["sent"]
    what = f"{sent['files']:,} files in {sent['folders']:,} folders, " if "files" in sent else ""
    what += f"{sent['bytes']:,} bytes"
    if "getters" in sent:
        what += f" to each of {sent['getters']} getters"
    if "range_bytes" in sent:
        what = f"{sent['range_bytes']:,} bytes out of {what}"
    point = result.get("point", "")
    return f"{result['case']}{f', {point}' if point else ''}: {what}"


def how_measured(result: dict[str, Any]) -> str:
    """How many rounds, where, and what the factors are."""
    count = len(result["rounds"])
    text = f"Medians of {count} interleaved round{'s' * (count > 1)}"
    if "folder" in result:
        text += f", received in {result['folder']}"
    if result["ratios"]:
        text += "; the factors are rival / ours, the median over the rounds"
    return text + "."


def _figures(result: dict[str, Any]) -> list[str]:
    """The lines of the table."""
    sent, contestants = result["sent"], result["contestants"]
    shown = [key for key in MEASURES if any(key in each["median"] for each in contestants.values())]
    has_rate = "receive_wall_s" in shown and "range_bytes" not in sent
    headings = [MEASURES[key] for key in shown]
    if has_rate:
        headings.insert(0, "MB/s received")
    lines = ["| who | " + " | ".join(headings) + " |", "|---|" + "---|" * len(headings)]
    for name, contestant in contestants.items():
        median = contestant["median"]
        cells = [_cell(key, median.get(key)) for key in shown]
        if has_rate:
            cells.insert(0, f"{megabytes_per_s(sent, median):.0f}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    for name, factors in result["ratios"].items():
        cells = [f"{factors[key]:.2f} x" if key in factors else "-" for key in shown]
        if has_rate:
            cells.insert(0, f"{1 / factors['receive_wall_s']:.2f} x")
        lines.append(f"| {name} / ours | " + " | ".join(cells) + " |")
    return lines


def megabytes_per_s(sent: dict[str, Any], median: Measures) -> float:
    """What all getters received together, 10^6 bytes a second."""
    return sent["bytes"] * sent.get("getters", 1) / median["receive_wall_s"] / 1e6


def _cell(key: str, value: float | None) -> str:
    if value is None:
        return "-"
    if key.endswith("_bytes"):
        return f"{value:,.0f}"
    if key.endswith(("_memory", "_anon")):
        return f"{value / (1 << 20):.0f}"
    return f"{value:.2f}"


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


def document(result: dict[str, Any]) -> str:
    """A whole result as Markdown: where it was measured, the goals, each comparison."""
    parts = [head(result["machine"], result["versions"], result["work_folder"])]
    if result["is_short"]:
        parts.append("A short run, of small data: its figures say that it works, no more.\n")
    parts.append(f"## Goals\n\n{goals.table(result['comparisons'])}")
    parts += [case_table(comparison) for comparison in result["comparisons"]]
    return "\n".join(parts)


def free_stem(folder: Path, stem: str) -> str:
    """`<stem>`, or `<stem>-2` and so on: no earlier run is replaced."""
    name = stem
    for number in itertools.count(2):
        if not (folder / f"{stem}.json").exists():
            break
        stem = f"{name}-{number}"
    return stem


def write_results(
    folder: Path, stem: str, result: dict[str, Any], text: str, *, replaces: bool = False
) -> list[Path]:
    """`<stem>.json` and `.md`; under the next free name, unless it `replaces` what it wrote."""
    folder.mkdir(parents=True, exist_ok=True)
    if not replaces:
        stem = free_stem(folder, stem)
    json_path, text_path = folder / f"{stem}.json", folder / f"{stem}.md"
    json_path.write_text(json.dumps(result, indent=1) + "\n")
    text_path.write_text(text)
    return [json_path, text_path]

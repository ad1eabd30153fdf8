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
    "send_wall_s": "send s",
    "send_cpu_s": "send CPU s",
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
    disk: Path | None = None,
) -> dict[str, Any]:
    """One case with all of its runs. `ratios` are rival / ours, the median over the rounds."""
    ours, *rivals = contestants
    return {
        "case": name,
        "sent": sent,
        "contestants": {
            each.name: {
                "version": each.version,
                "commands": [portable(command, work, disk) for command in each.commands],
                "median": medians(rounds, each.name),
            }
            for each in contestants
        },
        "ratios": {each.name: ratios(rounds, ours.name, each.name) for each in rivals},
        "rounds": rounds,
        "missing": list(missing),
    }


def portable(command: Sequence[str], work: Path, disk: Path | None = None) -> str:
    """A command line without the folders of this machine.

    The work folders are `WORK` and `DISK`, the clone is `.`, home is `~`.
    """
    names = {str(work): "WORK", str(ROOT): ".", str(Path.home()): "~"}
    if disk is not None:
        # Before the clone, which may hold it.
        names = {str(disk): "DISK"} | names
    parts: list[str] = []
    for part in command:
        for folder, name in names.items():
            if part == folder or part.startswith(folder + os.sep):
                rest = part[len(folder) :]
                parts.append(name + (shlex.quote(rest) if rest else ""))
                break
        else:
            # As in `--home=FOLDER`.
            inside = part
            for folder, name in names.items():
                inside = inside.replace(folder, name)
            parts.append(shlex.quote(inside))
    return " ".join(parts)


def case_table(result: dict[str, Any], *, has_commands: bool = True) -> str:
    """One comparison as Markdown; see `case_tables`."""
    return case_tables([result], has_commands=has_commands)


def case_tables(results: Sequence[dict[str, Any]], *, has_commands: bool = True) -> str:
    """The comparisons of one case as Markdown: medians of each contestant, then rival / ours."""
    if "figures" in results[0]:
        return micro_table([Figure(**figure) for each in results for figure in each["figures"]])
    lines = [f"## {title(results)}", "", how_measured(results), "", *_figures(results)]
    if has_commands:
        lines += ["", "Commands:", ""]
        for each in results:
            if "link" in each["sent"]:
                lines.append(f"- link, {each['point']}: `{each['sent']['link']}`")
        for name, contestant in results[-1]["contestants"].items():
            lines.append(f"- {name}: {contestant['version']}")
            lines += [f"    - `{command}`" for command in contestant["commands"]]
    missing = dict.fromkeys(missing for each in results for missing in each["missing"])
    if missing and not has_commands:
        lines.append("")
    lines += [f"- not compared: {each}" for each in missing]
    return "\n".join(lines) + "\n"


def title(results: Sequence[dict[str, Any]]) -> str:
    """The case, and what was sent if it is the same in all comparisons."""
    case, sent = results[0]["case"], results[0]["sent"]
    if any(each["sent"]["bytes"] != sent["bytes"] for each in results):
        return case
    what = f"{sent['files']:,} files in {sent['folders']:,} folders, " if "files" in sent else ""
    what += f"{sent['bytes']:,} bytes"
    if "getters" in sent:
        what += f" to each of {sent['getters']} getters"
    if "range_bytes" in sent:
        what = f"{sent['range_bytes']:,} bytes out of {what}"
    return f"{case}: {what}"


def how_measured(results: Sequence[dict[str, Any]]) -> str:
    """How many rounds, where, and what the factors are."""
    count = len(results[0]["rounds"])
    text = f"Medians of {count} interleaved round{'s' * (count > 1)}"
    if "folder" in results[0]:
        text += f", run {results[0]['folder']}"
    if results[0]["ratios"]:
        text += "; the factors are rival / ours, the median over the rounds"
    return text + "."


def _figures(results: Sequence[dict[str, Any]]) -> list[str]:
    """The lines of the table; the first cell names the point if there are several."""
    medians_of_all = [
        contestant["median"] for each in results for contestant in each["contestants"].values()
    ]
    shown = [key for key in MEASURES if any(key in median for median in medians_of_all)]
    has_rate = "receive_wall_s" in shown and "wire_bytes" not in shown
    headings = ["who", *(["MB/s received"] if has_rate else []), *(MEASURES[key] for key in shown)]
    has_points = len(results) > 1
    if has_points:
        headings.insert(0, "what")
    lines = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    for each in results:
        point = [each["point"]] if has_points else []
        for name, contestant in each["contestants"].items():
            median = contestant["median"]
            rate = [_rate(megabytes_per_s(each["sent"], median))] if has_rate else []
            cells = [*point, name, *rate, *(_cell(key, median.get(key)) for key in shown)]
            lines.append("| " + " | ".join(cells) + " |")
        for name, factors in each["ratios"].items():
            rate = [f"{1 / factors['receive_wall_s']:.2f} x"] if has_rate else []
            cells = [f"{factors[key]:.2f} x" if key in factors else "-" for key in shown]
            lines.append("| " + " | ".join([*point, f"{name} / ours", *rate, *cells]) + " |")
    return lines


def by_case(comparisons: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The comparisons of each case together, in their order."""
    held: dict[str, list[dict[str, Any]]] = {}
    for each in comparisons:
        held.setdefault(each["case"], []).append(each)
    return list(held.values())


def _rate(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


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
    parts += [case_tables(held) for held in by_case(result["comparisons"])]
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

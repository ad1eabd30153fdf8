"""Plots of a result as SVG: `python -m benchmarks.plot RESULT.json [FOLDER]`.

They stand in light and in dark pages: no background, and colours of the text that follow what the
reader prefers. The colours of the series are those of Okabe and Ito, which people who see colours
differently can tell apart; each bar carries its number too.
"""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pygal  # pyright: ignore[reportMissingTypeStubs]  # it has no types; see `_chart`
from pygal.style import Style  # pyright: ignore[reportMissingTypeStubs]

from benchmarks.machine import ROOT
from benchmarks.report import megabytes_per_s

if TYPE_CHECKING:
    from collections.abc import Sequence

# pygal leaves a finder of an old kind, for plugins that nobody here has: Python warns of it at each
# import from then on.
sys.meta_path[:] = [each for each in sys.meta_path if type(each).__name__ != "PluginImportFixer"]

FOLDER = ROOT / "docs" / "benchmarks"

COLORS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c8c8c")

STYLE = {
    "background": "transparent",
    "plot_background": "transparent",
    "foreground": "#444444",
    "foreground_strong": "#222222",
    "foreground_subtle": "#9a9a9a",
    "opacity": "1",
    "colors": COLORS,
    "font_family": "sans-serif",
    "label_font_size": 13,
    "major_label_font_size": 13,
    "legend_font_size": 14,
    "title_font_size": 17,
    "value_font_size": 11,
}

DARK = """inline:
@media (prefers-color-scheme: dark) {
  #chart-plot text, #chart-plot .title, #chart-plot .legends .legend text, #chart-plot .axis text,
  #chart-plot .axis.x text, #chart-plot .axis.y text, #chart-plot .text-overlay text {
    fill: #dddddd !important
  }
  #chart-plot .axis .line, #chart-plot .axis .guide.line, #chart-plot .axis .major.guide.line {
    stroke: #888888
  }
}
#chart-plot .axis .guide.line { stroke-width: .6 }
#chart-plot .series .line { stroke-width: 2 }
"""

CSS = ("file://style.css", "file://graph.css", DARK)

WIDTH, HEIGHT = 960, 480

MIB = 1 << 20

AMOUNTS = {"bytes": "size of the file", "files": "number of files"}

SIZES = {1 << 10: "KiB", 1 << 20: "MiB", 1 << 30: "GiB"}


NO_TRANSFERS = ("ladder", "transports")
"""Cases that the plots of factors leave out: one has a plot of its own, one has other rivals."""


def draw_all(comparisons: Sequence[dict[str, Any]], folder: Path) -> list[Path]:
    """Draw what these comparisons hold; returns the files."""
    drawn = {
        "receive.svg": factors(comparisons, "receive_wall_s", "Time to receive"),
        "cpu.svg": factors(comparisons, "receive_cpu_s", "CPU time of both ends to receive"),
        "scaling-size.svg": scaling(comparisons, "scaling-size", "bytes"),
        "scaling-files.svg": scaling(comparisons, "scaling-files", "files"),
        "memory-size.svg": memory(comparisons, "scaling-size", "bytes"),
        "memory-files.svg": memory(comparisons, "scaling-files", "files"),
        "ladder.svg": ladder(comparisons),
    }
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    for name, text in drawn.items():
        if text is not None:
            (folder / name).write_text(text)
            paths.append(folder / name)
    return paths


def factors(comparisons: Sequence[dict[str, Any]], measure: str, title: str) -> str | None:
    """Bars of rival / ours: a group a case, a bar a rival."""
    rows = [
        (
            each["case"],
            {name: found[measure] for name, found in each["ratios"].items() if measure in found},
        )
        for each in comparisons
        if "ratios" in each and each["case"] not in NO_TRANSFERS
    ]
    rows = [(case, values) for case, values in rows if values]
    if not rows:
        return None
    rivals = list(dict.fromkeys(name for _, values in rows for name in values))
    chart = _chart(
        "Bar",
        title=f"{title}: rival / ours (above 1 we are better)",
        y_title="times ours (log)",
        logarithmic=True,
        # Where bars begin: who needs less than we do is below.
        zero=1,
        print_values=True,
        print_values_position="top",
        value_formatter="{:.2g}".format,
        y_labels=ticks([value for _, values in rows for value in values.values()]),
    )
    chart.x_labels = [case for case, _ in rows]
    for rival in rivals:
        chart.add(rival, [values.get(rival) for _, values in rows])
    return _render(chart)


def scaling(comparisons: Sequence[dict[str, Any]], case: str, amount: str) -> str | None:
    """Seconds against the amount, both logarithmic: a straight line of slope 1 is linear cost."""
    series = {
        "add, wall": "add_wall_s",
        "add, CPU": "add_cpu_s",
        "receive, wall": "receive_wall_s",
        "receive, CPU of both": "receive_cpu_s",
    }
    return _lines(
        comparisons,
        case,
        amount,
        series,
        f"Time by {AMOUNTS[amount]}",
        "seconds (log)",
        divisor=1.0,
    )


def memory(comparisons: Sequence[dict[str, Any]], case: str, amount: str) -> str | None:
    """Peaks of memory against the amount."""
    series = {
        "provider, resident": "provider_memory",
        "provider, anonymous": "provider_anon",
        "getter, resident": "getter_memory",
        "getter, anonymous": "getter_anon",
    }
    return _lines(
        comparisons,
        case,
        amount,
        series,
        f"Peak memory by {AMOUNTS[amount]}",
        "MiB (log)",
        divisor=MIB,
    )


def _lines(
    comparisons: Sequence[dict[str, Any]],
    case: str,
    amount: str,
    series: dict[str, str],
    title: str,
    y_title: str,
    *,
    divisor: float,
) -> str | None:
    held = [each for each in comparisons if each["case"] == case]
    if len(held) < 2:
        return None
    amounts = [each["sent"][amount] for each in held]
    chart = _chart(
        "XY",
        title=title,
        x_title=f"{AMOUNTS[amount]} (log)",
        y_title=y_title,
        logarithmic=True,
        dots_size=4,
        x_labels=amounts,
        xrange=(min(amounts) / 1.5, max(amounts) * 1.5),
        x_value_formatter=format_bytes if amount == "bytes" else "{:,.0f}".format,
        value_formatter="{:.3g}".format,
    )
    medians = [each["contestants"]["blobsync"]["median"] for each in held]
    drawn = {
        name: [
            (each, median[measure] / divisor)
            for each, median in zip(amounts, medians, strict=True)
            if median.get(measure)
        ]
        for name, measure in series.items()
    }
    chart.y_labels = ticks([value for points in drawn.values() for _, value in points])
    for name, points in drawn.items():
        chart.add(name, points)
    return _render(chart)


def ladder(comparisons: Sequence[dict[str, Any]]) -> str | None:
    """Bars of MB/s: a group a link, a bar a program."""
    held = [each for each in comparisons if each["case"] == "ladder"]
    if not held:
        return None
    rates = {
        name: [
            megabytes_per_s(each["sent"], each["contestants"][name]["median"])
            if name in each["contestants"]
            else None
            for each in held
        ]
        for name in held[0]["contestants"]
    }
    marks = ticks([rate for each in rates.values() for rate in each if rate is not None])
    chart = _chart(
        "Bar",
        title="One file over a link of 1 Gbit/s, by round trip and loss",
        y_title="MB/s received (log)",
        logarithmic=True,
        zero=marks[0],
        y_labels=marks,
        print_values=True,
        print_values_position="top",
        value_formatter="{:.3g}".format,
    )
    chart.x_labels = [each["point"] for each in held]
    for name, values in rates.items():
        chart.add(name, values)
    return _render(chart)


def ticks(values: Sequence[float]) -> list[float]:
    """1, 2 and 5 of each power of ten that the values need, and one more at both ends."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    marks = [digit * 10.0**power for power in range(low, high + 1) for digit in (1, 2, 5)]
    below = [mark for mark in marks if mark <= min(values)]
    above = [mark for mark in marks if mark >= max(values)]
    return [mark for mark in marks if below[-1] <= mark <= above[0]]


def format_bytes(value: float) -> str:
    """`10 MiB`: the largest unit that leaves at least 1."""
    for size, unit in reversed(SIZES.items()):
        if value >= size:
            return f"{value / size:g} {unit}"
    return f"{value:g} B"


def _chart(kind: str, **options: Any) -> Any:
    """A chart of pygal with our looks. It has no types, so from here on it is `Any`."""
    chart = getattr(cast("Any", pygal), kind)(
        style=cast("Any", Style)(**STYLE),
        css=CSS,
        # Nothing may be loaded from elsewhere.
        js=(),
        width=WIDTH,
        height=HEIGHT,
        truncate_legend=-1,
        truncate_label=-1,
        show_y_guides=True,
        **options,
    )
    # Names in the file; by default they differ from run to run.
    chart.uuid = "plot"
    return chart


def _render(chart: Any) -> str:
    """SVG without the script that pygal puts into it."""
    text = str(chart.render(is_unicode=True))
    return re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL) + "\n"


def main(arguments: Sequence[str]) -> int:
    """Draws the plots of one result."""
    if not 1 <= len(arguments) <= 2:
        print(__doc__)
        return 2
    result = json.loads(Path(arguments[0]).read_text())
    folder = Path(arguments[1]) if len(arguments) > 1 else FOLDER
    for path in draw_all(result["comparisons"], folder):
        print(f"written: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

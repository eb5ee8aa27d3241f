"""Write measurements as JSON, Markdown and a figure."""

import dataclasses
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from avsdn_tf.report.figures import INK, LINES, MUTED, STYLE, VALIDATION
from experiments.markdown import to_table


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Measurements of programs that do the same work.

    Attributes:
        title: Description of the work.
        unit: Unit of the values.
        values: Value of each turn (repetition), by program name. The first program is
            the baseline.
        less_is_better: Whether smaller values are better.
        note: A remark for the reader.
    """

    title: str
    unit: str
    values: Mapping[str, Sequence[float]]
    less_is_better: bool = True
    note: str = ""

    @property
    def medians(self) -> dict[str, float]:
        """The median of each program's turns."""
        return {name: statistics.median(v) for name, v in self.values.items()}

    @property
    def ratios(self) -> dict[str, float]:
        """Ratio of each program's median to the baseline's, inverted if less is better.

        Above 1, the program is better than the baseline.
        """
        first, *_ = self.medians.values()
        return {
            name: first / median if self.less_is_better else median / first
            for name, median in self.medians.items()
        }

    def to_json(self) -> dict[str, Any]:
        """Return fields, medians and ratios as a JSON-ready dictionary."""
        derived = {"medians": self.medians, "ratios": self.ratios}
        return {**dataclasses.asdict(self), **derived}

    def to_markdown(self) -> str:
        """Return the measurements as a section of a Markdown page."""
        rows = [["", self.unit, "range", "ratio"]]
        for name, values in self.values.items():
            spread = f"{_number(min(values))} to {_number(max(values))}"
            ratio = f"{self.ratios[name]:.2f}"
            rows.append([name, _number(self.medians[name]), spread, ratio])
        note = [self.note, ""] if self.note else []
        return "\n".join([f"## {self.title}", "", *to_table(rows), "", *note])


def to_markdown(header: Mapping[str, Any], comparisons: Sequence[Comparison]) -> str:
    """Return a Markdown page with the machine and all comparisons."""
    machine = header["machine"]
    packages = ", ".join(f"{n} {v}" for n, v in machine["versions"].items())
    lines = [
        f"# Benchmark: {', '.join(header['parts'])} ({header['dataset']})",
        "",
        "```console",
        header["command"],
        "```",
        "",
        f"{machine['cores']} cores of {machine['processor']}, "
        f"{machine['memory_gb']:g} GB. Measured {machine['code']}. {packages}.",
        "",
        "Every program ran in its own process with as many threads as cores, in "
        f"{header['repeats']} turns. Columns: median and range of the turns, and ratio "
        "to the first program's median (above 1 is better). If a heading names no data "
        "set, features and weights are random: speed depends on shapes alone. bfloat16 "
        "is measured if the processor supports it.",
        *(["", f"{header['disclaimer']}."] if header["disclaimer"] else []),
        "",
        "![Ratio of each program to the first](benchmark.png)",
        "",
    ]
    return "\n".join([*lines, *(each.to_markdown() for each in comparisons)])


@mpl.rc_context(STYLE)
def draw(comparisons: Sequence[Comparison]) -> Figure:
    """Draw the ratio of each program."""
    heights = [1 + len(each.values) for each in comparisons]
    figure = Figure(figsize=(8, 0.3 * sum(heights) + 0.3), layout="constrained")
    all_axes = figure.subplots(len(heights), squeeze=False, height_ratios=heights)
    for axes, each in zip(all_axes[:, 0], comparisons, strict=True):
        names, ratios = list(each.ratios), list(each.ratios.values())
        # Variants of the baseline, named "BASELINE, VARIANT", are also grey.
        programs = [name.split(",")[0] for name in names]
        colors = [LINES if name == programs[0] else VALIDATION for name in programs]
        bars = axes.barh(range(len(names)), ratios, color=colors, height=0.7)
        axes.bar_label(
            bars,
            [
                f"{each.ratios[name]:.2f}   {_number(median)} {each.unit}"
                for name, median in each.medians.items()
            ],
            padding=4,
            color=INK,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )
        axes.axvline(1, color=MUTED, linewidth=0.8, zorder=0)
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(axis="y", labelcolor=INK, length=0)
        axes.invert_yaxis()
        axes.set_xticks([])
        axes.set_xlim(0, 1.6 * max(ratios))
        axes.spines[["bottom"]].set_visible(False)
        # Wrap long titles to the width of the figure.
        axes.set_title(textwrap.fill(each.title, 64))
    return figure


def _number(value: float) -> str:
    """Format a number with three digits; numbers above 999 are integers."""
    digits = max(0, 3 - len(str(int(value)))) if value >= 1 else 3
    return f"{value:,.{digits}f}"

"""What was measured: as JSON, Markdown, tables on the terminal, and a figure."""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from experiments.benchmark.bars import ratio_bars

# Rows of a breakdown; the other kinds are summed up.
_MOST_KINDS = 12


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What one program reached.

    Attributes:
        program: Its name.
        values: The value of every turn, in order.
        limit_share: The median as a share of the machine's limit, if there is one.
    """

    program: str
    values: Sequence[float]
    limit_share: float | None = None

    @property
    def median(self) -> float:
        """Median of the turns."""
        return float(statistics.median(self.values))


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Programs that did the same work in turns.

    Attributes:
        title: The work.
        unit: Unit of the measurements.
        measurements: One a program; the first one is the baseline.
        less_is_better: Whether a small value is a good one.
        limit: The limit that `limit_share` is a share of, if there is one.
        note: What a reader must know besides.
        breakdown: By program, its value by kind of operation.
        breakdown_title: What the breakdown shows, with its unit.
    """

    title: str
    unit: str
    measurements: Sequence[Measurement]
    less_is_better: bool = False
    limit: str | None = None
    note: str | None = None
    breakdown: Mapping[str, Mapping[str, float]] = dataclasses.field(
        default_factory=dict
    )
    breakdown_title: str = ""

    def ratio(self, of: Measurement) -> float:
        """Return how many times as good as the baseline a program is."""
        baseline = self.measurements[0].median
        return baseline / of.median if self.less_is_better else of.median / baseline

    @property
    def rows(self) -> list[list[str]]:
        """The table: its head, then a row a program."""
        head = ["", self.unit, "range", "ratio"]
        rows = [[*head, "share of the limit"] if self.limit else head]
        for entry in self.measurements:
            row = [
                entry.program,
                _number(entry.median),
                f"{_number(min(entry.values))} to {_number(max(entry.values))}",
                f"{self.ratio(entry):.2f}",
            ]
            if self.limit:
                share = entry.limit_share
                row.append("" if share is None else f"{share:.0%}")
            rows.append(row)
        return rows

    @property
    def breakdown_rows(self) -> list[list[str]]:
        """The breakdown: its head, then a row a kind, in order of the baseline's."""
        if not self.breakdown:
            return []
        baseline = next(iter(self.breakdown.values()))
        kinds = sorted(baseline, key=baseline.__getitem__, reverse=True)[:_MOST_KINDS]
        rows = [["", *self.breakdown]]
        for kind in kinds:
            of_programs = [of.get(kind, 0) for of in self.breakdown.values()]
            rows.append([kind, *(f"{value:.1f}" for value in of_programs)])
        others = [
            sum(value for kind, value in of.items() if kind not in kinds)
            for of in self.breakdown.values()
        ]
        return [*rows, ["others", *(f"{value:.1f}" for value in others)]]


def times(
    title: str, unit: str, values: Mapping[str, Sequence[float]], **more: Any
) -> Comparison:
    """Return a comparison of which less is better.

    Args:
        title: The work.
        unit: Unit of the values.
        values: By program, a value a turn.
        **more: Further arguments of `Comparison`.
    """
    rows = [Measurement(name, of) for name, of in values.items()]
    return Comparison(title, unit, rows, less_is_better=True, **more)


def to_json(
    header: Mapping[str, Any], comparisons: Sequence[Comparison]
) -> dict[str, Any]:
    """Return everything, ready for JSON."""
    found = []
    for comparison in comparisons:
        entry = dataclasses.asdict(comparison)
        entry["measurements"] = [
            {
                **dataclasses.asdict(measured),
                "median": measured.median,
                "low": min(measured.values),
                "high": max(measured.values),
                "ratio": comparison.ratio(measured),
            }
            for measured in comparison.measurements
        ]
        found.append(entry)
    return {**header, "comparisons": found}


def to_markdown(header: Mapping[str, Any], comparisons: Sequence[Comparison]) -> str:
    """Return everything as a page of tables."""
    machine = header["machine"]
    packages = ", ".join(f"{n} {v}" for n, v in machine["versions"].items())
    lines = [
        f"# Benchmark: {', '.join(header['parts'])}; {header['dataset']}",
        "",
        "```console",
        header["command"],
        "```",
        "",
        f"{machine['cores']} cores of {machine['processor']}, "
        f"{machine['memory_gb']:g} GB. Measured {machine['code']}. {packages}.",
        "",
        "Every program ran in a process of its own with as many threads as cores, and "
        f"they took turns, {header['repeats']} each. The columns: the median of the "
        "turns, their range, and how many times as good as the first program each is. "
        "Speeds depend on shapes, not on values: features and weights are random where "
        "no data set is named. bfloat16 is measured where the processor has it.",
        *(["", f"{header['disclaimer']}."] if header["disclaimer"] else []),
        "",
        "![How many times as good as the first program](benchmark.png)",
    ]
    sections = map(to_section, comparisons)
    return "\n".join([*lines, "", *sections])


def to_section(comparison: Comparison) -> str:
    """Return a comparison as a section of the page."""
    lines = [f"## {comparison.title}", "", *_markdown_table(comparison.rows), ""]
    if comparison.limit:
        lines += [f"Limit: {comparison.limit}.", ""]
    if comparison.note:
        lines += [comparison.note, ""]
    if comparison.breakdown:
        lines += [f"### {comparison.breakdown_title}", ""]
        lines += [*_markdown_table(comparison.breakdown_rows), ""]
    return "\n".join(lines)


def _markdown_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table that is aligned in plain text, too."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        padded = [first[0].ljust(first[1]), *(cell.rjust(w) for cell, w in others)]
        return f"| {' | '.join(padded)} |"

    first, *others = widths
    rule = "|".join(["-" * (first + 2), *("-" * (w + 1) + ":" for w in others)])
    head, *entries = map(line, rows)
    return [head, f"|{rule}|", *entries]


def draw(comparisons: Sequence[Comparison]) -> Figure:
    """Draw how many times as good as the baseline every program is."""
    return ratio_bars(
        [
            (
                comparison.title,
                [
                    (
                        entry.program,
                        comparison.ratio(entry),
                        f"{_number(entry.median)} {comparison.unit}",
                    )
                    for entry in comparison.measurements
                ],
            )
            for comparison in comparisons
        ]
    )


def _number(value: float) -> str:
    """Return three digits, or all digits before the point."""
    digits = max(0, 2 - len(str(int(value))) + 1) if value >= 1 else 3
    return f"{value:,.{digits}f}"

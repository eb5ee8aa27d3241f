"""What was measured: as JSON, as Markdown, as a table on the terminal, as a figure."""

import dataclasses
import os
import pathlib
import platform
import statistics
import subprocess
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from avsdn_tf.training.distribution import num_cores
from avsdn_tf.report import figures
from avsdn_tf.run_folder import version_if_any, versions

_ROOT = pathlib.Path(__file__).resolve().parents[2]
# What decides what a program does: its code, and the recipes of the experiments.
_CODE = ("*.py", "experiments/*.json", "experiments/published/*.json")
# What parts compare with; then what TensorFlow and Keras import where it is there, and
# which takes memory and time. No part needs all of them.
_PACKAGES = ("torch", "h5py", "jax", "pandas")


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What one program reached.

    Attributes:
        program: Its name.
        median: Median of its turns.
        low: The least of them.
        high: The most of them.
        values: All of them, in order.
        limit_share: Which share of the machine's limit that is, if there is one.
    """

    program: str
    median: float
    low: float
    high: float
    values: tuple[float, ...]
    limit_share: float | None = None


def measurement(
    program: str, values: Sequence[float], limit_share: float | None = None
) -> Measurement:
    """Returns what a program reached in its turns."""
    turns = tuple(map(float, values))
    return Measurement(
        program, statistics.median(turns), min(turns), max(turns), turns, limit_share
    )


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Programs that took turns at the same work.

    Attributes:
        title: The work.
        unit: Of the measurements.
        measurements: Of every program; the first one is the baseline.
        less_is_better: Whether a small value is a good one.
        limit: What `limit_share` is a share of, if there is such a limit.
    """

    title: str
    unit: str
    measurements: Sequence[Measurement]
    less_is_better: bool = False
    limit: str | None = None

    def ratio(self, of: Measurement) -> float:
        """Returns how many times as good as the baseline a program is."""
        baseline = self.measurements[0].median
        return baseline / of.median if self.less_is_better else of.median / baseline

    @property
    def columns(self) -> list[str]:
        """The heads of the columns of `rows`."""
        named = ["", self.unit, "range", "ratio"]
        return [*named, "share of the limit"] if self.limit else named

    @property
    def rows(self) -> list[list[str]]:
        """A row of text a program."""
        rows = []
        for entry in self.measurements:
            row = [
                entry.program,
                _number(entry.median),
                f"{_number(entry.low)} to {_number(entry.high)}",
                f"{self.ratio(entry):.2f}",
            ]
            if self.limit:
                share = entry.limit_share
                row.append("" if share is None else f"{share:.0%}")
            rows.append(row)
        return rows


def describe_machine() -> dict[str, Any]:
    """Returns what a speed depends on besides the program."""
    return {
        "code": describe_code(),
        "cores": num_cores(),
        "processor": processor(),
        "memory_gb": round(_memory_bytes() / 1e9, 1),
        "versions": {
            **versions(),
            **{package: version_if_any(package) for package in _PACKAGES},
        },
    }


def to_json(
    header: dict[str, Any], comparisons: Sequence[Comparison]
) -> dict[str, Any]:
    """Returns everything, ready for JSON."""
    found = []
    for comparison in comparisons:
        entry = dataclasses.asdict(comparison)
        for row, measured in zip(
            entry["measurements"], comparison.measurements, strict=True
        ):
            row["ratio"] = comparison.ratio(measured)
        found.append(entry)
    return {**header, "comparisons": found}


def to_markdown(header: dict[str, Any], comparisons: Sequence[Comparison]) -> str:
    """Returns everything as a page of tables."""
    machine = header["machine"]
    packages = ", ".join(f"{n} {v}" for n, v in machine["versions"].items())
    lines = [
        f"# Benchmark: {', '.join(header['parts'])}; {header['dataset']}",
        "",
        f"    {header['command']}",
        "",
        f"{machine['cores']} cores of {machine['processor']}, "
        f"{machine['memory_gb']:g} GB. Measured {machine['code']}. {packages}.",
        "",
        "Every program ran in a process of its own with as many threads as cores, and "
        f"they took turns, {header['repeats']} each. The first column is the median of "
        "the turns, the second their range, the third how many times as good as the "
        "first program each is. Speeds depend on shapes, not on values: features and "
        "weights are random where no data set is named. bfloat16 is measured where the "
        "processor has it.",
        *(["", f"{header['notice']}."] if header["notice"] else []),
        "",
        "![How many times as good as the first program](benchmark.png)",
    ]
    for comparison in comparisons:
        lines += ["", f"## {comparison.title}", ""]
        lines += [
            f"| {' | '.join(comparison.columns)} |",
            "|---" + "|---:" * (len(comparison.columns) - 1) + "|",
            *(f"| {' | '.join(row)} |" for row in comparison.rows),
        ]
        if comparison.limit:
            lines += ["", f"Limit: {comparison.limit}."]
    return "\n".join(lines) + "\n"


def to_table(comparison: Comparison) -> Table:
    """Returns one comparison as a table for the terminal."""
    table = Table(
        title=Text(comparison.title, style="bold"),
        caption=Text(f"Limit: {comparison.limit}") if comparison.limit else None,
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
    )
    first, *others = comparison.columns
    table.add_column(first, overflow="fold")
    for name in others:
        table.add_column(name, justify="right")
    for row in comparison.rows:
        table.add_row(*row)
    return table


def draw(comparisons: Sequence[Comparison]) -> Figure:
    """Draws how many times as good as the baseline every program is."""
    return figures.ratio_bars(
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
    """Returns three digits, or all before the point."""
    digits = max(0, 2 - len(str(int(value))) + 1) if value >= 1 else 3
    return f"{value:,.{digits}f}"


def describe_code() -> str:
    """Returns which commit's code runs here."""
    if not (_ROOT / ".git").exists():
        return "by code outside of git"

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(_ROOT), *words],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    try:
        commit = git("rev-parse", "--short", "HEAD")
        is_changed = bool(git("status", "--porcelain", "--", *_CODE))
    # No git, or no commit yet.
    except (OSError, subprocess.CalledProcessError):
        return "by an unknown commit"
    return f"by commit {commit}{' with uncommitted changes' if is_changed else ''}"


def processor() -> str:
    """Returns the processor's name where Linux tells it, else its kind.

    In virtual machines a name may be that of several generations, which family and
    model tell apart.
    """
    name = _told_of_processor("model name") or platform.machine()
    generation = [_told_of_processor(key) for key in ("cpu family", "model")]
    if not all(generation):
        return name
    return f"{name} (family {generation[0]}, model {generation[1]})"


def has_bfloat16() -> bool:
    """Returns whether Linux tells that the processor multiplies in bfloat16.

    PyTorch's LSTM fails in it on some that don't.
    """
    # avx512_bf16 and amx_bf16 on x86, bf16 on Arm.
    return "bf16" in _told_of_processor("flags") + _told_of_processor("Features")


def _told_of_processor(name: str) -> str:
    """Returns a value of the first processor in /proc/cpuinfo, empty if not there."""
    path = pathlib.Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    entries = [line.partition(":") for line in lines]
    values = [value.strip() for key, _, value in entries if key.strip() == name]
    return values[0] if values else ""


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

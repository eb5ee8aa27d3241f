"""Format Markdown tables with aligned columns."""

from collections.abc import Sequence


def to_table(rows: Sequence[Sequence[str]], num_left: int = 1) -> list[str]:
    """Return the lines of a Markdown table.

    Args:
        rows: The header and the other rows.
        num_left: Number of left-aligned columns; the others are right-aligned.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def join(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if place < num_left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    head, *entries = map(join, rows)
    rule = [
        "-" * (width + 2) if place < num_left else "-" * (width + 1) + ":"
        for place, width in enumerate(widths)
    ]
    return [head, f"|{'|'.join(rule)}|", *entries]

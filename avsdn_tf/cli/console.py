"""What commands print."""

from collections.abc import Collection

from rich.console import Console

from avsdn_tf.files import printable


def print_plainly(console: Console, text: str, style: str | None = None) -> None:
    """Print text that may hold names of files: without markup, without wrapping."""
    console.print(
        printable(text), style=style, highlight=False, markup=False, soft_wrap=True
    )


def list_failures(console: Console, failures: Collection[str], num_videos: int) -> None:
    """Print again at the end why videos failed: the first may have scrolled away."""
    if failures:
        print_plainly(console, f"{len(failures)} of {num_videos} videos failed:")
    for failure in failures:
        print_plainly(console, f"  {failure}", style="red")

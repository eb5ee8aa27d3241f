"""What the programs of this folder take on their command lines."""

import argparse


def positive(text: str) -> int:
    """Returns a whole number of 1 or more, as a type of `argparse`.

    Raises:
        argparse.ArgumentTypeError: If the text is none.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more. Received: {text}")
    return int(text)

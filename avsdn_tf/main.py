"""Audio-visual event localization: trains, evaluates and saves a network.

    python -m avsdn_tf.main [COMMAND] [FLAGS]

Commands:
    train      trains, scores the test split once, writes a run folder (the default)
    evaluate   scores a saved run again: evaluate --run=DIR
"""

import dataclasses
import sys
from collections.abc import Sequence

from absl import app, flags, logging
from rich.console import Console

from avsdn_tf.config import Config
from avsdn_tf.errors import UserError
from avsdn_tf.models import MODELS
from avsdn_tf.startup import quiet_startup

with quiet_startup():
    import tfds_ave
    from avsdn_tf import commands

_RUN = flags.DEFINE_string(
    "run", None, "The run folder: written by train, read by evaluate."
)
_FIELDS = dataclasses.fields(Config)


def _define_flags() -> None:
    """Makes a flag of every setting, so that Config stays the one place of defaults."""
    kinds = {
        bool: flags.DEFINE_bool,
        int: flags.DEFINE_integer,
        float: flags.DEFINE_float,
    }
    for field in _FIELDS:
        text = field.metadata["help"]
        choices = field.metadata["choices"]
        if field.name == "model":
            choices = tuple(MODELS)
            text = " ".join(
                [text, *(f"{name}: {entry.summary}." for name, entry in MODELS.items())]
            )
        if choices:
            flags.DEFINE_enum(field.name, field.default, choices, text)
        else:
            define = kinds.get(field.metadata["kind"], flags.DEFINE_string)
            define(field.name, field.default, text)


_define_flags()


def main(argv: Sequence[str]) -> None:
    """Turns flags into a Config and makes the one call that they ask for."""
    # TFDS warns of its own internals; what is wrong here is said by errors.
    logging.set_verbosity(logging.ERROR)
    console = Console()
    command = argv[1] if len(argv) > 1 else "train"
    try:
        if len(argv) > 2:
            raise UserError(
                f"Expected one command, and flags as --name=value. "
                f"Received: {' '.join(argv[1:])}"
            )
        if command == "train":
            values = {name: getattr(flags.FLAGS, name) for name in _names()}
            commands.train(Config(**values), _RUN.value, console)
        elif command == "evaluate":
            _evaluate(console)
        else:
            raise UserError(f"Expected train or evaluate. Received: {command}")
    except (UserError, tfds_ave.DatasetError) as error:
        print(f"avsdn_tf: {error}", file=sys.stderr)
        sys.exit(2)


def _names() -> list[str]:
    return [field.name for field in _FIELDS]


def _evaluate(console: Console) -> None:
    if _RUN.value is None:
        raise UserError("evaluate: expected --run=DIR, the folder of a finished run.")
    given = [name for name in _names() if flags.FLAGS[name].present]
    if set(given) - {"data_dir"}:
        raise UserError(
            "evaluate: expected --run, and --data_dir if the data set has moved; the "
            f"run folder decides the rest. Received: --{', --'.join(given)}"
        )
    commands.evaluate(_RUN.value, flags.FLAGS.data_dir, console)


def run() -> None:
    """Entry point of the console script."""
    app.run(main)


if __name__ == "__main__":
    run()

"""Audio-visual event localization: trains, evaluates and saves a network.

    python -m avsdn_tf.main [COMMAND] [FLAGS]

Commands:
    train      trains, scores the test split once, writes a run folder (the default)
    evaluate   scores a saved run again: evaluate --run=DIR
    predict    localizes events in videos: predict --run=DIR VIDEO [VIDEO ...],
               or predict --demo, which needs nothing
    extract    makes feature files of videos: extract --out=DIR VIDEO [VIDEO ...]
    export     writes a run's network for programs without this package:
               export --run=DIR --format=onnx
    benchmark  measures speed and memory beside PyTorch: benchmark [PART ...]

VIDEO is a file, or a folder of videos. PART is one of step, latency, reading, epoch,
start and growth; all if none is given.
"""

import dataclasses
import itertools
import os
import signal
import sys
from collections.abc import Sequence

from absl import app, flags, logging
from rich.console import Console

from avsdn_tf.training.config import CROSS_MODAL, Config
from avsdn_tf.errors import UserError
from avsdn_tf.models.registry import MODELS
from avsdn_tf.startup import check_backend, quiet_startup

with quiet_startup():
    import tensorflow as tf

    import tfds_ave
    from avsdn_tf.cli import commands
    from experiments.benchmark.parts import PARTS
    from avsdn_tf.export import FORMATS
    from avsdn_tf.features.audio import VGGISH
    from avsdn_tf.features.visual import PRECISIONS, RECIPES
    from avsdn_tf.training.signals import TrainingInterruptedError
    from avsdn_tf.training.launcher import launch

    # TensorFlow looks for a GPU when it is first asked, and complains where none is.
    tf.config.list_physical_devices()

_RUN = flags.DEFINE_string(
    "run",
    None,
    "The run folder: written by train; read by evaluate, predict and export.",
)
_RESUME = flags.DEFINE_bool(
    "resume",
    True,
    "train: go on where the same command with the same --run was interrupted.",
)
_LOCAL_WORKERS = flags.DEFINE_integer(
    "local_workers",
    None,
    "train: start so many workers on this machine, which train one model together.",
    lower_bound=1,
)
_OUT = flags.DEFINE_string(
    "out",
    None,
    "predict, extract, export, benchmark: the folder to write to. By default "
    "predictions, features, `export` in the run folder, or benchmark.",
)
_DEMO = flags.DEFINE_bool(
    "demo", False, "predict: a rendered video and stand-in networks, no download."
)
flags.DEFINE_string(
    "vggish",
    None,
    "predict, extract, export: address of the VGGish module, or its folder if "
    "downloaded. If not given, what made the features of the run's data set, or "
    f"{VGGISH}.",
)
_VISUAL_NETWORK = flags.DEFINE_enum(
    "visual_network",
    "resnet152",
    list(RECIPES),
    "extract: the visual features. "
    + " ".join(f"{name}: {recipe.summary}." for name, recipe in RECIPES.items()),
)
flags.DEFINE_string(
    "visual_weights",
    None,
    "predict, extract, export: imagenet to download the visual network's weights, or "
    "its local weights file without the top. If not given, what made the features of "
    "the run's data set, or imagenet.",
)
flags.DEFINE_enum(
    "visual_precision",
    None,
    list(PRECISIONS),
    "predict, extract: what the visual network computes in. mixed_bfloat16 is faster "
    "on processors that have bfloat16, and rounds between layers. If not given, what "
    "made the features of the run's data set, or float32.",
)
flags.DEFINE_enum(
    "empty",
    None,
    ["audio", "visual"],
    "predict, extract: a modality that a video may lack; zeros stand in for it.",
)
_WORKERS = flags.DEFINE_integer(
    "workers", 2, "extract: how many videos are read at once.", lower_bound=1
)
_FORMAT = flags.DEFINE_enum(
    "format",
    "savedmodel",
    list(FORMATS),
    "export: the format. "
    + " ".join(f"{name}: {entry.summary}." for name, entry in FORMATS.items()),
)
_END_TO_END = flags.DEFINE_bool(
    "end_to_end",
    False,
    "export: a SavedModel from sound and pictures to events, with the networks that "
    "make features in it.",
)
_REPEATS = flags.DEFINE_integer(
    "repeats", 5, "benchmark: how many turns every program takes.", lower_bound=1
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
            # A line each.
            text = "\n".join([text, *(f"{n}: {e.summary}." for n, e in MODELS.items())])
        if choices:
            flags.DEFINE_enum(field.name, field.default, choices, text)
        else:
            define = kinds.get(field.metadata["kind"], flags.DEFINE_string)
            define(field.name, field.default, text)


_define_flags()
_SETTINGS = [field.name for field in _FIELDS]
_NETWORKS = ("vggish", "visual_weights", "visual_precision", "empty")
# What each command reads of the flags.
_COMMANDS = {
    "train": ("run", "resume", "local_workers", *_SETTINGS),
    "evaluate": ("run", "data_dir"),
    "predict": ("run", "out", "demo", *_NETWORKS),
    "extract": ("out", "visual_network", "workers", *_NETWORKS),
    "export": ("run", "format", "out", "end_to_end", "data_dir", *_NETWORKS[:2]),
    "benchmark": ("dataset", "data_dir", "repeats", "out"),
}
_PATHS = ("run", "out", "data_dir", "encoders", "vggish", "visual_weights")
# What a command takes besides flags: any words, or some of a list.
_WORDS = {"predict": None, "extract": None, "benchmark": tuple(PARTS)}


def main(argv: Sequence[str]) -> None:
    """Turns flags into a Config and makes the one call that they ask for."""
    # TFDS warns of its own internals; what is wrong here is said by errors.
    logging.set_verbosity(logging.ERROR)
    console = Console()
    command = argv[1] if len(argv) > 1 else "train"
    failures = 0
    try:
        check_backend()
        _check_command(command, argv[2:])
        # No shell does so within --run=~/runs.
        for name in _PATHS:
            path = getattr(flags.FLAGS, name)
            if path is not None:
                setattr(flags.FLAGS, name, os.path.expanduser(path))
        if command == "train":
            values = {name: getattr(flags.FLAGS, name) for name in _SETTINGS}
            # This task has one network.
            if values["mode"] == CROSS_MODAL and not flags.FLAGS["model"].present:
                values["model"] = CROSS_MODAL
            config = Config(**values)
            if _LOCAL_WORKERS.value is not None:
                sys.exit(_launch(config))
            commands.train(config, _RUN.value, console, _RESUME.value)
        elif command == "evaluate":
            _evaluate(console)
        elif command == "predict":
            failures = _predict(argv[2:], console)
        elif command == "export":
            _export(console)
        elif command == "benchmark":
            _benchmark(argv[2:], console)
        else:
            failures = commands.extract(
                argv[2:],
                _OUT.value or "features",
                _VISUAL_NETWORK.value,
                _networks(),
                _WORKERS.value,
                console,
            )
    except (UserError, tfds_ave.DatasetError) as error:
        print(f"avsdn_tf: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(
            f"avsdn_tf: {command} was stopped. What is finished is whole, and the same "
            "command goes on from there."
            if command == "extract"
            else f"avsdn_tf: {command} was stopped.",
            file=sys.stderr,
        )
        sys.exit(128 + signal.SIGINT)
    except TrainingInterruptedError as interruption:
        print(f"avsdn_tf: {interruption}", file=sys.stderr)
        sys.exit(interruption.exit_code)
    if failures:
        sys.exit(1)


def _check_command(command: str, words: Sequence[str]) -> None:
    """Checks that a command exists, and takes the flags and words that it is given."""
    if command not in _COMMANDS:
        raise UserError(f"Expected one of {', '.join(_COMMANDS)}. Received: {command}")
    known = _WORDS.get(command, ())
    unknown = [word for word in words if known is not None and word not in known]
    if unknown:
        raise UserError(
            f"{command}: expected flags, as --name=value"
            + (f", and of {', '.join(known)}. " if known else ", alone. ")
            + f"Received: {' '.join(unknown)}"
        )
    every = {name for names in _COMMANDS.values() for name in names}
    foreign = sorted(
        name for name in every - {*_COMMANDS[command]} if flags.FLAGS[name].present
    )
    if foreign:
        raise UserError(
            f"{command}: expected no flags but --{', --'.join(_COMMANDS[command])}. "
            f"Received: --{', --'.join(foreign)}"
        )


def _networks() -> dict[str, str | None]:
    """Returns what was given that decides features besides the visual network."""
    values = {name: getattr(flags.FLAGS, name) for name in _NETWORKS}
    return {name: value for name, value in values.items() if value is not None}


def _predict(videos: Sequence[str], console: Console) -> int:
    if _DEMO.value:
        _refuse("predict --demo", ("run", *_NETWORKS))
        if videos:
            raise UserError("predict --demo: expected no videos; it brings its own.")
    elif _RUN.value is None:
        raise UserError(
            "predict: expected --run=DIR, the folder of a finished run, and videos; or "
            "--demo."
        )
    out = _OUT.value or "predictions"
    return commands.predict(_RUN.value, videos, out, _networks(), console)


def _refuse(command: str, names: Sequence[str]) -> None:
    """Refuses flags that a command with these others would not look at."""
    given = [f"--{name}" for name in names if flags.FLAGS[name].present]
    if given:
        raise UserError(
            f"{command}: does not read {', '.join(given)}. Expected none of "
            f"--{', --'.join(names)}."
        )


def _launch(config: Config) -> int:
    """Starts workers on this machine, each with this command."""
    if config.strategy not in ("auto", "multi_worker"):
        raise UserError(
            "--local_workers: expected --strategy=multi_worker. Received: "
            f"--strategy={config.strategy}"
        )
    # With its number in one word or in two.
    flags_of_it = ("-local_workers", "--local_workers")
    own = [
        word
        for before, word in itertools.pairwise(sys.argv)
        if word.partition("=")[0] not in flags_of_it and before not in flags_of_it
    ]
    if _RUN.value is None:
        own.append(f"--run={commands.new_run_name(config)}")
    return launch([*own, "--strategy=multi_worker"], _LOCAL_WORKERS.value)


def _evaluate(console: Console) -> None:
    if _RUN.value is None:
        raise UserError("evaluate: expected --run=DIR, the folder of a finished run.")
    commands.evaluate(_RUN.value, flags.FLAGS.data_dir, console)


def _export(console: Console) -> None:
    if _RUN.value is None:
        raise UserError("export: expected --run=DIR, the folder of a finished run.")
    if not _END_TO_END.value:
        _refuse("export without --end_to_end", _NETWORKS[:2])
    elif _FORMAT.value != "savedmodel":
        raise UserError(
            "--end_to_end: expected --format=savedmodel. Received: "
            f"--format={_FORMAT.value}"
        )
    else:
        # It is checked on random sound and pictures.
        _refuse("export --end_to_end", ("data_dir",))
    commands.export(
        _RUN.value,
        _FORMAT.value,
        _OUT.value,
        _networks() if _END_TO_END.value else None,
        flags.FLAGS.data_dir,
        console,
    )


def _benchmark(parts: Sequence[str], console: Console) -> None:
    commands.benchmark(
        list(dict.fromkeys(parts)) or list(PARTS),
        flags.FLAGS.dataset,
        flags.FLAGS.data_dir,
        _REPEATS.value,
        _OUT.value or "benchmark",
        console,
    )


def run() -> None:
    """Entry point of the console script."""
    # absl explains the program that was started, and of a console script that is a file
    # which pip wrote.
    for flag in flags.FLAGS.flags_by_module_dict().get("avsdn_tf.main", ()):
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
    sys.modules["__main__"].__doc__ = __doc__
    app.run(main)


if __name__ == "__main__":
    run()

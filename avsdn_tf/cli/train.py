"""avsdn train: train a network and write its report."""

import argparse
import dataclasses
import os

from avsdn_tf.cli import flags
from avsdn_tf.cli.build import HOP_S, WINDOW_S, build_own, check_manifest
from avsdn_tf.cli.flags import Flag
from avsdn_tf.cli.start import check_run_folder, start
from avsdn_tf.errors import UserError
from avsdn_tf.startup import start_tensorflow
from avsdn_tf.training.config import Config

SUMMARY = "Train a network, score the test split, and write a run folder."
USAGE = "[FLAGS]"
EXAMPLE = """avsdn train --mode=weak --run=runs/first
avsdn train --manifest=my_videos --run=runs/mine"""


_OWN_DATA = "tfds_ave/custom"
# Folder beside manifest.csv into which the data set is built.
_BUILT = "tensorflow_datasets"
_MANIFEST = Flag(
    "manifest",
    "Folder of a manifest.csv to build and train on.",
    flags.PATH,
    metavar="DIR",
)
_RUN_FLAGS = (
    Flag(
        "run",
        "Output folder.",
        flags.PATH,
        shown_default="a new one below runs/",
        metavar="DIR",
    ),
    Flag(
        "resume",
        "Resume an interrupted run in that folder.",
        *(flags.boolean, True),
    ),
    _MANIFEST,
    *(dataclasses.replace(flag, is_rare=True) for flag in (WINDOW_S, HOP_S)),
    Flag(
        "allow_stale_data",
        "Train although the source of the data set, such as manifest.csv, has changed "
        "since the build.",
        *(flags.boolean, False),
        is_rare=True,
    ),
    Flag(
        "local_workers",
        "Number of workers to start on this machine, which train one model together.",
        flags.positive,
        is_rare=True,
    ),
)
_GROUPS = {
    "task and data": (
        *("mode", "model", "dataset", "data_dir", "labels", "weak_label", "pooling"),
    ),
    "training": (
        *("epochs", "patience", "batch_size", "learning_rate", "decay_steps"),
        *(
            "decay_epochs",
            "decay_factor",
            "weight_decay",
            "ema",
            "clip_norm",
            "dropout",
        ),
        *("loss", "label_smoothing", "seed", "precision"),
    ),
    "network": (
        *("units", "bidirectional", "shared_mlp", "merge", "shared_fusion"),
        *("append_state", "encoders"),
    ),
    "devices": (*("strategy", "xla", "deterministic", "checkpoint_minutes"),),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the command's flags."""
    for flag in _RUN_FLAGS:
        flag.add_to(parser)
    settings = {flag.name: flag for flag in flags.SETTINGS}
    for title, names in _GROUPS.items():
        group = parser.add_argument_group(title)
        for name in names:
            settings.pop(name).add_to(group)
    group = parser.add_argument_group("other")
    for flag in settings.values():
        flag.add_to(group)


def check(args: argparse.Namespace) -> None:
    """Check the settings, and store them as `args.config`."""
    names = {flag.name for flag in flags.SETTINGS}
    settings = {n: v for n, v in vars(args).items() if n in names}
    if args.manifest is None:
        flags.refuse(args, (WINDOW_S, HOP_S), "train without --manifest")
    else:
        if settings.setdefault("dataset", _OWN_DATA) != _OWN_DATA:
            message = f"Expected {_OWN_DATA} with --manifest."
            raise UserError(message, field="dataset", value=settings["dataset"])
        settings.setdefault("data_dir", os.path.join(args.manifest, _BUILT))
        check_manifest(args.manifest, "manifest")
    args.config = Config(**settings)
    if args.local_workers and args.config.strategy not in ("auto", "multi_worker"):
        raise UserError(
            "Expected auto or multi_worker with --local_workers.",
            field="strategy",
            value=args.config.strategy,
        )


def run(args: argparse.Namespace) -> int:
    """Train and report, or start local workers; return the exit code."""
    if args.manifest is not None:
        # Check folder and settings before the build, which may take hours.
        check_run_folder(args)
        start_tensorflow()
        from avsdn_tf.run_folder import RunFolder
        from avsdn_tf.training.build import check_options
        from avsdn_tf.training.run import check_settings

        check_options(args.config)
        if args.run and not RunFolder(args.run).is_empty():
            check_settings(RunFolder(args.run), args.config)
        build_own(args.manifest, args.config.data_dir, args.window_s, args.hop_s)
    start(args)
    # Start TensorFlow only after the checks, because its import takes seconds.
    from avsdn_tf import runs
    from avsdn_tf.report.terminal import (
        TrainingProgress,
        logging_terminal,
        print_report,
    )
    from avsdn_tf.training.launcher import launch
    from avsdn_tf.training.run import new_run_name

    config = args.config
    if args.local_workers:
        config = dataclasses.replace(config, strategy="multi_worker")
        run_flags = [f"--run={args.run or new_run_name(config)}"]
        run_flags += [] if args.resume else ["--noresume"]
        run_flags += ["--allow_stale_data"] if args.allow_stale_data else []
        return launch([*config.to_flags(), *run_flags], args.local_workers)
    with logging_terminal() as terminal:
        trained = runs.train(
            config,
            run=args.run,
            resume=args.resume,
            allow_stale_data=args.allow_stale_data,
            callbacks=[TrainingProgress(terminal)],
        )
        if trained is None:
            # This worker is not the chief. Skip Python's cleanup, in which TensorFlow
            # logs an error if the chief has already exited.
            os._exit(0)
        print_report(terminal, trained.report, trained.folder)
    return 0

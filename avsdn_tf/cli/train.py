"""avsdn train: train a network, and report on it."""

import argparse
import dataclasses
import os

from avsdn_tf.cli import flags
from avsdn_tf.cli.build import HOP_S, WINDOW_S, build_own, check_manifest
from avsdn_tf.cli.flags import Flag
from avsdn_tf.cli.start import start
from avsdn_tf.errors import UserError
from avsdn_tf.startup import start_tensorflow
from avsdn_tf.training.config import Config

SUMMARY = "Train, score the test split once, and write a run folder."
USAGE = "[FLAGS]"
EXAMPLE = """avsdn --mode=weak --run=runs/first
  avsdn train --manifest=my_data --run=runs/mine"""


_OWN_DATA = "tfds_ave/custom"
# Of several data sets of one's own, each is built beside its manifest.
_BUILT = "tensorflow_datasets"
_MANIFEST = Flag(
    "manifest",
    "Build the data set of your own data first: the folder of manifest.csv.",
    flags.PATH,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the command's flags."""
    group = parser.add_argument_group("the run")
    for flag in (
        Flag("run", "The folder to write. Default: a new one below runs/.", flags.PATH),
        Flag(
            "resume",
            "Resume an interrupted run of the same settings in that folder.",
            *(flags.boolean, True),
        ),
        Flag(
            "allow_stale_data",
            "Train although the source of the data set, such as manifest.csv, has "
            "changed since it was built.",
            *(flags.boolean, False),
        ),
        _MANIFEST,
        WINDOW_S,
        HOP_S,
        Flag(
            "local_workers",
            "Start so many workers on this machine, which train one model together.",
            flags.positive,
        ),
    ):
        flag.add_to(group)
    settings = parser.add_argument_group("settings")
    for flag in flags.SETTINGS:
        flag.add_to(settings)


def check(args: argparse.Namespace) -> None:
    """Check the settings, and keep them as `args.config`."""
    names = {flag.name for flag in flags.SETTINGS}
    settings = {n: v for n, v in vars(args).items() if n in names}
    if args.manifest is None:
        flags.refuse(args, (WINDOW_S, HOP_S), "train without --manifest")
    else:
        if settings.setdefault("dataset", _OWN_DATA) != _OWN_DATA:
            message = f"Expected {_OWN_DATA} together with --manifest."
            raise UserError(message, field="dataset", value=settings["dataset"])
        settings.setdefault("data_dir", os.path.join(args.manifest, _BUILT))
        check_manifest(args.manifest, "manifest")
    args.config = Config(**settings)
    if args.local_workers and args.config.strategy not in ("auto", "multi_worker"):
        raise UserError(
            "Expected multi_worker together with --local_workers.",
            field="strategy",
            value=args.config.strategy,
        )


def run(args: argparse.Namespace) -> int:
    """Train and report, in workers of this machine if asked; return the exit code."""
    if args.manifest is not None:
        start_tensorflow()
        from avsdn_tf.training.build import check_options

        check_options(args.config)  # Making features may take hours.
        build_own(args.manifest, args.config.data_dir, args.window_s, args.hop_s)
    start(args)
    # These import TensorFlow.
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
            # TensorFlow logs an error in a worker that outlives the chief, which it may
            # do while Python ends.
            os._exit(0)
        print_report(terminal, trained.report, trained.folder)
    return 0

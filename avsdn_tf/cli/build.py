"""avsdn build: build a data set of tfds_ave."""

import argparse
import contextlib
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from typing import Any

from avsdn_tf.cli import flags
from avsdn_tf.cli.flags import Flag, did_you_mean
from avsdn_tf.cli.start import DATASETS, check_out, find_data_dir, start
from avsdn_tf.errors import UserError
from avsdn_tf.files import expand_user
from avsdn_tf.startup import start_tensorflow
from avsdn_tf.text import count, short_name

SUMMARY = "Build a data set: your own, AVE, or the simulated one."
USAGE = "[CONFIG | FOLDER] [FLAGS]"
EXAMPLE = """avsdn build my_videos
avsdn build vgg19 --manual_dir=AVE_Dataset"""
WHEN_STOPPED = " Features made so far are kept. Repeat the command to resume."
_MANIFEST, _CATEGORIES = "manifest.csv", "categories.txt"
_SHOWN_CATEGORIES = 8
OWN_DATA = "tfds_ave/custom"
WINDOW_S = Flag(
    "window_s",
    "Your own data: seconds per training window.",
    flags.positive,
    shown_default=10,
)
HOP_S = Flag(
    "hop_s",
    "Your own data: seconds between window starts.",
    flags.positive,
    shown_default="window_s",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the command's flags."""
    parser.add_argument(
        "words",
        nargs="*",
        metavar="CONFIG | FOLDER",
        help=f"One of {', '.join(DATASETS)} [synthetic], or the folder of your own "
        f"{_MANIFEST}.",
    )
    for flag in (
        Flag("config", "The same as CONFIG.", choices=DATASETS),
        Flag(
            "manual_dir",
            f"Folder of {_MANIFEST}, or of AVE's files.",
            flags.PATH,
            metavar="DIR",
        ),
        WINDOW_S,
        HOP_S,
        Flag(
            "data_dir",
            "TFDS's folder of data sets, if not TFDS's default.",
            flags.PATH,
            metavar="DIR",
        ),
        Flag(
            "download_dir",
            "Folder of downloads [downloads/ in data_dir].",
            flags.PATH,
            metavar="DIR",
        ),
        Flag(
            "overwrite",
            "Replace a data set that exists.",
            *(flags.boolean, False),
        ),
        Flag(
            "beam_pipeline_options",
            "Config videos: options of the Apache Beam pipeline, separated by commas, "
            "such as direct_num_workers=2.",
            metavar="OPTIONS",
        ),
    ):
        flag.add_to(parser)


def check(args: argparse.Namespace) -> None:
    """Find the config, and check its folder."""
    # Remove `args.config`, because other commands store a `Config` there.
    config = vars(args).pop("config")
    for word in args.words:
        name = word.removeprefix("tfds_ave/")
        if name not in DATASETS and os.path.isdir(word) and not args.manual_dir:
            args.manual_dir = word
            continue
        if name not in DATASETS or config not in (None, name):
            if name in DATASETS:
                message = f"build: expected one config. Received: {config} and {name}."
                raise UserError(message)
            raise UserError(
                f"build: expected one of {', '.join(DATASETS)}, or the folder of your "
                f"data. Received: {word}." + did_you_mean(name, DATASETS)
            )
        config = name
    folder = args.manual_dir
    if folder and not os.path.isdir(folder):
        message = "No such folder. Expected the folder of your data or of AVE's files."
        raise UserError(message, field="manual_dir", value=folder)
    if config is None and folder:
        if not os.path.isfile(os.path.join(folder, _MANIFEST)):
            raise UserError(
                f"build: {folder} holds no {_MANIFEST}. Expected one, or a config: "
                f"{', '.join(DATASETS)}."
            )
        config = "custom"
    if config == "custom" and folder:
        check_manifest(folder, "manual_dir")
    elif config != "custom":
        flags.refuse(args, (WINDOW_S, HOP_S), f"build {config or DATASETS[0]}")
    if config == DATASETS[0] and folder:
        message = f"{config} is simulated and reads no files. Leave the flag out."
        raise UserError(message, field="manual_dir", value=folder)
    for field in ("data_dir", "download_dir"):
        if "://" not in (getattr(args, field) or ""):
            check_out(args, field)
    args.dataset = f"tfds_ave/{config or DATASETS[0]}"


def check_manifest(folder: str, field: str) -> None:
    """Check that a folder holds a manifest and its categories.

    Raises:
        UserError: If the folder or one of the two files is missing.
    """
    if not os.path.isdir(folder):
        message = f"No such folder. Expected the folder of {_MANIFEST}."
        raise UserError(message, field=field, value=folder)
    for name in (_MANIFEST, _CATEGORIES):
        if not os.path.isfile(os.path.join(folder, name)):
            raise UserError(
                f"{name} is missing. `avsdn manifest` writes it.",
                field=field,
                value=folder,
            )


def _check_own(args: argparse.Namespace) -> None:
    """Check that custom data are built already, or that the builder can find them.

    The builder reads --manual_dir, or else TFDS's manual folder.

    Raises:
        UserError: If the data are neither built nor found.
    """
    if args.dataset != OWN_DATA or args.manual_dir:
        return
    data_dir = find_data_dir(args.data_dir)
    downloads = args.download_dir or os.path.join(data_dir, "downloads")
    manifest = os.path.join(downloads, "manual", _MANIFEST)
    built = os.path.join(data_dir, args.dataset)
    if not ("://" in manifest or os.path.exists(manifest) or os.path.isdir(built)):
        raise UserError(
            "build custom: expected --manual_dir=DIR, the folder of your data. There "
            f"is no {manifest}."
        )


def run(args: argparse.Namespace) -> int:
    """Build the data set, print a summary, and return the exit code."""
    _check_own(args)
    start(args)
    _build(args)
    return 0


def _build(args: argparse.Namespace) -> None:
    # Start TensorFlow only after the checks, because its import takes seconds.
    from avsdn_tf.data.dataset import build_dataset, find_builder, open_dataset
    from avsdn_tf.report.terminal import logging_terminal, open_console, print_plainly

    # Keep the real sys.stdout, which `build_dataset` redirects.
    terminal = open_console(sys.stdout)
    builder = find_builder(args.dataset, args.data_dir)
    if args.dataset == OWN_DATA:
        builder.window_s, builder.hop_s = args.window_s, args.hop_s
    state = "is built"
    if builder.is_prepared():
        state = "is built again" if args.overwrite else "was built already"
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        print_plainly(terminal, text, style="yellow")

    with logging_terminal(terminal), _progress(terminal) as on_progress:
        builder.on_progress = on_progress
        builder.say = say
        build_dataset(
            builder,
            download_dir=args.download_dir,
            download_config=_download_config(args),
        )
    dataset = open_dataset(args.dataset, args.data_dir)
    print_plainly(terminal, f"{dataset.name} {state}")
    for name, text in _summarize(dataset):
        is_warning = name == "warning"
        if is_warning and any(line.endswith(f": {text}") for line in said):
            continue
        style = "yellow" if is_warning else None
        print_plainly(terminal, f"  {name:10}  {text}", style=style)


def build_own(
    folder: str, data_dir: str, window_s: int | None, hop_s: int | None
) -> None:
    """Build a custom data set to train on; rebuild it if data or windows changed.

    Args:
        folder: The folder of manifest.csv.
        data_dir: TFDS's folder of data sets.
        window_s: Value of `avsdn build --window_s`, or None for the default.
        hop_s: Value of `avsdn build --hop_s`, or None for the default.
    """
    start_tensorflow()
    _build(
        argparse.Namespace(
            dataset=OWN_DATA,
            manual_dir=folder,
            data_dir=data_dir,
            download_dir=None,
            beam_pipeline_options=None,
            overwrite=_is_outdated(folder, data_dir, window_s, hop_s),
            window_s=window_s,
            hop_s=hop_s,
        )
    )


def _is_outdated(
    folder: str, data_dir: str, window_s: int | None, hop_s: int | None
) -> bool:
    """Return whether a data set exists, but was built from other files or windows."""
    from avsdn_tf.data.dataset import NotBuiltError, open_dataset

    try:
        dataset = open_dataset(OWN_DATA, data_dir, build=False)
        builder = dataset.builder
        builder.window_s, builder.hop_s = window_s, hop_s
        wanted = builder.windows
    except NotBuiltError:
        return False
    except (UserError, ValueError):
        return True  # The data set can't be read, or the windows are invalid.
    metadata = builder.info.metadata
    built = (metadata["window_s"], metadata["hop_s"])
    return built != wanted or not dataset.is_built_from(folder)


def _download_config(args: argparse.Namespace) -> Any:
    import tensorflow_datasets as tfds

    config = tfds.download.DownloadConfig(manual_dir=args.manual_dir)
    if args.overwrite:
        config.download_mode = tfds.download.GenerateMode.REUSE_CACHE_IF_EXISTS
    if args.beam_pipeline_options:
        from apache_beam.options.pipeline_options import PipelineOptions

        words = args.beam_pipeline_options.split(",")
        config.beam_options = PipelineOptions(flags=[f"--{word}" for word in words])
    return config


@contextlib.contextmanager
def _progress(console: Any) -> Iterator[Callable[[str, int, int], None]]:
    """Show a progress bar for each stage, or a line if there is no terminal.

    Yields:
        A callback that accepts a stage, its number of finished steps, and their total.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_interactive,
        # `build_dataset` redirects stdout and stderr.
        redirect_stdout=False,
        redirect_stderr=False,
    ) as bar:
        task, shown = bar.add_task("starting", total=None), "starting"

        def on_progress(stage: str, done: int, total: int) -> None:
            nonlocal task, shown
            if stage != shown:
                bar.remove_task(task)
                task, shown = bar.add_task(stage, total=total or None), stage
                if not console.is_interactive:
                    console.print(stage, highlight=False)
            bar.update(task, completed=done)

        yield on_progress


def _summarize(dataset: Any) -> Iterator[tuple[str, str]]:
    """Yield the names and texts of a data set's summary."""
    import numpy as np
    from rich import filesize

    builder, source = dataset.builder, dataset.source
    if source:
        yield "source", f"{source.folder}, {count(len(source.files), 'file')}"
    elif dataset.config == "synthetic":
        yield "source", "simulation"
    else:
        yield "source", "unknown: no local source.json"
    own = builder.info.metadata.get("num_clips", {})
    clips = own or {name: dataset.num_clips(name) for name in dataset.splits}
    yield "clips", ", ".join(f"{name} {clips[name]:,}" for name in dataset.splits)
    if own:
        yield from _summarize_lengths(dataset, clips["train"])
    names = [short_name(name) for name in dataset.categories[:_SHOWN_CATEGORIES]]
    more = len(dataset.categories) - len(names)
    text = "; ".join(names) + (f"; and {more} more" if more else "")
    yield "categories", f"{len(dataset.categories):,}: {text}"
    length = () if dataset.is_padded else (dataset.num_segments,)
    audio, visual = (*length, dataset.audio_width), (*length, *dataset.visual_shape)
    dtype = np.dtype(builder.info.features["visual"].np_dtype).name
    text = f"audio {audio} float32, visual {visual} {dtype}"
    yield "features", text + " a segment" * dataset.is_padded
    yield "backbones", dataset.backbones.describe() or "not recorded"
    size = filesize.decimal(builder.info.dataset_size)
    yield "folder", f"{builder.data_path}, {size}"
    if dataset.disclaimer:
        yield "warning", dataset.disclaimer
    if not dataset.has_times:
        text = "clips without times: only --mode=weak --weak_label=mil learns from them"
        yield "warning", text
    for warning in source.warnings if source else ():
        yield "warning", warning
    how = "" if dataset.has_times else " --mode=weak --weak_label=mil"
    where = f" --data_dir={shlex.quote(os.fspath(builder.data_dir_root))}"
    default = expand_user("~/tensorflow_datasets")
    is_default = os.fspath(builder.data_dir_root) == default
    command = f"avsdn train --dataset={dataset.name}{how}"
    yield "train", command + ("" if is_default else where)


def _summarize_lengths(dataset: Any, num_clips: int) -> Iterator[tuple[str, str]]:
    """Yield names and texts of a custom data set's lengths, windows and overlap.

    `num_clips` is the number of training clips.
    """
    metadata = dataset.builder.info.metadata
    shortest, median, longest = metadata["lengths"]
    text = f"{shortest} to {longest} s, median {median} s"
    yield "lengths", f"{longest} s" if shortest == longest else text
    window_s, hop_s = metadata["window_s"], metadata["hop_s"]
    num_windows = dataset.num_clips("train")
    text = "none: training clips are whole"
    if num_windows != num_clips:
        text = f"{num_windows:,} for training, of {window_s} s, one every {hop_s} s"
    yield "windows", text
    found, text = metadata["overlapping"], "none"
    if found["num_clips"]:
        names = ", ".join(map(short_name, found["first"]))
        more = ", ..." if found["num_clips"] > len(found["first"]) else ""
        clips = count(found["num_clips"], "clip")
        text = f"several categories at once in {clips}: {names}{more}"
    yield "overlap", text

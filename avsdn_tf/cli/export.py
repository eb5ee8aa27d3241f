"""avsdn export: convert a run's network for programs without this package."""

import argparse
import dataclasses
from collections.abc import Mapping
from typing import Any

from avsdn_tf.cli import flags
from avsdn_tf.cli.flags import Flag
from avsdn_tf.cli.start import start
from avsdn_tf.errors import UserError
from avsdn_tf.startup import quiet_startup
from avsdn_tf.training.config import Config
from avsdn_tf.version import __version__

SUMMARY = "Export a run's network for programs without this package."
USAGE = "--run=DIR [FLAGS]"
EXAMPLE = """avsdn export --run=runs/first --format=onnx
avsdn export --run=runs/first --end_to_end"""
_BACKBONES = tuple(f for f in flags.BACKBONES if f is not flags.VISUAL_PRECISION)
_MASK = Flag(
    "mask",
    "Add an input `mask`, nonzero at real segments, for clips of different lengths.",
    flags.boolean,
)
_CHECKED_CLIPS = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the command's flags."""
    for flag in (
        flags.RUN,
        Flag("format", "Format.", default="savedmodel", choices=flags.FORMATS),
        dataclasses.replace(flags.OUT, shown_default="export/ in the run folder"),
        flags.DATA_DIR,
        _MASK,
    ):
        flag.add_to(parser)
    group = parser.add_argument_group("with the backbones")
    text = "Export a SavedModel from sound and frames to events."
    for flag in (Flag("end_to_end", text, flags.boolean, False), *_BACKBONES):
        flag.add_to(group)


def check(args: argparse.Namespace) -> None:
    """Check that the flags fit each other."""
    flags.require_run(args)
    if not args.end_to_end:
        flags.refuse(args, _BACKBONES, "export without --end_to_end")
    elif args.format != "savedmodel":
        message = "--end_to_end exports a savedmodel."
        raise UserError(message, field="format", value=args.format)
    else:
        # The export has no mask, and is compared with Keras on random sound and frames.
        flags.refuse(args, (flags.DATA_DIR, _MASK), "export --end_to_end")


def run(args: argparse.Namespace) -> int:
    """Export the run's network, and print its largest difference from Keras."""
    start(args)
    # Start TensorFlow only after the checks, because its import takes seconds.
    from rich.console import Console

    from avsdn_tf import export, runs
    from avsdn_tf.report.terminal import print_plainly

    folder, config, model = runs.open_run(args.run, labels_segments=True)
    out = args.out or folder.export
    metadata = {
        "avsdn_tf": __version__,
        "classes": model.categories + ["Background"] * (not model.multi_label),
        "multi_label": model.multi_label,
        "thresholds": model.thresholds,
        "mask": bool(args.mask),
        "segment_s": model.segment_s or 1.0,
        "num_segments": model.num_segments or 10,
        "audio_width": model.audio_width,
        "visual_shape": list(model.visual_shape),
        "model": config.model,
        "mode": config.mode,
        "dataset": config.dataset,
        "disclaimer": runs.disclaimer_of(folder),
    }
    if args.end_to_end:
        # bfloat16 needs special processors, and rounds differently for each batch size.
        given = {**flags.given(args, _BACKBONES), "visual_precision": "float32"}
        from avsdn_tf.export.end_to_end import export_end_to_end
        from avsdn_tf.videos import extractor_for

        extractor = extractor_for(model, **given)
        # Also hide the notices of converters and runtimes.
        with quiet_startup():
            path, largest = export_end_to_end(model, extractor, out, metadata)
        checked = "random sound and pictures"
    else:
        clips, checked = _clips_to_check(model, config, args.data_dir)
        with quiet_startup():
            path, largest = export.export_model(
                model, args.format, out, metadata, clips, bool(args.mask)
            )
    text = f"{path}: largest difference from Keras {largest:.2g}, on {checked}"
    print_plainly(Console(), text)
    return 0


def _clips_to_check(
    model: Any, config: Config, data_dir: str | None
) -> tuple[list[dict[str, Any]], str]:
    """Return clips with masks for the comparison with Keras, and their description."""
    import numpy as np

    from avsdn_tf.data.batches import scoring_batches
    from avsdn_tf.data.dataset import (
        NotBuiltError,
        explain_damage,
        open_dataset_of_run,
    )
    from avsdn_tf.training.tasks import restore_task

    random = np.random.default_rng(0)
    num_segments = model.num_segments or 10
    shape = (_CHECKED_CLIPS, num_segments)
    clips = {
        "audio": random.random((*shape, model.audio_width), np.float32),
        "visual": random.random((*shape, *model.visual_shape), np.float32),
        "length": random.integers(1, num_segments + 1, _CHECKED_CLIPS),
    }
    clips = [_fit(clips, num_segments)]
    checked = f"{_CHECKED_CLIPS} random clips"
    name = config.dataset
    try:
        dataset = open_dataset_of_run(name, config.data_dir, data_dir, build=False)
        restore_task(model, config, dataset)  # Checks that model and data set fit.
        with explain_damage(dataset):
            batches = scoring_batches(dataset, "test", _CHECKED_CLIPS)
            real = next(iter(batches.take(1).as_numpy_iterator()))
    except UserError as error:
        # An export needs no data set, unless the user names one.
        if data_dir:
            raise
        is_built = not isinstance(error, NotBuiltError)
        reason = "is not the run's data set" if is_built else "is not built here"
        return clips, f"{checked} ({name} {reason})"
    clips.append(_fit(real, num_segments))
    return clips, f"{checked} and {len(real['row'])} of {name}'s test split"


def _fit(clips: Mapping[str, Any], num_segments: int) -> dict[str, Any]:
    """Cut or pad clips to one length, which some formats require; add their masks."""
    import numpy as np

    lengths = clips.get("length", np.full(len(clips["audio"]), num_segments))
    mask = np.arange(num_segments) < lengths[:, None]
    fitted = {"mask": mask.astype(np.float32)}
    for name in ("audio", "visual"):
        # Exported networks read float32; data sets store maps in half precision.
        values = clips[name][:, :num_segments].astype(np.float32)
        padding = [(0, 0)] * values.ndim
        padding[1] = (0, num_segments - values.shape[1])
        fitted[name] = np.pad(values, padding)
    return fitted

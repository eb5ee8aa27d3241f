"""The parts of the benchmark: functions that yield comparisons.

Each function receives the command line's arguments and the data set.
"""

import contextlib
import csv
import dataclasses
import pathlib
import statistics
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator, Mapping
from typing import Any

import h5py
import numpy as np

from avsdn_tf.data.batches import scoring_batches
from avsdn_tf.data.dataset import Dataset
from avsdn_tf.files import explain_unwritable
from avsdn_tf.run_folder import RunFolder
from avsdn_tf.training.checkpoints import Checkpoints
from avsdn_tf.training.config import Config
from experiments.benchmark import our_program
from experiments.benchmark.batch import SPLITS, VISUAL_SHAPES, Batch
from experiments.benchmark.comparison import Comparison
from experiments.benchmark.contenders import (
    OURS,
    PLAIN_KERAS,
    TORCH,
    TORCH_HEADS,
    Contender,
    alternate,
    compete,
    medians,
)
from experiments.benchmark.machine import has_bfloat16
from experiments.programs import Program, run_command
from experiments.published import load_table

# Names of the programs in tables. A comma separates a variant.
_EAGER, _COMPILED, _FUSED = "PyTorch", "PyTorch, torch.compile", "PyTorch, fused Adam"
_PLAIN, _OURS, _XLA = "plain Keras, fit", "avsdn_tf", "avsdn_tf, --xla=step"
# Both programs in bfloat16 keep their weights in float32.
_EAGER_HALF = "PyTorch, autocast to bfloat16"
_OURS_HALF = "avsdn_tf, --precision=mixed_bfloat16"
_HALF = {"precision": "mixed_bfloat16"}
_CLIPS = "clips a second"
_AVSDN = Batch("avsdn", VISUAL_SHAPES["avsdn"])
# Of 200 calls, the third slowest determines the 99th percentile.
_LATENCY_CALLS = 200
_PUBLISHED = "PyTorch, as published"
# PSP's released program computes in float32, and holds all features in float64, the
# dtype of AVE's features. The other released programs compute in float64, and read one
# clip at a time.
_RELEASED = {
    "psp": {"held_dtype": "float64"},
    **{name: {"dtype": "float64"} for name in ("cmran", "cpsp", "cmbs", "cace")},
}
_MEMORY_NOTE = (
    "In all comparisons of memory, PyTorch takes one step, without worker processes "
    "that read clips; avsdn_tf trains and validates for an epoch. As published, PSP "
    "holds the features of the training and validation splits in float64, and the "
    "other programs compute in float64."
)
# A run's first epoch, which builds graphs and reads cold files, is left out.
_EPOCHS = 3
# An epoch of `tfds_ave/synthetic` takes a second or two: measure more epochs.
_DISTRIBUTED = {"epochs": 16, "patience": 16}
_TWO_DEVICES = {"module": "experiments.benchmark.two_devices", "strategy": "mirrored"}


def _batch(dataset: Dataset) -> Batch:
    """Return the batches of the network that fits a data set."""
    shape = dataset.visual_shape
    network = "avel_att" if len(shape) == 3 else "avsdn"
    return Batch(network, shape, num_segments=dataset.num_segments)


def _title(dataset: Dataset) -> str:
    """Return the names of the network and of the data set."""
    return f"{_batch(dataset).network} on {dataset.name}"


def measure_step(args: Namespace, dataset: Dataset) -> Iterator[Comparison]:
    """Measure training steps and inference of batches in memory."""
    ours = {"data_dir": args.data_dir}
    training = {
        _EAGER: (TORCH, "training", {}),
        _COMPILED: (TORCH, "training", {"compiled": True}),
        _FUSED: (TORCH, "training", {"fused": True}),
        _PLAIN: (PLAIN_KERAS, "training", {}),
        _OURS: (OURS, "step", ours),
        _XLA: (OURS, "step", {**ours, "xla": "step"}),
    }
    if has_bfloat16():
        training[_EAGER_HALF] = (TORCH, "training", {"bfloat16": True})
        training[_OURS_HALF] = (OURS, "step", {**ours, **_HALF})
    inference = {
        _EAGER: (TORCH, "inference", {}),
        _COMPILED: (TORCH, "inference", {"compiled": True}),
        _OURS: (OURS, "inference", {"how": "graph"}),
    }
    for network, shape in VISUAL_SHAPES.items():
        batch = Batch(network, shape)
        for work, programs in (("training step", training), ("inference", inference)):
            turns = compete(programs, batch, args.repeats, args.seconds)
            speeds = {
                n: [batch.size / s for s in medians(of)] for n, of in turns.items()
            }
            yield Comparison(f"{network}, {work}: {batch}", _CLIPS, speeds, False)


def measure_heads(args: Namespace, dataset: Dataset) -> Iterator[Comparison]:
    """Measure a step of each newer network, and peak memory if features are maps."""
    others = ("avel_att", "dmrn", "avsdn")
    rows = [row for row in load_table("heads") if row.model not in others]
    with contextlib.ExitStack() as stack:
        files = None
        if len(dataset.visual_shape) == 3:
            files = stack.enter_context(_feature_file(dataset))
        for row in rows:
            # The settings that change the work of a step.
            names = ("loss", "clip_norm")
            settings = {n: v for n, v in row.settings.items() if n in names}
            clip_norm = {"clip_norm": settings.get("clip_norm", 0.0)}
            size = row.settings.get("batch_size", Config().batch_size)
            batch = Batch(row.model, VISUAL_SHAPES["avel_att"], size)
            released = _RELEASED[row.model]
            ours = {"data_dir": args.data_dir, "settings": settings}
            programs = {
                _EAGER: (TORCH_HEADS, "training", clip_norm),
                _OURS: (OURS, "step", ours),
            }
            if "dtype" in released:
                program = (TORCH_HEADS, "training", {**clip_norm, **released})
                programs[_PUBLISHED] = program
            # One call suffices: steps take seconds, and avsdn_tf runs eight per call.
            turns = compete(programs, batch, args.repeats, args.seconds, 1)
            speeds = {
                n: [batch.size / s for s in medians(of)] for n, of in turns.items()
            }
            title = f"{row.system}, training step: {batch}"
            yield Comparison(title, _CLIPS, speeds, False)
            if files:
                program = {"batch": batch, "files": files, **clip_norm}
                peaks = {
                    _EAGER: _first_step_peak(**program),
                    _OURS: _epoch_peak(args, dataset, batch, settings),
                    _PUBLISHED: _first_step_peak(**program, **released),
                }
                title = f"{row.system}, peak memory of training on {dataset.name}"
                values = {name: [peak / 1e9] for name, peak in peaks.items()}
                # State the difference of the programs once.
                note = _MEMORY_NOTE if row is rows[0] else ""
                yield Comparison(title, "GB", values, note=note)


def _epoch_peak(
    args: Namespace, dataset: Dataset, batch: Batch, settings: Mapping[str, Any]
) -> int:
    """Return the peak memory in bytes of `avsdn_tf.main`, which trains an epoch."""
    flags = {"model": batch.network, "batch_size": batch.size, "epochs": 1, **settings}
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(f"{folder}/run")
        return run_command(_flags(args, dataset, run, **flags))


def _first_step_peak(**settings: Any) -> int:
    """Return the peak memory in bytes of a PyTorch program that takes one step."""
    with Contender(TORCH_HEADS, "first_step", **settings) as contender:
        contender.take_turn()
        return contender.finish()


def measure_latency(args: Namespace, dataset: Dataset) -> Iterator[Comparison]:
    """Measure the latency of one clip, for every way to predict."""
    programs = {
        _EAGER: (TORCH, "inference", {}),
        _COMPILED: (TORCH, "inference", {"compiled": True}),
        "model(clip)": (OURS, "inference", {"how": "keras"}),
        "tf.function, as predict": (OURS, "inference", {"how": "graph"}),
        "tf.function with XLA": (OURS, "inference", {"how": "xla"}),
        "SavedModel": (OURS, "inference", {"how": "savedmodel"}),
    }
    clip = dataclasses.replace(_AVSDN, size=1)
    turns = compete(programs, clip, args.repeats, args.seconds, _LATENCY_CALLS)
    for percent in (50, 99):
        values = {
            name: [float(1000 * np.percentile(turn, percent)) for turn in of]
            for name, of in turns.items()
        }
        yield Comparison(f"avsdn, latency of one clip, p{percent}", "ms", values)


def measure_profile(args: Namespace, dataset: Dataset) -> Iterator[Comparison]:
    """Measure AVSDN's step as it is, and without each optimization."""
    programs = {
        name: (OURS, "step", {"data_dir": args.data_dir, "replaced": name})
        for name in our_program.REPLACED
    }
    turns = compete(programs, _AVSDN, args.repeats, args.seconds)
    title = f"avsdn, a training step with one thing replaced at a time: {_AVSDN}"
    values = {name: [1000 * s for s in medians(of)] for name, of in turns.items()}
    yield Comparison(title, "ms", values)


def measure_epoch(args: Namespace, dataset: Dataset) -> Iterator[Comparison]:
    """Measure an epoch of each whole program, and its peak memory."""
    with _feature_file(dataset) as files:
        program = {"batch": _batch(dataset), "files": files}
        work = {
            _EAGER: lambda: _train_other(TORCH, **program),
            _PLAIN: lambda: _train_other(PLAIN_KERAS, **program),
            _OURS: lambda: _train(args, dataset),
        }
        if has_bfloat16():
            work[_EAGER_HALF] = lambda: _train_other(TORCH, bfloat16=True, **program)
            work[_OURS_HALF] = lambda: _train(args, dataset, **_HALF)
        results = alternate(work, args.repeats)
    seconds = {name: [s for s, _ in of] for name, of in results.items()}
    gigabytes = {name: [peak / 1e9 for _, peak in of] for name, of in results.items()}
    title = _title(dataset)
    yield Comparison(f"{title}, an epoch with validation, without saving", "s", seconds)
    yield Comparison(f"{title}, peak memory of the process", "GB", gigabytes)


def _train_other(module: str, **settings: Any) -> tuple[float, int]:
    """Train with another program; return seconds per epoch and peak memory in bytes."""
    with Contender(module, "epoch", **settings) as contender:
        of = [contender.take_turn()[0] for _ in range(_EPOCHS)]
        return statistics.median(of[1:]), contender.finish()


def _train(
    args: Namespace,
    dataset: Dataset,
    module: str = "avsdn_tf.main",
    **more: Any,
) -> tuple[float, int]:
    """Train by the command line; return seconds per epoch and peak memory in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(f"{folder}/run")
        flags = _flags(args, dataset, run, **{"epochs": _EPOCHS, **more})
        peak_bytes = run_command(flags, module)
        with run.metrics.open(newline="") as file:
            of = [float(row["seconds"]) for row in csv.DictReader(file)]
        return statistics.median(of[1:]), peak_bytes


def _flags(args: Namespace, dataset: Dataset, run: RunFolder, **more: Any) -> list[str]:
    """Return the flags of the training command."""
    settings = {
        "model": _batch(dataset).network,
        "dataset": dataset.name,
        "run": run.path,
        **({"data_dir": args.data_dir} if args.data_dir else {}),
        **more,
    }
    return [f"--{name}={value}" for name, value in settings.items()]


def measure_start(args: Namespace, dataset: Dataset) -> Iterator[Comparison]:
    """Measure the time from the command to the end of the first training step."""
    with _feature_file(dataset) as files:
        work = {
            _EAGER: lambda: _time_first_step(batch=_batch(dataset), files=files),
            _OURS: lambda: _time_first_checkpoint(args, dataset),
            _XLA: lambda: _time_first_checkpoint(args, dataset, xla="step"),
        }
        values = alternate(work, args.repeats)
    title = f"{_title(dataset)}, from the command to the first step"
    yield Comparison(title, "s", values)


def _time_first_step(**settings: Any) -> float:
    """Return the seconds until PyTorch has completed its first step."""
    start = time.perf_counter()
    with Contender(TORCH, "first_step", **settings) as contender:
        contender.take_turn()
        return time.perf_counter() - start


def _time_first_checkpoint(args: Namespace, dataset: Dataset, **more: Any) -> float:
    """Return the seconds until a training has saved its first checkpoint.

    Training saves a checkpoint after its first call of the graph. The time includes
    saving, some tens of milliseconds.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(f"{folder}/run")
        flags = _flags(args, dataset, run, checkpoint_minutes=1e-6, epochs=1, **more)
        checkpoints = Checkpoints(run.checkpoints)
        start = time.perf_counter()
        with Program(["-m", "avsdn_tf.main", *flags]) as program:
            while not checkpoints.paths():
                if program.process.poll() is not None:
                    program.fail()
                time.sleep(0.01)
            return time.perf_counter() - start


def measure_distribution(args: Namespace, dataset: Dataset) -> Iterator[Comparison]:
    """Measure training on one device, two logical devices and two workers."""
    work = {
        "one device": lambda: _train(args, dataset, **_DISTRIBUTED),
        "two logical devices": lambda: _train(
            args, dataset, **_DISTRIBUTED, **_TWO_DEVICES
        ),
        "two workers": lambda: _train(args, dataset, **_DISTRIBUTED, local_workers=2),
    }
    num_clips = dataset.num_clips("train")
    results = alternate(work, args.repeats)
    yield Comparison(
        f"{_title(dataset)}, training by number of devices and workers",
        _CLIPS,
        {place: [num_clips / s for s, _ in of] for place, of in results.items()},
        less_is_better=False,
        note="One device, two devices and two workers have the same cores. Two devices "
        "or workers also sum the gradients and update two copies of the weights: their "
        "best possible ratio is 1. It says nothing about several GPUs or machines.",
    )


@contextlib.contextmanager
def _feature_file(dataset: Dataset) -> Iterator[str]:
    """Yield the path of a temporary feature file, which the other programs read."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "features.h5")
        with explain_unwritable(path, "Set TMPDIR to a folder with more space."):
            write_features(dataset, path)
        yield str(path)


def write_features(dataset: Dataset, path: pathlib.Path) -> None:
    """Write the train and validation splits as HDF5, like AVE's released files.

    Args:
        dataset: The data.
        path: The file. It holds `audio` and `visual`, float32, not chunked; `labels`,
            the segments' classes, int64; and `rows_train` and `rows_validation`, the
            indices of each split's clips in these arrays.
    """
    num_clips = sum(map(dataset.num_clips, SPLITS))
    shape = (num_clips, dataset.num_segments)
    visual_shape = (*shape, *dataset.visual_shape)
    with h5py.File(path, "w") as file:
        arrays = {
            "audio": file.create_dataset("audio", (*shape, dataset.audio_width), "f4"),
            "visual": file.create_dataset("visual", visual_shape, "f4"),
            "segment_labels": file.create_dataset("labels", shape, "i8"),
        }
        end = 0
        for split in SPLITS:
            begin = end
            for batch in scoring_batches(dataset, split):
                start, end = end, end + len(batch["row"])
                for name, array in arrays.items():
                    array[start:end] = batch[name].numpy()
            file[f"rows_{split}"] = np.arange(begin, end)

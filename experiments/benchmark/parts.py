"""What the benchmark measures, part by part."""

import contextlib
import csv
import json
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from avsdn_tf import data
from experiments.benchmark import operations
from experiments.benchmark.contenders import (
    H5PY,
    KERAS,
    TORCH,
    Contender,
    command,
    medians,
    run_command,
    take_turns,
)
from experiments.benchmark.feature_file import write_feature_file
from experiments.benchmark.keras_program import MATRIX_OPERATIONS
from experiments.benchmark.results import Comparison, has_bfloat16, measurement
from avsdn_tf.training.checkpoints import Checkpoints
from avsdn_tf.training.config import Config
from avsdn_tf.errors import UserError
from avsdn_tf.files import explain_unwritable
from avsdn_tf.run_folder import RunFolder

_DEFAULT = Config()
_EAGER, _COMPILED = "PyTorch", "PyTorch, torch.compile"
_FUSED = "PyTorch, fused Adam"
_OURS = "avsdn_tf"
_STEP_XLA = "avsdn_tf, --xla=step"
# Both keep their weights in float32.
_EAGER_HALF = "PyTorch, autocast to bfloat16"
_HALF = "avsdn_tf, --precision=mixed_bfloat16"
_CLIPS = "clips a second"
_VISUAL_SHAPES = {"avsdn": (2048,), "avel_att": (7, 7, 512)}
# Of a run, the first epoch builds graphs and reads for the first time.
_EPOCHS = 3
# Enough for one in a hundred to be none of the slowest two.
_LATENCY_CALLS = 200


@dataclass(frozen=True)
class Setting:
    """What the benchmark was asked for.

    Attributes:
        dataset: The data set that the parts read that read one.
        name: How `--dataset` names it.
        data_dir: TFDS's folder, or None for its default.
        repeats: How many turns every program takes.
        seconds: Length of a turn.
    """

    dataset: data.Dataset
    name: str
    data_dir: str | None
    repeats: int
    seconds: float = 1.0

    @property
    def network(self) -> str:
        """The network that fits the data set."""
        return "avel_att" if len(self.dataset.visual_shape) == 3 else "avsdn"


def measure_step(setting: Setting) -> Iterator[Comparison]:
    """Measures training steps and inference of batches in memory."""
    for network, shape in _VISUAL_SHAPES.items():
        for training in (True, False):
            yield _compare_steps(
                setting, network, shape, training=training, also_half=training
            )


def _compare_steps(
    setting: Setting,
    network: str,
    visual_shape: Sequence[int],
    *,
    training: bool,
    also_half: bool = False,
    num_segments: int = 10,
    units: int = _DEFAULT.units,
) -> Comparison:
    size = _DEFAULT.batch_size
    common = {
        "network": network,
        "batch_size": size,
        "num_segments": num_segments,
        "visual_shape": list(visual_shape),
        "units": units,
    }
    work = "training" if training else "inference"
    programs = {
        _EAGER: (TORCH, work, {"compiled": False}),
        _COMPILED: (TORCH, work, {"compiled": True}),
    }
    if training:
        programs[_FUSED] = (TORCH, work, {"compiled": False, "fused": True})
        own = {"data_dir": setting.data_dir}
        programs[_OURS] = (KERAS, "step", {**own, "xla": _DEFAULT.xla})
        programs[_STEP_XLA] = (KERAS, "step", {**own, "xla": "step"})
    else:
        programs[_OURS] = (KERAS, "inference", {"how": "shared"})
    if also_half and has_bfloat16():
        half = {"compiled": False, "bfloat16": True}
        programs[_EAGER_HALF] = (TORCH, work, half)
        half = {**own, "xla": _DEFAULT.xla, "precision": "mixed_bfloat16"}
        programs[_HALF] = (KERAS, "step", half)
    with contextlib.ExitStack() as stack:
        contenders = {
            name: stack.enter_context(Contender(module, function, **common, **own))
            for name, (module, function, own) in programs.items()
        }
        matrix = stack.enter_context(Contender(KERAS, "matrix"))
        turns = take_turns(
            {**contenders, "matrix": matrix}, setting.repeats, setting.seconds
        )
    rate = MATRIX_OPERATIONS / statistics.median(medians(turns.pop("matrix")))
    per_clip = operations.count(network, num_segments, visual_shape, units, training)
    rows = []
    for name, of in turns.items():
        speeds = [size / seconds for seconds in medians(of)]
        share = statistics.median(speeds) * per_clip / rate
        # The limit is that of products in float32.
        in_float32 = name not in (_EAGER_HALF, _HALF)
        rows.append(measurement(name, speeds, share if in_float32 else None))
    return Comparison(
        f"{network}, {'training step' if training else 'inference'}: batch {size}, "
        f"{num_segments} segments, visual features {_shape_text(visual_shape)}, "
        f"{units} units",
        _CLIPS,
        rows,
        limit=f"the matrix rate measured beside it, {rate / 1e9:.0f} Gflop/s; "
        f"{per_clip / 1e6:.1f} Mflop a clip",
    )


def measure_latency(setting: Setting) -> Iterator[Comparison]:
    """Measures how long one clip takes, in all the ways to ask."""
    common = {
        "network": "avsdn",
        "batch_size": 1,
        "num_segments": 10,
        "visual_shape": list(_VISUAL_SHAPES["avsdn"]),
        "units": _DEFAULT.units,
    }
    programs: dict[str, tuple[str, dict[str, Any]]] = {
        _EAGER: (TORCH, {"compiled": False}),
        _COMPILED: (TORCH, {"compiled": True}),
        "model(clip)": (KERAS, {"how": "keras"}),
        "tf.function, as predict": (KERAS, {"how": "graph"}),
        "tf.function with XLA": (KERAS, {"how": "xla"}),
        "SavedModel": (KERAS, {"how": "savedmodel"}),
    }
    with contextlib.ExitStack() as stack:
        contenders = {
            name: stack.enter_context(Contender(module, "inference", **common, **own))
            for name, (module, own) in programs.items()
        }
        turns = take_turns(contenders, setting.repeats, setting.seconds, _LATENCY_CALLS)
    for percent in (50, 99):
        rows = [
            measurement(name, [1000 * np.percentile(turn, percent) for turn in of])
            for name, of in turns.items()
        ]
        title = f"avsdn, latency of one clip, p{percent}"
        yield Comparison(title, "ms", rows, less_is_better=True)


def measure_reading(setting: Setting) -> Iterator[Comparison]:
    """Measures the input pipeline alone, and what a training step takes of it."""
    num_clips = setting.dataset.num_clips("train")
    with _feature_file(setting) as files, contextlib.ExitStack() as stack:
        contenders = {
            "h5py": Contender(
                H5PY, "reading", files=str(files), batch_size=_DEFAULT.batch_size
            ),
            _OURS: Contender(
                KERAS, "reading", dataset=setting.name, data_dir=setting.data_dir
            ),
            f"the training step of {setting.network}": Contender(
                KERAS,
                "step",
                network=setting.network,
                batch_size=_DEFAULT.batch_size,
                num_segments=setting.dataset.num_segments,
                visual_shape=list(setting.dataset.visual_shape),
                units=_DEFAULT.units,
                xla=_DEFAULT.xla,
                data_dir=setting.data_dir,
            ),
        }
        for contender in contenders.values():
            stack.enter_context(contender)
        turns = take_turns(contenders, setting.repeats, setting.seconds)
    rows = []
    for name, of in turns.items():
        # A repetition is an epoch, but of the step it is a step.
        done = _DEFAULT.batch_size if "step" in name else num_clips
        rows.append(measurement(name, [done / seconds for seconds in medians(of)]))
    title = f"{setting.name}, reading of shuffled batches, from the second epoch on"
    yield Comparison(title, _CLIPS, rows)


def measure_epoch(setting: Setting) -> Iterator[Comparison]:
    """Measures an epoch as people run it, and the memory that it takes."""
    names = [_EAGER, _OURS, *([_EAGER_HALF, _HALF] if has_bfloat16() else [])]
    seconds: dict[str, list[float]] = {name: [] for name in names}
    peaks: dict[str, list[float]] = {name: [] for name in names}
    with _feature_file(setting) as files:
        for repeat in range(setting.repeats):
            for name in _forth_and_back(names, repeat):
                half = name in (_EAGER_HALF, _HALF)
                if name in (_EAGER, _EAGER_HALF):
                    program = {**_program(setting, files), "bfloat16": half}
                    with Contender(TORCH, "epoch", **program) as contender:
                        of = [contender.take_turn()[0] for _ in range(_EPOCHS)]
                    peak_bytes = contender.peak_bytes
                else:
                    precision = "mixed_bfloat16" if half else _DEFAULT.precision
                    of, peak_bytes = _train(
                        setting, setting.data_dir, precision=precision
                    )
                seconds[name].append(statistics.median(of[1:]))
                peaks[name].append(peak_bytes)
    title = f"{setting.network} on {setting.name}"
    rows = [measurement(name, of) for name, of in seconds.items()]
    yield Comparison(
        f"{title}, an epoch with validation, without saving",
        "s",
        rows,
        less_is_better=True,
    )
    yield _memory(f"{title}, peak memory of the process", peaks)


def measure_start(setting: Setting) -> Iterator[Comparison]:
    """Measures the time from the command to the end of the first training step."""
    times: dict[str, list[float]] = {_EAGER: [], _OURS: [], _STEP_XLA: []}
    with _feature_file(setting) as files:
        for repeat in range(setting.repeats):
            for name in _forth_and_back(tuple(times), repeat):
                if name == _EAGER:
                    program = _program(setting, files)
                    start = time.perf_counter()
                    with Contender(TORCH, "first_step", **program) as contender:
                        contender.take_turn()
                        times[name].append(time.perf_counter() - start)
                else:
                    xla = "step" if name == _STEP_XLA else _DEFAULT.xla
                    times[name].append(_time_first_checkpoint(setting, xla))
    title = f"{setting.network} on {setting.name}, from the command to the first step"
    rows = [measurement(name, of) for name, of in times.items()]
    yield Comparison(title, "s", rows, less_is_better=True)


def measure_growth(setting: Setting) -> Iterator[Comparison]:
    """Measures how cost grows with clips, with segments and with units."""
    times: dict[str, list[float]] = {}
    peaks: dict[str, list[float]] = {}
    with contextlib.ExitStack() as stack:
        folders = {
            times_as_many: enlarge(
                setting, times_as_many, stack.enter_context(_temporary_folder())
            )
            for times_as_many in (1, 4, 16)
        }
        for repeat in range(setting.repeats):
            for times_as_many in _forth_and_back(tuple(folders), repeat):
                name = f"clips x {times_as_many}"
                of, peak_bytes = _train(setting, str(folders[times_as_many]))
                num_clips = times_as_many * setting.dataset.num_clips("train")
                per_clip = 1e6 * statistics.median(of[1:]) / num_clips
                times.setdefault(name, []).append(per_clip)
                peaks.setdefault(name, []).append(peak_bytes)
    title = f"{setting.network} on {setting.name} again and again"
    rows = [measurement(name, of) for name, of in times.items()]
    yield Comparison(
        f"{title}, an epoch with validation, without saving, by training clip",
        "µs",
        rows,
        less_is_better=True,
    )
    yield _memory(f"{title}, peak memory of the process", peaks)
    shape = _VISUAL_SHAPES["avsdn"]
    by_segments: dict[str, Sequence[float]] = {}
    by_units: dict[str, Sequence[float]] = {}
    for num_segments, units in ((10, 128), (40, 128), (160, 128), (10, 512)):
        comparison = _compare_steps(
            setting,
            "avsdn",
            shape,
            training=True,
            num_segments=num_segments,
            units=units,
        )
        yield comparison
        (ours,) = [m for m in comparison.measurements if m.program == _OURS]
        # Microseconds that a segment takes.
        costs = [1e6 / (speed * num_segments) for speed in ours.values]
        if units == _DEFAULT.units:
            by_segments[f"{num_segments} segments"] = costs
        if num_segments == 10:
            by_units[f"{units} units"] = costs
    for what, of_sizes in (("segments a clip", by_segments), ("units", by_units)):
        yield Comparison(
            f"avsdn, training step by {what}, by segment",
            "µs",
            [measurement(name, costs) for name, costs in of_sizes.items()],
            less_is_better=True,
        )


PARTS: Mapping[str, Callable[[Setting], Iterator[Comparison]]] = {
    "step": measure_step,
    "latency": measure_latency,
    "reading": measure_reading,
    "epoch": measure_epoch,
    "start": measure_start,
    "growth": measure_growth,
}


def _forth_and_back(names: Sequence[Any], repeat: int) -> Sequence[Any]:
    """Returns the order of a turn: what slows a machine down meets all alike."""
    return names[::-1] if repeat % 2 else names


@contextlib.contextmanager
def _feature_file(setting: Setting) -> Iterator[pathlib.Path]:
    """Writes the features for the PyTorch programs, for as long as they are read.

    Raises:
        UserError: If there is no space.
    """
    with _temporary_folder() as folder:
        path = folder / "features.h5"
        with explain_unwritable(path, "Choose a larger folder by TMPDIR=."):
            write_feature_file(setting.dataset, path)
        yield path


def _program(setting: Setting, files: pathlib.Path) -> dict[str, Any]:
    """Returns what the PyTorch program that trains on a file takes."""
    return {
        "network": setting.network,
        "visual_shape": list(setting.dataset.visual_shape),
        "units": _DEFAULT.units,
        "batch_size": _DEFAULT.batch_size,
        "files": str(files),
    }


def _flags(
    setting: Setting, data_dir: str | None, run: pathlib.Path, **more: Any
) -> list[str]:
    """Returns the words of the command that trains."""
    settings = {
        "model": setting.network,
        "dataset": setting.name,
        "run": run,
        **({"data_dir": data_dir} if data_dir else {}),
        **more,
    }
    return [f"--{name}={value}" for name, value in settings.items()]


def _train(
    setting: Setting, data_dir: str | None, **more: Any
) -> tuple[list[float], int]:
    """Trains some epochs; returns the seconds of each, and the peak memory in bytes."""
    with _temporary_folder() as folder:
        run = RunFolder(folder / "run")
        flags = _flags(setting, data_dir, run.path, epochs=_EPOCHS, **more)
        peak_bytes = run_command(flags)
        with run.metrics.open(newline="") as file:
            return [float(row["seconds"]) for row in csv.DictReader(file)], peak_bytes


def _time_first_checkpoint(setting: Setting, xla: str) -> float:
    """Starts a training that saves after its first step; returns when it has done so.

    The checkpoint, too, is in the time: some tens of milliseconds.
    """
    with _temporary_folder() as folder:
        run = folder / "run"
        flags = _flags(
            setting, setting.data_dir, run, xla=xla, checkpoint_minutes=1e-6, epochs=1
        )
        checkpoints = Checkpoints(RunFolder(run).checkpoints)
        start = time.perf_counter()
        with command(flags) as program:
            while not checkpoints.paths():
                if program.process.poll() is not None:
                    raise UserError(f"benchmark: {program.process.stderr.read()}")
                time.sleep(0.01)
            return time.perf_counter() - start


def enlarge(setting: Setting, times_as_many: int, folder: pathlib.Path) -> pathlib.Path:
    """Makes a data set of the same clips again and again, by links to its files.

    Returns:
        TFDS's folder that it lies in.
    """
    source = pathlib.Path(setting.dataset.builder.data_dir)
    target = folder.joinpath(*source.parts[-3:])
    target.mkdir(parents=True)
    info = json.loads((source / "dataset_info.json").read_text())
    splits = setting.dataset.builder.info.splits
    for split in info["splits"]:
        paths = splits[split["name"]].filepaths * times_as_many
        split["shardLengths"] *= times_as_many
        split["numBytes"] = str(times_as_many * int(split["numBytes"]))
        for number, path in enumerate(paths):
            stem = path.name.split("-of-")[0].rsplit("-", 1)[0]
            name = f"{stem}-{number:05d}-of-{len(paths):05d}"
            (target / name).symlink_to(path)
    for path in source.iterdir():
        if path.suffix in (".json", ".txt"):
            (target / path.name).write_bytes(path.read_bytes())
    (target / "dataset_info.json").write_text(json.dumps(info))
    return folder


def _memory(title: str, peaks: Mapping[str, Sequence[float]]) -> Comparison:
    rows = [measurement(name, [b / 1e9 for b in of]) for name, of in peaks.items()]
    return Comparison(title, "GB", rows, less_is_better=True)


@contextlib.contextmanager
def _temporary_folder() -> Iterator[pathlib.Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield pathlib.Path(folder)


def _shape_text(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))

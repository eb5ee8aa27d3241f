"""Parts that read a data set: reading alone, and trainings as people run them."""

import csv
import json
import pathlib
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from avsdn_tf.run_folder import RunFolder
from avsdn_tf.training.checkpoints import Checkpoints
from experiments.benchmark import names
from experiments.benchmark.batch import VISUAL_SHAPES, Batch
from experiments.benchmark.comparison import Comparison, Measurement, times
from experiments.benchmark.contenders import (
    H5PY,
    OUR_PROGRAM,
    PLAIN_KERAS,
    TORCH,
    Contender,
    compete,
    forth_and_back,
    medians,
)
from experiments.benchmark.machine import has_bfloat16
from experiments.benchmark.setting import Setting, temporary_folder
from experiments.benchmark.steps import compare_training
from experiments.programs import Program, run_command

# A run's first epoch, which builds graphs and reads cold files, is left out.
_EPOCHS = 3
# An epoch of the small data set takes a second or two, so more of them are measured.
_DISTRIBUTED_EPOCHS = 16
_PLACES: Mapping[str, Mapping[str, Any]] = {
    "one device": {},
    "two logical devices": {
        "module": "experiments.benchmark.two_devices",
        "strategy": "mirrored",
    },
    "two workers": {"local_workers": 2},
}


def measure_reading(setting: Setting) -> Iterator[Comparison]:
    """Measure the input pipeline alone, beside a training step."""
    dataset, batch = setting.dataset, setting.batch
    step = f"the training step of {batch.network}"
    data = {"dataset": dataset.name, "data_dir": setting.data_dir}
    with setting.feature_file() as files:
        programs = {
            "h5py": (H5PY, "reading", {"files": files, "batch_size": batch.size}),
            names.OURS: (OUR_PROGRAM, "reading", data),
            step: (OUR_PROGRAM, "step", {"batch": batch, "data_dir": setting.data_dir}),
        }
        turns = compete(programs, setting.repeats, setting.seconds)
    rows = []
    for name, of in turns.items():
        # A repetition is an epoch, but of the step it is one batch.
        num_clips = batch.size if name == step else dataset.num_clips("train")
        rows.append(Measurement(name, [num_clips / s for s in medians(of)]))
    title = f"{dataset.name}, reading of shuffled batches, from the second epoch on"
    yield Comparison(title, names.CLIPS, rows)


def measure_epoch(setting: Setting) -> Iterator[Comparison]:
    """Measure an epoch as people run it, and the memory that it takes."""
    half = {"precision": "mixed_bfloat16"}
    with setting.feature_file() as files:
        program = {"batch": setting.batch, "files": files}
        work = {
            names.EAGER: lambda: _train_other(TORCH, **program),
            names.PLAIN: lambda: _train_other(PLAIN_KERAS, **program),
            names.OURS: lambda: _train(setting, setting.data_dir),
        }
        if has_bfloat16():
            work |= {
                names.EAGER_HALF: lambda: _train_other(TORCH, bfloat16=True, **program),
                names.OURS_HALF: lambda: _train(setting, setting.data_dir, **half),
            }
        seconds: dict[str, list[float]] = {name: [] for name in work}
        peaks: dict[str, list[float]] = {name: [] for name in work}
        for repeat in range(setting.repeats):
            for name in forth_and_back(list(work), repeat):
                of, peak = work[name]()
                seconds[name].append(statistics.median(of[1:]))
                peaks[name].append(peak)
    title = f"{setting.title}, an epoch with validation, without saving"
    yield times(title, "s", seconds)
    yield _memory(setting.title, peaks)


def _train_other(module: str, **settings: Any) -> tuple[list[float], int]:
    """Train some epochs by another program; see `_train`."""
    with Contender(module, "epoch", **settings) as contender:
        of = [contender.take_turn()[0] for _ in range(_EPOCHS)]
        return of, contender.finish()


def _memory(title: str, peaks: Mapping[str, Sequence[float]]) -> Comparison:
    """Return a comparison of peaks in bytes."""
    gigabytes = {name: [peak / 1e9 for peak in of] for name, of in peaks.items()}
    return times(f"{title}, peak memory of the process", "GB", gigabytes)


def measure_start(setting: Setting) -> Iterator[Comparison]:
    """Measure the time from the command to the end of the first training step."""
    with setting.feature_file() as files:
        program = {"batch": setting.batch, "files": files}
        work = {
            names.EAGER: lambda: _time_first_step(**program),
            names.OURS: lambda: _time_first_checkpoint(setting),
            names.OURS_XLA: lambda: _time_first_checkpoint(setting, xla="step"),
        }
        values: dict[str, list[float]] = {name: [] for name in work}
        for repeat in range(setting.repeats):
            for name in forth_and_back(list(work), repeat):
                values[name].append(work[name]())
    yield times(f"{setting.title}, from the command to the first step", "s", values)


def _time_first_step(**settings: Any) -> float:
    start = time.perf_counter()
    with Contender(TORCH, "first_step", **settings) as contender:
        contender.take_turn()
        return time.perf_counter() - start


def _time_first_checkpoint(setting: Setting, **more: Any) -> float:
    """Return the seconds until a training has saved its first checkpoint.

    It saves after its first call into the graph. The time includes the saving, some
    tens of milliseconds.
    """
    with temporary_folder() as folder:
        run = RunFolder(folder / "run")
        more |= {"checkpoint_minutes": 1e-6, "epochs": 1}
        flags = _flags(setting, setting.data_dir, run, **more)
        checkpoints = Checkpoints(run.checkpoints)
        start = time.perf_counter()
        with Program(["-m", "avsdn_tf.main", *flags]) as program:
            while not checkpoints.paths():
                if program.process.poll() is not None:
                    program.fail()
                time.sleep(0.01)
            return time.perf_counter() - start


def measure_growth(setting: Setting) -> Iterator[Comparison]:
    """Measure how cost grows with clips, with segments and with units."""
    yield from _grow_clips(setting)
    by_segments: dict[str, list[float]] = {}
    by_units: dict[str, list[float]] = {}
    for num_segments, units in ((10, 128), (40, 128), (160, 128), (10, 512)):
        batch = Batch(
            "avsdn", VISUAL_SHAPES["avsdn"], num_segments=num_segments, units=units
        )
        comparison = compare_training(setting, batch)
        yield comparison
        (ours,) = [m for m in comparison.measurements if m.program == names.OURS]
        # Microseconds a segment.
        costs = [1e6 / (speed * num_segments) for speed in ours.values]
        if units == 128:
            by_segments[f"{num_segments} segments"] = costs
        if num_segments == 10:
            by_units[f"{units} units"] = costs
    yield times(
        "avsdn, training step by segments a clip, by segment", "µs", by_segments
    )
    yield times("avsdn, training step by units, by segment", "µs", by_units)


def _grow_clips(setting: Setting) -> Iterator[Comparison]:
    values: dict[str, list[float]] = {}
    peaks: dict[str, list[float]] = {}
    with temporary_folder() as folder:
        folders = {n: enlarge(setting, n, folder / str(n)) for n in (1, 4, 16)}
        for repeat in range(setting.repeats):
            for times_as_many in forth_and_back(tuple(folders), repeat):
                of, peak_bytes = _train(setting, str(folders[times_as_many]))
                num_clips = times_as_many * setting.dataset.num_clips("train")
                name = f"clips x {times_as_many}"
                per_clip = 1e6 * statistics.median(of[1:]) / num_clips
                values.setdefault(name, []).append(per_clip)
                peaks.setdefault(name, []).append(peak_bytes)
    title = f"{setting.title} again and again"
    per_clip_title = "an epoch with validation, without saving, by training clip"
    yield times(f"{title}, {per_clip_title}", "µs", values)
    yield _memory(title, peaks)


def measure_distribution(setting: Setting) -> Iterator[Comparison]:
    """Measure training on one device, two logical devices and two workers."""
    num_clips = setting.dataset.num_clips("train")
    speeds: dict[str, list[float]] = {place: [] for place in _PLACES}
    for repeat in range(setting.repeats):
        for place in forth_and_back(tuple(_PLACES), repeat):
            of, _ = _train(
                setting,
                setting.data_dir,
                epochs=_DISTRIBUTED_EPOCHS,
                patience=_DISTRIBUTED_EPOCHS,
                **_PLACES[place],
            )
            speeds[place].append(num_clips / statistics.median(of[1:]))
    yield Comparison(
        f"{setting.title}, an epoch by where it is trained",
        names.CLIPS,
        [Measurement(place, of) for place, of in speeds.items()],
        note="All places have the same cores, and two devices or workers also sum the "
        "gradients and update two copies of the weights: a ratio of 1 is the best "
        "possible, and what is missing is the price of distribution for a small "
        "network with small batches. It says nothing of several GPUs or machines.",
    )


def _flags(
    setting: Setting, data_dir: str | None, run: RunFolder, **more: Any
) -> list[str]:
    """Return the flags of the command that trains."""
    settings = {
        "model": setting.batch.network,
        "dataset": setting.dataset.name,
        "run": run.path,
        **({"data_dir": data_dir} if data_dir else {}),
        **more,
    }
    return [f"--{name}={value}" for name, value in settings.items()]


def _train(
    setting: Setting,
    data_dir: str | None,
    module: str = "avsdn_tf.main",
    **more: Any,
) -> tuple[list[float], int]:
    """Train some epochs by the command line.

    Args:
        setting: What the benchmark was asked for.
        data_dir: TFDS's folder, or None for its default.
        module: The module that `python -m` runs.
        **more: Further flags.

    Returns:
        The seconds of every epoch, and the peak memory in bytes.
    """
    with temporary_folder() as folder:
        run = RunFolder(folder / "run")
        flags = _flags(setting, data_dir, run, **{"epochs": _EPOCHS, **more})
        peak_bytes = run_command(flags, module)
        with run.metrics.open(newline="") as file:
            return [float(row["seconds"]) for row in csv.DictReader(file)], peak_bytes


def enlarge(setting: Setting, times_as_many: int, folder: pathlib.Path) -> pathlib.Path:
    """Make a data set of the same clips again and again, by links to its files.

    Args:
        setting: What the benchmark was asked for, with the data set.
        times_as_many: How often each clip is repeated.
        folder: TFDS's folder of the new data set.

    Returns:
        The folder.
    """
    builder = setting.dataset.builder
    source = pathlib.Path(builder.data_dir)
    target = folder.joinpath(*source.parts[-3:])
    target.mkdir(parents=True)
    info = json.loads((source / "dataset_info.json").read_text())
    for split in info["splits"]:
        paths = builder.info.splits[split["name"]].filepaths * times_as_many
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

"""Parts that measure batches in memory: a step, its profile, the latency of a clip."""

import json
import statistics
from collections.abc import Iterator
from typing import Any

import numpy as np

from experiments.benchmark import operations, our_program
from experiments.benchmark.comparison import Comparison, Measurement
from experiments.benchmark.contenders import (
    OUR_PROGRAM,
    PLAIN_KERAS,
    TORCH,
    Contender,
    compete,
    medians,
)
from experiments.benchmark.machine import has_bfloat16
from experiments.benchmark.setting import (
    CLIPS,
    COMPILED,
    DEFAULT,
    EAGER,
    EAGER_HALF,
    FUSED,
    OURS,
    OURS_HALF,
    OURS_XLA,
    PLAIN,
    VISUAL_SHAPES,
    Setting,
    temporary_folder,
    times,
)

# Enough for one in a hundred to be none of the slowest two.
_LATENCY_CALLS = 200
_MATRIX = "matrix products"


def measure_step(setting: Setting) -> Iterator[Comparison]:
    """Measure training steps and inference of batches in memory."""
    for network in VISUAL_SHAPES:
        yield compare_training(setting, network)
        yield _compare_inference(setting, network)


def compare_training(
    setting: Setting,
    network: str,
    num_segments: int = 10,
    units: int = DEFAULT.units,
) -> Comparison:
    """Measure training steps on a batch in memory."""
    ours = {"data_dir": setting.data_dir}
    half = {**ours, "precision": "mixed_bfloat16"}
    programs = {
        EAGER: (TORCH, "training", {}),
        COMPILED: (TORCH, "training", {"compiled": True}),
        FUSED: (TORCH, "training", {"fused": True}),
        PLAIN: (PLAIN_KERAS, "training", {}),
        OURS: (OUR_PROGRAM, "step", ours),
        OURS_XLA: (OUR_PROGRAM, "step", {**ours, "xla": "step"}),
    }
    if has_bfloat16():
        programs[EAGER_HALF] = (TORCH, "training", {"bfloat16": True})
        programs[OURS_HALF] = (OUR_PROGRAM, "step", half)
    return _compare(setting, "training step", programs, network, num_segments, units)


def _compare_inference(setting: Setting, network: str) -> Comparison:
    programs = {
        EAGER: (TORCH, "inference", {}),
        COMPILED: (TORCH, "inference", {"compiled": True}),
        OURS: (OUR_PROGRAM, "inference", {"how": "graph"}),
    }
    return _compare(setting, "inference", programs, network, 10, DEFAULT.units)


def _compare(
    setting: Setting,
    work: str,
    programs: dict[str, tuple[str, str, dict[str, Any]]],
    network: str,
    num_segments: int,
    units: int,
) -> Comparison:
    """Measure programs beside the rate of large matrix products."""
    shape = VISUAL_SHAPES[network]
    common = _batch(network, DEFAULT.batch_size, num_segments, units)
    turns = compete(
        {
            **{
                name: (module, function, {**common, **own})
                for name, (module, function, own) in programs.items()
            },
            _MATRIX: (OUR_PROGRAM, "matrix", {}),
        },
        setting.repeats,
        setting.seconds,
    )
    rate = our_program.MATRIX_OPERATIONS / statistics.median(
        medians(turns.pop(_MATRIX))
    )
    per_clip = operations.count(
        network, num_segments, shape, units, training=work != "inference"
    )
    rows = []
    for name, of in turns.items():
        speeds = [DEFAULT.batch_size / seconds for seconds in medians(of)]
        share = statistics.median(speeds) * per_clip / rate
        # The limit is the rate of products in float32.
        in_float32 = name not in (EAGER_HALF, OURS_HALF)
        rows.append(Measurement(name, speeds, share if in_float32 else None))
    return Comparison(
        f"{network}, {work}: batch {DEFAULT.batch_size}, {num_segments} segments, "
        f"visual features {' x '.join(map(str, shape))}, {units} units",
        CLIPS,
        rows,
        limit=f"the matrix rate measured beside it, {rate / 1e9:.0f} Gflop/s; "
        f"{per_clip / 1e6:.1f} Mflop a clip",
    )


def _batch(
    network: str, batch_size: int, num_segments: int = 10, units: int = DEFAULT.units
) -> dict[str, Any]:
    """Return the settings that all programs on a batch in memory have."""
    return {
        "network": network,
        "batch_size": batch_size,
        "num_segments": num_segments,
        "visual_shape": list(VISUAL_SHAPES[network]),
        "units": units,
    }


def measure_latency(setting: Setting) -> Iterator[Comparison]:
    """Measure how long one clip takes, by every way to predict it."""
    clip = _batch("avsdn", batch_size=1)
    ways = {
        "model(clip)": "keras",
        "tf.function, as predict": "graph",
        "tf.function with XLA": "xla",
        "SavedModel": "savedmodel",
    }
    turns = compete(
        {
            EAGER: (TORCH, "inference", clip),
            COMPILED: (TORCH, "inference", {**clip, "compiled": True}),
            **{
                name: (OUR_PROGRAM, "inference", {**clip, "how": how})
                for name, how in ways.items()
            },
        },
        setting.repeats,
        setting.seconds,
        _LATENCY_CALLS,
    )
    for percent in (50, 99):
        values = {
            name: [float(1000 * np.percentile(turn, percent)) for turn in of]
            for name, of in turns.items()
        }
        yield times(f"avsdn, latency of one clip, p{percent}", "ms", values)


def measure_profile(setting: Setting) -> Iterator[Comparison]:
    """Measure and profile AVSDN's step as it is, and without each optimisation."""
    step = {**_batch("avsdn", DEFAULT.batch_size), "data_dir": setting.data_dir}
    turns = compete(
        {
            name: (OUR_PROGRAM, "step", {**step, "replaced": name})
            for name in our_program.REPLACED
        },
        setting.repeats,
        setting.seconds,
    )
    values = {
        name: [1000 * seconds for seconds in medians(of)] for name, of in turns.items()
    }
    yield Comparison(
        "avsdn, a training step with one thing replaced at a time",
        "ms",
        [Measurement(name, of) for name, of in values.items()],
        less_is_better=True,
        breakdown={
            name: _profile({**step, "replaced": name}) for name in our_program.REPLACED
        },
        breakdown_title="The operations of a step, by kind, ms of a core, by "
        "TensorFlow's profiler, which costs time itself",
    )


def _profile(settings: dict[str, Any]) -> dict[str, float]:
    with temporary_folder() as folder:
        path = folder / "profile.json"
        work = Contender(OUR_PROGRAM, "profile", out=str(path), **settings)
        with work as contender:
            contender.take_turn()
        return json.loads(path.read_text())

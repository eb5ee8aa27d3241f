"""Parts that measure batches in memory: a step, its profile, the latency of a clip."""

import json
import statistics
from collections.abc import Iterator
from typing import Any

import numpy as np

from experiments.benchmark import names, operations, our_program
from experiments.benchmark.batch import VISUAL_SHAPES, Batch
from experiments.benchmark.comparison import Comparison, Measurement, times
from experiments.benchmark.contenders import (
    OUR_PROGRAM,
    PLAIN_KERAS,
    TORCH,
    Contender,
    compete,
    medians,
)
from experiments.benchmark.machine import has_bfloat16
from experiments.benchmark.setting import Setting, temporary_folder

# Enough for one in a hundred to be none of the slowest two.
_LATENCY_CALLS = 200
_MATRIX = "matrix products"
_AVSDN = Batch("avsdn", VISUAL_SHAPES["avsdn"])


def measure_step(setting: Setting) -> Iterator[Comparison]:
    """Measure training steps and inference of batches in memory."""
    for network, shape in VISUAL_SHAPES.items():
        batch = Batch(network, shape)
        yield compare_training(setting, batch)
        programs = {
            names.EAGER: (TORCH, "inference", {}),
            names.COMPILED: (TORCH, "inference", {"compiled": True}),
            names.OURS: (OUR_PROGRAM, "inference", {"how": "graph"}),
        }
        yield _compare(setting, "inference", programs, batch)


def compare_training(setting: Setting, batch: Batch) -> Comparison:
    """Measure training steps on a batch in memory."""
    ours = {"data_dir": setting.data_dir}
    programs: dict[str, tuple[str, str, dict[str, Any]]] = {
        names.EAGER: (TORCH, "training", {}),
        names.COMPILED: (TORCH, "training", {"compiled": True}),
        names.FUSED: (TORCH, "training", {"fused": True}),
        names.PLAIN: (PLAIN_KERAS, "training", {}),
        names.OURS: (OUR_PROGRAM, "step", ours),
        names.OURS_XLA: (OUR_PROGRAM, "step", {**ours, "xla": "step"}),
    }
    if has_bfloat16():
        half = {**ours, "precision": "mixed_bfloat16"}
        programs[names.EAGER_HALF] = (TORCH, "training", {"bfloat16": True})
        programs[names.OURS_HALF] = (OUR_PROGRAM, "step", half)
    return _compare(setting, "training step", programs, batch)


def _compare(
    setting: Setting,
    work: str,
    programs: dict[str, tuple[str, str, dict[str, Any]]],
    batch: Batch,
) -> Comparison:
    """Measure programs beside the rate of large matrix products."""
    contenders = {
        name: (module, function, {"batch": batch, **own})
        for name, (module, function, own) in programs.items()
    }
    contenders[_MATRIX] = (OUR_PROGRAM, "matrix", {})
    turns = compete(contenders, setting.repeats, setting.seconds)
    matrix_s = statistics.median(medians(turns.pop(_MATRIX)))
    rate = our_program.MATRIX_OPERATIONS / matrix_s
    per_clip = operations.count(batch, training=work != "inference")
    rows = []
    for name, of in turns.items():
        speeds = [batch.size / seconds for seconds in medians(of)]
        share = statistics.median(speeds) * per_clip / rate
        # The limit is the rate of products in float32.
        is_half = name in (names.EAGER_HALF, names.OURS_HALF)
        rows.append(Measurement(name, speeds, None if is_half else share))
    return Comparison(
        f"{batch.network}, {work}: {batch}",
        names.CLIPS,
        rows,
        limit=f"the matrix rate measured beside it, {rate / 1e9:.0f} Gflop/s; "
        f"{per_clip / 1e6:.1f} Mflop a clip",
    )


def measure_latency(setting: Setting) -> Iterator[Comparison]:
    """Measure how long one clip takes, by every way to predict it."""
    clip = {"batch": Batch("avsdn", VISUAL_SHAPES["avsdn"], size=1)}
    ways = {
        "model(clip)": "keras",
        "tf.function, as predict": "graph",
        "tf.function with XLA": "xla",
        "SavedModel": "savedmodel",
    }
    turns = compete(
        {
            names.EAGER: (TORCH, "inference", clip),
            names.COMPILED: (TORCH, "inference", {**clip, "compiled": True}),
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
    settings = {
        name: {"batch": _AVSDN, "data_dir": setting.data_dir, "replaced": name}
        for name in our_program.REPLACED
    }
    turns = compete(
        {name: (OUR_PROGRAM, "step", of) for name, of in settings.items()},
        setting.repeats,
        setting.seconds,
    )
    yield times(
        f"avsdn, a training step with one thing replaced at a time: {_AVSDN}",
        "ms",
        {name: [1000 * s for s in medians(of)] for name, of in turns.items()},
        breakdown={name: _profile(of) for name, of in settings.items()},
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

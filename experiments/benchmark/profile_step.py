"""Shows what each part of the training step's speed comes from: with it, and without.

    python -m experiments.profile_step [--repeats=5] [--out=experiments/results/profile]

Training steps of AVSDN on a batch in memory are measured as they are, and with one
optimisation taken away at a time: programs of their own, in turns. Then each is
profiled, and the time of its operations summed by kind. OUT.md gets the tables and
OUT.json all figures.
"""

import argparse
import collections
import concurrent.futures
import multiprocessing
import pathlib
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from avsdn_tf.errors import UserError
from avsdn_tf.files import explain_unwritable, write_json, write_text
from avsdn_tf.startup import quiet_startup

with quiet_startup():
    import keras
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    from avsdn_tf.training import loop as training
    from experiments.benchmark import keras_program
    from experiments.benchmark.contenders import Contender, medians, take_turns
    from experiments.benchmark.results import Comparison, describe_machine, measurement
    from avsdn_tf.models import lstm as recurrent

    # TensorFlow looks for a GPU when it is first asked, and complains where none is.
    tf.config.list_physical_devices()

AS_IT_IS = "as it is"
_NETWORK = {
    "network": "avsdn",
    "batch_size": 64,
    "num_segments": 10,
    "visual_shape": [2048],
    "units": 128,
    "xla": "none",
    "data_dir": None,
}
# Rows of the table of operations; the others are summed up.
_MOST_KINDS = 12


def _take_all_cores() -> None:
    training.share_cores = lambda config: None


def _take_one_step_a_call() -> None:
    training.steps_a_call = lambda seconds: 1


def _take_keras_loop() -> None:
    recurrent._MOST_UNROLLED = 0


def _take_keras_adam() -> None:
    training.FusedAdam = keras.optimizers.Adam


# What is taken away, by the name of what it is replaced by.
REPLACED: Mapping[str, Callable[[], None]] = {
    AS_IT_IS: lambda: None,
    "all cores for each product": _take_all_cores,
    "one step a call": _take_one_step_a_call,
    "Keras's loop over segments": _take_keras_loop,
    "Keras's Adam": _take_keras_adam,
}


def step(replaced: str) -> Callable[[], int]:
    """Returns a function that takes training steps, in a process of its own.

    Args:
        replaced: A name of `REPLACED`.
    """
    REPLACED[replaced]()
    return keras_program.step(**_NETWORK)


def profile(replaced: str) -> dict[str, float]:
    """Returns the time of the operations of a step, by kind, in ms of a core.

    Args:
        replaced: A name of `REPLACED`.
    """
    work = step(replaced)
    for _ in range(3):
        work()
    num_steps = 0
    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            while num_steps < 10:
                num_steps += work()
        (path,) = pathlib.Path(folder).rglob("*.xplane.pb")
        space = xplane_pb2.XSpace.FromString(path.read_bytes())
    (plane,) = [plane for plane in space.planes if plane.name == "/host:CPU"]
    times: dict[str, float] = collections.Counter()
    for line in plane.lines:
        for event in line.events:
            name = plane.event_metadata[event.metadata_id].name
            # An operation's name, a colon, and its kind. Other events have none, or
            # two, or a space after it.
            kind = name.rpartition(":")[2]
            if name.count(":") == 1 and not kind.startswith(" "):
                # TensorFlow names an operation anew where oneDNN takes it over, which
                # depends on the processor.
                times[kind.removeprefix("_Mkl")] += event.duration_ps / 1e9 / num_steps
    return dict(times)


def measure(repeats: int) -> Comparison:
    """Measures a step as it is and with what is taken away.

    Args:
        repeats: How many turns every program takes.
    """
    with ExitStack() as stack:
        contenders = {
            name: stack.enter_context(Contender(__spec__.name, "step", replaced=name))
            for name in REPLACED
        }
        turns = take_turns(contenders, repeats)
    rows = [
        measurement(name, [1000 * seconds for seconds in medians(of)])
        for name, of in turns.items()
    ]
    title = "AVSDN, a training step: batch 64, 10 segments, 2048, 128 units"
    return Comparison(title, "ms", rows, less_is_better=True)


def profile_all() -> dict[str, dict[str, float]]:
    """Returns what `profile` does, by name, each in a new process."""
    context = multiprocessing.get_context("spawn")
    found = {}
    for name in REPLACED:
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
            found[name] = pool.submit(profile, name).result()
    return found


def to_markdown(
    command: str,
    machine: Mapping[str, Any],
    comparison: Comparison,
    profiles: Mapping[str, Mapping[str, float]],
) -> str:
    """Returns the page.

    Args:
        command: The command that makes it.
        machine: What `describe_machine` returns.
        comparison: What `measure` returns.
        profiles: What `profile_all` returns.
    """
    versions = ", ".join(f"{n} {v}" for n, v in machine["versions"].items())
    ours = profiles[AS_IT_IS]
    kinds = sorted(ours, key=ours.__getitem__, reverse=True)[:_MOST_KINDS]
    lines = [
        "# Where the time of a training step goes",
        "",
        f"    {command}",
        "",
        f"{machine['cores']} cores of {machine['processor']}. Measured "
        f"{machine['code']}. {versions}.",
        "",
        "The step as it is, and with one thing replaced at a time, each in a process "
        "of its own, in turns. Median of the turns, their range, and how many times as "
        "fast as the step as it is.",
        "",
        f"## {comparison.title}",
        "",
        f"| {' | '.join(comparison.columns)} |",
        "|---" + "|---:" * (len(comparison.columns) - 1) + "|",
        *(f"| {' | '.join(row)} |" for row in comparison.rows),
        "",
        "## The operations of a step, by kind, ms of a core",
        "",
        "By TensorFlow's profiler, in one run each, which costs time itself. The other "
        "kinds are few and short in the step as it is.",
        "",
        f"| | {' | '.join(profiles)} |",
        "|---" + "|---:" * len(profiles) + "|",
    ]
    for kind in kinds:
        cells = [f"{times.get(kind, 0):.1f}" for times in profiles.values()]
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    others = [
        f"{sum(t for kind, t in times.items() if kind not in kinds):.1f}"
        for times in profiles.values()
    ]
    lines.append(f"| others | {' | '.join(others)} |")
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str]) -> None:
    """Measures, profiles and writes."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.profile_step",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--repeats", type=int, default=5, help="turns of each (5)")
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        default=pathlib.Path("experiments/results/profile"),
        help="what to write, without a suffix (experiments/results/profile)",
    )
    args = parser.parse_args(argv)
    if args.repeats < 1:
        parser.error(
            f"argument --repeats: expected 1 or more. Received: {args.repeats}"
        )
    machine = describe_machine()
    command = f"python -m experiments.profile_step --repeats={args.repeats}"
    try:
        comparison = measure(args.repeats)
        profiles = profile_all()
        text = to_markdown(command, machine, comparison, profiles)
        turns = {each.program: each.values for each in comparison.measurements}
        found = {"machine": machine, "step_ms": turns, "operations_ms": profiles}
        with explain_unwritable(args.out, "Choose another file by --out."):
            args.out.parent.mkdir(parents=True, exist_ok=True)
            write_json(args.out.with_suffix(".json"), found)
            write_text(args.out.with_suffix(".md"), text)
    except UserError as error:
        print(f"experiments.profile_step: {error}", file=sys.stderr)
        sys.exit(1)
    print(text)
    print(f"Result: {args.out}.md")


if __name__ == "__main__":
    main(sys.argv[1:])

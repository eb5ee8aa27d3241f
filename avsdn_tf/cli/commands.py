"""What the commands of the command line do, each a call on a Config or a run folder."""

import contextlib
import csv
import importlib.util
import pathlib
import shlex
import time
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.markup import escape

from avsdn_tf import (
    cross_modality,
    data,
    demo,
    distribution,
    evaluation,
    matching,
    memory,
    prediction,
    training,
)
from avsdn_tf import export as exporting
from experiments.benchmark import results
from experiments.benchmark.parts import PARTS, Setting
from avsdn_tf.training.checkpoints import Checkpoints
from avsdn_tf.training.config import CROSS_MODAL, Config
from avsdn_tf.errors import UserError
from avsdn_tf.features.extractor import (
    Extractor,
    build_extractor,
    extract_all,
    find_videos,
    settings_of,
)
from avsdn_tf.features.video.reader import VideoError
from avsdn_tf.files import (
    explain_unwritable,
    printable,
    atomic_write,
    write_json,
    write_text,
)
from avsdn_tf.training.signals import Interruption
from avsdn_tf.report import event_files, figures, page
from avsdn_tf.report.player import write_player_page
from avsdn_tf.report.progress import TrainingProgress, extraction_progress
from avsdn_tf.report.terminal import events_table, results_table
from avsdn_tf.run_folder import RunFolder
from avsdn_tf.version import __version__

_TIMELINE_CLIPS = 8
_CHECKED_CLIPS = 16
# Smaller than the maps of a clip, 490 KiB and more.
_BLOCK_OF_MAPS = 2**18
# Of pooled vectors, a batch takes 5 MiB and more. Gradients, of 4 MiB, would be asked
# for anew in every step, which takes longer.
_BLOCK_OF_VECTORS = 9 * 2**19
_AGAIN = "Make space, and give the same command again."


def train(
    config: Config, run: str | None, console: Console, resume: bool = False
) -> None:
    """Trains, evaluates on the test split once, and writes the run folder.

    Args:
        config: The settings.
        run: The run folder, or None for a new one under runs/.
        console: Where to say what happens.
        resume: Whether to go on where a run of these settings in this folder was
            interrupted.

    Raises:
        UserError: If settings, data and folder don't allow it, or a file can't be
            written. No folder is left that holds no result yet.
        TrainingInterruptedError: If a signal asked for an end; the run can be resumed.
    """
    training.share_cores(config)
    placement = distribution.place(config.strategy)
    if placement.has_peers and run is None:
        raise UserError(
            f"--run: expected a folder that all {placement.part.num_workers} workers "
            "see. Received: none."
        )
    with distribution.lost_workers(placement):
        # One of them builds the data if need be.
        if not placement.is_chief:
            placement.wait_for_workers()
        dataset = data.open_dataset(config.dataset, config.data_dir)
        with data.named_damage(dataset.builder):
            memory.return_large_blocks(
                _BLOCK_OF_MAPS
                if dataset.clip_bytes >= _BLOCK_OF_MAPS
                else _BLOCK_OF_VECTORS
            )
            folder = RunFolder(run or new_run_name(config))
            _check(config, dataset, placement, console)
            digest = dataset.digest()
            with folder.hold() if placement.is_chief else contextlib.nullcontext():
                resumed = placement.is_chief and folder.create(
                    config, digest, dataset.networks, resume
                )
                if placement.is_chief:
                    placement.wait_for_workers()
                else:
                    folder.check_settings(config)
                _train(config, dataset, folder, placement, resumed, console)


def _check(
    config: Config,
    dataset: data.Dataset,
    placement: distribution.Placement,
    console: Console,
) -> None:
    """Holds settings and data against each other before anything is written."""
    with training.precision_policy(config.precision):
        task = training.build_task(config, dataset)
    num_clips, num_workers = task.num_clips, placement.part.num_workers
    if min(num_clips.values()) < num_workers:
        raise UserError(
            f"{config.dataset}: expected a clip of each split for each of "
            f"{num_workers} workers. Received: {num_clips}"
        )
    if placement.is_chief:
        where = placement.describe()
        _print_plainly(
            console,
            f"{config.model}, {config.mode}, {config.dataset}: train, validation, "
            f"test {num_clips['train']:,} + {num_clips['validation']:,} + "
            f"{num_clips['test']:,} clips, {task.num_batches} batches an epoch"
            + (f"; {where}" if where else ""),
        )


def _train(
    config: Config,
    dataset: data.Dataset,
    folder: RunFolder,
    placement: distribution.Placement,
    resumed: bool,
    console: Console,
) -> None:
    """Trains; the chief says how, and reports."""
    interruption = Interruption()
    progress = TrainingProgress(console) if placement.is_chief else None
    if placement.is_chief:
        # The digest is that of a finished training.
        with explain_unwritable(folder.path, _AGAIN):
            folder.checksums.unlink(missing_ok=True)
    try:
        with interruption.listen(), progress or contextlib.nullcontext():
            result = training.train(
                config,
                dataset,
                folder,
                [progress] if progress else [],
                placement,
                interruption,
            )
    except BaseException:
        has_result = folder.model.exists() or Checkpoints(folder.checkpoints).paths()
        if placement.is_chief and not resumed and not has_result:
            folder.discard()
        raise
    if not placement.is_chief:
        return
    with explain_unwritable(folder.path, _AGAIN):
        folder.seal()
    waited = len(result.history) - result.selected_epoch
    console.print(
        f"kept epoch {result.selected_epoch}: the best on validation"
        + (f", no better one in {waited} more" if waited else ""),
        highlight=False,
    )
    _write_report(folder, config, dataset, result.model, console)


def evaluate(run: str, data_dir: str | None, console: Console) -> None:
    """Scores a saved run on its test split again, and writes its report anew.

    Args:
        run: The run folder.
        data_dir: Where the data set is now, or None for where training read it.
        console: Where to say what happens.

    Raises:
        UserError: If the folder holds no finished run, its data set is not there, or is
            not what the run has learnt from.
    """
    folder = RunFolder(run)
    config = folder.read_config()
    # As in training, whose report is written anew: sums round alike.
    training.share_cores(config)
    dataset = data.open_dataset(config.dataset, data_dir or config.data_dir)
    model = folder.load_model()
    _check_fit(model, config, dataset)
    with folder.hold(), data.named_damage(dataset.builder):
        if not folder.has_learnt_from(dataset.digest()):
            _print_plainly(
                console,
                f"{config.dataset} is not the one that this run has learnt from: it "
                "was built anew from something else.",
                style="yellow",
            )
        _write_report(folder, config, dataset, model, console)


def _check_fit(model: Any, config: Config, dataset: data.Dataset) -> None:
    """Checks that a data set still is what a network has learnt from."""
    names = ["audio_width", "visual_shape"]
    # A network that matches knows of no categories.
    if config.mode != CROSS_MODAL:
        names.append("categories")
    for name in names:
        learnt, found = getattr(model, name), getattr(dataset, name)
        if name != "audio_width":
            learnt, found = tuple(learnt), tuple(found)
        if learnt != found:
            raise UserError(
                f"{config.dataset}: expected the {name} that the run has learnt, "
                f"{learnt}. Received {found}: the data set was built anew from other "
                "files. Build it from those of the run, and name its folder by "
                "--data_dir."
            )


def predict(
    run: str | None,
    videos: Sequence[str],
    out: str,
    networks: dict[str, Any],
    console: Console,
) -> int:
    """Localizes the events of videos, and writes what players and programs read.

    Args:
        run: The run folder of the network; None for the demo, which brings its own
            video and networks.
        videos: Videos, and folders of videos.
        out: The folder to write to.
        networks: What `features.extract.build_extractor` takes besides the network's
            name, where it differs from what made the run's features.
        console: Where to say what happens.

    Returns:
        How many videos failed; each has been named, and the others are done.

    Raises:
        UserError: If nothing can be predicted at all.
    """
    window, notice = 10, None
    if run is None:
        folder = _output_folder(out)
        console.print("Rendering a video and training a network on its like")
        files = [folder / "demo.mp4"]
        with (
            explain_unwritable(files[0], "Choose another folder by --out."),
            atomic_write(files[0]) as tmp_path,
        ):
            demo.write_video(tmp_path)
        extractor = Extractor(demo.DemoAudio(), demo.DemoVisual())
        model = demo.train_network(extractor.audio, extractor.visual)
        notice = demo.NOTICE
    else:
        source = RunFolder(run)
        _read_labelling_config(source)
        files = find_videos(videos)
        window = evaluation.num_segments_of(source.predictions)
        model = source.load_model()
        notice = _notice_of(source, networks)
        networks = {**source.read_networks(), **networks}
        extractor = build_extractor(prediction.network_for(model), **networks)
        folder = _output_folder(out)
    failures: list[str] = []
    written: dict[str, pathlib.Path] = {}
    for video in files:
        stem = video.stem
        try:
            if stem in written:
                raise UserError(
                    f"{video}: has the same name as {written[stem]}, and would "
                    "overwrite its files. Rename one of them."
                )
            with console.status(f"[bold]{escape(printable(video.name))}"):
                found = prediction.predict_video(
                    model, extractor, video, window, notice
                )
            page_path = _write_prediction(folder, video, found)
        except (UserError, VideoError) as error:
            failures.append(str(error))
            _print_plainly(console, str(error), style="red")
            continue
        written[stem] = video
        console.print(events_table(found))
        _print_plainly(console, f"Page to open: {page_path}")
    # Of one video, the reason stands just above.
    if len(files) > 1:
        _list_failures(failures, len(files), console)
    return len(failures)


def _notice_of(source: RunFolder, given: Collection[str]) -> str | None:
    """Returns what must be said of the predictions of a run's network."""
    notices = []
    trained_on = source.read_report().get("notice")
    if trained_on:
        notices.append(f"Network of a run with this notice: {trained_on}")
    if not {"vggish", "visual_weights"} <= {*source.read_networks(), *given}:
        notices.append(
            "What made the features that it has learnt from is not recorded; unless it "
            "was what made this video's, these events mean nothing"
        )
    return ". ".join(notices) or None


def _write_prediction(
    folder: pathlib.Path, video: pathlib.Path, found: VideoPrediction
) -> pathlib.Path:
    """Writes what belongs to a video, the page last; returns the page.

    Raises:
        UserError: If it can't be written, such as for a name that is too long.
    """
    page_path = folder / f"{video.stem}.html"
    try:
        event_files.write_event_files(folder, video.stem, found)
        figures.save(
            figures.prediction(found), folder / f"{video.stem}.png", found.notice
        )
        write_player_page(page_path, found, video)
    except OSError as error:
        raise UserError(
            f"{video}: its files can't be written to {folder} "
            f"({error.strerror or error})."
        ) from error
    return page_path


def extract(
    videos: Sequence[str],
    out: str,
    network: str,
    networks: dict[str, Any],
    workers: int,
    console: Console,
) -> int:
    """Makes the features of videos; see `features.extract.extract_all`.

    Args:
        videos: Videos, and folders of videos.
        out: The folder of the features.
        network: The visual network, of `features.visual.RECIPES`.
        networks: What `features.extract.build_extractor` takes besides, where it is
            not the default.
        workers: How many videos are read at once.
        console: Where to say what happens.

    Returns:
        How many videos failed; each has been named, and the others are done.

    Raises:
        UserError: If nothing can be extracted at all.
    """
    files = find_videos(videos)
    extractor = build_extractor(network, **networks)
    chosen = {name: value for name, value in networks.items() if name != "empty"}
    settings = settings_of(network, **chosen)
    with extraction_progress(console, len(files)) as on_done:
        failures = extract_all(
            extractor, files, pathlib.Path(out), settings, workers, on_done
        )
    _print_plainly(
        console, f"{len(files) - len(failures)} of {len(files)} videos in {out}"
    )
    _list_failures(failures.values(), len(files), console)
    return len(failures)


def export(
    run: str,
    format_name: str,
    out: str | None,
    networks: dict[str, Any] | None,
    data_dir: str | None,
    console: Console,
) -> None:
    """Writes a run's network in another format, checked against Keras.

    Args:
        run: The run folder.
        format_name: One of `exporting.FORMATS`.
        out: The folder to write to; None for `export` in the run folder.
        networks: The same as for `predict`, to export from sound and pictures on, in
            float32 whatever made the run's features; None to export from features on.
        data_dir: Where the run's data set is now, or None for where training read it.
        console: Where to say what happens.

    Raises:
        UserError: If the folder holds no finished run, or its network can't be
            exported. Nothing is left behind then.
    """
    folder = RunFolder(run)
    config = _read_labelling_config(folder)
    model = folder.load_model()
    target = out or folder.path / "export"
    metadata = {
        "avsdn_tf": __version__,
        "classes": [*model.categories, "Background"],
        "segment_s": prediction.SEGMENT_S,
        "num_segments": evaluation.num_segments_of(folder.predictions),
        "audio_width": model.audio_width,
        "visual_shape": list(model.visual_shape),
        "model": config.model,
        "mode": config.mode,
        "dataset": config.dataset,
        "notice": folder.read_report().get("notice"),
    }
    if networks is not None:
        # What goes out runs on any processor, and rounding to bfloat16 would depend on
        # how many frames are seen at once.
        networks = {**folder.read_networks(), **networks}
        networks["visual_precision"] = "float32"
        extractor = build_extractor(prediction.network_for(model), **networks)
        path, largest = exporting.export_end_to_end(model, extractor, target, metadata)
        checked = "random sound and pictures, against features made step by step"
    else:
        clips, checked = _clips_to_check(model, config, metadata, data_dir)
        path, largest = exporting.export_model(
            model, format_name, target, metadata, clips
        )
    _print_plainly(
        console, f"{path}: largest difference from Keras {largest:.2g}, on {checked}"
    )


def _read_labelling_config(folder: RunFolder) -> Config:
    """Returns the configuration of a run whose network labels segments.

    Raises:
        UserError: If the folder holds no such run, finished.
    """
    config = folder.read_config()
    if config.mode == CROSS_MODAL:
        raise UserError(
            f"--run={folder.path}: expected a run that labels segments. Received: one "
            f"of --mode={CROSS_MODAL}, which compares sound with picture."
        )
    return config


def benchmark(
    parts: Sequence[str],
    dataset_name: str,
    data_dir: str | None,
    repeats: int,
    out: str,
    console: Console,
) -> None:
    """Measures speed and memory beside PyTorch programs of the same networks.

    Args:
        parts: Names of `benchmark.parts.PARTS`.
        dataset_name: The data set that is read, as `--dataset` names it.
        data_dir: TFDS's folder, or None for its default.
        repeats: How many turns every program takes.
        out: The folder to write to.
        console: Where to say what happens.

    Raises:
        UserError: If PyTorch or the data set is not there, the data set has other
            shapes than AVE, or a program fails. What was measured before is written.
    """
    if importlib.util.find_spec("torch") is None:
        raise UserError(
            "benchmark: expected PyTorch, the baseline, which the extra `bench` "
            "installs: pip install 'avsdn_tf[bench]'"
        )
    dataset = data.open_dataset(dataset_name, data_dir)
    _check_benchmarked(dataset, dataset_name)
    machine = results.describe_machine()
    folder = _output_folder(out)
    setting = Setting(dataset, dataset_name, data_dir, repeats)
    words = [*parts, f"--dataset={dataset_name}", f"--repeats={repeats}"]
    if data_dir:
        words.append(f"--data_dir={data_dir}")
    header = {
        "command": shlex.join(["python", "-m", "avsdn_tf.main", "benchmark", *words]),
        "parts": list(parts),
        "machine": machine,
        "dataset": dataset_name,
        "notice": dataset.notice,
        "repeats": repeats,
    }
    comparisons = []
    for part in parts:
        with console.status(f"[bold]{part}"):
            for comparison in PARTS[part](setting):
                comparisons.append(comparison)
                console.print(results.to_table(comparison))
        # The next part may fail, and each takes minutes.
        with explain_unwritable(folder, _AGAIN):
            write_json(folder / "benchmark.json", results.to_json(header, comparisons))
            text = results.to_markdown(header, comparisons)
            write_text(folder / "benchmark.md", text)
            figure = results.draw(comparisons)
            figures.save(figure, folder / "benchmark.png", dataset.notice)
    _print_plainly(console, f"Result: {folder}")


def _check_benchmarked(dataset: data.Dataset, name: str) -> None:
    """Checks that the PyTorch programs fit a data set: they have AVE's shapes."""
    found = (dataset.audio_width, len(dataset.categories))
    if found != (128, 28):
        raise UserError(
            f"--dataset={name}: expected AVE's audio width, 128, and its 28 categories,"
            f" for which the PyTorch programs are written. Received: {found[0]} and "
            f"{found[1]}. Take another data set."
        )


def _clips_to_check(
    model: Any, config: Config, metadata: dict[str, Any], data_dir: str | None
) -> tuple[list[dict[str, np.ndarray]], str]:
    """Returns clips to compare networks on, and what they are."""
    random = np.random.default_rng(0)
    segments = (_CHECKED_CLIPS, metadata["num_segments"])
    shapes = {
        "audio": (*segments, metadata["audio_width"]),
        "visual": (*segments, *metadata["visual_shape"]),
    }
    clips = [{n: random.random(shape, np.float32) for n, shape in shapes.items()}]
    checked = f"{_CHECKED_CLIPS} random clips"
    try:
        dataset = data.open_dataset(config.dataset, data_dir or config.data_dir)
    except data.NotBuiltError:
        # A run may have been carried to where its data are not; but who names a folder
        # of data sets means it.
        if data_dir:
            raise
        return clips, f"{checked} ({config.dataset} is not built here)"
    _check_fit(model, config, dataset)
    with data.named_damage(dataset.builder):
        batches = data.scoring_batches(dataset, "test", _CHECKED_CLIPS)
        real = next(iter(batches.take(1).as_numpy_iterator()))
    # Maps are stored in half precision, which exported networks don't take.
    clips.append({name: real[name].astype(np.float32) for name in shapes})
    return clips, f"{checked} and {len(real['row'])} of {config.dataset}'s test split"


def _list_failures(
    failures: Collection[str], num_videos: int, console: Console
) -> None:
    """Says at the end what failed, and why: the first ones may have scrolled away."""
    if failures:
        _print_plainly(console, f"{len(failures)} of {num_videos} videos failed:")
    for failure in failures:
        _print_plainly(console, f"  {failure}", style="red")


def _print_plainly(console: Console, text: str, style: str | None = None) -> None:
    """Prints text with names in it: none is markup, none wraps."""
    console.print(
        printable(text), style=style, highlight=False, markup=False, soft_wrap=True
    )


def _output_folder(out: str) -> pathlib.Path:
    folder = pathlib.Path(out)
    with explain_unwritable(folder, "Choose another folder by --out."):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def _write_report(
    folder: RunFolder,
    config: Config,
    dataset: data.Dataset,
    model: Any,
    console: Console,
) -> None:
    """Scores the test split, writes it down, draws it, and prints the table."""
    history = _read_history(folder)
    score = _score_matching if config.mode == CROSS_MODAL else _score_segments
    scores, drawn = score(folder, config, dataset, model)
    selected = max(history, key=lambda epoch: epoch["validation_accuracy"])
    report = {
        **scores,
        "selected_epoch": int(selected["epoch"]),
        "epochs_run": len(history),
        "seconds": sum(epoch["seconds"] for epoch in history),
        "mode": config.mode,
        "model": config.model,
        "dataset": config.dataset,
        "notice": dataset.notice,
        "dataset_digest": dataset.digest(),
    }
    drawn = {
        "learning_curves": figures.learning_curves(history, report["selected_epoch"]),
        **drawn,
    }
    title = f"{config.model}, {config.mode}, on {config.dataset}"
    with explain_unwritable(folder.path, _AGAIN):
        for name, figure in drawn.items():
            figures.save(figure, folder.path / f"{name}.png", dataset.notice)
        page.write_page(
            folder.page,
            title=title,
            notice=dataset.notice,
            command=repeat_command(config),
            config=config.to_dict(),
            versions=folder.read_versions(),
            report=report,
            figures=drawn,
        )
        # A folder that holds this is that of a run that has ended.
        write_json(folder.report, report)
    console.print(results_table(report, title, dataset.notice))
    _print_plainly(console, f"Run folder: {folder.path}\nPage to open: {folder.page}")


def _score_segments(
    folder: RunFolder, config: Config, dataset: data.Dataset, model: Any
) -> tuple[dict[str, Any], dict[str, Figure]]:
    """Labels the test split's segments; returns the scores and figures of that."""
    predict = training.make_predict(model)
    predictions = predict(data.scoring_batches(dataset, "test"))
    validation = predict(data.scoring_batches(dataset, "validation"))
    with explain_unwritable(folder.predictions, _AGAIN):
        predictions.save(folder.predictions)
    try:
        scores = evaluation.evaluate(predictions, dataset.categories)
    # Such as logits that are not finite.
    except ValueError as error:
        raise UserError(f"{config.dataset}: {error}") from error
    scores["validation_accuracy"] = evaluation.accuracy(
        validation.labels, validation.logits.argmax(axis=-1)
    )
    predicted = predictions.logits.argmax(axis=-1)
    chosen = figures.choose_clips(
        predictions.labels, predicted, len(dataset.categories), _TIMELINE_CLIPS
    )
    drawn = {
        "timelines": figures.timelines(
            [
                figures.TimelineClip(
                    title=f"row {predictions.row[clip]}",
                    truth=predictions.labels[clip],
                    predictions={config.model: predicted[clip]},
                )
                for clip in chosen
            ],
            dataset.categories,
        ),
        "confusion": figures.confusion(scores["confusion_matrix"], dataset.categories),
    }
    return scores, drawn


def _score_matching(
    folder: RunFolder, config: Config, dataset: data.Dataset, model: Any
) -> tuple[dict[str, Any], dict[str, Figure]]:
    """Finds the events of one modality in the other; returns the scores of that."""
    measure = matching.make_measure(model)
    distances = measure(data.matching_clips(dataset, "test"))
    validation = measure(data.matching_clips(dataset, "validation"))
    with explain_unwritable(folder.predictions, _AGAIN):
        distances.save(folder.predictions)
    try:
        scores = {
            **cross_modality.evaluate(distances),
            "validation_accuracy": cross_modality.mean_accuracy(validation),
        }
    except ValueError as error:
        raise UserError(f"{config.dataset}: {error}") from error
    return scores, {}


def repeat_command(config: Config) -> str:
    """Returns the command that repeats a run: the settings that are not the default.

    Of several workers, it is what each was started with.
    """
    words = ["python", "-m", "avsdn_tf.main", f"--mode={config.mode}"]
    default = {
        **Config(mode=config.mode, model=config.model).to_dict(),
        "model": Config().model,
    }
    for name, value in config.to_dict().items():
        if name != "mode" and value != default[name]:
            if isinstance(value, bool):
                words.append(f"--{name}" if value else f"--no{name}")
            else:
                words.append(f"--{name}={value}")
    return shlex.join(words)


def _read_history(folder: RunFolder) -> list[dict[str, float]]:
    """Returns metrics.csv as one dictionary of numbers an epoch."""
    try:
        with folder.metrics.open(newline="") as file:
            history = [
                {name: float(value) for name, value in row.items()}
                for row in csv.DictReader(file)
            ]
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"{folder.metrics}: expected the metrics of each epoch. Received: {error}"
        ) from error
    if not history:
        raise UserError(f"{folder.metrics}: expected at least one epoch.")
    return history


def new_run_name(config: Config) -> str:
    """Returns a name for a run folder that tells what is in it."""
    dataset = config.dataset.split("/")[-1]
    stamp = time.strftime("%Y%m%d-%H%M%S")
    # Runs of several seeds are often begun in the same second.
    return f"runs/{config.model}-{config.mode}-{dataset}-seed{config.seed}-{stamp}"

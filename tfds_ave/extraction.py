"""Extract features of videos with an Apache Beam pipeline."""

import concurrent.futures
import contextlib
import dataclasses
import functools
import json
import math
import pathlib
import shutil
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator

import apache_beam as beam
import tensorflow_datasets as tfds
from apache_beam.options.pipeline_options import StandardOptions

from avsdn_tf.backbones import Backbones
from avsdn_tf.errors import UserError
from avsdn_tf.features.extractor import (
    Extractor,
    build_extractor,
    check_modalities,
)
from avsdn_tf.features.store import (
    Source,
    claim_folder,
    feature_paths,
    read_source,
    write_features,
)
from avsdn_tf.features.video import VideoError
from avsdn_tf.features.video.process import describe_in_child
from avsdn_tf.files import lock, remove_temporary_files, write_json
from tfds_ave.clips import read_shape
from tfds_ave.configs import AveConfig
from tfds_ave.errors import DatasetError, shorten
from tfds_ave.settings import check_fixed, name_settings, visual_shape_of
from tfds_ave.settings import read_settings as _read_settings
from tfds_ave.videos import SETTINGS, Video

_FOLDER = "features"
# Use this runner, because Beam's default would first try to download another runner.
_RUNNER = "FnApiRunner"
_TMP_PREFIX = ".failures-"
_POLL_S = 1.0
_BYTES_PER_VALUE = 4
_SMALL_BYTES = 2**20
_NUM_READERS = 4

# Called with the name of a stage, the number of completed items, and their total.
Progress = Callable[[str, int, int], None]


def _ignore(stage: str, done: int, total: int) -> None:
    del stage, done, total


@dataclasses.dataclass(frozen=True)
class Probe:
    """Lengths and errors of videos, found before features are extracted.

    Attributes:
        lengths_s: Length in seconds of each video whose length is known, by its key.
        failures: Error message of each video that can't be used.
        feature_bytes: Estimated size of the missing features.
    """

    lengths_s: dict[str, float]
    failures: list[str]
    feature_bytes: int


def probe_videos(
    videos: list[Video],
    folder: pathlib.Path,
    config: AveConfig,
    on_progress: Progress = _ignore,
) -> Probe:
    """Check the videos that have no features yet, except videos in archives.

    Raises:
        DatasetError: If features.json is invalid.
    """
    out = folder / _FOLDER
    with name_settings(folder):
        backbones, empty = _read_settings(folder, config)
    todo = _find_todo(videos, out)
    todo_keys = {video.key for video in todo}
    lengths_s, failures = {}, []
    for video in videos:
        if video.key not in todo_keys:
            lengths_s[video.key] = float(
                read_shape(feature_paths(out, video.key)[0])[0]
            )
    with concurrent.futures.ThreadPoolExecutor(_NUM_READERS) as pool:
        results = pool.map(functools.partial(_probe, empty=empty), todo)
        for index, (video, result) in enumerate(zip(todo, results, strict=True), 1):
            if isinstance(result, str):
                failures.append(result)
            elif result is not None:
                lengths_s[video.key] = result
            on_progress("looking at videos", index, len(todo))
    # If a shape is unknown before the network is loaded, count its features as 0 bytes.
    shape = visual_shape_of(backbones) or (0,)
    bytes_per_s = _BYTES_PER_VALUE * (config.audio_width + math.prod(shape))
    known_s = [lengths_s[key] for key in todo_keys if key in lengths_s]
    return Probe(lengths_s, failures, round(sum(known_s)) * bytes_per_s)


def _probe(video: Video, empty: str | None) -> float | str | None:
    """Return a video's stated length, None if it is unknown, or an error message."""
    if video.member is not None:
        return None
    try:
        info = describe_in_child(video.path)
        check_modalities(video.path, info.modalities, empty)
    except (VideoError, OSError) as error:
        return f"{video.key}: {error}"
    return info.stated_s


def failed_message(
    failures: list[str], num_videos: int, folder: pathlib.Path, kept: str = ""
) -> str:
    """Return an error message about the videos that failed.

    Args:
        failures: Error message of each failed video.
        num_videos: Number of all videos.
        folder: The manual folder.
        kept: Text about kept features, to insert after the number of failures.
    """
    return (
        "\n".join(shorten(failures))
        + f"\n{len(failures)} of {num_videos} videos failed{kept}. Repair or remove "
        f"these videos, or change {folder / SETTINGS}, and build again."
    )


def extract_videos(
    videos: list[Video],
    folder: pathlib.Path,
    config: AveConfig,
    download_config: tfds.download.DownloadConfig | None,
    on_progress: Progress = _ignore,
) -> tuple[dict[str, tuple[pathlib.Path, pathlib.Path]], dict[str, str]]:
    """Extract missing features of all readable videos.

    Features are stored in the manual folder's subfolder `features` as soon as they are
    extracted, so that an interrupted build resumes with the missing ones. Features of
    changed videos are extracted again.

    Args:
        videos: The videos.
        folder: The manual folder.
        config: The config.
        download_config: TFDS's options, with Beam's runner and options.
        on_progress: Called with the progress.

    Returns:
        Audio and visual feature files by the videos' keys, and the fields of
        `Backbones`.

    Raises:
        DatasetError: If features.json is invalid, a backbone can't be loaded, or videos
            fail.
    """
    out = folder / _FOLDER
    failures = []
    try:
        with name_settings(folder):
            backbones, empty = _read_settings(folder, config)
            todo = _find_todo(videos, out)
            if todo:
                # Load before claiming the folder: if loading fails, extract.json must
                # not record these backbones.
                extractor = _load(backbones, empty)
                width = extractor.audio.width
                check_fixed(
                    config, "audio_network", backbones, width, config.audio_width
                )
                # Record the checksums of the loaded weights.
                backbones = dataclasses.replace(
                    backbones,
                    audio_sha256=extractor.backbones.audio_sha256,
                    visual_sha256=extractor.backbones.visual_sha256,
                )
            else:
                backbones = backbones.resolve()
            claim_folder(out, backbones)
            _remove_leftovers(out)
            if todo:
                failures = _run_pipeline(
                    todo, out, backbones, empty, download_config, on_progress
                )
    finally:
        _load.cache_clear()
    if failures:
        kept = f"; the features of the others are in {out}"
        raise DatasetError(failed_message(failures, len(videos), folder, kept))
    paths = {video.key: feature_paths(out, video.key) for video in videos}
    return paths, backbones.to_dict()


def _remove_leftovers(out: pathlib.Path) -> None:
    """Remove temporary files of killed builds, but not of running builds."""
    is_running = False
    for path in out.glob(f"{_TMP_PREFIX}*"):
        try:
            with lock(path, timeout_s=0):
                shutil.rmtree(path, ignore_errors=True)
        except BlockingIOError:
            is_running = True
    if not is_running:
        remove_temporary_files(out, "*.npy", "*.json")


@functools.lru_cache(maxsize=1)
def _load(backbones: Backbones, empty: str | None) -> Extractor:
    """Load the backbones once per process."""
    return build_extractor(**backbones.names(), empty=empty)


def _find_todo(videos: list[Video], out: pathlib.Path) -> list[Video]:
    """Return the videos whose features are missing, incomplete or outdated."""
    # Size and CRC-32 of members are in the archive's directory: don't unpack them.
    members: dict[tuple[pathlib.Path, str], Source] = {}
    for archive in {video.path for video in videos if video.member is not None}:
        with zipfile.ZipFile(archive) as zipped:
            for each in zipped.infolist():
                source = Source(each.filename, each.file_size, each.CRC)
                members[archive, each.filename] = source

    def is_done(video: Video) -> bool:
        if (recorded := read_source(out, video.key)) is None:
            return False
        try:
            member = members.get((video.path, video.member))
            return recorded == (member or Source.of(video.path))
        except VideoError:
            # Extraction will report the error.
            return False

    return [video for video in videos if not is_done(video)]


def _run_pipeline(
    todo: list[Video],
    out: pathlib.Path,
    backbones: Backbones,
    empty: str | None,
    download_config: tfds.download.DownloadConfig | None,
    on_progress: Progress,
) -> list[str]:
    """Extract the features of videos; return the error messages of failed videos."""
    runner = download_config.beam_runner if download_config else None
    options = download_config.beam_options if download_config else None
    if not (runner or (options and options.view_as(StandardOptions).runner)):
        runner = _RUNNER
    # Collect results in `out`, because workers on all machines can write there. Beam's
    # text sink would fail for a path with a `[`, which it interprets as a glob pattern.
    results = pathlib.Path(tempfile.mkdtemp(prefix=_TMP_PREFIX, dir=out))
    try:
        with lock(results), _watch(results, len(todo), on_progress):
            with beam.Pipeline(runner=runner, options=options) as pipeline:
                _ = (
                    pipeline
                    | "Videos" >> beam.Create(todo)
                    | "Spread" >> beam.Reshuffle()
                    | "Extract" >> beam.Map(_extract, out, backbones, empty, results)
                )
            messages = [
                json.loads(path.read_text()) for path in sorted(results.glob("*.json"))
            ]
        return [message for message in messages if message]
    finally:
        shutil.rmtree(results, ignore_errors=True)


@contextlib.contextmanager
def _watch(
    results: pathlib.Path, num_videos: int, on_progress: Progress
) -> Iterator[None]:
    """Report the number of result files while the block runs."""
    has_ended = threading.Event()

    def report() -> None:
        while not has_ended.wait(_POLL_S):
            num_done = len(list(results.glob("*.json")))
            on_progress("extracting features", num_done, num_videos)

    thread = threading.Thread(target=report, daemon=True)
    thread.start()
    try:
        yield
    finally:
        has_ended.set()
        thread.join()


def _extract(
    video: Video,
    out: pathlib.Path,
    backbones: Backbones,
    empty: str | None,
    results: pathlib.Path,
) -> None:
    """Write a video's features, and a result file: an error message or null."""
    extractor = _load(backbones, empty)
    failure = None
    try:
        with _as_file(video) as path:
            source = Source.of(path)
            chunks = extractor.stream(path)
            write_features(out, video.key, chunks, source, backbones)
    except (VideoError, UserError, OSError, KeyError) as error:
        failure = f"{video.key}: {error}"
    write_json(results / f"{video.key}.json", failure)


@contextlib.contextmanager
def _as_file(video: Video) -> Iterator[pathlib.Path]:
    """Yield a video's path. A video in an archive is unpacked while the block runs."""
    if video.member is None:
        yield video.path
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            with zipfile.ZipFile(video.path) as zipped:
                member = zipped.getinfo(video.member)
                # Refuse zip bombs: videos hardly compress, and `zipfile` unpacks no
                # more than `file_size`.
                if member.file_size > 2 * member.compress_size + _SMALL_BYTES:
                    raise zipfile.BadZipFile(
                        f"{member.compress_size:,} bytes expand to {member.file_size:,}"
                    )
                path = pathlib.Path(zipped.extract(video.member, folder))
        # RuntimeError: an encrypted member, or an unknown compression method.
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
            raise VideoError(
                f"{video.path}: {video.member} can't be unpacked ({error}). Replace "
                "the archive by a complete copy."
            ) from error
        yield path

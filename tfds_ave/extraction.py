"""Make the features of videos by an Apache Beam pipeline, on one machine or many."""

import contextlib
import dataclasses
import functools
import json
import pathlib
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import tensorflow_datasets as tfds
from apache_beam.options.pipeline_options import StandardOptions

from avsdn_tf.backbones import IMAGENET, Backbones
from avsdn_tf.errors import UserError
from avsdn_tf.features.extractor import (
    DEFAULT_BACKBONES,
    Extractor,
    build_extractor,
    check_choices,
)
from avsdn_tf.features.store import (
    Source,
    claim_folder,
    feature_paths,
    read_source,
    write_features,
)
from avsdn_tf.features.video import VideoError
from avsdn_tf.features.visual import RECIPES
from avsdn_tf.files import write_json
from tfds_ave.configs import AveConfig
from tfds_ave.errors import DatasetError
from tfds_ave.videos import Video

SETTINGS = "features.json"
_FOLDER = "features"
# Beam's default first tries to download another runner, and falls back to this one.
_RUNNER = "FnApiRunner"


def _read_settings(
    folder: pathlib.Path, config: AveConfig
) -> tuple[Backbones, str | None]:
    """Return the backbones that features.json names, and what videos may lack.

    The file and each of its members are optional. Paths are relative to its folder.
    """
    path = folder / SETTINGS
    try:
        given = json.loads(path.read_text("utf-8-sig")) if path.is_file() else {}
        if wrong := [name for name, value in given.items() if value is None]:
            raise ValueError(f"Received null: {', '.join(wrong)}")
        empty = given.pop("empty", None)
        backbones = DEFAULT_BACKBONES.override(**Backbones.from_dict(given).to_dict())
    except (ValueError, TypeError, AttributeError) as error:
        names = [field.name for field in dataclasses.fields(Backbones)]
        raise UserError(
            f"{path}: expected a JSON object with some of {', '.join(names)}, empty, "
            f"all texts. {error}."
        ) from error
    check_choices(backbones.visual_network, backbones.visual_precision, empty)
    shape = RECIPES[backbones.visual_network].shape
    _check_fixed(config, "visual_network", backbones, shape, config.visual_shape)
    located = {
        name: _locate(getattr(backbones, name), name, folder)
        for name in ("vggish", "visual_weights")
    }
    return backbones.override(**located), empty


def _locate(value: str, name: str, folder: pathlib.Path) -> str:
    """Return an address unchanged, and the absolute path of a file or folder."""
    if "://" in value or (name, value) == ("visual_weights", IMAGENET):
        return value
    path = folder / value
    if not path.exists():
        raise UserError(
            f"{path} does not exist. Expected a path relative to {folder}, an absolute "
            "path, or an address (https://...).",
            field=name,
            value=value,
        )
    return str(path.resolve())


def extract_videos(
    videos: list[Video],
    folder: pathlib.Path,
    config: AveConfig,
    download_config: tfds.download.DownloadConfig | None,
) -> tuple[dict[str, tuple[pathlib.Path, pathlib.Path]], dict[str, str]]:
    """Make the features that are missing, of all videos that can be read.

    Each video's features are kept in the manual folder's subfolder `features` as soon
    as they are made: after an interruption, or after some videos failed, the next build
    makes the others. Features of a video that was changed or replaced are made again.

    Returns:
        Audio and visual feature file of each video, by its key; and the fields of
        `Backbones`.

    Raises:
        DatasetError: If features.json is wrong, a backbone can't be loaded, or videos
            fail; it names each.
    """
    out = folder / _FOLDER
    failures = []
    try:
        backbones, empty = _read_settings(folder, config)
        todo = _find_todo(videos, out)
        if todo:
            # Load before the folder is claimed: backbones that can't be loaded must
            # not become its description.
            width = _load(backbones, empty).audio.width
            _check_fixed(config, "vggish", backbones, width, config.audio_width)
        claim_folder(out, backbones)
        if todo:
            failures = _run_pipeline(todo, out, backbones, empty, download_config)
    except UserError as error:
        message = error.message
        if error.field is not None:
            member = f'"{error.field}": {error.value!r}'
            message = f"{folder / SETTINGS}: {member}: {message}"
        raise DatasetError(message) from error
    finally:
        _load.cache_clear()
    if failures:
        raise DatasetError(
            "\n".join(failures)
            + f"\n{len(failures)} of {len(videos)} videos failed; the features of the "
            f"others are in {out}. Repair or remove these videos, or change "
            f"{folder / SETTINGS}, and build again."
        )
    paths = {video.key: feature_paths(out, video.key) for video in videos}
    return paths, backbones.to_dict()


@functools.lru_cache(maxsize=1)
def _load(backbones: Backbones, empty: str | None) -> Extractor:
    """Load the backbones once for the check and the workers of this process."""
    return build_extractor(**backbones.to_dict(), empty=empty)


def _check_fixed(
    config: AveConfig, field: str, backbones: Backbones, found: Any, expected: Any
) -> None:
    """Check the shape or the width of features if the config fixes it."""
    if config.source == "videos" and found != expected:
        raise UserError(
            f"Its features have the shape or width {found}. Expected {expected}, which "
            f"is fixed for config {config.name!r}: choose another backbone, or config "
            "'custom'.",
            field=field,
            value=getattr(backbones, field),
        )


def _find_todo(videos: list[Video], out: pathlib.Path) -> list[Video]:
    """Return the videos whose features are missing, incomplete or outdated."""
    # Length and checksum of the files in archives, without unpacking.
    members: dict[tuple[pathlib.Path, str], Source] = {}
    for archive in {video.path for video in videos if video.member is not None}:
        with zipfile.ZipFile(archive) as zipped:
            for each in zipped.infolist():
                source = Source(each.filename, each.file_size, each.CRC)
                members[archive, each.filename] = source

    def is_made(video: Video) -> bool:
        if (found := read_source(out, video.key)) is None:
            return False
        try:
            member = members.get((video.path, video.member))
            return found == (member or Source.of(video.path))
        except VideoError:
            return False  # Extracting it raises the error again, for the message.

    return [video for video in videos if not is_made(video)]


def _run_pipeline(
    todo: list[Video],
    out: pathlib.Path,
    backbones: Backbones,
    empty: str | None,
    download_config: tfds.download.DownloadConfig | None,
) -> list[str]:
    """Make features of videos, and return the error messages of those that failed."""
    runner = download_config.beam_runner if download_config else None
    options = download_config.beam_options if download_config else None
    if not (runner or (options and options.view_as(StandardOptions).runner)):
        runner = _RUNNER
    # All workers reach the folder of the features. Beam's own writer of messages reads
    # a `[` in the folder's path as a glob pattern.
    tmp_dir = pathlib.Path(tempfile.mkdtemp(prefix=".failures-", dir=out))
    try:
        with beam.Pipeline(runner=runner, options=options) as pipeline:
            _ = (
                pipeline
                | "Videos" >> beam.Create(todo)
                | "Spread" >> beam.Reshuffle()
                | "Extract" >> beam.Map(_extract, out, backbones, empty, tmp_dir)
            )
        return [json.loads(path.read_text()) for path in sorted(tmp_dir.glob("*.json"))]
    finally:
        shutil.rmtree(tmp_dir, ignore_errors=True)


def _extract(
    video: Video,
    out: pathlib.Path,
    backbones: Backbones,
    empty: str | None,
    failures: pathlib.Path,
) -> None:
    """Write a video's features, or a file with its error message."""
    extractor = _load(backbones, empty)
    try:
        with _as_file(video) as path:
            source = Source.of(path)
            features = extractor.extract(path)
        write_features(out, video.key, features, source, backbones)
    except (VideoError, UserError, OSError, KeyError) as error:
        write_json(failures / f"{video.key}.json", f"{video.key}: {error}")


@contextlib.contextmanager
def _as_file(video: Video) -> Iterator[pathlib.Path]:
    """Yield the path of a video; one in an archive is unpacked for the block."""
    if video.member is None:
        yield video.path
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            with zipfile.ZipFile(video.path) as zipped:
                path = pathlib.Path(zipped.extract(video.member, folder))
        # zipfile raises RuntimeError for an encrypted member, and for a compression
        # method that it lacks.
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
            raise VideoError(
                f"{video.path}: {video.member} can't be unpacked ({error}). Replace "
                "the archive by a complete copy."
            ) from error
        yield path

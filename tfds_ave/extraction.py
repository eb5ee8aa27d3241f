"""Features of videos by an Apache Beam pipeline, on one machine or on many."""

import contextlib
import dataclasses
import functools
import json
import pathlib
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator

import apache_beam as beam
import tensorflow_datasets as tfds
from apache_beam.options.pipeline_options import StandardOptions

from avsdn_tf.errors import UserError
from avsdn_tf.features.audio import VGGISH
from avsdn_tf.features.extractor import (
    KINDS,
    Extractor,
    Source,
    build_extractor,
    claim_folder,
    feature_paths,
    read_source,
    settings_of,
    write_features,
)
from avsdn_tf.features.video.reader import VideoError
from avsdn_tf.features.visual import PRECISIONS, RECIPES
from avsdn_tf.files import write_json
from tfds_ave.configs import AveConfig
from tfds_ave.errors import DatasetError
from tfds_ave.videos import Video

SETTINGS = "features.json"
_FOLDER = "features"
# Beam's default tries to download another runner first, and falls back to this one.
_RUNNER = "FnApiRunner"


@dataclasses.dataclass(frozen=True)
class Networks:
    """What makes the features: the content of features.json.

    Attributes:
        visual_network: The visual one, of `avsdn_tf.features.visual.RECIPES`.
        vggish: See `avsdn_tf.features.audio.AudioNetwork`.
        visual_weights: See `avsdn_tf.features.visual.VisualNetwork`.
        empty: See `avsdn_tf.features.extractor.Extractor`.
        visual_precision: See `avsdn_tf.features.visual.VisualNetwork`.
    """

    visual_network: str = "resnet152"
    vggish: str = VGGISH
    visual_weights: str = "imagenet"
    empty: str | None = None
    visual_precision: str = PRECISIONS[0]


def read_networks(folder: pathlib.Path, config: AveConfig) -> Networks:
    """Reads features.json, whose every member may be missing, as may the file.

    Args:
        folder: The manual folder, which paths in the file are relative to.
        config: The config that is being built.

    Raises:
        DatasetError: If it holds something else, names what is not there, or makes
            features of another shape than the config's.
    """
    path = folder / SETTINGS
    given = {}
    if path.is_file():
        try:
            given = json.loads(path.read_text(encoding="utf-8-sig"))
            networks = Networks(**given)
        except (ValueError, TypeError) as error:
            names = ", ".join(field.name for field in dataclasses.fields(Networks))
            raise DatasetError(
                f"{path}: expected a JSON object with some of {names}. {error}."
            ) from error
    else:
        networks = Networks()
    for name, value in given.items():
        if not isinstance(value, str):
            raise DatasetError(
                f"{path}: {name}: expected text. Received: {json.dumps(value)}."
            )
    for name, known in (
        ("visual_network", tuple(RECIPES)),
        ("empty", KINDS),
        ("visual_precision", PRECISIONS),
    ):
        if name in given and given[name] not in known:
            raise DatasetError(
                f"{path}: unknown {name}. Expected one of {', '.join(known)}, "
                f"received {given[name]!r}."
            )
    shape = RECIPES[networks.visual_network].shape
    if config.source == "videos" and shape != config.visual_shape:
        raise DatasetError(
            f"{path}: visual_network {networks.visual_network!r} makes features of "
            f"shape {shape}. Expected {config.visual_shape}, which is fixed for config "
            f"{config.name!r}: take another network, or config 'custom'."
        )
    return dataclasses.replace(
        networks,
        vggish=_locate(networks.vggish, "vggish", folder),
        visual_weights=_locate(networks.visual_weights, "visual_weights", folder),
    )


def _locate(value: str, name: str, folder: pathlib.Path) -> str:
    """Returns an address as it is, and a path as seen from the current folder."""
    if "://" in value or (name, value) == ("visual_weights", "imagenet"):
        return value
    path = folder / value
    if not path.exists():
        raise DatasetError(
            f"{folder / SETTINGS}: {name}: {path} does not exist. Expected a path "
            f"relative to {folder}, an absolute one, or an address (https://...). "
            f"Received: {value!r}."
        )
    return str(path.resolve())


def extract_videos(
    videos: list[Video],
    folder: pathlib.Path,
    config: AveConfig,
    download_config: tfds.download.DownloadConfig | None,
) -> tuple[dict[str, tuple[pathlib.Path, pathlib.Path]], dict[str, str]]:
    """Makes the features that are not there yet, all that can be made.

    A finished video is safe at once: a build that is interrupted, or fails by some of
    the videos, goes on where it stopped. Features of a video that was changed or
    replaced since are made anew.

    Args:
        videos: The videos.
        folder: The manual folder; features go into its subfolder `features`.
        config: The config that is being built.
        download_config: Holds the Beam runner and its options, as TFDS takes them.

    Returns:
        Audio and visual feature file of every video, by its key, and what made them;
        see `avsdn_tf.features.extractor.settings_of`.

    Raises:
        DatasetError: If features.json is wrong, a network can't be loaded, or videos
            fail; it names each.
    """
    networks = read_networks(folder, config)
    settings = settings_of(
        networks.visual_network,
        networks.vggish,
        networks.visual_weights,
        networks.visual_precision,
    )
    out = folder / _FOLDER
    todo = _find_todo(videos, out)
    try:
        if todo:
            # Before the folder is claimed: what can't be loaded has no features.
            _check_width(_load(networks), networks, folder, config)
        claim_folder(out, settings)
        failures = (
            _run_pipeline(todo, out, networks, settings, download_config)
            if todo
            else []
        )
    except UserError as error:
        raise DatasetError(_without_flags(str(error), networks, folder)) from error
    finally:
        _load.cache_clear()
    if failures:
        raise DatasetError(
            _without_flags("\n".join(failures), networks, folder)
            + f"\n{len(failures)} of {len(videos)} videos failed; the features of the "
            f"others are in {out}. Mend or remove these, and build again."
        )
    return {video.key: feature_paths(out, video.key) for video in videos}, settings


@functools.lru_cache(maxsize=1)
def _load(networks: Networks) -> Extractor:
    """Loads the networks, once for the check and the workers of this process."""
    return build_extractor(
        networks.visual_network,
        networks.vggish,
        networks.visual_weights,
        networks.empty,
        networks.visual_precision,
    )


def _check_width(
    extractor: Extractor, networks: Networks, folder: pathlib.Path, config: AveConfig
) -> None:
    width = extractor.audio.width
    if config.source == "videos" and width != config.audio_width:
        raise DatasetError(
            f"{folder / SETTINGS}: vggish {networks.vggish!r} makes features of width "
            f"{width}. Expected {config.audio_width}, which is fixed for config "
            f"{config.name!r}: take another module, or config 'custom'."
        )


def _without_flags(text: str, networks: Networks, folder: pathlib.Path) -> str:
    """Names features.json and its keys, where a message names flags of avsdn_tf."""
    path = folder / SETTINGS
    for name, value in dataclasses.asdict(networks).items():
        text = text.replace(f"--{name}={value}:", f"{path}: {name} {value!r}:")
    return re.sub(
        r"--(vggish|visual_weights|empty)=(\w+)",
        lambda found: f'{{"{found[1]}": "{found[2]}"}} in {path}',
        text,
    )


def _find_todo(videos: list[Video], out: pathlib.Path) -> list[Video]:
    """Returns the videos whose features are missing, not whole or of other content."""
    members = {
        archive: _read_members(archive)
        for archive in {video.path for video in videos if video.member is not None}
    }

    def is_made(video: Video) -> bool:
        found = read_source(out, video.key)
        if found is None:
            return False
        try:
            if video.member is None:
                return found.is_same(Source.of(video.path))
            return found.is_same(members[video.path][video.member])
        except VideoError:
            return False  # Extracting it fails too, and says so.

    return [video for video in videos if not is_made(video)]


def _read_members(archive: pathlib.Path) -> dict[str, Source]:
    """Returns what tells the files of an archive from others, without unpacking."""
    with zipfile.ZipFile(archive) as zipped:
        return {
            member.filename: Source(member.filename, member.file_size, member.CRC)
            for member in zipped.infolist()
        }


def _run_pipeline(
    todo: list[Video],
    out: pathlib.Path,
    networks: Networks,
    settings: dict[str, str],
    download_config: tfds.download.DownloadConfig | None,
) -> list[str]:
    """Makes features of videos, and returns why some could not be made."""
    runner = download_config.beam_runner if download_config else None
    options = download_config.beam_options if download_config else None
    if runner is None and (
        options is None or options.view_as(StandardOptions).runner is None
    ):
        runner = _RUNNER
    # In the folder of the features, since that is what all workers reach.
    aside = pathlib.Path(tempfile.mkdtemp(prefix=".failures-", dir=out))
    try:
        with beam.Pipeline(runner=runner, options=options) as pipeline:
            extract = _Extract(str(out), networks, settings, str(aside))
            _ = (
                pipeline
                | "Videos" >> beam.Create(todo)
                | "Spread" >> beam.Reshuffle()
                | "Extract" >> beam.ParDo(extract)
            )
        return [json.loads(path.read_text()) for path in sorted(aside.glob("*.json"))]
    finally:
        shutil.rmtree(aside, ignore_errors=True)


class _Extract(beam.DoFn):
    """Writes a video's features, or a file that says why it could not.

    Beam's own writer of text takes a `[` in the path of a folder for a pattern.
    """

    def __init__(
        self, out: str, networks: Networks, settings: dict[str, str], failures: str
    ) -> None:
        self._out = out
        self._networks = networks
        self._settings = settings
        self._failures = failures

    def setup(self) -> None:
        """Loads the networks, once a worker."""
        self._extractor = _load(self._networks)

    def process(self, video: Video) -> None:
        """Extracts one video."""
        try:
            with _as_file(video) as path:
                source = Source.of(path)
                features = self._extractor.extract(path)
            write_features(
                pathlib.Path(self._out), video.key, features, source, self._settings
            )
        except (VideoError, UserError, OSError, KeyError) as error:
            path = pathlib.Path(self._failures) / f"{video.key}.json"
            write_json(path, f"{video.key}: {error}")


@contextlib.contextmanager
def _as_file(video: Video) -> Iterator[pathlib.Path]:
    """Gives the path of a video, unpacked for as long as it is read.

    Raises:
        VideoError: If the archive is damaged there.
    """
    if video.member is None:
        yield video.path
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            with zipfile.ZipFile(video.path) as zipped:
                path = pathlib.Path(zipped.extract(video.member, folder))
        # zipfile raises a RuntimeError where a member is encrypted, or compressed by a
        # method that it lacks.
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
            raise VideoError(
                f"{video.path}: {video.member} can't be unpacked ({error}). Replace "
                "the archive by a complete copy."
            ) from error
        yield path

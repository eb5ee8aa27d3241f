"""Features of videos by an Apache Beam pipeline, on one machine or on many."""

import contextlib
import dataclasses
import json
import pathlib
import tempfile
import zipfile
from collections.abc import Iterator

import apache_beam as beam
import tensorflow_datasets as tfds

from avsdn_tf.errors import UserError
from avsdn_tf.features.audio import VGGISH
from avsdn_tf.features.extract import (
    build_extractor,
    claim_folder,
    feature_paths,
    write_features,
)
from avsdn_tf.features.video import VideoError
from avsdn_tf.features.visual import RECIPES
from tfds_ave.errors import DatasetError
from tfds_ave.videos import Video

SETTINGS = "features.json"
_FOLDER = "features"


@dataclasses.dataclass(frozen=True)
class Networks:
    """What makes the features: the content of features.json.

    Attributes:
        visual_network: The visual one, of `avsdn_tf.features.visual.RECIPES`.
        vggish: See `avsdn_tf.features.audio.AudioNetwork`.
        visual_weights: See `avsdn_tf.features.visual.VisualNetwork`.
    """

    visual_network: str = "resnet152"
    vggish: str = VGGISH
    visual_weights: str = "imagenet"


def read_networks(folder: pathlib.Path) -> Networks:
    """Reads features.json, whose every member may be missing, as may the file.

    Raises:
        DatasetError: If it holds something else.
    """
    path = folder / SETTINGS
    if not path.is_file():
        return Networks()
    try:
        networks = Networks(**json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        names = ", ".join(field.name for field in dataclasses.fields(Networks))
        raise DatasetError(
            f"{path}: expected a JSON object with some of {names}. {error}."
        ) from error
    if networks.visual_network not in RECIPES:
        raise DatasetError(
            f"{path}: unknown visual_network. Expected one of {', '.join(RECIPES)}, "
            f"received {networks.visual_network!r}."
        )
    return networks


def extract_videos(
    videos: list[Video],
    folder: pathlib.Path,
    networks: Networks,
    download_config: tfds.download.DownloadConfig | None,
) -> dict[str, tuple[pathlib.Path, pathlib.Path]]:
    """Makes the features that are not there yet, all that can be made.

    A finished video is safe at once: a build that is interrupted, or fails by some of
    the videos, goes on where it stopped.

    Args:
        videos: The videos.
        folder: The manual folder; features go into its subfolder `features`.
        networks: What makes them.
        download_config: Holds the Beam runner and its options, as TFDS takes them.

    Returns:
        Audio and visual feature file of every video, by its key.

    Raises:
        DatasetError: If a network can't be loaded, or videos fail; it names each.
    """
    out = folder / _FOLDER
    try:
        claim_folder(out, dataclasses.asdict(networks))
    except UserError as error:
        raise DatasetError(str(error)) from error
    paths = {video.key: feature_paths(out, video.key) for video in videos}
    todo = [v for v in videos if not all(path.is_file() for path in paths[v.key])]
    if todo:
        failures = out / "failures.jsonl"
        runner = download_config.beam_runner if download_config else None
        options = download_config.beam_options if download_config else None
        try:
            with beam.Pipeline(runner=runner, options=options) as pipeline:
                _ = (
                    pipeline
                    | "Videos" >> beam.Create(todo)
                    | "Spread" >> beam.Reshuffle()
                    | "Extract" >> beam.ParDo(_Extract(str(out), networks))
                    | "Failures"
                    >> beam.io.WriteToText(str(failures), shard_name_template="")
                )
        except UserError as error:
            raise DatasetError(str(error)) from error
        found = [json.loads(line) for line in failures.read_text().splitlines()]
        failures.unlink()
        if found:
            raise DatasetError(
                "\n".join(found)
                + f"\n{len(found)} of {len(videos)} videos failed; the features of the "
                f"others are in {out}. Mend or remove these, and build again."
            )
    return paths


class _Extract(beam.DoFn):
    """Writes a video's features; gives why it could not."""

    def __init__(self, out: str, networks: Networks) -> None:
        self._out = out
        self._networks = networks

    def setup(self) -> None:
        """Loads the networks, once a worker."""
        self._extractor = build_extractor(
            self._networks.visual_network,
            self._networks.vggish,
            self._networks.visual_weights,
        )

    def process(self, video: Video) -> Iterator[str]:
        """Extracts one video."""
        try:
            with _as_file(video) as path:
                features = self._extractor.extract(path)
            write_features(pathlib.Path(self._out), video.key, features)
        except (VideoError, OSError, KeyError, zipfile.BadZipFile) as error:
            yield json.dumps(f"{video.key}: {error}")


@contextlib.contextmanager
def _as_file(video: Video) -> Iterator[pathlib.Path]:
    """Gives the path of a video, unpacked for as long as it is read."""
    if video.member is None:
        yield video.path
        return
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(video.path) as zipped:
        yield pathlib.Path(zipped.extract(video.member, folder))

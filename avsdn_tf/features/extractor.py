"""From videos to features: what every network of the package reads."""

import collections
import concurrent.futures
import dataclasses
import json
import os
import pathlib
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from avsdn_tf.errors import UserError
from avsdn_tf.features.audio import VGGISH, AudioNetwork
from avsdn_tf.features.video import Second, VideoError, probe, read_seconds
from avsdn_tf.features.visual import PRECISIONS, RECIPES, VisualNetwork
from avsdn_tf.files import atomic_write, write_json
from avsdn_tf.startup import check_backend

# Seconds that go through the networks together: enough to keep them busy, and little
# enough that memory does not depend on the video's length.
_CHUNK_S = 16
_SETTINGS = "extract.json"
_PIECE_BYTES = 2**20
# What keras.applications calls its own weights.
_IMAGENET = "imagenet"
KINDS = ("audio", "visual")
_SUFFIXES = (
    *(".3g2", ".3gp", ".asf", ".avi", ".f4v", ".flv", ".m2ts", ".m4v", ".mkv"),
    *(".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".ts", ".vob"),
    *(".webm", ".wmv"),
)


class AudioFeatures(Protocol):
    """Makes the features of seconds of sound; see `AudioNetwork`."""

    width: int

    def __call__(self, seconds: np.ndarray) -> np.ndarray:
        """Returns `(num_seconds, width)` of `(num_seconds, 16000)`."""


class VisualFeatures(Protocol):
    """Makes the features of seconds of picture; see `VisualNetwork`."""

    shape: tuple[int, ...]
    frames_per_second: int

    def __call__(self, frames: list[np.ndarray]) -> np.ndarray:
        """Returns `(num_seconds, *shape)` of one array of frames a second."""


@dataclasses.dataclass(frozen=True, eq=False)
class Chunk:
    """The features of some seconds of a video that follow each other.

    Attributes:
        audio: `(n, audio width)` float32, a row a second.
        visual: `(n, *visual shape)` float32, a row a second.
        start_s: When the first one starts, on the clock of players; see `Second`.
        end_s: When the last one ends.
    """

    audio: np.ndarray
    visual: np.ndarray
    start_s: float
    end_s: float


@dataclasses.dataclass(frozen=True)
class Extractor:
    """Makes the audio and visual features of videos.

    Attributes:
        audio: Makes features of sound.
        visual: Makes features of pictures.
        empty: A modality that a video may lack, `"audio"` or `"visual"`: its features
            are zeros then. None: both have to be there.
    """

    audio: AudioFeatures
    visual: VisualFeatures
    empty: str | None = None

    def check_fits(self, model: Any) -> None:
        """Checks that a network reads such features.

        Raises:
            UserError: If not.
        """
        made = (self.audio.width, tuple(self.visual.shape))
        if made != (model.audio_width, tuple(model.visual_shape)):
            raise UserError(
                "Expected features as the model reads them: audio "
                f"{model.audio_width}, visual {tuple(model.visual_shape)}. "
                f"Received: audio {made[0]}, visual {made[1]}"
            )

    def lacks(self, path: str | os.PathLike[str]) -> str | None:
        """Returns the modality that a video lacks and may lack, if it does.

        Raises:
            VideoError: If it lacks one that it may not lack, or can't be read.
        """
        info = probe(path)
        missing = [
            name
            for name, there in (("audio", info.has_audio), ("visual", info.has_visual))
            if not there
        ]
        if not missing:
            return None
        if missing != [self.empty]:
            what = {"audio": "sound", "visual": "picture"}[missing[0]]
            raise VideoError(
                f"{path}: has no {what}. Expected both, since an event is heard and "
                f"seen; to take zeros for it, say --empty={missing[0]}."
            )
        return missing[0]

    def stream(self, path: str | os.PathLike[str]) -> Iterator[Chunk]:
        """Yields a video's features in chunks of some seconds, in order of time.

        Memory does not grow with the length of the video.

        Raises:
            VideoError: If it can't be read, or lacks a modality.
        """
        lacked = self.lacks(path)
        seconds: list[Second] = []
        for second in read_seconds(path, self.visual.frames_per_second, lacked):
            seconds.append(second)
            if len(seconds) == _CHUNK_S:
                yield self._features(seconds)
                seconds = []
        if seconds:
            yield self._features(seconds)

    def extract(self, path: str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray]:
        """Returns a whole video's audio and visual features; see `stream`."""
        return join(list(self.stream(path)))

    def _features(self, seconds: list[Second]) -> Chunk:
        if seconds[0].waveform is None:
            audio = np.zeros((len(seconds), self.audio.width), np.float32)
        else:
            audio = self.audio(np.stack([second.waveform for second in seconds]))
        if seconds[0].frames is None:
            visual = np.zeros((len(seconds), *self.visual.shape), np.float32)
        else:
            visual = self.visual([second.frames for second in seconds])
        return Chunk(audio, visual, seconds[0].start_s, seconds[-1].end_s)


def join(chunks: Sequence[Chunk]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the audio and the visual features of chunks, one after the other."""
    return (
        np.concatenate([chunk.audio for chunk in chunks]),
        np.concatenate([chunk.visual for chunk in chunks]),
    )


def build_extractor(
    visual_network: str = "resnet152",
    vggish: str = VGGISH,
    visual_weights: str = _IMAGENET,
    empty: str | None = None,
    visual_precision: str = PRECISIONS[0],
) -> Extractor:
    """Loads the networks that make features.

    Args:
        network: The visual one, of `RECIPES`.
        vggish: See `AudioNetwork`.
        visual_weights: See `VisualNetwork`.
        empty: See `Extractor`.
        visual_precision: See `VisualNetwork`.

    Raises:
        UserError: If one is not known or can't be loaded, or Keras computes with
            another backend than TensorFlow.
    """
    check_backend()
    for name, value, known in (
        ("visual_network", visual_network, tuple(RECIPES)),
        ("empty", empty, (None, *KINDS)),
        ("visual_precision", visual_precision, PRECISIONS),
    ):
        if value not in known:
            raise UserError(
                f"{name}: expected one of {', '.join(map(str, known))}. "
                f"Received: {value}"
            )
    audio = AudioNetwork(vggish)
    visual = VisualNetwork(visual_network, visual_weights, visual_precision)
    return Extractor(audio, visual, empty)


def settings_of(
    network: str,
    vggish: str = VGGISH,
    visual_weights: str = _IMAGENET,
    visual_precision: str = PRECISIONS[0],
) -> dict[str, str]:
    """Returns what decides features, to be kept beside them.

    A local file or folder is the same however it is named. What a video may lack is not
    among it: that decides which videos have features, not what these are.

    Args:
        network: See `build_extractor`.
        vggish: See `build_extractor`.
        visual_weights: See `build_extractor`.
        visual_precision: See `build_extractor`.
    """

    def resolve(name: str) -> str:
        is_path = name != _IMAGENET and os.path.exists(name)
        return str(pathlib.Path(name).resolve()) if is_path else name

    return {
        "visual_network": network,
        "vggish": resolve(vggish),
        "visual_weights": resolve(visual_weights),
        "visual_precision": visual_precision,
    }


def find_videos(paths: Sequence[str | os.PathLike[str]]) -> list[pathlib.Path]:
    """Returns the videos that are meant: files as they are, folders by what they hold.

    Hidden files of folders are left out; among them is what macOS writes beside others.
    A file that does not exist, or a folder without videos, is among the videos if there
    is one: it fails when it is read, and the others go on.

    Raises:
        UserError: If there is none.
    """
    videos = {}
    for path in map(pathlib.Path, paths):
        found = [path]
        # Unlike Path.is_dir, it takes any name.
        if os.path.isdir(path):
            found = sorted(
                file
                for file in path.rglob("*")
                if file.suffix.lower() in _SUFFIXES
                and not file.name.startswith(".")
                and os.path.isfile(file)
            ) or [path]
        # Each once, however often and by whatever path it is named.
        for file in found:
            videos.setdefault(os.path.realpath(file), file)
    if not any(map(os.path.isfile, videos)):
        received = ", ".join(map(str, paths)) or "none"
        raise UserError(
            "Expected at least one video, or a folder of videos "
            f"({', '.join(_SUFFIXES)}). Received: {received}"
        )
    return list(videos.values())


@dataclasses.dataclass(frozen=True)
class Source:
    """What features were made of: a name for people, and what tells the content.

    Attributes:
        video: The name of the video.
        num_bytes: Its length.
        crc32: Its checksum, the one that zip archives keep.
    """

    video: str
    num_bytes: int
    crc32: int

    @classmethod
    def of(cls, path: pathlib.Path) -> "Source":
        """Reads a video, and returns what tells it from others.

        Raises:
            VideoError: If it can't be read.
        """
        num_bytes = crc32 = 0
        try:
            with path.open("rb") as file:
                while piece := file.read(_PIECE_BYTES):
                    num_bytes += len(piece)
                    crc32 = zlib.crc32(piece, crc32)
        except OSError as error:
            raise VideoError(f"{path}: can't be read ({error.strerror}).") from error
        return cls(path.name, num_bytes, crc32)

    def is_same(self, other: "Source") -> bool:
        """Returns whether the content is the same, whatever the name."""
        return (self.num_bytes, self.crc32) == (other.num_bytes, other.crc32)


def feature_paths(out: pathlib.Path, key: str) -> tuple[pathlib.Path, pathlib.Path]:
    """Returns where the audio and the visual features of a video lie."""
    audio, visual = (out / f"{key}.{kind}.npy" for kind in KINDS)
    return audio, visual


def read_source(out: pathlib.Path, key: str) -> Source | None:
    """Returns what the features of a key in a folder were made of.

    Returns:
        None if they are not there, or not whole.
    """
    # Unlike Path.is_file, it takes any name.
    if not all(map(os.path.isfile, feature_paths(out, key))):
        return None
    try:
        return Source(**json.loads(_source_path(out, key).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def extract_all(
    extractor: Extractor,
    videos: Sequence[pathlib.Path],
    out: pathlib.Path,
    settings: dict[str, Any],
    workers: int,
    on_done: Callable[[pathlib.Path, str | None], None],
) -> dict[pathlib.Path, str]:
    """Extracts many videos into a folder; what is there already is not made again.

    A video becomes NAME.audio.npy and NAME.visual.npy, whole or not at all, and
    NAME.source.json, by which another video of that name is noticed. The settings are
    kept beside them, so that features of two kinds don't end up in one folder.

    Args:
        extractor: Makes the features.
        videos: The videos.
        out: The folder.
        settings: What decides the features; see `settings_of`.
        workers: How many videos are read at once.
        on_done: Called with every video, and why it failed, if so.

    Returns:
        Why videos failed.

    Raises:
        UserError: If the folder holds features of other settings, or can't be written.
        KeyboardInterrupt: If a person asks for it, when the next seconds are read,
            however long the videos are.
    """
    claim_folder(out, settings)
    failures: dict[pathlib.Path, str] = {}
    # Of one name, the first that can be read has the files.
    namesakes: dict[str, collections.deque[pathlib.Path]] = {}
    for video in videos:
        namesakes.setdefault(video.stem, collections.deque()).append(video)
    waiting = {}
    stop = threading.Event()
    pool = concurrent.futures.ThreadPoolExecutor(workers)

    def submit_next(name: str) -> None:
        video = namesakes[name].popleft()
        future = pool.submit(_extract_one, extractor, video, out, settings, stop)
        waiting[future] = video

    try:
        for name in namesakes:
            submit_next(name)
        while waiting:
            done, _ = concurrent.futures.wait(
                waiting, return_when=concurrent.futures.FIRST_COMPLETED
            )
            for future in done:
                video = waiting.pop(future)
                others = namesakes[video.stem]
                failure = _failure(future.exception(), video, out)
                if failure:
                    failures[video] = failure
                on_done(video, failure)
                if failure and others:
                    submit_next(video.stem)
                    continue
                for other in others:
                    failures[other] = (
                        f"{other}: has the same name as {video}, and would overwrite "
                        "its features. Rename one of them."
                    )
                    on_done(other, failures[other])
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
    return failures


def _failure(
    error: BaseException | None, video: pathlib.Path, out: pathlib.Path
) -> str | None:
    """Returns why a video has no features, or raises what is not about this video."""
    if error is None:
        return None
    if isinstance(error, VideoError):
        return str(error)
    if isinstance(error, OSError):
        reason = error.strerror or error
        return f"{video}: its features can't be written to {out} ({reason})."
    if isinstance(error, MemoryError):
        return (
            f"{video}: its features don't fit in memory. Expected a shorter video, or "
            "more memory. Cut it into parts, or read fewer at once by --workers=1."
        )
    raise error


def _extract_one(
    extractor: Extractor,
    video: pathlib.Path,
    out: pathlib.Path,
    settings: dict[str, Any],
    stop: threading.Event,
) -> None:
    source = Source.of(video)
    found = read_source(out, video.stem)
    if found is not None:
        if not found.is_same(source):
            raise VideoError(
                f"{video}: {out} holds features of another video of this name, "
                f"{found.video}, or of this one before it was changed. Choose another "
                f"folder, or remove {out / video.stem}.*.npy to make them anew."
            )
        return
    chunks = []
    for chunk in extractor.stream(video):
        if stop.is_set():
            return
        chunks.append(chunk)
    write_features(out, video.stem, join(chunks), source, settings)


def write_features(
    out: pathlib.Path,
    key: str,
    features: tuple[np.ndarray, np.ndarray],
    source: Source,
    settings: dict[str, Any],
) -> None:
    """Writes a video's audio and visual features, each file whole or not at all.

    Several processes may write those of one video: workers of Beam do, whose work is
    given to others when they seem to be lost.

    Args:
        out: The folder.
        key: What they are called.
        features: The audio and the visual features.
        source: What they were made of. It is written last: features without it are
            not whole.
        settings: What the folder was claimed with.

    Raises:
        UserError: If another process has claimed it for other networks since, which it
            may as long as the folder holds no features.
    """
    _check_settings(out, settings)
    _source_path(out, key).unlink(missing_ok=True)
    for path, values in zip(feature_paths(out, key), features, strict=True):
        with atomic_write(path) as tmp_path:
            np.save(tmp_path, values)
    write_json(_source_path(out, key), dataclasses.asdict(source))


def _source_path(out: pathlib.Path, key: str) -> pathlib.Path:
    return out / f"{key}.source.json"


def claim_folder(out: pathlib.Path, settings: dict[str, Any]) -> None:
    """Makes a folder of features, or checks that those in it have these settings.

    Args:
        out: The folder.
        settings: What decides the features; see `settings_of`.

    Raises:
        UserError: If it holds features of other settings, or can't be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        if (out / _SETTINGS).is_file() and any(out.glob("*.source.json")):
            _check_settings(out, settings)
        write_json(out / _SETTINGS, settings)
    except OSError as error:
        raise UserError(
            f"{out}: expected a folder that this user may write to. Received: {error}"
        ) from error


def _check_settings(out: pathlib.Path, settings: dict[str, Any]) -> None:
    """Checks what the features of a folder are made with.

    Raises:
        UserError: If with something else, or if that can't be read any more.
        OSError: If there is no such file.
    """
    path = out / _SETTINGS
    try:
        found = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{path}: expected what made the features beside it. Received: {error}. "
            "Choose another folder, or remove this one."
        ) from error
    # Features of before there was a choice don't state it.
    unstated = {"visual_precision": PRECISIONS[0]}
    found, settings = {**unstated, **found}, {**unstated, **settings}
    other = [
        f"{name} {found.get(name)!r}, received {settings.get(name)!r}"
        for name in {**found, **settings}
        if found.get(name) != settings.get(name)
    ]
    if other:
        raise UserError(
            f"{out}: holds features made with other networks: expected "
            f"{'; '.join(other)}. Choose another folder, or remove this one."
        )

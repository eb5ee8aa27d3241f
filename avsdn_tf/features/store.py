"""Store the features of many videos in a folder.

Each video has `NAME.audio.npy`, `NAME.visual.npy`, and `NAME.source.json`, which
identifies the video and is written last: features without it are incomplete. The
folder's `extract.json` records the backbones, which are the same for all videos.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import os
import pathlib
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from avsdn_tf.backbones import Backbones
from avsdn_tf.errors import UserError
from avsdn_tf.features.extractor import (
    MODALITIES,
    Chunk,
    Extractor,
)
from avsdn_tf.features.video import VideoError
from avsdn_tf.features.video.process import end_idle
from avsdn_tf.features.visual import PRECISIONS
from avsdn_tf.files import atomic_write, write_json
from avsdn_tf.schemas import MAX_JSON_BYTES, parse_json, read_bytes, read_json

_BACKBONES = "extract.json"
_READ_BYTES = 2**20


@dataclasses.dataclass(frozen=True)
class Source:
    """The video that features were extracted from: its name, size and CRC-32."""

    video: str = dataclasses.field(compare=False)
    num_bytes: int
    crc32: int

    @classmethod
    def of(cls, path: pathlib.Path) -> "Source":
        """Compute a video's size and CRC-32; raise VideoError if it can't be read."""
        num_bytes = crc32 = 0
        try:
            with path.open("rb") as file:
                while piece := file.read(_READ_BYTES):
                    num_bytes += len(piece)
                    crc32 = zlib.crc32(piece, crc32)
        except OSError as error:
            raise VideoError(f"{path}: can't be read ({error.strerror}).") from error
        return cls(path.name, num_bytes, crc32)


def feature_paths(out: pathlib.Path, key: str) -> tuple[pathlib.Path, pathlib.Path]:
    """Return the paths of a video's audio and visual features."""
    audio, visual = (out / f"{key}.{modality}.npy" for modality in MODALITIES)
    return audio, visual


def _source_path(out: pathlib.Path, key: str) -> pathlib.Path:
    return out / f"{key}.source.json"


def read_source(out: pathlib.Path, key: str) -> Source | None:
    """Return the source of a video's features, or None if they are incomplete."""
    # For a name that is too long, os.path.isfile returns False; Path.is_file raises.
    if not all(map(os.path.isfile, feature_paths(out, key))):
        return None
    try:
        return read_json(_source_path(out, key), Source, "the source of features")
    except UserError:
        return None


def write_features(
    out: pathlib.Path,
    key: str,
    chunks: Iterable[Chunk],
    source: Source,
    backbones: Backbones,
) -> None:
    """Write a video's audio and visual features atomically, chunk by chunk.

    Several processes may write the same features: Apache Beam repeats the work of a
    worker that seems lost.

    Raises:
        UserError: If another process has claimed the folder for other backbones.
    """
    audio_path, visual_path = feature_paths(out, key)
    with _npy_writer(audio_path) as add_audio, _npy_writer(visual_path) as add_visual:
        for chunk in chunks:
            add_audio(chunk.audio)
            add_visual(chunk.visual)
        _check_backbones(out, backbones)
        _source_path(out, key).unlink(missing_ok=True)
    write_json(_source_path(out, key), dataclasses.asdict(source))


@contextlib.contextmanager
def _npy_writer(path: pathlib.Path) -> Iterator[Callable[[np.ndarray], None]]:
    """Yield a function that appends rows; save the array when the block ends."""
    num_rows = 0
    header: dict[str, Any] = {}
    with atomic_write(path) as tmp_path, tmp_path.open("wb") as file:

        def write_header() -> None:
            # NumPy pads the header, so the number of rows can be overwritten in place.
            np.lib.format.write_array_header_1_0(
                file, {**header, "shape": (num_rows, *header["shape"])}
            )

        def append(rows: np.ndarray) -> None:
            nonlocal num_rows
            if not header:
                descr = np.lib.format.dtype_to_descr(rows.dtype)
                header.update(descr=descr, fortran_order=False, shape=rows.shape[1:])
                write_header()
            rows.tofile(file)
            num_rows += len(rows)

        yield append
        file.seek(0)
        write_header()


def claim_folder(out: pathlib.Path, backbones: Backbones) -> None:
    """Create a folder for features of these backbones, or check an existing folder.

    Raises:
        UserError: If the folder has features of other backbones or can't be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        if (out / _BACKBONES).is_file() and any(out.glob("*.source.json")):
            _check_backbones(out, backbones)
        write_json(out / _BACKBONES, backbones.to_dict())
    except OSError as error:
        raise UserError(
            f"{out}: expected a folder that this user may write to. Received: {error}"
        ) from error


def _check_backbones(out: pathlib.Path, backbones: Backbones) -> None:
    """Raise UserError if a folder has features of other backbones."""
    path = out / _BACKBONES
    try:
        content = read_bytes(path, MAX_JSON_BYTES)
        recorded = Backbones.from_dict(parse_json(content, dict[str, str | None]))
    except ValueError as error:
        raise UserError(
            f"{path}: expected the backbones of the features beside it. Received: "
            f"{error}. Choose another folder, or remove this folder."
        ) from error
    # Folders that version 0.1.0 wrote don't record the precision.
    expected, received = (
        {**each.to_dict(), "visual_precision": each.visual_precision or PRECISIONS[0]}
        for each in (recorded, backbones)
    )
    differences = [
        f"{name} {expected[name]!r}, received {received[name]!r}"
        for name in expected
        if expected[name] != received.get(name, expected[name])
    ]
    if differences:
        raise UserError(
            f"{out}: holds features of other backbones: expected "
            f"{'; '.join(differences)}. Choose another folder, or remove this folder."
        )


def extract_all(
    extractor: Extractor,
    videos: Sequence[pathlib.Path],
    out: pathlib.Path,
    workers: int,
    on_done: Callable[[pathlib.Path, str | None], None],
) -> dict[pathlib.Path, str]:
    """Extract the features of many videos into a folder, and skip extracted videos.

    Of several videos with the same name, the first readable video is extracted, and the
    others fail. Ctrl+C takes effect within seconds.

    Args:
        extractor: The extractor.
        videos: Paths of the videos.
        out: The folder.
        workers: Number of videos to read at once.
        on_done: Called with each video, and its error message or None.

    Returns:
        The error message of each video that failed.

    Raises:
        UserError: If the folder has features of other backbones or can't be written.
    """
    claim_folder(out, extractor.backbones)
    namesakes = collections.defaultdict(list)
    for video in videos:
        namesakes[video.stem].append(video)
    failures: dict[pathlib.Path, str] = {}
    stop = threading.Event()
    pool = concurrent.futures.ThreadPoolExecutor(workers)
    try:
        futures = [
            pool.submit(_extract_first, extractor, group, out, stop)
            for group in namesakes.values()
        ]
        for future in concurrent.futures.as_completed(futures):
            for video, failure in future.result().items():
                if failure:
                    failures[video] = failure
                on_done(video, failure)
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
        end_idle()
    return failures


def _extract_first(
    extractor: Extractor,
    videos: Sequence[pathlib.Path],
    out: pathlib.Path,
    stop: threading.Event,
) -> dict[pathlib.Path, str | None]:
    """Extract the first readable video of several with the same name.

    Returns:
        The error message of each video; None for the extracted video.
    """
    failures: dict[pathlib.Path, str | None] = {}
    for index, video in enumerate(videos):
        try:
            _extract_one(extractor, video, out, stop)
        except VideoError as error:
            failures[video] = str(error)
        except OSError as error:
            failures[video] = (
                f"{video}: its features can't be written to {out} "
                f"({error.strerror or error})."
            )
        except MemoryError:
            failures[video] = (
                f"{video}: its features don't fit in memory. Expected a shorter video, "
                "or more memory. Split the video, or set workers=1."
            )
        else:
            failures[video] = None
            for other in videos[index + 1 :]:
                failures[other] = (
                    f"{other}: has the same name as {video}, and would overwrite its "
                    "features. Rename one of the videos."
                )
            break
    return failures


def _extract_one(
    extractor: Extractor, video: pathlib.Path, out: pathlib.Path, stop: threading.Event
) -> None:
    source = Source.of(video)
    recorded = read_source(out, video.stem)
    if recorded is not None:
        if recorded != source:
            raise VideoError(
                f"{video}: {out} holds features of another video of this name, "
                f"{recorded.video}, or of an earlier version of this video. Choose "
                f"another folder, or remove {out / video.stem}.*.npy to replace them."
            )
        return

    def chunks() -> Iterator[Chunk]:
        for chunk in extractor.stream(video):
            if stop.is_set():
                raise _StoppedError
            yield chunk

    with contextlib.suppress(_StoppedError):
        write_features(out, video.stem, chunks(), source, extractor.backbones)


class _StoppedError(Exception):
    """Raised to abandon a video after Ctrl+C or a fatal error."""

"""Find the videos or feature files in a folder, and measure their lengths."""

import collections
import concurrent.futures
import dataclasses
import pathlib
import unicodedata
from collections.abc import Callable, Mapping, Sequence

from avsdn_tf.arrays import open_npy
from avsdn_tf.errors import UserError, first_line
from avsdn_tf.features.video import VideoError, find_videos
from avsdn_tf.features.video.process import describe_in_child, read_in_child

AUDIO_FILES = "*.audio.npy"
VISUAL_FILES = "*.visual.npy"
# Number of videos to read at once, each in a process.
_NUM_READERS = 4


@dataclasses.dataclass(frozen=True)
class FeatureFiles:
    """Location and time axis of feature files.

    Attributes:
        audio: Glob pattern of the audio features in the folder, such as `vggish/*.npy`.
            `*` stands for the clip's name.
        visual: Glob pattern of the visual features.
        audio_hop_s: Seconds per row of audio features.
        visual_hop_s: Seconds per row of visual features.
        tolerance_s: Largest difference between the lengths of a clip's two files, in
            seconds.
    """

    audio: str = AUDIO_FILES
    visual: str = VISUAL_FILES
    audio_hop_s: float = 1.0
    visual_hop_s: float = 1.0
    tolerance_s: float = 1.0


@dataclasses.dataclass(frozen=True)
class Medium:
    """A clip's video, or its feature files.

    Attributes:
        key: Name in the manifest.
        names: Names that labels may use for the clip, in Unicode's NFC.
        files: The video, or the files of audio and visual features.
        length_s: Length in seconds.
    """

    key: str
    names: frozenset[str]
    files: tuple[pathlib.Path, ...]
    length_s: float


def find_media(
    folder: pathlib.Path,
    features: FeatureFiles | None = None,
    on_done: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[Medium], dict[Medium, str]]:
    """Find the videos in a folder and its subfolders, or feature files.

    Args:
        folder: The folder.
        features: The feature files to use instead of videos. Default: videos, or the
            files of `avsdn extract` if there is no video.
        on_done: Called with the number of opened media and the total.

    Returns:
        The media in order of their names; and a dictionary from each unreadable medium,
        with length 0, to its error.

    Raises:
        UserError: If no medium is readable, or a name occurs twice or can't be a key.
    """
    videos = [] if features else _find_videos(folder)
    named_files = [(path.stem, (path,)) for path in videos]
    if not named_files:
        features = features or FeatureFiles()
        named_files = _find_features(folder, features)
    keys = choose_keys(named_files, folder)

    def open_one(key: str) -> tuple[Medium, str]:
        name, files = keys[key]
        names = _names(key, name, files[0].relative_to(folder))
        try:
            if features:
                length_s = _measure_features(files, features)
            else:
                length_s = _measure_video(files[0])
        except (VideoError, OSError, ValueError) as error:
            reason = first_line(error)
            if not any(str(path) in reason for path in files):
                reason = f"{files[0]}: {reason}"
            return Medium(key, names, files, 0.0), reason
        return Medium(key, names, files, length_s), ""

    opened = []
    with concurrent.futures.ThreadPoolExecutor(_NUM_READERS) as pool:
        for done, result in enumerate(pool.map(open_one, keys), start=1):
            on_done(done, len(keys))
            opened.append(result)
    media = [medium for medium, reason in opened if not reason]
    unreadable = {medium: reason for medium, reason in opened if reason}
    if not media:
        reasons = "\n".join(unreadable.values())
        raise UserError(f"{folder}: 0 of {len(keys)} clips can be read.\n{reasons}")
    return media, unreadable


def _find_videos(folder: pathlib.Path) -> list[pathlib.Path]:
    """Return the videos, or an empty list if there are only feature files."""
    try:
        return find_videos([folder])
    except UserError:
        if next(folder.rglob(AUDIO_FILES), None):
            return []
        raise


def _find_features(
    folder: pathlib.Path, features: FeatureFiles
) -> list[tuple[str, tuple[pathlib.Path, ...]]]:
    """Return name and files of each clip that has a file of either pattern."""
    by_pattern = []
    for field in ("audio", "visual"):
        pattern = getattr(features, field)
        prefix, star, suffix = pattern.partition("*")
        if not star or "*" in suffix:
            message = "Expected a pattern with one '*', which stands for the name."
            raise UserError(message, field=field, value=pattern)
        # Search subfolders for files of `avsdn extract`.
        is_own = pattern in (AUDIO_FILES, VISUAL_FILES)
        paths = (folder.rglob if is_own else folder.glob)(pattern)
        by_pattern.append(
            {
                path.relative_to(folder).as_posix()[
                    0 if is_own else len(prefix) : -len(suffix) or None
                ]: path
                for path in sorted(paths)
                if not path.name.startswith(".")
            }
        )
    audio, visual = by_pattern
    if not audio.keys() & visual.keys():
        raise UserError(
            f"{folder}: {len(audio)} files {features.audio} and {len(visual)} files "
            f"{features.visual}. Expected both of at least one clip."
        )
    # `_measure_features` reports clips with only one of the two files.
    return [
        (
            pathlib.Path(name).name,
            tuple(paths[name] for paths in by_pattern if name in paths),
        )
        for name in sorted({*audio, *visual})
    ]


def _measure_video(path: pathlib.Path) -> float:
    stated_s = describe_in_child(path).stated_s
    if stated_s is not None:
        return stated_s
    # Decode files that don't state their length.
    seconds = [(second.start_s, second.end_s) for second in read_in_child(path)]
    return seconds[-1][1] - seconds[0][0]


def _measure_features(files: tuple[pathlib.Path, ...], features: FeatureFiles) -> float:
    hops_s = (features.audio_hop_s, features.visual_hop_s)
    if len(files) < 2:
        patterns = f"{features.audio} and {features.visual}"
        raise ValueError(f"{files[0]}: expected files of both {patterns}.")
    lengths_s = []
    for path, hop_s in zip(files, hops_s, strict=True):
        shape = open_npy(path).shape
        if len(shape) < 2 or not shape[0]:
            raise ValueError(f"{path}: expected rows of features, not shape {shape}")
        lengths_s.append(shape[0] * hop_s)
    if abs(lengths_s[0] - lengths_s[1]) > features.tolerance_s:
        raise ValueError(
            f"{files[0]} lasts {lengths_s[0]:g} s, and {files[1]} {lengths_s[1]:g} s. "
            f"Expected a difference of at most tolerance_s={features.tolerance_s:g}. "
            "Change tolerance_s, audio_hop_s or visual_hop_s."
        )
    return min(lengths_s)


def choose_keys(
    named_files: Sequence[tuple[str, tuple[pathlib.Path, ...]]], folder: pathlib.Path
) -> Mapping[str, tuple[str, tuple[pathlib.Path, ...]]]:
    """Return names and files by key.

    A key is the name, preceded by the folders if several files have the name.
    """
    counts = collections.Counter(name for name, _ in named_files)
    keys: dict[str, tuple[str, tuple[pathlib.Path, ...]]] = {}
    problems = []
    for name, files in named_files:
        folders = files[0].relative_to(folder).parent.parts
        key = "_".join((*folders, name)) if counts[name] > 1 else name
        if any(unicodedata.category(character) in ("Cc", "Cs") for character in key):
            problems.append(f"{files[0]}: expected a name of printable characters.")
        if key in keys:
            other = keys[key][1][0]
            problems.append(f"{files[0]}: expected a name that differs from {other}.")
        keys[key] = (name, files)
    if problems:
        raise UserError("\n".join(problems))
    return keys


def _names(key: str, name: str, path: pathlib.Path) -> frozenset[str]:
    """Return the names that labels may use for a medium."""
    relative = (path.parent / name).as_posix()
    names = (key, name, relative, path.name, path.as_posix())
    return frozenset(unicodedata.normalize("NFC", text) for text in names)

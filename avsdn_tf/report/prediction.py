"""Write all files of one video's prediction without overwriting the user's files.

The folder's `.predictions.json` records the video and the SHA-256 of each file that was
written. Only files with a recorded hash are overwritten.
"""

import contextlib
import os
import pathlib
import tempfile
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from typing_extensions import TypedDict

from avsdn_tf.errors import UserError
from avsdn_tf.events import VideoPrediction
from avsdn_tf.files import (
    TMP_PREFIX,
    expand_user,
    explain_unwritable,
    hash_file,
    lock,
    write_json,
)
from avsdn_tf.report import figures
from avsdn_tf.report.event_files import write_event_files
from avsdn_tf.report.player import write_player_page
from avsdn_tf.schemas import read_json
from avsdn_tf.text import printable

_RECORD = ".predictions.json"
# Enough for 60,000 videos, one kilobyte each.
_MAX_RECORD_BYTES = 64 * 2**20
_SUFFIXES = (".html", ".png", ".vtt", ".events.json", ".events.csv")
_ELSEWHERE = "Choose another folder for out."


class _Entry(NamedTuple):
    """The video of a file, and the hashes that the file may have."""

    video: str
    hashes: list[str | None]


class _StoredEntry(TypedDict):
    video: str
    sha256: list[str | None]


def write_prediction(
    out: str | os.PathLike[str],
    video: str | os.PathLike[str],
    prediction: VideoPrediction,
) -> pathlib.Path:
    """Write page, picture, JSON, CSV and subtitles of a video.

    Several processes may write into one folder.

    Args:
        out: The folder, which is created if it doesn't exist.
        video: Path of the video, whose name without suffix names the files.
        prediction: The prediction.

    Returns:
        The path of the page.

    Raises:
        UserError: If a file can't be written, or would overwrite a file that no earlier
            prediction of this video wrote.
    """
    out, video = pathlib.Path(expand_user(out)), pathlib.Path(expand_user(video))
    stem = video.stem
    with own_files(out, _names(video), video) as folder:
        write_event_files(folder, stem, prediction)
        picture = figures.prediction(prediction)
        figures.save(picture, folder / f"{stem}.png", prediction.disclaimer)
        write_player_page(folder / f"{stem}.html", prediction, video, out)
    return out / f"{stem}.html"


def check_prediction(
    out: str | os.PathLike[str], video: str | os.PathLike[str]
) -> None:
    """Check that `write_prediction` may write its files, before the video is read.

    Raises:
        UserError: If a file exists that no earlier prediction of this video wrote.
    """
    out, video = pathlib.Path(expand_user(out)), pathlib.Path(expand_user(video))
    _check_all(out, _names(video), video, _read_record(out))


@contextlib.contextmanager
def own_files(
    out: pathlib.Path, names: Sequence[str], video: pathlib.Path
) -> Iterator[pathlib.Path]:
    """Yield a temporary folder; move the files `names` to `out` when the block ends.

    Raises:
        UserError: As in `write_prediction`.
    """
    with explain_unwritable(out / names[0], _ELSEWHERE):
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=TMP_PREFIX, dir=out) as tmp_dir:
            folder = pathlib.Path(tmp_dir)
            yield folder
            with lock(out):
                record = _read_record(out)
                _check_all(out, names, video, record)
                # Record old and new hashes first: the process may be killed between the
                # moves.
                for name in names:
                    hashes = [_sha256(out / name), _sha256(folder / name)]
                    record[name] = _Entry(os.path.abspath(video), hashes)
                _write_record(out, record)
                for name in names:
                    (folder / name).replace(out / name)


def _names(video: pathlib.Path) -> list[str]:
    return [f"{video.stem}{suffix}" for suffix in _SUFFIXES]


def _check_all(
    out: pathlib.Path,
    names: Sequence[str],
    video: pathlib.Path,
    record: Mapping[str, _Entry],
) -> None:
    for name in names:
        _check(out / name, os.path.abspath(video), record.get(name))


def _check(path: pathlib.Path, source: str, entry: _Entry | None) -> None:
    """Raise UserError if a file exists that this video's prediction didn't write."""
    if not os.path.lexists(path):
        return
    if entry is None:
        reason = "is not a file of an earlier prediction"
    elif entry.video != source and os.path.exists(entry.video):
        reason = f"belongs to another video of that name, {printable(entry.video)}"
    elif not path.is_file() or _sha256(path) not in entry.hashes:
        reason = "was changed after an earlier prediction wrote it"
    else:
        return
    raise UserError(
        f"{printable(str(path))}: would be overwritten, and {reason}. Rename the "
        "file or the video, or choose another folder for out."
    )


def _read_record(out: pathlib.Path) -> dict[str, _Entry]:
    """Return the record of a folder, empty if it can't be read."""
    try:
        record = read_json(
            out / _RECORD,
            dict[str, _StoredEntry],
            "the record of predictions",
            max_bytes=_MAX_RECORD_BYTES,
        )
    except UserError:
        return {}
    return {
        _from_json(name): _Entry(_from_json(entry["video"]), entry["sha256"])
        for name, entry in record.items()
    }


def _write_record(out: pathlib.Path, record: Mapping[str, _Entry]) -> None:
    content = {
        _to_json(name): {"video": _to_json(entry.video), "sha256": entry.hashes}
        for name, entry in record.items()
    }
    write_json(out / _RECORD, content)


def _to_json(name: str) -> str:
    """URL-quote a file name, because a file name may not be valid UTF-8."""
    return urllib.parse.quote(os.fsencode(name))


def _from_json(name: str) -> str:
    return os.fsdecode(urllib.parse.unquote_to_bytes(name))


def _sha256(path: pathlib.Path) -> str | None:
    """Return a file's SHA-256: "" if it is too large, None if there is no file."""
    if not path.is_file():
        return None
    try:
        return hash_file(path)
    except ValueError:  # Larger than any file of a prediction.
        return ""


def find_written(out: str | os.PathLike[str]) -> dict[str, bool]:
    """Return the files that predictions wrote, and whether each is unchanged."""
    out = pathlib.Path(expand_user(out))
    return {
        name: _sha256(out / name) in entry.hashes
        for name, entry in _read_record(out).items()
        # An untrusted record may name files in other folders.
        if pathlib.Path(name).name == name and (out / name).is_file()
    }

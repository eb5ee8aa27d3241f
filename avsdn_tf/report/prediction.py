"""All files of one video's prediction, beside whatever else the folder holds.

The folder's `.predictions.json` records the video of each file and the file's SHA-256.
A file that is not recorded, or changed since, is a person's: it is never overwritten.
"""

import contextlib
import hashlib
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
    lock,
    write_json,
)
from avsdn_tf.report import figures
from avsdn_tf.report.event_files import write_event_files
from avsdn_tf.report.player import write_player_page
from avsdn_tf.schemas import read_json
from avsdn_tf.text import printable

_RECORD = ".predictions.json"
# A kilobyte for each of 60,000 videos.
_MAX_RECORD_BYTES = 64 * 2**20
_SUFFIXES = (".html", ".png", ".vtt", ".events.json", ".events.csv")
_ELSEWHERE = "Choose another folder for out."


class _Entry(NamedTuple):
    """The video of a file, and the hashes of what was written there."""

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
    """Write page, picture, JSON, CSV and subtitles of a video; return the page.

    Several processes may write into one folder.

    Args:
        out: The folder. It is created if need be.
        video: The video. The files have its name, without its suffix.
        prediction: Its prediction.

    Raises:
        UserError: If a file can't be written, or would replace a file that is not of an
            earlier prediction of this video.
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
    """Check, before a video is read, that the files of its prediction may be written.

    Raises:
        UserError: If one would replace a file that is not of an earlier prediction of
            this video.
    """
    out, video = pathlib.Path(expand_user(out)), pathlib.Path(expand_user(video))
    _check_all(out, _names(video), video, _read_record(out))


@contextlib.contextmanager
def own_files(
    out: pathlib.Path, names: Sequence[str], video: pathlib.Path
) -> Iterator[pathlib.Path]:
    """Yield a folder for files of a video, which move to `out` at the end of the block.

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
                # Before the files move: of a killed process, either hash is recorded.
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
    """Raise UserError if a file exists and is not of the same video's prediction."""
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
        f"{printable(str(path))}: would be overwritten, and {reason}. Rename one of "
        "the two, or choose another folder for out."
    )


def _read_record(out: pathlib.Path) -> dict[str, _Entry]:
    """Return the record of a folder; one that can't be read owns no file."""
    try:
        what = "the record of predictions"
        record = read_json(
            out / _RECORD, dict[str, _StoredEntry], what, max_bytes=_MAX_RECORD_BYTES
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
    """Return the name of a file as an address writes it: it need not be UTF-8."""
    return urllib.parse.quote(os.fsencode(name))


def _from_json(name: str) -> str:
    return os.fsdecode(urllib.parse.unquote_to_bytes(name))


def _sha256(path: pathlib.Path) -> str | None:
    """Return the hash of a file; None for anything else, such as a broken link."""
    if not path.is_file():
        return None
    return hashlib.sha256(path.read_bytes()).hexdigest()


def find_written(out: str | os.PathLike[str]) -> dict[str, bool]:
    """Return the files that predictions wrote in a folder, and if each is unchanged."""
    out = pathlib.Path(expand_user(out))
    return {
        name: _sha256(out / name) in entry.hashes
        for name, entry in _read_record(out).items()
        if (out / name).is_file()
    }

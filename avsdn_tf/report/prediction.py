"""All files of one video's prediction, beside whatever else the folder holds.

The folder's `.predictions.json` records the video of each file and the file's SHA-256.
A file that is not recorded, or changed since, is a person's: it is never overwritten.
"""

import contextlib
import hashlib
import os
import pathlib
from collections.abc import Iterator, Sequence

from avsdn_tf.errors import UserError
from avsdn_tf.events import VideoPrediction
from avsdn_tf.files import expand_user, explain_unwritable, lock, write_json
from avsdn_tf.report import figures
from avsdn_tf.report.event_files import write_event_files
from avsdn_tf.report.player import write_player_page
from avsdn_tf.schemas import read_json
from avsdn_tf.text import printable

_RECORD = ".predictions.json"
# A kilobyte for each of 60,000 videos.
_MAX_RECORD_BYTES = 64 * 2**20
_SUFFIXES = (".html", ".png", ".vtt", ".events.json", ".events.csv")
_Entry = dict[str, str | None]
_ELSEWHERE = "Choose another folder for out."


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
    page = out / f"{stem}.html"
    with own_files(out, [f"{stem}{suffix}" for suffix in _SUFFIXES], video):
        write_event_files(out, stem, prediction)
        picture = figures.prediction(prediction)
        figures.save(picture, out / f"{stem}.png", prediction.disclaimer)
        write_player_page(page, prediction, video)
    return page


def check_prediction(
    out: str | os.PathLike[str], video: str | os.PathLike[str]
) -> None:
    """Check, before a video is read, that the files of its prediction may be written.

    Raises:
        UserError: If one would replace a file that is not of an earlier prediction of
            this video.
    """
    out, video = pathlib.Path(expand_user(out)), pathlib.Path(expand_user(video))
    record = _read_record(out)
    for suffix in _SUFFIXES:
        name = f"{video.stem}{suffix}"
        _check(out / name, os.path.abspath(video), record.get(name))


@contextlib.contextmanager
def own_files(out: pathlib.Path, names: Sequence[str], video: pathlib.Path) -> Iterator:
    """Lock a folder while files of a video are written, and record them.

    Raises:
        UserError: As in `write_prediction`.
    """
    source = os.path.abspath(video)
    with explain_unwritable(out / names[0], _ELSEWHERE):
        out.mkdir(parents=True, exist_ok=True)
        with lock(out):
            record = _read_record(out)
            for name in names:
                _check(out / name, source, record.get(name))
            # Until the hashes are known, None stands for any content: the process may
            # be killed in between.
            record |= {name: {"video": source, "sha256": None} for name in names}
            write_json(out / _RECORD, record)
            yield
            for name in names:
                record[name] = {"video": source, "sha256": _sha256(out / name)}
            write_json(out / _RECORD, record)


def _check(path: pathlib.Path, source: str, entry: _Entry | None) -> None:
    """Raise UserError if a file exists and is not of the same video's prediction."""
    if not os.path.lexists(path):
        return
    if entry is None:
        reason = "is not a file of an earlier prediction"
    elif entry["video"] != source and os.path.exists(entry["video"]):
        reason = f"belongs to another video of that name, {entry['video']}"
    elif entry["sha256"] not in (None, _sha256(path)):
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
            out / _RECORD, dict[str, _Entry], what, max_bytes=_MAX_RECORD_BYTES
        )
    except UserError:
        return {}
    return {
        name: {"video": entry["video"], "sha256": entry.get("sha256")}
        for name, entry in record.items()
        if entry.get("video") is not None
    }


def _sha256(path: pathlib.Path) -> str | None:
    """Return the hash of a file; None for anything else, such as a broken link."""
    if not path.is_file():
        return None
    return hashlib.sha256(path.read_bytes()).hexdigest()

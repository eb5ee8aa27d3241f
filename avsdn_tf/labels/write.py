"""Write manifest.csv, categories.txt and their figure; keep the user's own files.

The folder's `.manifest.json` records the hashes of the written files. Only files with a
recorded hash are overwritten.
"""

import csv
import io
import os
import pathlib
import tempfile
from collections.abc import Sequence

from matplotlib.figure import Figure

from avsdn_tf.errors import CombinedUserError, UserError
from avsdn_tf.files import (
    TMP_PREFIX,
    explain_unwritable,
    hash_file,
    lock,
    write_json,
    write_text,
)
from avsdn_tf.labels.checks import BACKGROUND, Clip
from avsdn_tf.labels.files import LabelledEvent
from avsdn_tf.labels.media import FeatureFiles
from avsdn_tf.report import figures
from avsdn_tf.schemas import read_json
from avsdn_tf.text import mark_formula

MANIFEST = "manifest.csv"
CATEGORIES = "categories.txt"
PICTURE = "manifest.png"
_RECORD = ".manifest.json"
_NAMES = (MANIFEST, CATEGORIES, PICTURE)


def check_writable(out: pathlib.Path, overwrite: bool = False) -> None:
    """Check that `write_manifest` may write its files.

    Args:
        out: The folder.
        overwrite: Whether to overwrite an earlier manifest's files, if unedited.

    Raises:
        UserError: If a file exists and may not be overwritten.
    """
    if os.path.lexists(out) and not out.is_dir():
        raise UserError(f"{out}: is not a folder. Expected a folder or a new path.")
    record = _read_record(out)
    problems: list[UserError] = []
    for name in _NAMES:
        path = out / name
        if not os.path.lexists(path):
            continue
        if name not in record:
            reason = "was not written by this program"
        elif not path.is_file() or hash_file(path) not in record[name]:
            reason = "was changed since it was written"
        elif not overwrite:
            reason = "is of an earlier manifest"
        else:
            continue
        problems.append(UserError(f"{path}: exists, and {reason}."))
    if problems:
        hint = UserError("Choose another folder, or move these files.", field="out")
        if all(problem.message.endswith("earlier manifest.") for problem in problems):
            hint = UserError("Replaces these files.", field="overwrite")
        raise CombinedUserError([*problems, hint])


def _read_record(out: pathlib.Path) -> dict[str, list[str]]:
    """Return the recorded hashes by file name; {} if the record can't be read."""
    try:
        return read_json(out / _RECORD, dict[str, list[str]], "a record of hashes")
    except UserError:
        return {}


def write_manifest(
    out: pathlib.Path,
    clips: Sequence[Clip],
    features: FeatureFiles | None = None,
    figure: Figure | None = None,
    overwrite: bool = False,
) -> None:
    """Write manifest.csv and categories.txt for the config `custom`.

    Args:
        out: The folder, which is created if it doesn't exist.
        clips: The clips, all with a split.
        features: The time axis of feature files, if the clips have feature files.
        figure: The figure to write as manifest.png, or None.
        overwrite: As in `check_writable`.

    Raises:
        UserError: If a file can't be written or may not be overwritten.
    """
    categories = sorted({c for clip in clips for c in clip.categories})
    with explain_unwritable(out / MANIFEST, "Choose another folder for out."):
        out.mkdir(parents=True, exist_ok=True)
        with (
            lock(out),
            tempfile.TemporaryDirectory(prefix=TMP_PREFIX, dir=out) as tmp_dir,
        ):
            check_writable(out, overwrite)
            folder, record = pathlib.Path(tmp_dir), _read_record(out)
            write_text(folder / MANIFEST, _manifest_text(out, clips, features))
            write_text(folder / CATEGORIES, "".join(f"{c}\n" for c in categories))
            if figure is not None:
                figures.save(figure, folder / PICTURE)
            paths = [folder / name for name in _NAMES if (folder / name).exists()]
            # Record old and new hashes: the process may be killed before or after a
            # file is moved.
            hashes = {
                path.name: [hash_file(path), *record.get(path.name, [])[:1]]
                for path in paths
            }
            write_json(out / _RECORD, {**record, **hashes})
            for path in paths:
                path.replace(out / path.name)


def _manifest_text(
    out: pathlib.Path, clips: Sequence[Clip], features: FeatureFiles | None
) -> str:
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\n")
    header = ["key", "split", "category", "start_s", "end_s"]
    is_video = len(clips[0].medium.files) == 1
    header += ["video"] if is_video else ["audio", "visual"]
    default = FeatureFiles()
    settings = {
        name: getattr(features, name)
        for name in ("audio_hop_s", "visual_hop_s", "tolerance_s")
        if features and getattr(features, name) != getattr(default, name)
    }
    writer.writerow([*header, *settings])
    nothing = LabelledEvent(BACKGROUND, None, None, "")
    for clip in clips:
        files = [_path_text(path, out) for path in clip.medium.files]
        for event in clip.events or (nothing,):
            times = map(_time_text, (event.start_s, event.end_s))
            row = (clip.medium.key, clip.split, event.category, *times, *files)
            writer.writerow([*map(mark_formula, row), *settings.values()])
    return target.getvalue()


def _time_text(time_s: float | None) -> str:
    return "" if time_s is None else f"{time_s:.6f}".rstrip("0").rstrip(".")


def _path_text(path: pathlib.Path, out: pathlib.Path) -> str:
    """Return a path relative to the manifest's folder."""
    text = pathlib.Path(os.path.relpath(path, out)).as_posix()
    # A path with ".." may lead elsewhere if a folder is a symbolic link.
    if not os.path.exists(out / text):
        text = os.path.abspath(path)
    # Reading a manifest expands a leading tilde.
    return f"./{text}" if text.startswith("~") else text

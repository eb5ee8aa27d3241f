"""The formats of labels, and which of them a file has."""

import dataclasses
from collections.abc import Callable, Sequence

from avsdn_tf.labels import (
    activitynet,
    audacity,
    ave_pm,
    avel,
    events,
    llp,
    ov_ave,
    table,
    webvtt,
)
from avsdn_tf.labels.files import LabelFile, VideoLabels


@dataclasses.dataclass(frozen=True)
class Format:
    """How labels are written.

    Attributes:
        summary: What it is.
        recognizes: Returns whether a file has it; raises ValueError if the file can't
            be read.
        read: Returns the labels of files that have it, and lists what is wrong.
        is_published: Whether it is that of a published data set: labels of videos that
            are not at hand are left out, as are overlaps within a category, and videos
            may be named by the 11 characters of YouTube.
        is_padded: Whether it has labels of ten seconds for shorter videos, too: what is
            beyond the video is left out.
    """

    summary: str
    recognizes: Callable[[LabelFile], bool]
    read: Callable[[Sequence[LabelFile], list[str]], list[VideoLabels]]
    is_published: bool = False
    is_padded: bool = False


# The first one that recognizes a file reads it.
FORMATS = {
    "events": Format(
        "NAME.events.json and NAME.events.csv of predict",
        events.recognizes,
        events.read,
    ),
    "webvtt": Format("WebVTT, NAME.vtt", webvtt.recognizes, webvtt.read),
    "audacity": Format(
        "label tracks of Audacity, NAME.txt", audacity.recognizes, audacity.read
    ),
    "activitynet": Format(
        "JSON in ActivityNet's layout, and UnAV-100",
        activitynet.recognizes,
        activitynet.read,
        is_published=True,
    ),
    "ov_ave": Format(
        "OV-AVE", ov_ave.recognizes, ov_ave.read, is_published=True, is_padded=True
    ),
    "avel": Format(
        "VGGSound-AVEL100k and -AVEL50k",
        avel.recognizes,
        avel.read,
        is_published=True,
        is_padded=True,
    ),
    "ave_pm": Format("AVE-PM", ave_pm.recognizes, ave_pm.read, is_published=True),
    "llp": Format("LLP", llp.recognizes, llp.read, is_published=True),
    "csv": Format(
        "CSV with columns of start, end and label", table.recognizes, table.read
    ),
}


def recognize(file: LabelFile) -> str | None:
    """Return the name of a file's format, or None.

    Raises:
        ValueError: If the file can't be read.
    """
    return next(
        (name for name, known in FORMATS.items() if known.recognizes(file)), None
    )


def explain_unknown(file: LabelFile) -> str:
    """Return why no format recognizes a file."""
    try:
        if file.path.suffix.lower() in (".csv", ".tsv"):
            found = ", ".join(file.table.header[:8])
            return f"no columns such as onset, offset and label, but {found}"
        if file.path.suffix.lower() == ".json":
            # Raises ValueError if it is no JSON.
            return f"{type(file.json).__name__} of JSON without known members"
    except ValueError as error:
        return str(error)
    return "no label track, table or subtitles"

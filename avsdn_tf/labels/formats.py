"""List the formats of labels, and recognize the format of a file."""

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
from avsdn_tf.text import short_name


@dataclasses.dataclass(frozen=True)
class Format:
    """A format of labels.

    Attributes:
        summary: Name of the format, for messages.
        recognizes: Returns whether a file has the format. Raises ValueError if the file
            can't be read.
        read: Returns the labels in files of the format, and appends errors to a list.
        is_published: Whether the format belongs to a published data set. If so, labels
            of missing videos are omitted, overlapping events of a category are merged,
            and videos may be named by YouTube's identifiers of 11 characters.
        is_padded: Whether all videos have labels for ten seconds, even shorter videos.
            If so, labels after the end of the video are omitted.
    """

    summary: str
    recognizes: Callable[[LabelFile], bool]
    read: Callable[[Sequence[LabelFile], list[str]], list[VideoLabels]]
    is_published: bool = False
    is_padded: bool = False


# The first format that recognizes a file reads it.
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
    return next((name for name, f in FORMATS.items() if f.recognizes(file)), None)


def explain_unknown(file: LabelFile) -> str:
    """Return why no format recognizes a file."""
    try:
        if file.path.suffix.lower() in (".csv", ".tsv"):
            columns = ", ".join(map(short_name, file.table.header[:8]))
            return f"no columns such as onset, offset and label, but {columns}"
        if file.path.suffix.lower() == ".json":
            # `file.json` raises ValueError for invalid JSON.
            return f"JSON in no known layout (top level: {type(file.json).__name__})"
    except ValueError as error:
        return str(error)
    return "no label track, table or subtitles"

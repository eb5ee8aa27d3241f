"""Write the HTML page of one video: a player with a timeline of events."""

import base64
import collections
import itertools
import os
import pathlib
import urllib.parse
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from avsdn_tf.events import VideoPrediction, active_categories
from avsdn_tf.files import write_text
from avsdn_tf.report.figures import attention_colors, category_colors
from avsdn_tf.report.templating import render
from avsdn_tf.text import short_name

# 32 MB in base64: the limit of data URLs in Firefox before version 136 (MDN).
EMBEDDED_BYTES_MAX = 23 * 2**20

# 11 MB in base64: with segments of 1 s, two days of 7 x 7 maps, or 6 hours of 19 x 19
# maps.
ATTENTION_CELLS_MAX = 8 * 2**20

_NUM_SHOWN_CLASSES = 5
# A longer list doesn't fit beside the video.
_MAX_SHOWN_CLASSES = 12
_MAX_LANES = 48
# Steps of the attention's colour scale.
_NUM_COLORS = 64

# `mimetypes.guess_type` depends on the machine. Browsers refuse video/quicktime, but
# play the .mov files of phones as video/mp4.
_MIME_TYPES = {
    ".avi": "video/x-msvideo",
    ".m4v": "video/mp4",
    ".mkv": "video/x-matroska",
    ".mov": "video/mp4",
    ".mp4": "video/mp4",
    ".ogv": "video/ogg",
    ".webm": "video/webm",
}


class _Lane(NamedTuple):
    """A row of the timeline.

    `kind` is the row's CSS class, `paths` are pairs of a colour and an SVG path, and
    `mark` is a remark beside the name.
    """

    name: str
    kind: str
    paths: list[tuple[str, str]]
    mark: str = ""


def write_player_page(
    path: str | os.PathLike[str],
    prediction: VideoPrediction,
    video: str | os.PathLike[str],
    folder: pathlib.Path | None = None,
) -> None:
    """Write the page of a video atomically. The page loads nothing over the network.

    Videos of at most `EMBEDDED_BYTES_MAX` bytes are embedded. Larger videos are linked
    by a path relative to `folder`, the page's final folder (default: the folder of
    `path`). A note replaces attention maps of more than `ATTENTION_CELLS_MAX` cells.
    """
    path, video = pathlib.Path(path), pathlib.Path(video)
    is_embedded = video.stat().st_size <= EMBEDDED_BYTES_MAX
    colors = category_colors(len(prediction.categories))
    data = _script_data(prediction, colors)
    page = render(
        "player.html",
        title=prediction.name,
        disclaimer=prediction.disclaimer,
        is_embedded=is_embedded,
        source=_embed(video)
        if is_embedded
        else _relative_url(video, folder or path.parent),
        start_s=f"{prediction.start_s:.9g}",
        last_s=f"{prediction.end_s - prediction.segment_s:.9g}",
        num_segments=len(prediction.probabilities),
        lanes=_lanes(prediction, colors),
        events=prediction.events,
        heard_only=prediction.heard_only,
        multi_label=prediction.multi_label,
        color_of=dict(zip(prediction.categories, colors, strict=True)),
        attention=data.get("attention"),
        lacks_attention=prediction.attention is not None and "attention" not in data,
        data=data,
    )
    write_text(path, page)


def _embed(video: pathlib.Path) -> str:
    mime_type = _MIME_TYPES.get(video.suffix.lower(), "application/octet-stream")
    content = base64.b64encode(video.read_bytes()).decode("ascii")
    return f"data:{mime_type};base64,{content}"


def _relative_url(video: pathlib.Path, folder: pathlib.Path) -> str:
    relative = pathlib.Path(os.path.relpath(video, folder)).as_posix()
    # Quote bytes, because a name need not be UTF-8. Without quoting, browsers would
    # parse the text before a colon as a URL scheme.
    return urllib.parse.quote(os.fsencode(relative))


def _script_data(prediction: VideoPrediction, colors: list[str]) -> dict[str, Any]:
    """Return the JSON-ready data for player.js."""
    probabilities = np.asarray(prediction.probabilities, dtype=np.float64)
    num_shown, active = _NUM_SHOWN_CLASSES, np.zeros_like(probabilities, bool)
    if prediction.multi_label:
        active = active_categories(probabilities, prediction.thresholds)
        most = int(active.sum(axis=1).max())
        num_shown = max(num_shown, min(most, _MAX_SHOWN_CLASSES))
    # Sort one segment at a time: indices for all segments would double the memory.
    order = np.stack(
        [
            np.argsort(-p - is_active, kind="stable")[:num_shown]
            for p, is_active in zip(probabilities, active, strict=True)
        ]
    )
    percents = (100 * np.take_along_axis(probabilities, order, axis=1)).round(1)
    data = {
        "start_s": prediction.start_s,
        "segment_s": prediction.segment_s,
        "classes": [short_name(name) for name in prediction.classes],
        "colors": [*colors, "var(--muted)"],
        # Pairs of class and percentage per segment, the most probable first; with
        # multi-label predictions, active classes before others.
        "top": [
            list(zip(*pair, strict=True))
            for pair in zip(order.tolist(), percents.tolist(), strict=True)
        ],
    }
    if prediction.multi_label:
        data["thresholds"] = [100 * threshold for threshold in prediction.thresholds]
        data["num_active"] = active.sum(axis=1).tolist()
    maps = prediction.attention
    if maps is not None and maps.size <= ATTENTION_CELLS_MAX:
        data["attention"] = _attention_data(maps)
    return data


def _attention_data(maps: np.ndarray) -> dict[str, Any]:
    """Return the data for attention.js.

    `levels` are the weights, scaled so that each map's largest weight is 255;
    `percents` are the largest weights in percent.
    """
    _, rows, columns = maps.shape
    strongest = maps.max(axis=(1, 2), keepdims=True)
    levels = np.rint(maps * (255 / strongest)).astype(np.uint8)
    return {
        "rows": rows,
        "columns": columns,
        "colors": attention_colors(_NUM_COLORS),
        "percents": (100 * strongest.astype(np.float64)).round(1).ravel().tolist(),
        "levels": base64.b64encode(levels.tobytes()).decode("ascii"),
    }


def _lanes(prediction: VideoPrediction, colors: list[str]) -> list[_Lane]:
    """Return a lane per category with events, and a lane of the most probable class.

    Only the `_MAX_LANES` categories with the most events get a lane. Multi-label
    predictions get no lane of the most probable class.
    """
    lanes = []
    events = collections.defaultdict(list)
    for event in prediction.events:
        times_s = np.array([event.start_s, event.end_s])
        segments = (times_s - prediction.start_s) / prediction.segment_s
        events[event.category].append(segments.tolist())
    most = sorted(events, key=lambda name: -len(events[name]))[:_MAX_LANES]
    for category, color in zip(prediction.categories, colors, strict=True):
        if category in most:
            mark = "heard only" if category in prediction.heard_only else ""
            paths = [(color, _path(events[category]))]
            lanes.append(_Lane(category, "event", paths, mark))
    if prediction.multi_label:
        return lanes or [_Lane("No event", "event", [])]
    classes = np.asarray(prediction.probabilities).argmax(axis=1)
    edges = [0, *(np.flatnonzero(np.diff(classes)) + 1).tolist(), len(classes)]
    runs = collections.defaultdict(list)
    for start, end in itertools.pairwise(edges):
        runs[int(classes[start])].append((start, end))
    # Don't draw background, the last class.
    runs.pop(len(colors), None)
    paths = [(colors[index], _path(runs[index])) for index in sorted(runs)]
    return [*lanes, _Lane("Most probable class", "classes", paths)]


def _path(runs: Iterable[tuple[float, float]]) -> str:
    """Return an SVG path with one box per run of segments, in units of segments."""
    return "".join(f"M{start:.9g} 0H{end:.9g}V1H{start:.9g}Z" for start, end in runs)

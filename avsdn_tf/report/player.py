"""The page of one video: a player, and what was found in the video, in its time."""

import base64
import html
import json
import os
import pathlib
import urllib.parse
from collections.abc import Sequence

import numpy as np

from avsdn_tf.files import write_text
from avsdn_tf.events import VideoPrediction
from avsdn_tf.report.figures import category_colors
from avsdn_tf.report.page import STYLE as _PAGE_STYLE
from avsdn_tf.report.scores import percent

# In base64, which takes a third more, 32 MB: what Firefox reads of an address before
# version 136 (MDN, "data: URLs").
EMBEDDED_BYTES_MAX = 23 * 2**20

_NUM_SHOWN_CLASSES = 5

# mimetypes.guess_type asks the machine, and would answer differently on another.
# Browsers refuse video/quicktime, but play what phones put into .mov as MP4.
_MIME_TYPES = {
    ".avi": "video/x-msvideo",
    ".m4v": "video/mp4",
    ".mkv": "video/x-matroska",
    ".mov": "video/mp4",
    ".mp4": "video/mp4",
    ".ogv": "video/ogg",
    ".webm": "video/webm",
}

_STYLE = """
.screen { display: grid; gap: 1rem 1.5rem; grid-template-columns: 2fr 1fr;
  grid-template-areas: "video now" "time time"; align-items: start; }
.screen > * { min-width: 0; }
.picture { grid-area: video; } .picture p { margin: .3rem 0 0;
  overflow-wrap: anywhere; }
.timeline { grid-area: time; } .now { grid-area: now; }
video { display: block; width: 100%; max-height: 60vh; background: #000;
  border-radius: .4rem; }
[hidden] { display: none !important; }
.now h2, .timeline h2 { margin: 0; }
.now ol { list-style: none; margin: .4rem 0 0; padding: 0;
  font-variant-numeric: tabular-nums; }
.now li { display: grid; grid-template-columns: 1fr max-content; gap: 0 .6rem;
  margin-bottom: .45rem; font-size: .9rem; line-height: 1.35; }
.now li span:first-child { overflow: hidden; text-overflow: ellipsis;
  white-space: nowrap; }
.bar { grid-column: 1 / -1; height: .4rem; border-radius: .2rem;
  background: linear-gradient(var(--color), var(--color)) 0 / var(--part) 100%
  no-repeat var(--track); }
.head { display: flex; gap: .5rem; align-items: center; min-height: 2.2rem;
  margin-bottom: .3rem; }
.head h2 { margin-right: auto; }
button { font: inherit; color: inherit; cursor: pointer; }
.head button { background: var(--track); border: 1px solid var(--lines);
  border-radius: .4rem; min-width: 2.2rem; min-height: 2.2rem; }
.head button:disabled { opacity: .4; cursor: default; }
.scroller { overflow-x: auto; --label: 15.5rem; --zoom: 1; }
.lanes { position: relative; cursor: pointer; touch-action: manipulation;
  width: calc(var(--label) + (100% - var(--label)) * var(--zoom)); }
.lane { display: grid; grid-template-columns: var(--label) minmax(0, 1fr);
  margin-bottom: .25rem; }
.lane .name { position: sticky; left: 0; z-index: 2; background: var(--page);
  font-size: .85rem; line-height: 1.3rem; padding-right: .8rem; cursor: default;
  overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.lane svg { display: block; width: 100%; height: 1.3rem; background: var(--track); }
.lane path { fill: var(--color); }
/* A second of a long video is thinner than a pixel; an event must still be seen. */
.event path { stroke: var(--color); stroke-width: 1px;
  vector-effect: non-scaling-stroke; }
.ticks { position: relative; height: 1.4rem; color: var(--muted); font-size: .8rem;
  overflow: hidden; }
.ticks span { position: absolute; top: 0; padding-left: .3rem; height: 100%;
  border-left: 1px solid var(--lines); font-variant-numeric: tabular-nums; }
.playhead, .pointer { position: absolute; top: 0; bottom: 0; z-index: 1; width: 2px;
  pointer-events: none; background: var(--ink);
  left: calc(var(--label) + (100% - var(--label) - 2px) * var(--at)); }
.pointer { background: var(--muted); }
:focus-visible, .scroller:has(.lanes:focus-visible) { outline: 3px solid #4c8dff;
  outline-offset: 2px; }
/* The names lie on the lanes, and would hide their outline: the scroller has it. */
.lanes:focus-visible { outline: none; }
.events tr[data-start] { cursor: pointer; } .events tr[data-start]:hover,
  .events tr[aria-current] { background: var(--track); }
.events td:first-child, .events th:first-child { padding-left: .5rem; }
.events td { vertical-align: middle; }
.events button { display: flex; gap: .5em; align-items: center; background: none;
  border: 0; padding: 0; text-align: left; white-space: normal; line-height: 1.3; }
.swatch { flex: none; width: .8em; height: .8em; border-radius: .2em;
  background: var(--color); }
@media (max-width: 40rem) {
  .screen { grid-template-columns: minmax(0, 1fr);
    grid-template-areas: "video" "time" "now"; }
  .scroller { --label: 0px; } .lane { display: block; }
  .lane .name { display: block; width: max-content; max-width: 90vw;
    font-size: .8rem; }
  .events button { min-height: 2rem; }
}
"""

_SCRIPT = """
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const video = document.querySelector("video");
const scroller = document.querySelector(".scroller");
const lanes = document.querySelector(".lanes");
const track = document.querySelector(".ticks");
const pointer = document.querySelector(".pointer");
const playhead = document.querySelector(".playhead");
const zoomOut = document.getElementById("zoom-out");
const zoomIn = document.getElementById("zoom-in");
const span = document.getElementById("span");
const rows = [...document.querySelectorAll("tr[data-start]")];
const duration = data.top.length * data.segment_s;
const end = data.start_s + duration;
const narrowest = 6;  // Pixels of a segment at the closest zoom.

// Without a video that plays, the page keeps the time itself.
let time = data.start_s;
let zoom = 1, frame = 0, hovered = null, shown = null, marked = null;

function clock(seconds) {
  const rounded = Math.round(seconds * 100) / 100;
  const hours = Math.floor(rounded / 3600);
  const minutes = Math.floor(rounded / 60) % 60;
  const rest = String(Math.round((rounded % 60) * 100) / 100);
  const padded = rest.split(".")[0].length < 2 ? "0" + rest : rest;
  return hours
    ? `${hours}:${String(minutes).padStart(2, "0")}:${padded}`
    : `${minutes}:${padded}`;
}

// A player may stop a hair before the time that it was asked for.
function segmentAt(seconds) {
  const segment = Math.floor((seconds - data.start_s) / data.segment_s + 1e-4);
  return Math.min(Math.max(segment, 0), data.top.length - 1);
}

const bars = data.top[0].map(() => {
  const item = document.createElement("li");
  item.innerHTML = '<span></span><span></span><div class="bar"></div>';
  document.getElementById("classes").append(item);
  return item.children;
});

function startOf(segment) {
  return data.start_s + segment * data.segment_s;
}

// How far along the timeline a time is, from 0 to 1.
function partAt(seconds) {
  return (seconds - data.start_s) / duration;
}

function showClasses(segment) {
  const start = startOf(segment);
  span.textContent = `${clock(start)} to ${clock(start + data.segment_s)}`;
  data.top[segment].forEach(([index, percent], rank) => {
    const [name, value, bar] = bars[rank];
    name.textContent = data.classes[index];
    value.textContent = `${percent.toFixed(1)} %`;
    bar.style.setProperty("--color", data.colors[index]);
    bar.style.setProperty("--part", `${percent}%`);
  });
}

function mark(current) {
  const [index, percent] = data.top[current][0];
  const start = startOf(current);
  lanes.setAttribute("aria-valuenow", start);
  lanes.setAttribute("aria-valuetext",
    `${clock(start)}: ${data.classes[index]}, ${percent.toFixed(1)} %`);
  for (const row of rows) {
    // Events begin and end with segments, but for the last, which ends with the video.
    const inside = row.dataset.start < start + data.segment_s - 0.001
      && start + 0.001 < row.dataset.end;
    if (inside) row.setAttribute("aria-current", "true");
    else row.removeAttribute("aria-current");
  }
}

function show() {
  playhead.style.setProperty("--at", Math.min(Math.max(partAt(time), 0), 1));
  const current = segmentAt(time);
  // A long list of events is gone through once a segment, not once a frame.
  if (marked !== current) mark(marked = current);
  if (shown !== (hovered ?? current)) showClasses(shown = hovered ?? current);
}

function keepInView() {
  const view = scroller.clientWidth - track.offsetLeft;
  const x = partAt(time) * track.clientWidth;
  if (x < scroller.scrollLeft || x > scroller.scrollLeft + view) {
    scroller.scrollLeft = x - view / 2;
  }
}

// The time at which the player's clock is 0. That of Chromium is the file's, and starts
// late where the video does; that of Firefox starts with the video.
let zero = 0;
function findZero() {
  zero = video.currentTime > 0 ? 0 : data.start_s;
}
if (video.readyState) findZero();
video.addEventListener("loadedmetadata", findZero);

// Where the player was sent, until it is there, and how far it has come.
let sought = null, reached = 0;
// Where it could not go, and the length of the video for which that was so.
let missed = null, known = 0;
// Less than a frame takes, in seconds.
const nearly = 0.01;

function seek(seconds) {
  time = Math.min(Math.max(seconds, data.start_s), end);
  missed = null;
  if (!video.error) {
    sought = time - zero;
    reached = -1;
    video.currentTime = sought;
  }
  show();
  keepInView();
}

function followVideo() {
  if (video.error) return;
  time = video.currentTime + zero;
  show();
  if (video.paused) return;
  keepInView();
  // A seek while it plays must not start a second loop.
  cancelAnimationFrame(frame);
  frame = requestAnimationFrame(followVideo);
}
video.addEventListener("play", followVideo);

// Chromium takes the length of a late MP4 for its end, goes no further, and knows
// better from what it reads on the way there, or some time after it has stopped.
function arrive() {
  const now = video.currentTime;
  const isShort = sought !== null && now < sought - nearly;
  if (isShort && now > reached + nearly) {
    reached = now;
    video.currentTime = sought;
    return;
  }
  [missed, known] = [isShort ? sought : null, video.duration];
  sought = null;
  followVideo();
}
video.addEventListener("seeked", arrive);
video.addEventListener("durationchange", () => {
  if (missed !== null && video.duration > known + nearly) seek(missed + zero);
});
video.addEventListener("play", () => { missed = null; });

function tellWhatPlays() {
  document.getElementById("unplayable").hidden = !video.error;
  document.getElementById("pictureless").hidden =
    Boolean(video.error) || !video.readyState || video.videoWidth > 0;
  video.hidden = Boolean(video.error);
}
video.addEventListener("error", tellWhatPlays);
video.addEventListener("loadedmetadata", tellWhatPlays);
tellWhatPlays();

// The time at a place on the screen; null beside the timeline, as on a lane's name.
function timeAt(event) {
  const box = track.getBoundingClientRect();
  const part = (event.clientX - box.left) / box.width;
  const overName = event.target.closest(".name") && track.offsetLeft > 0;
  const beside = part < 0 || part > 1 || overName;
  return beside ? null : data.start_s + part * duration;
}

lanes.addEventListener("click", (event) => {
  const seconds = timeAt(event);
  if (seconds !== null) seek(seconds);
});
lanes.addEventListener("pointermove", (event) => {
  // A finger has no place of its own until it taps, and that is a click.
  const seconds = event.pointerType === "touch" ? null : timeAt(event);
  hovered = seconds === null ? null : segmentAt(seconds);
  pointer.hidden = seconds === null;
  pointer.style.setProperty("--at", partAt(seconds));
  show();
});
lanes.addEventListener("pointerleave", () => {
  hovered = null;
  pointer.hidden = true;
  show();
});
lanes.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  const last = data.top.length - 1, current = segmentAt(time);
  const target = {
    ArrowLeft: current - 1, ArrowDown: current - 1,
    ArrowRight: current + 1, ArrowUp: current + 1,
    PageDown: current - 10, PageUp: current + 10, Home: 0, End: last,
  }[event.key];
  if (target === undefined) return;
  event.preventDefault();
  seek(startOf(Math.min(Math.max(target, 0), last)));
});
document.querySelector(".events").addEventListener("click", (event) => {
  const row = event.target.closest("tr[data-start]");
  if (row) seek(Number(row.dataset.start));
});

function drawTicks() {
  const steps = [1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400, 43200];
  const pixels = track.clientWidth / duration;
  const step = steps.find((length) => length * pixels >= 72) ?? 86400;
  const ticks = [];
  // The last one needs room for its text.
  for (let at = 0; at === 0 || (duration - at) * pixels >= 48; at += step) {
    const tick = document.createElement("span");
    tick.style.left = `${(at / duration) * 100}%`;
    tick.textContent = clock(data.start_s + at);
    ticks.push(tick);
  }
  track.replaceChildren(...ticks);
}

function setZoom(wanted) {
  const fitted = track.clientWidth / zoom;
  const most = Math.max(1, (narrowest * data.top.length) / fitted);
  zoom = Math.min(Math.max(wanted, 1), most);
  scroller.style.setProperty("--zoom", zoom);
  zoomOut.hidden = zoomIn.hidden = most === 1;
  zoomOut.disabled = zoom === 1;
  zoomIn.disabled = zoom === most;
  drawTicks();
}
function setZoomAroundPlayhead(wanted) {
  setZoom(wanted);
  scroller.scrollLeft = partAt(time) * track.clientWidth
    - (scroller.clientWidth - track.offsetLeft) / 2;
}
zoomOut.addEventListener("click", () => setZoomAroundPlayhead(zoom / 2));
zoomIn.addEventListener("click", () => setZoomAroundPlayhead(zoom * 2));
new ResizeObserver(() => setZoom(zoom)).observe(scroller);
show();
"""


def write_player_page(
    path: str | os.PathLike[str],
    prediction: VideoPrediction,
    video: str | os.PathLike[str],
) -> None:
    """Writes the page of a video, whole or not at all; it asks nothing of the network.

    A video of at most `EMBEDDED_BYTES_MAX` bytes becomes part of the page. A longer one
    stays where it is: the page names it by its path relative to the page, so that the
    two must be moved together. Where a browser can't play the video, the page says so,
    and the timeline works without it.

    Args:
        path: File to write.
        prediction: What was found in the video.
        video: The video file.
    """
    path, video = pathlib.Path(path), pathlib.Path(video)
    embedded = video.stat().st_size <= EMBEDDED_BYTES_MAX
    title = html.escape(prediction.name)
    disclaimer = prediction.disclaimer
    banner = f'<p class="disclaimer">{html.escape(disclaimer)}</p>' if disclaimer else ""
    source = _data_address(video) if embedded else _relative_address(video, path.parent)
    beside = (
        ""
        if embedded
        else '<p class="quiet">The video is a file of its own. Move it and this page '
        "together.</p>"
    )
    last_s = prediction.end_s - prediction.segment_s
    body = f"""
<h1>{title}</h1>
{banner}
<div class="screen">
<section class="picture"><video controls playsinline preload="metadata"
aria-label="{title}" src="{html.escape(source)}"></video>
<p id="unplayable" hidden>This browser can't play the video. The timeline and the list
of events work without it.</p>
<p id="pictureless" hidden>There is no picture to show: the video has none, or none
that this browser can show.</p>
{beside}</section>
<section class="timeline"><div class="head"><h2>Timeline</h2>
<button id="zoom-out" aria-label="Zoom out" hidden>&minus;</button>
<button id="zoom-in" aria-label="Zoom in" hidden>+</button></div>
<div class="scroller"><div class="lanes" role="slider" tabindex="0"
aria-label="Time in the video" aria-valuemin="{prediction.start_s:.9g}"
aria-valuemax="{last_s:.9g}" aria-valuenow="{prediction.start_s:.9g}">
{_lanes(prediction)}
<div class="lane"><span class="name"></span><div class="ticks"></div></div>
<div class="pointer" hidden></div><div class="playhead"></div>
</div></div></section>
<section class="now"><h2 id="span"></h2>
<p class="quiet" style="margin:0">Most probable classes</p>
<ol id="classes"></ol></section>
</div>
<section class="events"><h2>Events</h2>
{_event_table(prediction)}</section>
<script type="application/json" id="data">{_script_data(prediction)}</script>
<script>{_SCRIPT}</script>"""
    write_text(
        path,
        f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{_PAGE_STYLE}{_STYLE}</style></head>
<body>{body}</body></html>
""",
    )


def _data_address(video: pathlib.Path) -> str:
    mime_type = _MIME_TYPES.get(video.suffix.lower(), "application/octet-stream")
    content = base64.b64encode(video.read_bytes()).decode("ascii")
    return f"data:{mime_type};base64,{content}"


def _relative_address(video: pathlib.Path, folder: pathlib.Path) -> str:
    relative = pathlib.Path(os.path.relpath(video, folder)).as_posix()
    # Quoting also keeps a colon in a name from making a scheme of what precedes it. Of
    # bytes, since a name need not be UTF-8.
    return urllib.parse.quote(os.fsencode(relative))


def _script_data(prediction: VideoPrediction) -> str:
    """Returns what the script needs, as JSON that can't end its script element."""
    probabilities = np.asarray(prediction.probabilities, dtype=np.float64)
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :_NUM_SHOWN_CLASSES]
    percents = (100 * np.take_along_axis(probabilities, order, axis=1)).round(1)
    value = {
        "start_s": prediction.start_s,
        "segment_s": prediction.segment_s,
        "classes": prediction.classes,
        "colors": [*category_colors(len(prediction.categories)), "var(--muted)"],
        # The most probable classes of every segment, each with its percentage.
        "top": [
            list(zip(*pair, strict=True))
            for pair in zip(order.tolist(), percents.tolist(), strict=True)
        ],
    }
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _lanes(prediction: VideoPrediction) -> str:
    """Returns one lane a category with events, and one of the most probable class.

    A lane draws all runs of a class by one path, so that the page of a long video has
    no more elements than that of a short one.
    """
    num_segments = len(prediction.probabilities)
    colors = category_colors(len(prediction.categories))
    lanes = []
    for category, color in zip(prediction.categories, colors, strict=True):
        runs = [
            tuple(
                (time_s - prediction.start_s) / prediction.segment_s
                for time_s in (event.start_s, event.end_s)
            )
            for event in prediction.events
            if event.category == category
        ]
        if runs:
            lanes.append(_lane(category, "event", num_segments, _path(runs, color)))
    classes = np.asarray(prediction.probabilities).argmax(axis=1)
    edges = np.flatnonzero(np.diff(classes)) + 1
    starts, ends = [0, *edges.tolist()], [*edges.tolist(), num_segments]
    paths = []
    for index, color in enumerate(colors):
        runs = [
            run for run in zip(starts, ends, strict=True) if classes[run[0]] == index
        ]
        if runs:
            paths.append(_path(runs, color))
    name = "Most probable class"
    lanes.append(_lane(name, "classes", num_segments, "".join(paths)))
    return "\n".join(lanes)


def _lane(name: str, kind: str, num_segments: int, paths: str) -> str:
    name = html.escape(name)
    return (
        f'<div class="lane {kind}"><span class="name" title="{name}">{name}</span>'
        f'<svg viewBox="0 0 {num_segments} 1" preserveAspectRatio="none" '
        f'aria-hidden="true">{paths}</svg></div>'
    )


def _path(runs: Sequence[tuple[float, float]], color: str) -> str:
    """Returns an SVG path of one box a run, in units of a segment."""
    boxes = "".join(f"M{start:.9g} 0H{end:.9g}V1H{start:.9g}Z" for start, end in runs)
    return f'<path d="{boxes}" style="--color:{color}"/>'


def _event_table(prediction: VideoPrediction) -> str:
    if not prediction.events:
        return "<p>No event was found.</p>"
    colors = category_colors(len(prediction.categories))
    color_of = dict(zip(prediction.categories, colors, strict=True))
    # The button is what a keyboard reaches; a pointer may use the whole row.
    rows = "\n".join(
        f'<tr data-start="{event.start_s!r}" data-end="{event.end_s!r}">'
        f'<td><button><span class="swatch" '
        f'style="--color:{color_of[event.category]}"></span>'
        f"{html.escape(event.category)}</button></td>"
        f'<td class="number">{_clock(event.start_s)}</td>'
        f'<td class="number">{_clock(event.end_s)}</td>'
        f'<td class="number">{percent(event.score)}</td></tr>'
        for event in prediction.events
    )
    return f"""<div class="scroll"><table><tr><th>event</th>
<th class="number">start</th><th class="number">end</th>
<th class="number">score</th></tr>
{rows}</table></div>
<p class="quiet">Choose an event to go to its start. The score is the mean probability
of its category over its length.</p>"""


def _clock(seconds: float) -> str:
    """Returns a time as people write it, like the script's function of that name."""
    minutes, rest = divmod(round(seconds, 2), 60)
    hours, minutes = divmod(int(minutes), 60)
    # "05.5", but "05" for a whole second.
    padded = f"{rest:05.2f}".rstrip("0").rstrip(".")
    return f"{hours}:{minutes:02d}:{padded}" if hours else f"{minutes}:{padded}"

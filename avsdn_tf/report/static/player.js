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
const lastSegment = data.top.length - 1;
const duration = data.top.length * data.segment_s;
const end = data.start_s + duration;
// Width of a segment at the largest zoom, in pixels.
const widestSegment = 6;
// In seconds, less than a frame.
const tolerance = 0.01;

// The page has its own time, so that it works even if the video can't play.
let time = data.start_s;
let zoom = 1;
let animation = 0;
// Segments: under the mouse, shown in the list of classes, marked in the table.
let hovered = null;
let shown = null;
let marked = null;

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

// ---- Time ----

// Formats a time like `_clock` in templating.py.
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

// Returns the segment at a time. Tolerates players that stop slightly before the time
// they seek to.
function segmentAt(seconds) {
  const segment = Math.floor((seconds - data.start_s) / data.segment_s + 1e-4);
  return clamp(segment, 0, lastSegment);
}

function startOf(segment) {
  return data.start_s + segment * data.segment_s;
}

// Returns the position of a time on the timeline, from 0 to 1.
function partAt(seconds) {
  return (seconds - data.start_s) / duration;
}

// ---- Content at a time ----

const bars = data.top[0].map(() => {
  const item = document.createElement("li");
  item.innerHTML = '<span></span><span></span><div class="bar"></div>';
  document.getElementById("classes").append(item);
  return item.children;
});

function showClasses(segment) {
  const start = startOf(segment);
  span.textContent = `${clock(start)} to ${clock(start + data.segment_s)}`;
  data.top[segment].forEach(([index, percent], rank) => {
    const [name, value, bar] = bars[rank];
    if (data.thresholds) {
      bar.classList.add("threshold");
      bar.style.setProperty("--threshold", `${data.thresholds[index]}%`);
      const isActive = rank < data.num_active[segment];
      bar.parentElement.classList.toggle("inactive", !isActive);
    }
    name.textContent = data.classes[index];
    value.textContent = `${percent.toFixed(1)} %`;
    bar.style.setProperty("--color", data.colors[index]);
    bar.style.setProperty("--part", `${percent}%`);
  });
}

// Returns the most probable class, or all active classes of a multi-label prediction.
function describe(segment) {
  const num = data.thresholds ? data.num_active[segment] : 1;
  const shown = data.top[segment]
    .slice(0, num)
    .map(([index, percent]) => `${data.classes[index]}, ${percent.toFixed(1)} %`);
  return shown.join("; ") || "no event";
}

function markSegment(segment) {
  const start = startOf(segment);
  lanes.setAttribute("aria-valuenow", start);
  lanes.setAttribute("aria-valuetext", `${clock(start)}: ${describe(segment)}`);
  for (const row of rows) {
    // Tolerate rounding of the times.
    const isInside =
      row.dataset.start < start + data.segment_s - 0.001 &&
      start + 0.001 < row.dataset.end;
    if (isInside) row.setAttribute("aria-current", "true");
    else row.removeAttribute("aria-current");
  }
}

function show() {
  playhead.style.setProperty("--at", clamp(partAt(time), 0, 1));
  const current = segmentAt(time);
  // Update once per segment, not per frame: the list of events may be long.
  if (marked !== current) markSegment((marked = current));
  if (shown !== (hovered ?? current)) showClasses((shown = hovered ?? current));
}

function keepInView() {
  const view = scroller.clientWidth - track.offsetLeft;
  const x = partAt(time) * track.clientWidth;
  if (x < scroller.scrollLeft || x > scroller.scrollLeft + view) {
    scroller.scrollLeft = x - view / 2;
  }
}

// ---- The video ----

// The page's time at the player's time 0. Chromium's player starts at the video's first
// timestamp, and Firefox's at 0.
let zero = 0;

function findZero() {
  zero = video.currentTime > 0 ? 0 : data.start_s;
}
if (video.readyState) findZero();
video.addEventListener("loadedmetadata", findZero);

// Target of the current seek, and the time that the player has reached.
let sought = null;
let reached = 0;
// Target of a seek that failed, and the video's duration at that moment.
let missed = null;
let knownDuration = 0;

function seek(seconds) {
  time = clamp(seconds, data.start_s, end);
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
  // A seek during play must not start a second loop.
  cancelAnimationFrame(animation);
  animation = requestAnimationFrame(followVideo);
}

// In an MP4 that starts after 0, Chromium mistakes the duration for the end, and a seek
// stops there. Chromium corrects the duration while it reads the file: then seek again.
function finishSeek() {
  const now = video.currentTime;
  const isShort = sought !== null && now < sought - tolerance;
  if (isShort && now > reached + tolerance) {
    reached = now;
    video.currentTime = sought;
    return;
  }
  missed = isShort ? sought : null;
  knownDuration = video.duration;
  sought = null;
  followVideo();
}

function showWhatPlays() {
  const hasFailed = Boolean(video.error);
  const hasNoPicture = video.readyState > 0 && video.videoWidth === 0;
  document.getElementById("unplayable").hidden = !hasFailed;
  document.getElementById("pictureless").hidden = hasFailed || !hasNoPicture;
  video.hidden = hasFailed;
}

video.addEventListener("play", () => {
  missed = null;
  followVideo();
});
video.addEventListener("seeked", finishSeek);
video.addEventListener("durationchange", () => {
  const hasGrown = video.duration > knownDuration + tolerance;
  if (missed !== null && hasGrown) seek(missed + zero);
});
video.addEventListener("error", showWhatPlays);
video.addEventListener("loadedmetadata", showWhatPlays);
showWhatPlays();

// ---- Mouse and keyboard ----

// Returns the time at the pointer, or null outside of the timeline.
function timeAt(event) {
  const box = track.getBoundingClientRect();
  const part = (event.clientX - box.left) / box.width;
  const isOnName = event.target.closest(".name") && track.offsetLeft > 0;
  return part < 0 || part > 1 || isOnName ? null : data.start_s + part * duration;
}

lanes.addEventListener("click", (event) => {
  const seconds = timeAt(event);
  if (seconds !== null) seek(seconds);
});
lanes.addEventListener("pointermove", (event) => {
  // Touch doesn't hover.
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
  const current = segmentAt(time);
  const target = {
    ArrowLeft: current - 1,
    ArrowDown: current - 1,
    ArrowRight: current + 1,
    ArrowUp: current + 1,
    PageDown: current - 10,
    PageUp: current + 10,
    Home: 0,
    End: lastSegment,
  }[event.key];
  if (target === undefined) return;
  event.preventDefault();
  seek(startOf(clamp(target, 0, lastSegment)));
});
document.querySelector(".events").addEventListener("click", (event) => {
  const row = event.target.closest("tr[data-start]");
  if (row) seek(Number(row.dataset.start));
});

// ---- Zoom ----

function drawTicks() {
  const steps = [1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400, 43200];
  const pixels = track.clientWidth / duration;
  const step = steps.find((length) => length * pixels >= 72) ?? 86400;
  const ticks = [];
  // Leave room for the last tick's text.
  for (let at = 0; at === 0 || (duration - at) * pixels >= 48; at += step) {
    const tick = document.createElement("span");
    tick.style.left = `${(at / duration) * 100}%`;
    tick.textContent = clock(data.start_s + at);
    ticks.push(tick);
  }
  track.replaceChildren(...ticks);
}

function setZoom(wanted) {
  const fittedWidth = track.clientWidth / zoom;
  const most = Math.max(1, (widestSegment * data.top.length) / fittedWidth);
  zoom = clamp(wanted, 1, most);
  scroller.style.setProperty("--zoom", zoom);
  zoomOut.hidden = zoomIn.hidden = most === 1;
  zoomOut.disabled = zoom === 1;
  zoomIn.disabled = zoom === most;
  drawTicks();
}

function setZoomAroundPlayhead(wanted) {
  setZoom(wanted);
  scroller.scrollLeft =
    partAt(time) * track.clientWidth - (scroller.clientWidth - track.offsetLeft) / 2;
}

zoomOut.addEventListener("click", () => setZoomAroundPlayhead(zoom / 2));
zoomIn.addEventListener("click", () => setZoomAroundPlayhead(zoom * 2));
new ResizeObserver(() => setZoom(zoom)).observe(scroller);
show();

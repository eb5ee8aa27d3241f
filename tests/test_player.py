import base64
import dataclasses
import html
import html.parser
import json
import os
import re
import shutil
import signal
import subprocess
import time
import urllib.parse
import urllib.request
from fractions import Fraction

import numpy as np
import pytest

from avsdn_tf.events import VideoPrediction, events_from_probabilities
from avsdn_tf.report import player

CATEGORIES = ("Bark", "</script><script>alert(1)</script>", 'Violin "& co"')
# Background, two seconds of the first category, one of the second.
CLASSES = [3, 0, 0, 1]


def _prediction(classes=CLASSES, name="clip.webm", disclaimer=None, start_s=0.0):
    probabilities = np.full((len(classes), 4), 0.1)
    probabilities[range(len(classes)), classes] = 0.7
    events = events_from_probabilities(probabilities, CATEGORIES)
    return VideoPrediction(
        name=name,
        categories=CATEGORIES,
        probabilities=probabilities,
        segment_s=1.0,
        events=tuple(
            event._replace(start_s=start_s + event.start_s, end_s=start_s + event.end_s)
            for event in events
        ),
        disclaimer=disclaimer,
        start_s=start_s,
    )


class _Elements(html.parser.HTMLParser):
    """Keeps every element's name and attributes, and the text of script elements.

    Checks that every element is closed in order.
    """

    def __init__(self, page):
        super().__init__()
        self.found, self.scripts, self.open = [], [], []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.found and self.found[-1][0] == "script" and data.strip():
            self.scripts.append(data)

    def named(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture
def write(tmp_path):
    def write(prediction, video_name="clip.webm", content=b"not a video"):
        video = tmp_path / video_name
        video.write_bytes(content)
        path = tmp_path / "page.html"
        player.write_player_page(path, prediction, video)
        assert sorted(tmp_path.iterdir()) == sorted([path, video])
        return path.read_text(encoding="utf-8")

    return write


def test_names_are_escaped(write):
    page = write(_prediction(name="<i>.webm", disclaimer="<u>demo</u> & more"))
    assert "<i>" not in page
    assert "<u>" not in page
    assert '<p class="disclaimer">&lt;u&gt;demo&lt;/u&gt; &amp; more</p>' in page
    assert page.count("</script>") == 2
    elements = _Elements(page)
    assert len(elements.named("script")) == 2
    assert elements.named("video")[0]["aria-label"] == "<i>.webm"
    assert json.loads(elements.scripts[0])["classes"] == [*CATEGORIES, "Background"]


def test_page_without_disclaimer_has_no_banner(write):
    assert 'class="disclaimer"' not in write(_prediction())


def test_page_sends_no_network_requests(write):
    page = write(_prediction())
    assert not re.findall(r"(?:https?:)?//\w+\.", page)
    assert "http://" not in page
    assert "https://" not in page
    assert "url(" not in page
    assert "@import" not in page
    assert {"link", "img", "iframe"}.isdisjoint(tag for tag, _ in _Elements(page).found)


def test_script_has_the_most_probable_classes_of_every_segment(write):
    data = json.loads(_Elements(write(_prediction())).scripts[0])
    assert data["segment_s"] == 1.0
    assert data["top"] == [
        [[3, 70.0], [0, 10.0], [1, 10.0], [2, 10.0]],
        [[0, 70.0], [1, 10.0], [2, 10.0], [3, 10.0]],
        [[0, 70.0], [1, 10.0], [2, 10.0], [3, 10.0]],
        [[1, 70.0], [0, 10.0], [2, 10.0], [3, 10.0]],
    ]


def _overlapping(**changes):
    probabilities = np.array([[0.9, 0.3, 0.1], [0.8, 0.7, 0.2], [0.1, 0.3, 0.4]])
    values = {
        "name": "clip.webm",
        "categories": ("Bark", "Flute", "Bell"),
        "probabilities": probabilities,
        "segment_s": 1.0,
        "disclaimer": None,
        "multi_label": True,
        "thresholds": (0.5, 0.25, 0.5),
        "heard_only": ("Flute",),
    }
    values |= changes
    found = events_from_probabilities(
        values["probabilities"], values["categories"], 1.0, True, values["thresholds"]
    )
    return VideoPrediction(**values, events=tuple(found))


def test_overlapping_categories_have_a_lane_each_and_no_most_probable_class(write):
    page = write(_overlapping())
    elements = _Elements(page)
    assert [path["d"] for path in elements.named("path")] == [
        "M0 0H2V1H0Z",
        "M0 0H3V1H0Z",
    ]
    assert "Most probable class<" not in page
    data = json.loads(elements.scripts[0])
    assert data["classes"] == ["Bark", "Flute", "Bell"]
    assert data["thresholds"] == [50.0, 25.0, 50.0]
    assert data["num_active"] == [2, 2, 1]
    # Active categories come first, whatever their probability.
    assert data["top"][2] == [[1, 30.0], [2, 40.0], [0, 10.0]]
    # In the timeline and in the table.
    assert page.count('<span class="quiet">heard only</span>') == 2


def test_a_multi_label_page_without_events_has_an_empty_lane(write):
    page = write(_overlapping(thresholds=(0.95, 0.95, 0.95)))
    assert page.count('class="lane event"') == 1
    assert "No event was found." in page


def test_simultaneously_active_categories_are_listed(write):
    data = {}
    for num_categories in (7, 30):
        probabilities = np.full((2, num_categories), 0.9)
        categories = tuple(f"c{i}" for i in range(num_categories))
        found = _overlapping(
            probabilities=probabilities,
            categories=categories,
            thresholds=(0.5,) * num_categories,
            heard_only=(),
        )
        data[num_categories] = json.loads(_Elements(write(found)).scripts[0])
    assert {num: len(x["top"][0]) for num, x in data.items()} == {7: 7, 30: 12}


def test_lanes_draw_runs_in_segments(write):
    elements = _Elements(write(_prediction([0, 3, 0, 0])))
    first = elements.named("path")[0]
    assert elements.named("svg")[0]["viewbox"] == "0 0 4 1"
    assert first["d"] == "M0 0H1V1H0ZM2 0H4V1H2Z"
    # The lane of the category and the lane of the most probable class are equal here.
    assert elements.named("path") == [first, first]


def test_a_page_of_a_late_video_shows_player_times(write):
    page = write(_prediction([0, 3, 0, 0], start_s=5007.976))
    elements = _Elements(page)
    # The lanes begin at 0; the times are player times.
    assert elements.named("svg")[0]["viewbox"] == "0 0 4 1"
    assert elements.named("path")[0]["d"] == "M0 0H1V1H0ZM2 0H4V1H2Z"
    (slider,) = [div for div in elements.named("div") if div.get("role") == "slider"]
    assert slider["aria-valuemin"] == slider["aria-valuenow"] == "5007.976"
    assert slider["aria-valuemax"] == "5010.976"
    assert json.loads(elements.scripts[0])["start_s"] == 5007.976
    assert "<td>1:23:27.98</td>" in page


def test_table_shows_times_past_an_hour(write):
    page = write(_prediction([3] * 3600 + [0] * 65))
    (row,) = [row for row in _Elements(page).named("tr") if row]
    assert row == {"data-start": "3600.0", "data-end": "3665.0"}
    assert "<td>1:00:00</td><td>1:01:05</td>" in page


def test_page_without_events_states_that_none_was_found(write):
    assert "No event was found." in write(_prediction([3, 3]))


def test_a_long_video_has_few_elements(write):
    noise = np.random.default_rng(0).integers(4, size=10_800)
    elements = _Elements(write(_prediction([*noise])))
    # Only the table may grow with the number of events.
    outside_table = [
        tag for tag, _ in elements.found if tag not in {"tr", "td", "button", "span"}
    ]
    assert len(outside_table) < 60


def test_small_video_is_part_of_the_page(write):
    content = bytes(range(256))
    page = write(_prediction(), "CLIP.MP4", content)
    kind, data = _Elements(page).named("video")[0]["src"].split(",")
    assert kind == "data:video/mp4;base64"
    assert base64.b64decode(data) == content
    assert "is a file of its own" not in page


def test_large_video_is_referenced_from_the_page(tmp_path, monkeypatch):
    monkeypatch.setattr(player, "EMBEDDED_BYTES_MAX", 3)
    video = tmp_path / "videos" / "a: <b>?#%20.mp4"
    video.parent.mkdir()
    video.write_bytes(b"long")
    path = tmp_path / "pages" / "page.html"
    path.parent.mkdir()
    player.write_player_page(path, _prediction(), video)
    page = path.read_text(encoding="utf-8")
    source = _Elements(page).named("video")[0]["src"]
    assert source == "../videos/a%3A%20%3Cb%3E%3F%23%2520.mp4"
    assert str(tmp_path) not in page
    assert "is a file of its own" in page
    monkeypatch.setattr(player, "EMBEDDED_BYTES_MAX", 4)
    player.write_player_page(path, _prediction(), video)
    assert '"data:video/mp4;base64,' in path.read_text(encoding="utf-8")


def _write_video(path, format_name, start_s=0):
    """Write 4 s of video; each second is 60 levels brighter than the one before."""
    av = pytest.importorskip("av", reason="PyAV makes the video that the page plays")
    codec = {"webm": "libvpx", "mp4": "libx264"}[format_name]
    with av.open(str(path), "w", format=format_name) as container:
        stream = container.add_stream(codec, rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(20):
            picture = np.full((48, 64, 3), 12 * index, dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(picture)
            frame.pts, frame.time_base = 5 * start_s + index, Fraction(1, 5)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


# Operate the page as a user does, and write its states to the title as JSON.
VISIT = """
<script type="module">
const happens = (name) =>
  new Promise((done) => video.addEventListener(name, done, { once: true }));
const brightness = () => {
  const context = document.createElement("canvas").getContext("2d");
  context.drawImage(video, 0, 0);
  return context.getImageData(20, 20, 1, 1).data[1];
};
const shownBrightness = async () => {
  // Browsers forbid reading pixels of another file.
  if (video.error || !video.src.startsWith("data:")) return null;
  let before = 0, now = brightness();
  // The browser draws a frame some time after `seeked`. No tested frame is black.
  for (let tries = 0; tries < 50 && (now === 0 || now !== before); tries++) {
    await new Promise((done) => setTimeout(done, 60));
    [before, now] = [now, brightness()];
  }
  return now;
};
const settled = async (act) => {
  const seeked = video.error ? null : happens("seeked");
  act();
  await seeked;
  while ((sought ?? missed) !== null && !video.error) await happens("seeked");
  return {
    video_s: video.currentTime,
    brightness: await shownBrightness(),
    span: document.getElementById("span").textContent,
    slider: document.querySelector("[role=slider]").ariaValueText,
    events: [...document.querySelectorAll("tr[data-start]")].map(
      (row) => row.ariaCurrent === "true"),
    playhead: document.querySelector(".playhead").getBoundingClientRect().left,
  };
};
const pointAt = (part, Kind, name) => {
  const box = document.querySelector("svg").getBoundingClientRect();
  const clientX = box.left + part * box.width, clientY = box.top + box.height / 2;
  document.elementFromPoint(clientX, clientY).dispatchEvent(
    new Kind(name, { bubbles: true, clientX, clientY, pointerType: "mouse" }));
};
// The page handles errors asynchronously.
while (!video.readyState && !video.hidden) {
  await new Promise((done) => setTimeout(done, 20));
}
const box = document.querySelector("svg").getBoundingClientRect();
const result = {
  timeline: await settled(() => pointAt(0.625, MouseEvent, "click")),
  again: await settled(() => pointAt(0.375, MouseEvent, "click")),
  key: await settled(() => document.querySelector("[role=slider]").dispatchEvent(
    new KeyboardEvent("keydown", { key: "End", bubbles: true }))),
  list: await settled(() => document.querySelector("tr button").click()),
  left: box.left,
  width: box.width,
  plays: document.getElementById("unplayable").hidden && !video.hidden,
  sideways: document.documentElement.scrollWidth > window.innerWidth,
};
pointAt(0.1, PointerEvent, "pointermove");
result.hovered = document.getElementById("span").textContent;
document.title = JSON.stringify(result);
</script>
"""


# Simulate a video whose duration grows while it loads. Record the times that the page
# seeks, and the page's own time.
GROWS = """
<script type="module">
let place = 0, length = 2;
const wishes = [];
Object.defineProperty(video, "error", { get: () => null });
Object.defineProperty(video, "duration", { get: () => length });
Object.defineProperty(video, "currentTime", {
  get: () => place,
  set: (seconds) => { wishes.push(seconds); place = Math.min(seconds, length); },
});
const fire = (name) => { video.dispatchEvent(new Event(name)); return [...wishes]; };
zero = 0;
const result = {};
seek(3.5);
result.tried_again = fire("seeked");
result.gave_up = fire("seeked");
result.same_length = fire("durationchange");
length = 3.4;
result.longer = fire("durationchange");
length = 4;
result.longer_on_the_way = fire("durationchange");
result.on_the_way = fire("seeked");
result.there = fire("seeked");
result.time = time;
length = 2;
seek(3.5);
fire("seeked");
fire("seeked");
place = 1;
result.elsewhere = fire("seeked");
length = 4;
result.stays = fire("durationchange");
document.title = JSON.stringify(result);
</script>
"""


def title_in_chromium(page, profile):
    """Open a page in Chromium; return its title, parsed as JSON."""
    names = ("chromium", "chromium-browser", "google-chrome")
    chromium = next(filter(None, map(shutil.which, names)), None)
    if chromium is None:
        pytest.skip(f"No browser to open the page in: none of {', '.join(names)}")
    browser = subprocess.Popen(
        [
            chromium,
            "--headless=new",
            "--window-size=1280,1200",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            "--remote-debugging-port=0",
            f"--user-data-dir={profile}",
            page.as_uri(),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        port_file = profile / "DevToolsActivePort"
        title = ""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            time.sleep(0.1)
            if port_file.is_file() and (lines := port_file.read_text().split()):
                address = f"http://127.0.0.1:{lines[0]}/json/list"
                with urllib.request.urlopen(address, timeout=10) as answer:
                    tabs = [tab for tab in json.load(answer) if tab["type"] == "page"]
                title = tabs[0]["title"] if tabs else ""
                if title.startswith("{"):
                    return json.loads(html.unescape(title))
        raise TimeoutError(f"The page did not finish; its title is {title!r}")
    finally:
        os.killpg(browser.pid, signal.SIGKILL)
        browser.wait()


@pytest.mark.parametrize(
    ("kind", "start_s"),
    [
        ("embedded", 0),
        ("referenced", 0),
        ("unplayable", 0),
        # The first timestamp is 7 s. The recorded duration is 11 s in Matroska, and 4 s
        # in MP4.
        ("embedded", 7),
        ("mp4", 7),
        ("unplayable", 7),
    ],
)
def test_page_works_in_a_browser(kind, start_s, tmp_path, monkeypatch):
    if kind == "referenced":
        monkeypatch.setattr(player, "EMBEDDED_BYTES_MAX", 0)
    name = {"unplayable": "clip.avi", "mp4": "clip.mp4"}.get(kind, "a: <b>&#%20?.webm")
    video = tmp_path / name
    if kind == "unplayable":
        video.write_bytes(b"RIFF")
    else:
        _write_video(video, "mp4" if kind == "mp4" else "webm", start_s)
    path = tmp_path / "page.html"
    # As in a video of 3.3 s, the last event ends before the middle of its segment.
    found = _prediction(name=name, start_s=start_s)
    *others, last = found.events
    last = last._replace(end_s=start_s + 3.3)
    found = dataclasses.replace(found, events=(*others, last))
    player.write_player_page(path, found, video)
    page = path.read_text(encoding="utf-8")
    path.write_text(page.replace("</body>", f"{VISIT}</body>"), encoding="utf-8")

    result = title_in_chromium(path, tmp_path / "profile")

    assert result["plays"] == (kind != "unplayable")
    assert not result["sideways"]
    assert result["hovered"] == f"0:{start_s:02} to 0:{start_s + 1:02}"
    # Two clicks in the timeline, the End key, and a click in the list of events.
    for action, time_s, category, events in (
        ("timeline", 2.5, "Bark", [True, False]),
        ("again", 1.5, "Bark", [True, False]),
        ("key", 3.0, CATEGORIES[1], [False, True]),
        ("list", 1.0, "Bark", [True, False]),
    ):
        state = result[action]
        second = start_s + int(time_s)
        assert state["span"] == f"0:{second:02} to 0:{second + 1:02}"
        assert state["slider"] == f"0:{second:02}: {category}, 70.0 %"
        assert state["events"] == events
        assert state["playhead"] == pytest.approx(
            result["left"] + result["width"] * time_s / 4, abs=4
        )
        if kind != "unplayable":
            assert state["video_s"] == pytest.approx(start_s + time_s, abs=0.02)
        if kind in ("embedded", "mp4"):
            # Allow for one frame, 12 levels.
            assert state["brightness"] == pytest.approx(60 * time_s, abs=16)


def test_a_page_of_overlapping_categories_works_in_a_browser(tmp_path):
    video = tmp_path / "clip.avi"
    video.write_bytes(b"RIFF")
    path = tmp_path / "page.html"
    player.write_player_page(path, _overlapping(), video)
    script = """<script type="module">
    seek(2.5);
    const items = [...document.querySelectorAll("#classes li")];
    document.title = JSON.stringify({
      slider: document.querySelector("[role=slider]").ariaValueText,
      active: items.map((item) => !item.classList.contains("inactive")),
      names: items.map((item) => item.firstChild.textContent),
      sideways: document.documentElement.scrollWidth > window.innerWidth,
      heights: [...document.querySelectorAll("tr[data-start]")].map(
        (row) => row.getBoundingClientRect().height),
    });
    </script>"""
    page = path.read_text(encoding="utf-8")
    path.write_text(page.replace("</body>", f"{script}</body>"), encoding="utf-8")
    result = title_in_chromium(path, tmp_path / "profile")
    assert result["slider"] == "0:02: Flute, 30.0 %"
    assert result["active"] == [True, False, False]
    assert result["names"] == ["Flute", "Bell", "Bark"]
    assert not result["sideways"]
    # The label "heard only" does not wrap.
    assert len(set(result["heights"])) == 1


def test_page_keeps_playing_a_video_longer_than_expected(tmp_path):
    video = tmp_path / "clip.avi"
    video.write_bytes(b"RIFF")
    path = tmp_path / "page.html"
    player.write_player_page(path, _prediction(), video)
    page = path.read_text(encoding="utf-8")
    path.write_text(page.replace("</body>", f"{GROWS}</body>"), encoding="utf-8")

    result = title_in_chromium(path, tmp_path / "profile")

    first = [3.5, 3.5]
    assert result["tried_again"] == result["gave_up"] == result["same_length"] == first
    assert result["longer"] == result["longer_on_the_way"] == [*first, 3.5]
    assert result["on_the_way"] == result["there"] == [*first, 3.5, 3.5]
    assert result["time"] == 3.5
    # The viewer has sought elsewhere, so the page stays there.
    assert result["elsewhere"] == result["stays"] == [*first, 3.5, 3.5, 3.5, 3.5]

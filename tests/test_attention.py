"""Attention maps of videos and test clips, on video pages and in reports."""

import base64
import json
import types

import keras
import numpy as np
import pytest

import avsdn_tf
from avsdn_tf.attention import stitch_outputs
from avsdn_tf.data.dataset import open_dataset
from avsdn_tf.events import VideoPrediction, stitch_logits
from avsdn_tf.features.extractor import Extractor
from avsdn_tf.report import figures, player
from avsdn_tf.report.event_files import write_event_files
from avsdn_tf.training.tasks.attention import attention_of_clips
from avsdn_tf.videos import predict_video
from tests.small_datasets import build, examples, make_custom
from tests.small_videos import Loudness, write_clip
from tests.test_player import title_in_chromium

CATEGORIES = ("Bark", "Flute")
SHAPE = (2, 3, 3)
# Maps of three segments. In map 0, the upper left cell has half of the weight; in map
# 1, the lower right cell has half; in map 2, all cells have equal weights.
MAPS = np.full((3, 2, 3), [[[0.1]], [[0.1]], [[1 / 6]]], np.float32)
MAPS[0, 0, 0] = MAPS[1, 1, 2] = 0.5


class BrightCells:
    """Visual features for tests: the mean colour of 2 x 3 cells."""

    shape = SHAPE
    frames_per_second = 1

    def __call__(self, frames):
        return np.stack(
            [
                [
                    [cell.mean(axis=(0, 1)) for cell in np.array_split(row, 3, axis=1)]
                    for row in np.array_split(second[0], 2)
                ]
                for second in frames
            ]
        ).astype(np.float32)


@pytest.fixture
def cells():
    return Extractor(Loudness(), BrightCells(), empty="visual")


def make_avel(attention=True, **options):
    keras.utils.set_random_seed(1)
    return avsdn_tf.AVEL(
        CATEGORIES, 3, SHAPE, units=2, attention=attention, num_segments=4, **options
    )


def make_prediction(attention=MAPS, **changes):
    probabilities = np.tile([0.6, 0.3, 0.1], (3, 1))
    values = {"name": "v", "categories": CATEGORIES, "probabilities": probabilities}
    values |= {"segment_s": 1.0, "events": (), "disclaimer": None}
    return VideoPrediction(**values | {"attention": attention} | changes)


class PlaceNetwork:
    """Gives the first cell a weight that grows with the position in the window."""

    def predict_on_batch(self, inputs):
        return np.float32(inputs["audio"][..., :2])

    def attention_maps(self, inputs):
        length = inputs["audio"].shape[1]
        place = np.arange(length, dtype=np.float32) / 10
        return np.stack([place, 1 - place], axis=1).reshape(1, length, 1, 2)


def test_maps_are_averaged_over_the_windows_of_the_logits(rng):
    audio, visual = rng.random((7, 2)), np.zeros((7, 3))
    chunks = [(audio[:3], visual[:3]), (audio[3:], visual[3:])]
    logits, maps = stitch_outputs(PlaceNetwork(), chunks, window=4)
    np.testing.assert_array_equal(
        logits, stitch_logits(PlaceNetwork(), chunks, window=4)
    )
    # Windows of 4 segments start at 0, 2 and 3.
    places = [0, 1, (2 + 0) / 2, (3 + 1 + 0) / 3, (2 + 1) / 2, (3 + 2) / 2, 3]
    assert (maps.shape, maps.dtype) == ((7, 1, 2), np.float32)
    np.testing.assert_allclose(maps[:, 0, 0], np.divide(places, 10), rtol=1e-6)
    np.testing.assert_allclose(maps.sum(axis=(1, 2)), 1, rtol=1e-6)
    # Networks of other packages have no method `attention_maps`.
    unaware = types.SimpleNamespace(predict_on_batch=PlaceNetwork().predict_on_batch)
    assert stitch_outputs(unaware, chunks, window=4)[1] is None


def test_a_video_has_maps_if_its_network_has_spatial_attention(cells, tmp_path):
    path = write_clip(tmp_path / "clip.mp4", 6)
    found = predict_video(make_avel(), cells, path)
    assert found.attention.shape == (6, 2, 3)
    np.testing.assert_allclose(found.attention.sum(axis=(1, 2)), 1, atol=1e-5)
    assert predict_video(make_avel(attention=False), cells, path).attention is None


def test_maps_in_half_precision_are_returned_in_float32(cells, tmp_path):
    path = write_clip(tmp_path / "clip.mp4", 2)
    found = predict_video(make_avel(dtype="mixed_bfloat16"), cells, path)
    assert found.attention.dtype == np.float32


def test_a_video_without_picture_has_no_maps(cells, tmp_path):
    path = write_clip(tmp_path / "clip.mp4", 2, picture=False)
    assert predict_video(make_avel(), cells, path).attention is None


@pytest.mark.parametrize(
    "maps",
    [
        MAPS[:2],
        MAPS[0],
        MAPS[:, :0],
        MAPS / 2,
        MAPS * np.nan,
        np.stack([MAPS[0] + [[1], [-1]]] * 3),
    ],
    ids=["short", "one", "no cell", "half", "nan", "negative"],
)
def test_invalid_maps_are_refused(maps):
    with pytest.raises(ValueError, match="attention"):
        make_prediction(maps)


def write_page(folder, prediction, name="clip.webm"):
    video = folder / name
    if not video.exists():
        video.write_bytes(b"not a video")
    player.write_player_page(folder / "page.html", prediction, video)
    return (folder / "page.html").read_text(encoding="utf-8")


def data_of(page):
    start = page.index('id="data">') + len('id="data">')
    return json.loads(page[start : page.index("</script>", start)])


def test_the_page_has_a_switch_and_stores_a_byte_per_cell(tmp_path):
    page = write_page(tmp_path, make_prediction())
    switch = '<label><input type="checkbox" role="switch" id="look"'
    assert page.count(switch) == 1
    assert "checked" not in page[page.index(switch) :].split(">")[1]
    data = data_of(page)["attention"]
    assert (data["rows"], data["columns"]) == (2, 3)
    assert data["percents"] == [50.0, 50.0, 16.7]
    levels = np.frombuffer(base64.b64decode(data["levels"]), np.uint8)
    np.testing.assert_array_equal(
        levels.reshape(3, 6),
        [[255, 51, 51, 51, 51, 51], [51, 51, 51, 51, 51, 255], [255] * 6],
    )


def test_a_page_without_maps_has_no_switch(tmp_path):
    page = write_page(tmp_path, make_prediction(None))
    assert "attention" not in data_of(page)
    for word in ("canvas", "switch", "look", "percents"):
        assert word not in page


def test_the_page_omits_maps_of_a_very_long_video_with_a_notice(tmp_path, monkeypatch):
    monkeypatch.setattr(player, "ATTENTION_CELLS_MAX", MAPS.size - 1)
    page = write_page(tmp_path, make_prediction())
    assert "attention" not in data_of(page)
    assert "canvas" not in page
    assert "too long for this page to show where" in page
    monkeypatch.setattr(player, "ATTENTION_CELLS_MAX", MAPS.size)
    page = write_page(tmp_path, make_prediction())
    assert "attention" in data_of(page)
    assert "too long" not in page


def test_event_files_are_equal_with_and_without_maps(tmp_path):
    texts = [
        [path.read_text() for path in write_event_files(tmp_path, "clip", found)]
        for found in (make_prediction(), make_prediction(None))
    ]
    assert texts[0] == texts[1]


VISIT = """
<script type="module">
const box = (element) => {
  const { left, top, width, height } = element.getBoundingClientRect();
  return [left, top, width, height];
};
const wait = () => new Promise((done) => setTimeout(done, 20));
// The brightness of the overlay at a point; (1, 1) is the lower right corner.
const brightness = (x, y) => {
  const pen = overlay.getContext("2d");
  const place = [Math.floor(x * overlay.width), Math.floor(y * overlay.height)];
  const [red, green, blue] = pen.getImageData(...place, 1, 1).data;
  return red + green + blue;
};
const result = {};
// The page handles the video's error asynchronously.
while (!video.hidden) await wait();
result.offered_without_picture = look.offsetParent !== null;
Object.defineProperty(video, "error", { get: () => null });
video.hidden = false;
result.off = overlay.hidden;
look.focus();
result.focused = document.activeElement === look;
look.click();
result.unknown_size = overlay.hidden;
Object.defineProperty(video, "videoWidth", { get: () => 90 });
Object.defineProperty(video, "videoHeight", { get: () => 160 });
video.dispatchEvent(new Event("loadedmetadata"));
result.on = !overlay.hidden;
result.boxes = [box(overlay), box(video)];
result.fit = [getComputedStyle(overlay).objectFit, getComputedStyle(video).objectFit];
result.proportions = overlay.height / overlay.width;
result.takes_clicks = getComputedStyle(overlay).pointerEvents;
result.first = [brightness(0.1, 0.1), brightness(0.9, 0.9)];
result.first_text = looked.textContent;
seek(1.5);
await wait();
result.second = [brightness(0.1, 0.1), brightness(0.9, 0.9)];
result.second_text = looked.textContent;
look.click();
result.off_again = overlay.hidden;
result.label = look.labels[0].textContent.trim();
result.sideways = document.documentElement.scrollWidth > window.innerWidth;
document.title = JSON.stringify(result);
</script>
"""


def test_the_overlay_works_in_a_browser(tmp_path):
    page = write_page(tmp_path, make_prediction(), "clip.avi")
    page = page.replace("</body>", f"{VISIT}</body>")
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    result = title_in_chromium(tmp_path / "page.html", tmp_path / "profile")
    assert not result["offered_without_picture"]
    # The overlay needs the switch and the frame's size.
    assert result["off"]
    assert result["focused"]
    assert result["unknown_size"]
    assert result["on"]
    # The overlay is letterboxed like the video, and passes on mouse events.
    overlay, video = result["boxes"]
    assert overlay == pytest.approx(video)
    assert result["fit"] == ["contain", "contain"]
    assert result["proportions"] == pytest.approx(160 / 90, rel=0.01)
    assert result["takes_clicks"] == "none"
    upper_left, lower_right = result["first"]
    assert upper_left > lower_right + 100
    upper_left, lower_right = result["second"]
    assert lower_right > upper_left + 100
    assert "row 1 of 2, column 1 of 3, with 50.0 %" in result["first_text"]
    assert "row 2 of 2, column 3 of 3, with 50.0 %" in result["second_text"]
    assert result["off_again"]
    assert result["label"]
    assert not result["sideways"]


def test_a_figure_shows_a_map_per_segment_and_a_bar_per_true_event():
    rng = np.random.default_rng(0)
    clips = []
    for length in (4, 24):
        maps = rng.random((length, 2, 3))
        maps /= maps.sum(axis=(1, 2), keepdims=True)
        clips.append(figures.AttentionClip("row 1", maps, np.arange(length) < 2))
    (axes,) = figures.attention(clips, segment_s=2.0).axes
    assert len(axes.images) == 4 + figures.MAX_MAPS
    np.testing.assert_array_equal(axes.images[3].get_array(), clips[0].maps[3])
    # Only the first shown segment of the second clip has an event.
    assert len(axes.patches) == 2 + 1
    texts = [text.get_text() for text in axes.texts]
    assert texts[2] == f"2 s: {100 * clips[0].maps[1].max():.0f} %"
    assert texts[-2].startswith("46 s: ")
    assert "16.7 % if all are equal" in texts[-1]
    with pytest.raises(ValueError, match="at least one clip"):
        figures.attention([])


@pytest.fixture(scope="module", params=[False, True], ids=["whole", "windows"])
def own_data(request, tmp_path_factory):
    """Return builder and folder of feature maps, of whole clips or of windows."""
    folder = tmp_path_factory.mktemp("own")
    make_custom(folder / "manual", SHAPE, num_segments=4 + 2 * request.param)
    windows = (4, 2) if request.param else (None, None)
    builder = build(folder / "manual", folder / "data", "custom", windows)
    return builder, str(folder / "data")


def test_maps_of_test_clips_equal_the_maps_of_the_network(own_data):
    builder, data_dir = own_data
    dataset = open_dataset("tfds_ave/custom", data_dir)
    keras.utils.set_random_seed(1)
    options = {"units": 2, "num_segments": dataset.num_segments}
    model = avsdn_tf.AVEL(dataset.categories, 5, SHAPE, attention=True, **options)
    found = attention_of_clips(model, dataset, "test", [2, 0])
    stored = list(examples(builder, "test").values())
    for maps, clip in zip(found, (stored[2], stored[0]), strict=True):
        features = [(clip["audio"], clip["visual"].reshape(-1, *SHAPE))]
        _, expected = stitch_outputs(model, features, 4)
        np.testing.assert_allclose(maps, expected, rtol=1e-6)
    plain = avsdn_tf.AVEL(dataset.categories, 5, SHAPE, **options)
    assert attention_of_clips(plain, dataset, "test", [0]) is None


@pytest.mark.parametrize(
    ("own_data", "model", "looks"),
    [(True, "avel_att", True), (False, "avel", False)],
    indirect=["own_data"],
)
def test_the_report_shows_attention_maps(own_data, model, looks, tmp_path):
    _, data_dir = own_data
    settings = {"dataset": "tfds_ave/custom", "data_dir": data_dir, "model": model}
    avsdn_tf.train(run=tmp_path / "run", epochs=1, units=4, **settings)
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert (tmp_path / "run" / "attention.png").is_file() == looks
    assert ("Where it looked" in page) == looks
    # Three test clips of 6 seconds.
    assert page.count("data:image/png") == 18 * looks

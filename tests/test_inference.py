"""Prediction of events from video files."""

import pathlib

import keras
import numpy as np
import pytest

import avsdn_tf
from avsdn_tf import videos
from avsdn_tf.backbones import IMAGENET, VGGISH
from avsdn_tf.features.extractor import Extractor
from avsdn_tf.features.video import VideoError
from avsdn_tf.run_folder import RunFolder
from avsdn_tf.videos import predict_video
from tests.small_videos import (
    REAL_CLIPS,
    Brightness,
    Loudness,
    find_clip,
    write_clip,
)
from tests.test_video import click, grey_image, write


@pytest.fixture
def always_bark():
    """Return a network that predicts Bark for any features of width 3."""
    model = avsdn_tf.AVSDN(["Bark"], 3, (3,), units=2)
    model.decoder.head.set_weights([np.zeros((2, 2)), np.array([5.0, 0.0])])
    return model


def test_the_disclaimer_names_the_missing_modality(tmp_path, always_bark):
    path = write_clip(tmp_path / "silent.mp4", 2, sound=False)
    lenient = Extractor(Loudness(), Brightness(), "audio")
    for given in (None, "Demo"):
        found = predict_video(always_bark, lenient, path, disclaimer=given)
        reason = "This video has no sound: zeros replace its features"
        assert found.disclaimer == (f"{given}. {reason}" if given else reason)
    both = write_clip(tmp_path / "both.mp4", 2)
    assert predict_video(always_bark, lenient, both).disclaimer is None


def test_an_event_ends_with_the_video(tmp_path, extractor, always_bark):
    path = write_clip(tmp_path / "short.mp4", 2, tail_s=0.4)
    found = predict_video(always_bark, extractor, path)
    ((start_s, end_s, category, _),) = found.events
    assert (start_s, category) == (0, "Bark")
    assert end_s == pytest.approx(2.4, abs=0.1)
    assert len(found.probabilities) == 3
    assert found.start_s == 0


def test_events_of_a_multi_label_network_overlap(tmp_path, extractor):
    model = avsdn_tf.AVSDN(
        ["Bark", "Flute", "Bell"],
        *(3, (3,)),
        units=2,
        multi_label=True,
        thresholds=[0.5, 0.1, 0.9],
    )
    model.decoder.head.set_weights([np.zeros((2, 3)), np.array([5.0, -1.0, 1.0])])
    path = write_clip(tmp_path / "short.mp4", 2, tail_s=0.4)
    found = predict_video(model, extractor, path)
    assert found.multi_label
    assert found.thresholds == (0.5, 0.1, 0.9)
    assert found.probabilities.shape == (3, 3)
    assert [event.category for event in found.events] == ["Bark", "Flute"]
    assert [event.start_s for event in found.events] == [0, 0]
    assert avsdn_tf.localize(model, path, extractor=extractor) == list(found.events)


@pytest.mark.parametrize("delay_s", [0.4, 0.9, 7])
@pytest.mark.parametrize(
    ("suffix", "counts_from_zero"),
    [("mkv", False), ("webm", False), ("mp4", False), ("ts", True)],
)
def test_times_of_late_videos_equal_player_times(
    tmp_path, extractor, always_bark, suffix, counts_from_zero, delay_s
):
    # Timestamps start at delay_s, which may exceed the video's length of 2.4 s. Players
    # show the times of transport streams from zero.
    path = tmp_path / f"late.{suffix}"
    start_s = 0 if counts_from_zero else delay_s
    write(
        str(path),
        times_s=delay_s + np.arange(24) / 10,
        images=[grey_image(index) for index in range(24)],
        waveform=click(1, 2.4, 48_000),
        rate=48_000,
        start_s=delay_s,
    )
    found = predict_video(always_bark, extractor, path)
    # start_s includes the encoder's delay.
    assert found.start_s == pytest.approx(start_s, abs=0.03)
    (event,) = found.events
    assert event.start_s == found.start_s
    assert event.end_s == pytest.approx(start_s + 2.4, abs=0.05)
    assert avsdn_tf.localize(always_bark, path, extractor=extractor) == [event]


class RandomSpectrum:
    """Audio features for tests: random projections of the spectrum."""

    width = 8

    def __call__(self, seconds):
        spectrum = np.log1p(np.abs(np.fft.rfft(seconds))[:, :512])
        weights = np.random.default_rng(1).normal(0, 0.1, (512, self.width))
        return (spectrum @ weights).astype(np.float32)


class RandomGrid:
    """Visual features for tests: random projections of 8 x 8 pixels."""

    shape = (8,)
    frames_per_second = 1

    def __call__(self, frames):
        grids = []
        for (frame,) in frames:
            rows, columns = frame.shape[0] // 8, frame.shape[1] // 8
            grids.append(frame[::rows, ::columns][:8, :8].reshape(-1) / 255)
        weights = np.random.default_rng(2).normal(0, 0.1, (192, *self.shape))
        return (np.stack(grids) @ weights).astype(np.float32)


@pytest.mark.parametrize(("name", "num_seconds"), REAL_CLIPS.items())
def test_real_clips_are_localized(name, num_seconds):
    keras.utils.set_random_seed(0)
    model = avsdn_tf.AVSDN(["Bark", "Flute"], 8, (8,), units=4)
    kernel, bias = model.decoder.head.get_weights()
    # The initial weights may predict background everywhere.
    model.decoder.head.set_weights([10 * kernel, bias - [0, 0, 1]])
    found = predict_video(
        model, Extractor(RandomSpectrum(), RandomGrid()), find_clip(name)
    )
    assert (found.start_s, found.segment_s) == (0, 1)
    assert found.probabilities.shape == (num_seconds, 3)
    classes = found.probabilities.argmax(axis=1)
    assert found.events
    # Reconstruct the class of each second from the events.
    from_events = np.full(num_seconds, 2)
    for event in found.events:
        seconds = slice(int(event.start_s), int(np.ceil(event.end_s)))
        from_events[seconds] = model.categories.index(event.category)
    np.testing.assert_array_equal(from_events, classes)


def test_models_loaded_by_keras_and_by_avsdn_tf_find_the_same_events(
    tmp_path, extractor, monkeypatch
):
    asked = []

    def build(**given):
        asked.append(given)
        return extractor

    stitch = videos.stitch_outputs

    def record_window(model, chunks, window):
        asked.append(window)
        return stitch(model, chunks, window)

    monkeypatch.setattr(videos, "build_extractor", build)
    monkeypatch.setattr(videos, "stitch_outputs", record_window)
    folder = RunFolder(tmp_path / "run")
    folder.write_config({}, "hash")
    backbones = {
        "audio_network": "vggish",
        "audio_weights": VGGISH,
        "visual_network": "own",
        "visual_weights": IMAGENET,
    }
    keras.utils.set_random_seed(1)
    avsdn_tf.AVSDN(
        ["Bark", "Flute"], 3, (3,), units=2, num_segments=4, backbones=backbones
    ).save(folder.model)
    folder.write_checksums()
    video = write_clip(tmp_path / "clip.mp4", 6)
    found = [
        avsdn_tf.localize(model, video)
        for model in (keras.models.load_model(folder.model), avsdn_tf.load(folder.path))
    ]
    assert found[0] == found[1]
    built, window, *again = asked
    assert again == [built, window]
    assert window == 4
    assert built == {**backbones, "visual_precision": "float32", "empty": None}


def test_models_of_release_0_1_0_have_no_window_or_backbones():
    fixture = pathlib.Path(__file__).parent / "fixtures" / "0.1.0" / "avsdn.keras"
    model = keras.models.load_model(fixture)
    assert (model.num_segments, model.segment_s, model.backbones) == (None, None, None)


@pytest.mark.parametrize("name", ["nope.mp4", ""])
def test_a_missing_video_is_reported_before_backbones_are_loaded(
    tmp_path, monkeypatch, name
):
    monkeypatch.setattr(videos, "build_extractor", lambda **_: pytest.fail("loaded"))
    model = avsdn_tf.AVSDN(["Bark"], 128, (2048,), units=2)
    with pytest.raises(VideoError, match=f"{name}: no such file"):
        avsdn_tf.localize(model, tmp_path / name)

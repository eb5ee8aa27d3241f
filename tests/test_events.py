"""Tests of avsdn_tf.events."""

import tracemalloc

import numpy as np
import pytest

import avsdn_tf
from avsdn_tf.events import (
    Event,
    VideoPrediction,
    events_from_logits,
    events_from_probabilities,
    number_events,
    softmax,
    stitch_logits,
)

CATEGORIES = ["Bark", "Violin, fiddle"]
BACKGROUND = 2


def one_hot(classes: list[int], confidence: float = 1.0) -> np.ndarray:
    """Return probabilities: `confidence` for each segment's class, the rest shared."""
    rest = (1 - confidence) / len(CATEGORIES)
    probabilities = np.full((len(classes), len(CATEGORIES) + 1), rest)
    probabilities[np.arange(len(classes)), classes] = confidence
    return probabilities


def test_a_run_of_one_category_is_one_event():
    probabilities = one_hot([2, 0, 0, 0, 2, 1])
    assert events_from_probabilities(probabilities, CATEGORIES) == [
        Event(1.0, 4.0, "Bark", 1.0),
        Event(5.0, 6.0, "Violin, fiddle", 1.0),
    ]


def test_category_changes_and_gaps_separate_events():
    probabilities = one_hot([0, 1, 1, 2, 1])
    events = events_from_probabilities(probabilities, CATEGORIES)
    assert [(event.start_s, event.end_s, event.category) for event in events] == [
        (0.0, 1.0, "Bark"),
        (1.0, 3.0, "Violin, fiddle"),
        (4.0, 5.0, "Violin, fiddle"),
    ]


@pytest.mark.parametrize(
    ("classes", "expected"),
    [([2, 2, 2], []), ([0, 0, 0], [Event(0.0, 3.0, "Bark", 1.0)]), ([], [])],
)
def test_a_clip_of_one_class_has_one_event_or_none(classes, expected):
    probabilities = one_hot(classes)
    assert events_from_probabilities(probabilities, CATEGORIES) == expected


def test_score_is_the_mean_probability_within_the_event():
    # Bark has 0.6 and 0.9 in the event's two segments, 0.3 in background.
    probabilities = np.array([[0.6, 0.3, 0.1], [0.9, 0.1, 0.0], [0.3, 0.1, 0.6]])
    (event,) = events_from_probabilities(probabilities, CATEGORIES)
    assert event.score == pytest.approx(0.75)
    assert all(isinstance(value, float) for value in event[:2] + event[3:])


def test_segment_length_scales_the_times():
    (event,) = events_from_probabilities(
        one_hot([2, 0, 0, 2]), CATEGORIES, segment_s=0.5
    )
    assert (event.start_s, event.end_s) == (0.5, 1.5)


def test_logits_give_the_events_of_their_softmax():
    probabilities = one_hot([2, 0, 1, 1], confidence=0.8)
    # Softmax ignores a constant added to all logits, but exp(1000) overflows unless the
    # maximum is subtracted.
    from_logits = events_from_logits(np.log(probabilities) + 1000.0, CATEGORIES)
    expected = events_from_probabilities(probabilities, CATEGORIES)
    assert [event[:3] for event in from_logits] == [event[:3] for event in expected]
    assert [event.score for event in from_logits] == pytest.approx([0.8, 0.8])


def test_softmax_by_hand():
    # e^0 : e^(ln 3) = 1 : 3.
    np.testing.assert_allclose(
        softmax(np.array([[0.0, np.log(3.0)], [7.0, 7.0]])),
        [[0.25, 0.75], [0.5, 0.5]],
    )


def test_number_events_never_merges_events_of_two_clips():
    # The first clip ends, and the second begins, with the same category.
    classes = np.array([[2, 0, 1, 1], [1, 2, 2, 1], [2, 2, 2, 2], [0, 0, 0, 0]])
    np.testing.assert_array_equal(
        number_events(classes, BACKGROUND),
        [[-1, 0, 1, 1], [2, -1, -1, 3], [-1, -1, -1, -1], [4, 4, 4, 4]],
    )


@pytest.mark.parametrize("shape", [(3,), (10, 2), (1, 10, 3)])
def test_wrong_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"Expected .*\(num_segments, 3\).*Received"):
        events_from_probabilities(np.zeros(shape), CATEGORIES)


@pytest.mark.parametrize("value", [-0.5, 4.0, np.nan])
def test_invalid_probabilities_are_refused(value):
    probabilities = one_hot([0, 1])
    probabilities[1, 0] = value
    with pytest.raises(ValueError, match="events_from_logits"):
        events_from_probabilities(probabilities, CATEGORIES)


@pytest.mark.parametrize("shape", [(3,), (10, 2), (1, 10, 3)])
def test_errors_about_shapes_of_logits_name_logits(shape):
    with pytest.raises(ValueError, match=r"logits .*\(num_segments, 3\).*Received"):
        events_from_logits(np.zeros(shape), CATEGORIES)


def test_invalid_logits_are_refused():
    with pytest.raises(ValueError, match="finite"):
        events_from_logits(np.full((4, 3), np.nan), CATEGORIES)


@pytest.mark.parametrize("segment_s", [0.0, -1.0, np.nan])
def test_segment_length_must_be_positive(segment_s):
    with pytest.raises(ValueError, match="segment_s"):
        events_from_probabilities(one_hot([0]), CATEGORIES, segment_s)


class EchoModel:
    """Outputs the first three visual features of every segment."""

    categories = CATEGORIES

    def predict_on_batch(self, inputs):
        assert set(inputs) == {"audio", "visual"}
        return inputs["visual"][..., :3]


def test_localize_gives_each_clip_its_own_events():
    visual = np.log(np.stack([one_hot([2, 0], 0.9), one_hot([1, 2], 0.7)]))
    events = avsdn_tf.localize(
        EchoModel(), {"audio": np.zeros((2, 2, 128)), "visual": visual}
    )
    assert [[event[:3] for event in clip] for clip in events] == [
        [(1.0, 2.0, "Bark")],
        [(0.0, 1.0, "Violin, fiddle")],
    ]


def test_localize_accepts_multi_label_networks_and_padding():
    class Network:
        categories = CATEGORIES
        multi_label = True
        thresholds = (0.5, 0.8)

        def predict_on_batch(self, inputs):
            assert set(inputs) >= {"audio", "visual"}
            return inputs["visual"]

    visual = np.array([[[9.0, 1.0], [9.0, 9.0], [9.0, 9.0]]])
    clips = {"audio": np.zeros((1, 3, 128)), "visual": visual}
    (events,) = avsdn_tf.localize(Network(), clips)
    assert [event[:3] for event in events] == [
        (0.0, 3.0, "Bark"),
        (1.0, 3.0, "Violin, fiddle"),
    ]
    (events,) = avsdn_tf.localize(Network(), {**clips, "mask": [[1, 1, 0]]})
    assert [event.end_s for event in events] == [2.0, 2.0]
    with pytest.raises(ValueError, match="mask of shape"):
        avsdn_tf.localize(Network(), {**clips, "mask": [1, 1, 0]})


@pytest.mark.parametrize(
    ("audio", "visual"),
    [((2, 10, 128), (3, 10, 8)), ((10, 128), (10, 8)), ((2, 9, 128), (2, 10, 8))],
)
def test_localize_refuses_mismatched_modalities(audio, visual):
    with pytest.raises(ValueError, match=r"audio \(batch, num_segments"):
        avsdn_tf.localize(
            EchoModel(), {"audio": np.zeros(audio), "visual": np.zeros(visual)}
        )


def test_localize_runs_a_keras_model():
    keras = pytest.importorskip("keras")

    @keras.saving.register_keras_serializable(package="test_localization")
    class Louder(keras.Model):
        categories = CATEGORIES

        def call(self, inputs):
            return inputs["audio"] + inputs["visual"]

    audio = np.log(np.stack([one_hot([2, 0, 0], 0.8)])).astype("float32")
    events = avsdn_tf.localize(
        Louder(), {"audio": audio, "visual": np.zeros_like(audio)}
    )
    assert [event[:3] for event in events[0]] == [(1.0, 3.0, "Bark")]
    assert events[0][0].score == pytest.approx(0.8)


class PositionNetwork:
    """Outputs audio feature, window length and position in the window."""

    def predict_on_batch(self, inputs):
        audio = inputs["audio"]
        length = np.full((*audio.shape[:2], 1), audio.shape[1], float)
        place = np.arange(audio.shape[1], dtype=float)[None, :, None]
        return np.concatenate([audio, length, place], axis=-1)


@pytest.mark.parametrize("num_segments", [1, 9, 10, 11, 14, 15, 20, 23, 35])
@pytest.mark.parametrize("chunk", [1, 4, 16])
def test_long_videos_are_processed_in_overlapping_windows(num_segments, chunk):
    audio = np.arange(num_segments, dtype=float)[:, None]
    visual = np.zeros((num_segments, 2))
    chunks = [
        (audio[at : at + chunk], visual[at : at + chunk])
        for at in range(0, num_segments, chunk)
    ]
    logits = stitch_logits(PositionNetwork(), chunks)
    np.testing.assert_allclose(logits[:, 0], audio[:, 0])
    assert set(logits[:, 1]) == {min(num_segments, 10)}
    # Windows start at every fifth segment, and the last one ends with the video.
    starts = list(range(0, max(1, num_segments - 9), 5))
    starts.append(max(0, num_segments - 10))
    places = [
        np.mean([t - s for s in sorted(set(starts)) if s <= t < s + 10])
        for t in range(num_segments)
    ]
    np.testing.assert_allclose(logits[:, 2], places)


def test_windows_of_one_segment_do_not_overlap():
    class CountingNetwork(PositionNetwork):
        num_windows = 0

        def predict_on_batch(self, inputs):
            self.num_windows += 1
            assert self.num_windows <= 5
            return super().predict_on_batch(inputs)

    audio = np.arange(5.0)[:, None]
    chunks = [(audio[:3], np.zeros((3, 2))), (audio[3:], np.zeros((2, 2)))]
    logits = stitch_logits(CountingNetwork(), chunks, window=1)
    # Of each segment: audio feature, window length 1, position 0.
    np.testing.assert_array_equal(logits, [[t, 1, 0] for t in range(5)])


def test_a_window_must_contain_a_segment():
    chunks = [(np.zeros((3, 1)), np.zeros((3, 2)))]
    for window in (0, -3):
        with pytest.raises(ValueError, match=f"1 or more. Received: window={window}"):
            stitch_logits(PositionNetwork(), chunks, window)


def test_memory_does_not_grow_with_the_video():
    seen = []

    def chunks():
        for _ in range(100):
            yield np.zeros((16, 4000)), np.zeros((16, 4000))
            seen.append(tracemalloc.get_traced_memory()[0])

    class Network:
        def predict_on_batch(self, inputs):
            return inputs["audio"][..., :2]

    tracemalloc.start()
    try:
        logits = stitch_logits(Network(), chunks())
    finally:
        tracemalloc.stop()
    assert len(logits) == 1600
    # A chunk has 1 MB; memory holds a few chunks at most.
    assert max(seen) < 10e6


@pytest.mark.parametrize(
    ("audio", "visual"),
    [((2, 9, 64), (2, 9, 8)), ((2, 9, 128), (2, 9, 7)), ((2, 0, 128), (2, 0, 8))],
)
def test_localize_refuses_features_of_other_shapes(audio, visual):
    model = avsdn_tf.AVSDN(CATEGORIES, 128, (8,), units=2)
    wanted = r"segments, 128\) and visual \(batch, num_segments, 8\), of one"
    with pytest.raises(ValueError, match=wanted):
        avsdn_tf.localize(model, {"audio": np.zeros(audio), "visual": np.zeros(visual)})
    with pytest.raises(ValueError, match="Received no visual"):
        avsdn_tf.localize(model, {"audio": np.zeros(audio)})


def test_a_missing_network_is_a_user_error(tmp_path):
    with pytest.raises(avsdn_tf.UserError, match="nowhere"):
        avsdn_tf.load(tmp_path / "nowhere")


def test_localize_refuses_a_cross_modality_network():
    with pytest.raises(ValueError, match=r"labels segments\. Received: AVDLN"):
        avsdn_tf.localize(avsdn_tf.AVDLN(), "video.mp4")


def test_a_video_without_segments_has_no_logits():
    with pytest.raises(ValueError, match="at least one segment"):
        stitch_logits(PositionNetwork(), [])
    empty = np.zeros((0, 3), np.float32)
    with pytest.raises(ValueError, match="at least one segment"):
        stitch_logits(PositionNetwork(), [(empty, empty)])


@pytest.mark.parametrize("thresholds", [None, (0.7, 0.2)])
def test_multi_label_events_overlap_and_are_sorted_by_time(thresholds):
    probabilities = np.array([[0.6, 0.5], [0.8, 0.4], [0.1, 0.6], [0.9, 0.1]])
    events = events_from_probabilities(
        probabilities, CATEGORIES, multi_label=True, thresholds=thresholds
    )
    # A probability of exactly the threshold is active.
    expected = {
        None: [(0, 2, "Bark"), (0, 1, "Violin, fiddle"), (2, 3, "Violin, fiddle")],
        (0.7, 0.2): [(0, 3, "Violin, fiddle"), (1, 2, "Bark")],
    }[thresholds]
    expected.append((3, 4, "Bark"))
    assert [event[:3] for event in events] == expected
    assert events[-1].score == pytest.approx(0.9)
    logits = np.log(probabilities / (1 - probabilities))
    from_logits = events_from_logits(
        logits, CATEGORIES, multi_label=True, thresholds=thresholds
    )
    assert [event[:3] for event in from_logits] == expected


def test_multi_label_scores_are_means_of_their_own_category():
    logits = np.array([[0.0, -900.0], [np.log(3), 900.0]])
    events = events_from_logits(logits, CATEGORIES, 0.5, multi_label=True)
    assert events == [
        Event(0.0, 1.0, "Bark", 0.625),
        Event(0.5, 1.0, "Violin, fiddle", 1.0),
    ]
    assert events_from_logits(logits - 2000, CATEGORIES, multi_label=True) == []


@pytest.mark.parametrize("thresholds", [(0.5,), (0.0, 0.5), (0.5, 1.0), (0.5, np.nan)])
def test_the_number_of_thresholds_must_equal_the_number_of_categories(thresholds):
    with pytest.raises(ValueError, match="thresholds to be 2 numbers"):
        events_from_logits(
            np.zeros((1, 2)), CATEGORIES, multi_label=True, thresholds=thresholds
        )


def test_padding_contains_no_event():
    classes = np.array([[0, 0, -1], [2, -1, -1]])
    np.testing.assert_array_equal(
        number_events(classes, BACKGROUND), [[0, 0, -1], [-1, -1, -1]]
    )


def test_a_multi_label_prediction_has_no_background_column():
    values = ("a.mp4", tuple(CATEGORIES), np.full((3, 2), 0.5), 1.0, (), None)
    found = VideoPrediction(*values, multi_label=True)
    assert found.classes == tuple(CATEGORIES)
    assert found.thresholds == (0.5, 0.5)
    assert VideoPrediction(*values, multi_label=True, thresholds=(0.1, 0.2)).thresholds
    with pytest.raises(ValueError, match="num_segments, 3"):
        VideoPrediction(*values)
    with pytest.raises(ValueError, match="thresholds"):
        VideoPrediction(*values, multi_label=True, thresholds=(0.1,))

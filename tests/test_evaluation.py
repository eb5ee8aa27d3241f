"""Tests of avsdn_tf.evaluation."""

import json
from pathlib import Path

import numpy as np
import pytest

from avsdn_tf import evaluation
from avsdn_tf.evaluation import Predictions

OFFICIAL = Path(__file__).resolve().parents[2] / "shared" / "ave_official"
CATEGORIES = ["Bark", "Violin, fiddle"]
BACKGROUND = 2

# Three clips of four segments: partly event, all event, all background.
LABELS = np.array([[2, 0, 0, 2], [1, 1, 1, 1], [2, 2, 2, 2]])
PREDICTED = np.array([[2, 0, 2, 2], [1, 1, 0, 1], [2, 2, 2, 0]])
CLIP_LABELS = np.array([0, 1, 0])


def as_logits(classes: np.ndarray, num_classes: int = 3) -> np.ndarray:
    """Return logits whose argmax is the class."""
    return np.eye(num_classes, dtype=np.float32)[classes]


def predictions_of(labels, predicted, clip_labels, num_classes=3) -> Predictions:
    return Predictions(
        row=100 + np.arange(len(labels)),
        logits=as_logits(predicted, num_classes),
        labels=labels,
        clip_labels=clip_labels,
    )


@pytest.fixture
def random_split():
    """Return labels with one event a clip, as in AVE, and imperfect predictions."""
    generator = np.random.default_rng(3)
    labels = np.full((60, 10), 4)
    clip_labels = generator.integers(4, size=60)
    for clip, category in enumerate(clip_labels):
        start, end = sorted(generator.integers(0, 11, size=2))
        labels[clip, start:end] = category
    noise = generator.integers(5, size=labels.shape)
    predicted = np.where(generator.random(labels.shape) < 0.3, noise, labels)
    return labels, predicted, clip_labels


def events_by_loop(classes, background):
    """Return the events of all clips, found in a loop over segments."""
    events = []
    for clip, row in enumerate(classes):
        start = 0
        for end in range(1, len(row) + 1):
            if end == len(row) or row[end] != row[start]:
                if row[start] != background:
                    events.append((clip, row[start], start, end))
                start = end
    return events


def f1_by_loop(labels, predicted, background, iou):
    """Compute the F1 of events by greedy one-to-one matching in loops."""
    true, guessed = (events_by_loop(x, background) for x in (labels, predicted))
    free, right = list(true), 0
    for clip, category, start, end in guessed:
        for event in free:
            shared = min(end, event[3]) - max(start, event[2])
            union = max(end, event[3]) - min(start, event[2])
            if event[:2] == (clip, category) and shared / union >= iou:
                free.remove(event)
                right += 1
                break
    precision, recall = right / len(guessed), right / len(true)
    return 2 * precision * recall / (precision + recall)


def test_accuracy_counts_every_segment():
    # Each clip has one of its four segments wrong: 9 of 12 are right.
    assert evaluation.accuracy(LABELS, PREDICTED) == 9 / 12


def test_background_recall():
    # Six true background segments; the last segment is predicted as bark.
    assert evaluation.background_recall(LABELS, PREDICTED, BACKGROUND) == 5 / 6


def test_partial_clip_accuracy():
    # Only the first clip has event and background; 3 of its 4 segments are right.
    assert evaluation.partial_clip_accuracy(LABELS, PREDICTED, BACKGROUND) == 3 / 4
    np.testing.assert_array_equal(
        evaluation.partial_clips(LABELS, BACKGROUND), [True, False, False]
    )


def test_event_f1():
    # True: bark [1, 3) and violin [0, 4). Right: bark [1, 2) and violin [0, 2), both
    # with IoU 1/2. Wrong: bark [2, 3), violin [3, 4) with IoU 1/4, and bark [3, 4). So
    # 2 are right, of 2 true and 5 predicted.
    assert evaluation.event_f1(LABELS, PREDICTED, BACKGROUND) == 2 * 2 / (2 + 5)


@pytest.mark.parametrize(
    ("true", "predicted", "expected"),
    [
        pytest.param([0, 0, 0, 0, 2], [0, 0, 2, 2, 2], 1.0, id="IoU 1/2"),
        pytest.param([0, 0, 0, 0, 2], [0, 2, 2, 2, 2], 0.0, id="IoU 1/4"),
        pytest.param([0, 0, 0, 0, 2], [1, 1, 1, 1, 2], 0.0, id="another category"),
        pytest.param([0, 0, 2, 2, 2], [0, 0, 0, 0, 0], 0.0, id="too long"),
        pytest.param(
            [0, 0, 0, 0, 0], [0, 0, 0, 2, 0], 2 / 3, id="two predictions of one event"
        ),
        pytest.param(
            [0, 2, 0, 2, 0], [0, 2, 0, 2, 0], 1.0, id="three events of a category"
        ),
        pytest.param([2, 2, 2, 2, 2], [2, 2, 2, 2, 0], 0.0, id="a false alarm"),
        pytest.param([0, 2, 2, 2, 2], [2, 2, 2, 2, 2], 0.0, id="a miss"),
        pytest.param([2, 2, 2, 2, 2], [2, 2, 2, 2, 2], None, id="no event"),
    ],
)
def test_event_f1_case_by_case(true, predicted, expected):
    score = evaluation.event_f1(np.array([true]), np.array([predicted]), BACKGROUND)
    assert score == (None if expected is None else pytest.approx(expected))


def test_events_of_different_clips_never_match():
    labels = np.array([[2, 0], [2, 2]])
    predicted = np.array([[2, 2], [0, 2]])
    assert evaluation.event_f1(labels, predicted, BACKGROUND) == 0.0


@pytest.mark.parametrize("iou", [0.5, 0.6, 0.75, 1.0])
def test_event_f1_equals_a_plain_loop(random_split, iou):
    labels, predicted, _ = random_split
    assert evaluation.event_f1(labels, predicted, 4, iou) == pytest.approx(
        f1_by_loop(labels, predicted, 4, iou)
    )


@pytest.mark.parametrize("iou", [0.0, 0.49, 1.1])
def test_event_f1_refuses_an_ambiguous_threshold(iou):
    with pytest.raises(ValueError, match="iou"):
        evaluation.event_f1(LABELS, PREDICTED, BACKGROUND, iou)


def test_trivial_baselines():
    # 6 of 12 segments are background. The clip classes are right in the 2 + 4 event
    # segments and nowhere else.
    assert evaluation.trivial_baselines(LABELS, CLIP_LABELS, BACKGROUND) == {
        "always_background": 0.5,
        "perfect_clip_classifier": 0.5,
    }


def test_per_category_scores():
    assert evaluation.per_category(LABELS, PREDICTED, ["Bark", "Violin, fiddle"]) == [
        # Bark: 2 segments, predicted in 3, once right.
        {
            "category": "Bark",
            "segments": 2,
            "predicted": 3,
            "precision": 1 / 3,
            "recall": 1 / 2,
            "f1": 2 / 5,
        },
        {
            "category": "Violin, fiddle",
            "segments": 4,
            "predicted": 3,
            "precision": 1.0,
            "recall": 3 / 4,
            "f1": 6 / 7,
        },
        {
            "category": "Background",
            "segments": 6,
            "predicted": 6,
            "precision": 5 / 6,
            "recall": 5 / 6,
            "f1": 10 / 12,
        },
    ]


def test_ratios_with_a_zero_denominator_are_none():
    labels, predicted = np.array([[0, 0]]), np.array([[0, 0]])
    bark, violin, background = evaluation.per_category(labels, predicted, CATEGORIES)
    assert bark["f1"] == 1.0
    assert violin["precision"] is violin["recall"] is background["f1"] is None
    assert evaluation.background_recall(labels, predicted, BACKGROUND) is None
    assert evaluation.partial_clip_accuracy(labels, predicted, BACKGROUND) is None


def test_confusion_matrix_has_the_truth_in_rows():
    matrix = evaluation.confusion_matrix(LABELS, PREDICTED, 3)
    np.testing.assert_array_equal(matrix, [[1, 0, 1], [1, 3, 0], [1, 0, 5]])


def test_evaluate_by_hand():
    result = evaluation.evaluate(
        predictions_of(LABELS, PREDICTED, CLIP_LABELS), CATEGORIES
    )
    assert result["accuracy"] == 9 / 12
    # In every clip, 3 of 4 segments are right, so every resample of clips scores 0.75.
    assert result["interval"] == [0.75, 0.75]
    assert result["background_recall"] == 5 / 6
    assert result["event_f1"] == 4 / 7
    assert result["partial_clip_accuracy"] == 3 / 4
    assert result["trivial"] == {
        "always_background": 0.5,
        "perfect_clip_classifier": 0.5,
    }
    assert (result["num_clips"], result["num_segments"]) == (3, 12)
    assert result["confusion_matrix"] == [[1, 0, 1], [1, 3, 0], [1, 0, 5]]
    assert [row["category"] for row in result["per_category"]] == [
        *CATEGORIES,
        "Background",
    ]


def test_undefined_scores_are_none_and_json_ready():
    labels = np.array([[0, 0]])
    result = evaluation.evaluate(
        predictions_of(labels, labels, np.array([0])), CATEGORIES
    )
    assert result["background_recall"] is result["partial_clip_accuracy"] is None
    # A single clip has no interval: every resample contains the same clip.
    assert result["interval"] is None
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_two_unequal_batches_score_like_the_whole_split(random_split):
    whole = predictions_of(*random_split, num_classes=5)
    batches = [
        predictions_of(*(array[clips] for array in random_split), num_classes=5)
        for clips in (slice(0, 47), slice(47, 60))
    ]
    joined = Predictions(
        row=whole.row,
        logits=np.concatenate([batch.logits for batch in batches]),
        labels=np.concatenate([batch.labels for batch in batches]),
        clip_labels=np.concatenate([batch.clip_labels for batch in batches]),
    )
    names = ["a", "b", "c", "d"]
    expected = evaluation.evaluate(whole, names)
    assert evaluation.evaluate(joined, names) == expected
    # The mean of the batches' scores differs from the score of all clips.
    scores = [evaluation.evaluate(batch, names)["accuracy"] for batch in batches]
    assert np.mean(scores) != pytest.approx(expected["accuracy"])


def test_evaluate_equals_a_plain_loop(random_split):
    labels, predicted, clip_labels = random_split
    result = evaluation.evaluate(
        predictions_of(labels, predicted, clip_labels, num_classes=5),
        ["a", "b", "c", "d"],
    )
    right = found = true_background = partial_right = partial = 0
    matrix = np.zeros((5, 5), int)
    for true, guessed in zip(labels.tolist(), predicted.tolist(), strict=True):
        is_partial = 0 < true.count(4) < len(true)
        for truth, guess in zip(true, guessed, strict=True):
            right += truth == guess
            true_background += truth == 4
            found += truth == guess == 4
            partial += is_partial
            partial_right += is_partial and truth == guess
            matrix[truth, guess] += 1
    assert result["accuracy"] == pytest.approx(right / labels.size)
    assert result["background_recall"] == pytest.approx(found / true_background)
    assert result["partial_clip_accuracy"] == pytest.approx(partial_right / partial)
    assert result["event_f1"] == pytest.approx(f1_by_loop(labels, predicted, 4, 0.5))
    assert result["confusion_matrix"] == matrix.tolist()
    assert result["interval"][0] < result["accuracy"] < result["interval"][1]
    for index, row in enumerate(result["per_category"]):
        assert row["precision"] == matrix[index, index] / matrix[:, index].sum()
        assert row["recall"] == matrix[index, index] / matrix[index].sum()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_errors_about_invalid_logits_name_the_row(value):
    predictions = predictions_of(LABELS, PREDICTED, CLIP_LABELS)
    predictions.logits[1, 2, 0] = value
    with pytest.raises(ValueError, match=r"1 of 3 clips, first in row 101$"):
        evaluation.evaluate(predictions, CATEGORIES)


def test_evaluate_refuses_mismatched_predictions_and_categories():
    predictions = predictions_of(LABELS, PREDICTED, CLIP_LABELS)
    with pytest.raises(ValueError, match=r"4 classes.*Received: 3"):
        evaluation.evaluate(predictions, [*CATEGORIES, "Flute"])
    with pytest.raises(ValueError, match="Expected labels from 0 to 2"):
        evaluation.evaluate(
            predictions_of(LABELS + 1, PREDICTED, CLIP_LABELS), CATEGORIES
        )
    with pytest.raises(ValueError, match="at least one segment"):
        evaluation.evaluate(
            predictions_of(LABELS[:0], PREDICTED[:0], CLIP_LABELS[:0]), CATEGORIES
        )


def test_predictions_are_saved_and_loaded(tmp_path):
    path = tmp_path / "predictions.npz"
    predictions = predictions_of(LABELS, PREDICTED, CLIP_LABELS)
    path.write_text("an older file")
    predictions.save(path)
    loaded = Predictions.load(path)
    for name, dtype in (
        ("row", np.int64),
        ("logits", np.float32),
        ("labels", np.int64),
        ("clip_labels", np.int64),
    ):
        assert getattr(loaded, name).dtype == dtype
        np.testing.assert_array_equal(getattr(loaded, name), getattr(predictions, name))
    assert [file.name for file in tmp_path.iterdir()] == ["predictions.npz"]


def test_a_failed_save_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "predictions.npz"
    predictions = predictions_of(LABELS, PREDICTED, CLIP_LABELS)
    predictions.save(path)
    before = path.read_bytes()

    def full_disk(file, **arrays):
        file.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "savez", full_disk)
    with pytest.raises(OSError, match="No space"):
        predictions.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def truncated(path):
    path.write_bytes(path.read_bytes()[:300])


def flipped(path):
    content = bytearray(path.read_bytes())
    content[300] ^= 0xFF
    path.write_bytes(bytes(content))


def without_logits(path):
    np.savez(path, row=np.arange(3), labels=LABELS, clip_labels=CLIP_LABELS)


def other_shapes(path):
    np.savez(path, row=[1], logits=np.zeros((3, 4, 3)), labels=LABELS, clip_labels=[0])


def other_file_type(path):
    with path.open("wb") as file:
        np.save(file, LABELS)


@pytest.mark.parametrize(
    "spoil",
    [
        Path.unlink,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("not an archive"),
        lambda path: path.write_bytes(b"PK\x03\x04 but nothing more"),
        truncated,
        flipped,
        without_logits,
        other_shapes,
        other_file_type,
    ],
    ids=lambda spoil: spoil.__name__,
)
def test_errors_of_broken_files_name_the_file(tmp_path, spoil):
    path = tmp_path / "predictions.npz"
    predictions_of(LABELS, PREDICTED, CLIP_LABELS).save(path)
    spoil(path)
    with pytest.raises(ValueError, match="Received") as caught:
        Predictions.load(path)
    assert "predictions.npz" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_predictions_refuse_mismatched_shapes():
    with pytest.raises(ValueError, match=r"labels \(N, T\).* labels \(3, 3\)"):
        Predictions(np.arange(3), as_logits(PREDICTED), LABELS[:, :3], CLIP_LABELS)


def test_multi_label_predictions_are_saved_and_loaded(tmp_path):
    labels = np.array([[[0, 1], [1, 1], [-1, -1]]])
    predictions = Predictions([7], np.zeros((1, 3, 2)), labels, [0])
    assert predictions.multi_label
    predictions.save(tmp_path / "predictions.npz")
    loaded = Predictions.load(tmp_path / "predictions.npz")
    assert loaded.multi_label
    assert loaded.labels.dtype == np.int8
    np.testing.assert_array_equal(loaded.labels, labels)
    assert not predictions_of(LABELS, PREDICTED, CLIP_LABELS).multi_label
    with pytest.raises(ValueError, match="-1, 0 and 1"):
        Predictions([7], np.zeros((1, 3, 2)), 2 * labels, [0])
    with pytest.raises(ValueError, match=r"labels \(N, T, K\)"):
        Predictions([7], np.zeros((1, 3, 3)), labels, [0])


@pytest.fixture(scope="module")
def official_test_labels():
    """Segment classes, `(402, 10)`, of AVE's released test split."""
    h5py = pytest.importorskip("h5py")
    if not (OFFICIAL / "labels.h5").exists():
        pytest.skip("AVE's released labels are not in shared/ave_official")
    with h5py.File(OFFICIAL / "labels.h5") as file:
        labels = file["avadataset"][()].argmax(axis=2)
    with h5py.File(OFFICIAL / "test_order.h5") as file:
        return labels[file["order"][()]]


def test_trivial_baselines_of_the_real_test_split(official_test_labels):
    labels = official_test_labels
    assert labels.shape == (402, 10)
    # A clip's category is its smallest label, because background has the largest.
    scores = evaluation.trivial_baselines(labels, labels.min(axis=1), 28)
    assert scores == {
        "always_background": 715 / 4020,
        "perfect_clip_classifier": 3305 / 4020,
    }
    assert f"{scores['always_background']:.2%}" == "17.79%"
    assert f"{scores['perfect_clip_classifier']:.2%}" == "82.21%"


def test_perfect_clip_classifier_finds_no_background(official_test_labels):
    labels = official_test_labels
    predicted = np.repeat(labels.min(axis=1, keepdims=True), 10, axis=1)
    assert evaluation.background_recall(labels, predicted, 28) == 0.0
    assert evaluation.event_f1(labels, labels, 28) == 1.0

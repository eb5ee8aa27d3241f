"""Reports of many categories and long videos: nothing grows quadratically."""

import json
import tracemalloc

import numpy as np
import pytest
from matplotlib import image

from avsdn_tf import evaluation
from avsdn_tf.events import VideoPrediction, events_from_probabilities
from avsdn_tf.report import event_files, figures, player, run_report
from avsdn_tf.run_folder import RunFolder


def _predictions(num_categories, num_clips=20, num_segments=10):
    rng = np.random.default_rng(0)
    shape = (num_clips, num_segments)
    labels = rng.integers(0, num_categories + 1, shape)
    logits = rng.random((*shape, num_categories + 1), np.float32)
    return evaluation.Predictions(np.arange(num_clips), logits, labels, labels[:, 0])


def _video(num_categories, num_segments, name="Category {}"):
    rng = np.random.default_rng(0)
    probabilities = rng.random((num_segments, num_categories + 1), np.float32)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    categories = tuple(name.format(i) for i in range(num_categories))
    events = tuple(events_from_probabilities(probabilities, categories))
    return VideoPrediction("long.mp4", categories, probabilities, 1.0, events, None)


def _report(path, num_categories, name="Category {}", **shape):
    folder = RunFolder(path)
    folder.write_config({}, "hash")
    predictions = _predictions(num_categories, **shape)
    categories = [name.format(i) for i in range(num_categories)]
    epoch = dict.fromkeys(("loss", "accuracy", "validation_accuracy", "seconds"), 0.5)
    scores = evaluation.evaluate(predictions, categories)
    run_report.write_run_report(
        folder,
        disclaimer=None,
        command="avsdn",
        settings={"mode": "weak", "model": "avsdn", "dataset": "custom"},
        history=[{"epoch": 1, **epoch}],
        scores={**scores, "validation_accuracy": 0.5, "dataset_hash": "hash"},
        predictions=predictions,
        categories=categories,
    )
    return folder


def _height(path):
    return image.imread(path).shape[0]


def test_reports_of_few_classes_keep_the_confusion_matrix():
    report = evaluation.evaluate(_predictions(47), [str(i) for i in range(47)])
    assert np.sum(report["confusion_matrix"]) == 200
    report = evaluation.evaluate(_predictions(48), [str(i) for i in range(48)])
    assert report["confusion_matrix"] is None


def test_the_most_confused_pairs_are_listed_first():
    labels = np.array([[0, 0, 0, 1, 1, 2]])
    predicted = np.array([[1, 1, 0, 0, 1, 0]])
    assert evaluation.most_confused(labels, predicted, ["Bark", "Flute"]) == [
        {"category": "Bark", "predicted": "Flute", "segments": 2, "of": 3},
        {"category": "Flute", "predicted": "Bark", "segments": 1, "of": 2},
        {"category": "Background", "predicted": "Bark", "segments": 1, "of": 1},
    ]
    right = evaluation.most_confused(labels, labels, ["Bark", "Flute"])
    assert right == []
    figures.most_confused(right)


@pytest.mark.parametrize("num_categories", [527, 10_000])
def test_a_report_of_many_categories_is_small(tmp_path, num_categories):
    folder = _report(tmp_path, num_categories)
    report = json.loads(folder.report.read_text())
    assert report["confusion_matrix"] is None
    assert len(report["most_confused"]) == 30
    assert len(report["per_category"]) == num_categories + 1
    assert folder.report.stat().st_size < 20_000 + 250 * num_categories
    assert folder.page.stat().st_size < 1_000_000 + 300 * num_categories
    for name in ("confusion", "timelines"):
        assert _height(tmp_path / f"{name}.png") < 2500


def test_scores_of_many_categories_need_little_memory():
    predictions, categories = _predictions(10_000), list(map(str, range(10_000)))
    tracemalloc.start()
    evaluation.evaluate(predictions, categories)
    # A matrix of 10,001 classes takes 800 MB.
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()


def test_reports_accept_long_clips_and_long_names(tmp_path):
    shape = {"num_clips": 2, "num_segments": 4000}
    folder = _report(tmp_path, 30, "Category {}" + "x" * 6000, **shape)
    assert folder.page.stat().st_size < 2_000_000
    for name in ("confusion", "timelines"):
        assert max(image.imread(tmp_path / f"{name}.png").shape) < 3000


@pytest.mark.parametrize(
    ("num_categories", "num_segments"), [(3000, 1000), (5, 20_000)]
)
def test_files_of_a_long_video_are_small(tmp_path, num_categories, num_segments):
    found = _video(num_categories, num_segments, "Category {}" + "x" * 100)
    paths = event_files.write_event_files(tmp_path, "long", found)
    figures.save(figures.prediction(found), tmp_path / "long.png")
    (tmp_path / "long.mp4").write_bytes(b"")
    page = tmp_path / "long.html"
    player.write_player_page(page, found, tmp_path / "long.mp4")
    assert max(image.imread(tmp_path / "long.png").shape) < 2500
    for path in (*paths, page):
        assert path.stat().st_size < 500 * (num_segments + num_categories)
    assert page.read_text().count('class="lane event"') == min(48, num_categories)


def test_a_large_prediction_keeps_the_most_probable_classes(tmp_path):
    found = _video(3000, 1000)
    path, _, _ = event_files.write_event_files(tmp_path, "long", found)
    content = json.loads(path.read_text())
    assert "probabilities" not in content
    assert len(content["most_probable"]) == 1000
    first = content["most_probable"][0]
    values = found.probabilities[0]
    assert [index for index, _ in first] == np.argsort(-values)[:5].tolist()
    largest = np.sort(values)[:-6:-1]
    np.testing.assert_allclose([value for _, value in first], largest, atol=1e-6)


def test_events_of_a_day_are_counted_in_linear_memory():
    labels = np.random.default_rng(0).integers(0, 3, (2, 86_400))
    tracemalloc.start()
    assert 0 < evaluation.event_f1(labels, np.roll(labels, 1, axis=1), 2) < 1
    assert evaluation.event_f1(labels, labels, 2) == 1
    assert tracemalloc.get_traced_memory()[1] < 100e6
    tracemalloc.stop()

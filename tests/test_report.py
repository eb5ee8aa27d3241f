import io
import re
import warnings

import numpy as np
import pytest
from matplotlib import image
from rich.console import Console

from avsdn_tf import evaluation
from avsdn_tf.events import Event
from avsdn_tf.report import figures, page
from avsdn_tf.events import VideoPrediction
from avsdn_tf.report.progress import TrainingProgress
from avsdn_tf.report.scores import list_scores, percent
from avsdn_tf.report.terminal import results_table

CATEGORIES = ["Bark", "Violin, fiddle", "<Frying> & co."]


@pytest.fixture
def predictions():
    # Two clips; the second is half background. 17 of 20 segments are right.
    labels = np.array([[0] * 10, [3] * 5 + [2] * 5])
    predicted = labels.copy()
    predicted[0, :3] = 1
    return evaluation.Predictions(
        row=np.array([7, 9]),
        logits=np.eye(4)[predicted] * 5,
        labels=labels,
        clip_labels=np.array([0, 2]),
    )


@pytest.fixture
def report(predictions):
    return {
        **evaluation.evaluate(predictions, CATEGORIES),
        "validation_accuracy": 0.5,
        "selected_epoch": 2,
        "epochs_run": 3,
        "seconds": 61.0,
    }


HISTORY = [
    {"epoch": 1, "loss": 0.3, "accuracy": 0.2, "validation_accuracy": 0.3},
    {"epoch": 2, "loss": 0.2, "accuracy": 0.4, "validation_accuracy": 0.5},
    {"epoch": 3, "loss": 0.1, "accuracy": 0.6, "validation_accuracy": 0.4},
]


def test_scores_come_with_their_baselines(report):
    scores = {score.name: score for score in list_scores(report)}
    assert scores["Accuracy"].value == 17 / 20
    assert scores["Accuracy"].interval == tuple(report["interval"])
    assert scores["Always background"].value == 5 / 20
    assert scores["Perfect clip classifier"].value == 15 / 20
    assert scores["Always background"].is_baseline
    assert not scores["Event F1 at IoU 0.5"].is_baseline
    assert percent(0.8546) == "85.5 %"
    assert percent(None) == "n/a"


def test_terminal_table_fits_80_columns_and_keeps_brackets(report):
    console = Console(width=80, file=None, record=True, quiet=False)
    with console.capture() as capture:
        console.print(results_table(report, "run [b]1", "these are not AVE results"))
    text = capture.get()
    assert "85.0 %" in text
    assert "run [b]1" in text
    assert "these are not AVE results" in text
    assert max(map(len, text.splitlines())) <= 80


def test_curves_show_both_accuracies_and_the_selected_epoch():
    loss, accuracy = figures.learning_curves(HISTORY, selected_epoch=2).axes
    assert loss.get_xlabel() == accuracy.get_xlabel() == "epoch"
    curves = {line.get_label(): line.get_ydata() for line in accuracy.lines}
    np.testing.assert_allclose(curves["training"], [20, 40, 60])
    np.testing.assert_allclose(curves["validation"], [30, 50, 40])
    assert any(list(line.get_xdata()) == [2, 2] for line in accuracy.lines)


def test_a_picture_says_what_must_be_said_of_its_data(tmp_path, monkeypatch):
    written = []
    write_png = figures.Figure.savefig

    def spy(figure, *args, **kwargs):
        written.append([text.get_text() for text in figure.texts])
        write_png(figure, *args, **kwargs)

    monkeypatch.setattr(figures.Figure, "savefig", spy)
    figure = figures.learning_curves(HISTORY, selected_epoch=2)
    figures.save(figure, tmp_path / "bare.png")
    figures.save(figure, tmp_path / "told.png", "Simulated $data$")
    assert written == [[], ["Simulated $data$"]]
    # Below the picture, which is as it was.
    bare, told = (image.imread(tmp_path / f"{name}.png") for name in ("bare", "told"))
    assert told.shape[0] > bare.shape[0]
    assert not figure.texts


def count_bands(path):
    """Returns in how many bands, with white between them, a picture holds something."""
    is_drawn = (image.imread(path)[..., :3] < 1).any(axis=(1, 2))
    return (np.diff(is_drawn.astype(int), prepend=0) == 1).sum()


@pytest.mark.parametrize("kind", ["curves", "video"])
def test_what_is_said_of_the_data_covers_no_legend(tmp_path, kind):
    if kind == "curves":
        figure = figures.learning_curves(HISTORY, selected_epoch=2)
    else:
        probabilities = np.array([[0.9, 0.1], [0.1, 0.9]])
        events = (Event(0.0, 1.0, "Bark", 0.9),)
        figure = figures.prediction(
            VideoPrediction("a.mp4", ("Bark",), probabilities, 1.0, events, None)
        )
    for name, notice in (("bare", None), ("told", "Simulated"), ("again", None)):
        figures.save(figure, tmp_path / f"{name}.png", notice)
    bare, told, again = (
        count_bands(tmp_path / f"{name}.png") for name in ("bare", "told", "again")
    )
    assert told == bare + 1
    assert again == bare


def test_timelines_draw_an_event_as_one_bar_where_it_is():
    truth = np.array([3, 3, 0, 0, 0, 3])
    predicted = np.array([0, 0, 0, 0, 1, 1])
    clip = figures.TimelineClip("row 7", truth, {"avsdn": predicted})
    (axes,) = figures.timelines([clip], CATEGORIES, segment_s=2.0).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["truth", "avsdn"]
    bars = {(patch.get_x(), patch.get_width()) for patch in axes.patches}
    # The truth from 4 s to 10 s; two predicted events; and the empty track of 12 s.
    assert bars == {(4, 6), (0, 8), (8, 4), (0, 12)}
    assert axes.get_xlabel() == "time (s)"
    assert "2/6" in [text.get_text() for text in axes.texts]
    with pytest.raises(ValueError, match="at least one clip"):
        figures.timelines([], CATEGORIES)


def test_a_long_name_leaves_place_for_the_timeline():
    truth = np.array([3, 3, 0, 0])
    clip = figures.TimelineClip("row 7", truth, {f"first{200 * 'x'}last": truth})
    (axes,) = figures.timelines([clip], CATEGORIES).axes
    _, shown = (label.get_text() for label in axes.get_yticklabels())
    assert re.fullmatch(r"firstx+…x+last", shown)
    assert 4 < axes.get_position().width * 9 < 6


def test_the_legend_of_a_video_names_every_curve():
    probabilities = np.array([[0.9, 0.0, 0.1], [0.1, 0.0, 0.9]])
    events = (Event(0.0, 1.0, "_hum", 0.9),)
    found = VideoPrediction("a.mp4", ("_hum", "Bark"), probabilities, 1.0, events, None)
    (legend,) = figures.prediction(found).legends
    assert [text.get_text() for text in legend.get_texts()] == ["_hum", "Background"]


def test_clips_are_chosen_by_rule():
    labels = np.full((6, 10), 3)
    labels[:5, :5] = 0  # The last clip is background throughout: not partial.
    predicted = labels.copy()
    for clip, wrong in enumerate([3, 0, 1, 4, 2]):
        predicted[clip, :wrong] = 1
    assert figures.choose_clips(labels, predicted, 3, count=3) == [1, 4, 3]
    assert len(figures.choose_clips(labels, predicted, 3, count=50)) == 6


def test_confusion_refuses_another_number_of_classes():
    with pytest.raises(ValueError, match=r"shape \(4, 4\).*\(3, 3\)"):
        figures.confusion(np.zeros((3, 3)), CATEGORIES)


def test_page_needs_nothing_else_and_escapes_names(report, predictions, tmp_path):
    predicted = predictions.logits.argmax(-1)
    drawn = {
        "learning_curves": figures.learning_curves(HISTORY, 2),
        "timelines": figures.timelines(
            [figures.TimelineClip("row 9", predictions.labels[1], {"a": predicted[1]})],
            CATEGORIES,
        ),
        "confusion": figures.confusion(report["confusion_matrix"], CATEGORIES),
    }
    path = tmp_path / "report.html"
    page.write_page(
        path,
        title="avsdn <1>",
        notice="these are not AVE results",
        command="python -m avsdn_tf.main --mode=weak",
        config={"units": 128},
        versions={"keras": "3.15"},
        report=report,
        figures=drawn,
    )
    text = path.read_text()
    assert "avsdn &lt;1&gt;" in text
    assert "&lt;Frying&gt; &amp; co." in text
    assert "<Frying>" not in text
    assert "these are not AVE results" in text
    assert "85.0 %" in text
    assert "prefers-color-scheme: dark" in text
    assert text.count("<svg") == 3
    labels = re.findall(r'<svg role="img" aria-label="([^"]+)"', text)
    assert len(labels) == len(set(labels)) == 3
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in re.findall(r'href="(#[^"]+)"', text)} <= set(ids)
    # Names of XML vocabularies are no requests; everything else would be.
    links = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"')\s>]+)""", text)
    assert all(link.startswith("#") for link in links)
    assert "@import" not in text
    assert [item.name for item in tmp_path.iterdir()] == ["report.html"]


def test_a_terminal_shows_loss_accuracy_and_the_time_left():
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=120)
    with TrainingProgress(console) as progress:
        progress.set_params({"epochs": 2, "steps": 4})
        progress.on_train_begin()
        progress.on_epoch_begin(0)
        progress.on_train_batch_end(1, {"loss": 0.12345, "accuracy": 0.5})
        progress._bar.refresh()
        progress.on_epoch_end(
            0, {"loss": 0.1, "accuracy": 0.75, "validation_accuracy": 0.5}
        )
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.getvalue())
    assert re.search(r"2/8 loss 0\.1235  accuracy 50\.0% .* at most .* left", text)
    assert "epoch   1/2   loss 0.1000   accuracy  75.0%   validation  50.0%" in text


def test_names_that_the_font_lacks_warn_nobody(tmp_path):
    categories = ["犬", "Violin"]
    matrix = np.eye(3, dtype=int)
    drawn = figures.confusion(matrix, categories)
    clip = figures.TimelineClip("row 1", np.zeros(4, int), {"a": np.zeros(4, int)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures.save(drawn, tmp_path / "confusion.png")
        page._svg("confusion", figures.confusion(matrix, categories))
        page._svg("timelines", figures.timelines([clip], categories))


def test_the_picture_of_a_video_that_starts_late_is_in_the_players_time():
    found = VideoPrediction(
        name="late.mp4",
        categories=("Bark",),
        probabilities=np.array([[0.9, 0.1], [0.2, 0.8]]),
        segment_s=1.0,
        events=(Event(3.0, 4.0, "Bark", 0.9),),
        notice=None,
        start_s=3.0,
    )
    lanes, curves = figures.prediction(found).axes
    assert curves.get_xlim() == (3, 5)
    for line in curves.get_lines():
        np.testing.assert_array_equal(line.get_xdata(), [3.5, 4.5])
    (bars,) = lanes.collections
    assert bars.get_paths()[0].get_extents().x0 == 3

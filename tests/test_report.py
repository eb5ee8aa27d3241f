import html.parser
import io
import json
import pathlib
import re
import shutil
import subprocess
import warnings

import jinja2
import numpy as np
import pytest
from matplotlib import image
from matplotlib.figure import Figure
from rich.console import Console

from avsdn_tf import cross_modality, evaluation
from avsdn_tf.errors import UserError
from avsdn_tf.events import Event, VideoPrediction
from avsdn_tf.report import figures, run_report, templating
from avsdn_tf.report.scores import list_scores, percent
from avsdn_tf.report.terminal import (
    TrainingProgress,
    extraction_progress,
    open_console,
    results_table,
    spinner,
)
from avsdn_tf.run_folder import RunFolder

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


def test_scores_are_printed_with_their_baselines(report):
    scores = {score.name: score for score in list_scores(report)}
    assert scores["Accuracy"].value == 17 / 20
    assert scores["Accuracy"].interval == report["interval"]
    assert scores["Always background"].value == 5 / 20
    assert scores["Perfect clip classifier"].value == 15 / 20
    assert scores["Always background"].is_baseline
    assert not scores["Event F1 at IoU 0.5"].is_baseline
    assert percent(0.8546) == "85.5 %"
    assert percent(None) == "n/a"
    assert "of 1 clip;" in list_scores({**report, "num_clips": 1})[0].meaning


def test_terminal_table_fits_80_columns_and_keeps_brackets(report):
    console = Console(width=80, file=None, record=True, quiet=False)
    with console.capture() as capture:
        console.print(
            results_table(
                {
                    **report,
                    **{"mode": "weak", "model": "run [b]1", "dataset": "ave"},
                    "disclaimer": "these are not AVE results",
                }
            )
        )
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


def test_a_figure_shows_its_disclaimer(tmp_path, monkeypatch):
    written = []
    write_png = Figure.savefig

    def spy(figure, *args, **kwargs):
        written.extend(text.get_text() for text in figure.texts)
        write_png(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", spy)
    figure = figures.learning_curves(HISTORY, selected_epoch=2)
    figures.save(figure, tmp_path / "bare.png")
    figures.save(figure, tmp_path / "marked.png", "Simulated $data$")
    assert written == ["", "Simulated $data$"]
    # The disclaimer is below the picture, and the figure is unchanged.
    bare, marked = (
        image.imread(tmp_path / f"{name}.png") for name in ("bare", "marked")
    )
    assert marked.shape[0] > bare.shape[0]
    assert not figure.texts


def count_bands(path):
    """Count the bands of a picture that are separated by white rows."""
    is_drawn = (image.imread(path)[..., :3] < 1).any(axis=(1, 2))
    return (np.diff(is_drawn.astype(int), prepend=0) == 1).sum()


@pytest.mark.parametrize("kind", ["curves", "video"])
def test_the_disclaimer_of_a_figure_covers_no_legend(tmp_path, kind):
    if kind == "curves":
        figure = figures.learning_curves(HISTORY, selected_epoch=2)
    else:
        probabilities = np.array([[0.9, 0.1], [0.1, 0.9]])
        events = (Event(0.0, 1.0, "Bark", 0.9),)
        figure = figures.prediction(
            VideoPrediction("a.mp4", ("Bark",), probabilities, 1.0, events, None)
        )
    for name, disclaimer in (("bare", None), ("marked", "Simulated"), ("again", None)):
        figures.save(figure, tmp_path / f"{name}.png", disclaimer)
    bare, marked, again = (
        count_bands(tmp_path / f"{name}.png") for name in ("bare", "marked", "again")
    )
    assert marked == bare + 1
    assert again == bare


def test_timelines_draw_an_event_as_one_bar_at_its_time():
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


def test_a_long_name_leaves_space_for_the_timeline(tmp_path):
    truth = np.array([3, 3, 0, 0])
    clip = figures.TimelineClip("row 7", truth, {f"first{200 * 'x'}last": truth})
    figure = figures.timelines([clip], CATEGORIES)
    _, shown = (label.get_text() for label in figure.axes[0].get_yticklabels())
    assert re.fullmatch(r"firstx+…x+last", shown)
    figures.save(figure, tmp_path / "long.png")
    width_in = image.imread(tmp_path / "long.png").shape[1] / 150
    assert width_in < 1.5 * figure.get_size_inches()[0]


def test_a_name_is_drawn_in_its_bar_or_in_the_legend():
    truth = np.array([1, 3, 1, 1, 1, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3])
    clip = figures.TimelineClip("row 7", truth, {})
    (axes,) = figures.timelines([clip], ["Bark", "Violin, fiddle", "Frying"]).axes
    on_bars = {text.get_text() for text in axes.texts} - {"row 7"}
    assert on_bars == {"Violin", "Violin, fiddle"}
    named = [text.get_text() for text in axes.get_legend().get_texts()]
    assert named == ["background", "Violin, fiddle"]


def test_the_legend_of_a_video_names_every_curve():
    probabilities = np.array([[0.9, 0.0, 0.1], [0.1, 0.0, 0.9]])
    events = (Event(0.0, 1.0, "_hum", 0.9),)
    found = VideoPrediction("a.mp4", ("_hum", "Bark"), probabilities, 1.0, events, None)
    (legend,) = figures.prediction(found).legends
    assert [text.get_text() for text in legend.get_texts()] == ["_hum", "Background"]


def test_clips_of_timelines_are_chosen_by_accuracy():
    labels = np.full((6, 10), 3)
    labels[:5, :5] = 0  # The last clip is all background, so it is no candidate.
    predicted = labels.copy()
    for clip, wrong in enumerate([3, 0, 1, 4, 2]):
        predicted[clip, :wrong] = 1
    assert figures.choose_clips(labels, predicted, 3, count=3) == [1, 4, 3]
    assert len(figures.choose_clips(labels, predicted, 3, count=50)) == 6


def test_confusion_refuses_a_wrong_number_of_classes():
    with pytest.raises(ValueError, match=r"shape \(4, 4\).*\(3, 3\)"):
        figures.confusion(np.zeros((3, 3)), CATEGORIES)


def test_page_is_self_contained_and_escapes_names(report, predictions):
    predicted = predictions.logits.argmax(-1)
    drawn = {
        "learning_curves": figures.learning_curves(HISTORY, 2),
        "timelines": figures.timelines(
            [figures.TimelineClip("row 9", predictions.labels[1], {"a": predicted[1]})],
            CATEGORIES,
        ),
        "confusion": figures.confusion(report["confusion_matrix"], CATEGORIES),
    }
    text = run_report.render_page(
        {**report, "disclaimer": "these are not AVE results"},
        drawn,
        title="avsdn <1>",
        command="python -m avsdn_tf.main --mode=weak",
        settings={"units": 128},
        versions={"keras": "3.15"},
    )
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
    # All links lead to places in the page.
    links = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"')\s>]+)""", text)
    assert all(link.startswith("#") for link in links)
    assert "@import" not in text


def show_training(console):
    """Show the progress of a step on a console."""
    with TrainingProgress(console) as progress:
        progress.set_params({"epochs": 2, "steps": 4})
        progress.on_train_begin()
        progress.on_epoch_begin(0)
        progress.on_train_batch_end(1, {"loss": 0.12345, "accuracy": 0.5})
        progress._bar.refresh()


def test_no_progress_bar_is_shown_without_a_terminal(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # Jupyter sets this variable.
    shown = io.StringIO()
    console = open_console(shown)
    show_training(console)
    with spinner(console, "dog.mp4"):
        pass
    with extraction_progress(console, 1) as on_done:
        on_done(pathlib.Path("dog.mp4"), None)
    assert re.sub(r"\x1b\[[0-9;]*m", "", shown.getvalue()) == "1/1 dog.mp4\n"


def test_a_terminal_shows_loss_accuracy_and_the_time_left():
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=120)
    show_training(console)
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.getvalue())
    assert re.search(r"2/8 loss 0\.1235  accuracy 50\.0% .* at most .* left", text)


def test_names_missing_from_the_font_give_no_warning(tmp_path):
    categories = ["犬", "Violin"]
    matrix = np.eye(3, dtype=int)
    drawn = figures.confusion(matrix, categories)
    clip = figures.TimelineClip("row 1", np.zeros(4, int), {"a": np.zeros(4, int)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures.save(drawn, tmp_path / "confusion.png")
        figures.to_svg(figures.confusion(matrix, categories), "confusion", "")
        figures.to_svg(figures.timelines([clip], categories), "timelines", "")


def test_the_figure_of_a_video_starts_at_its_first_timestamp():
    found = VideoPrediction(
        name="late.mp4",
        categories=("Bark",),
        probabilities=np.array([[0.9, 0.1], [0.2, 0.8]]),
        segment_s=1.0,
        events=(Event(3.0, 4.0, "Bark", 0.9),),
        disclaimer=None,
        start_s=3.0,
    )
    lanes, curves = figures.prediction(found).axes
    assert curves.get_xlim() == (3, 5)
    for line in curves.get_lines():
        np.testing.assert_array_equal(line.get_xdata(), [3.5, 4.5])
    (bars,) = lanes.collections
    assert bars.get_paths()[0].get_extents().x0 == 3


def test_a_figure_accepts_a_disclaimer_wider_than_the_figure(tmp_path):
    figure = figures.confusion(np.eye(2, dtype=int), ["Bark"])
    figures.save(figure, tmp_path / "bare.png")
    figures.save(figure, tmp_path / "marked.png", 40 * "simulated " + "\nand more")
    bare, marked = (
        image.imread(tmp_path / f"{name}.png") for name in ("bare", "marked")
    )
    assert marked.shape[0] > bare.shape[0]
    assert marked.shape[1] < 1.1 * bare.shape[1]


class _Nesting(html.parser.HTMLParser):
    """Checks that every element is closed in order."""

    VOID = frozenset({"br", "hr", "img", "input", "link", "meta"})

    def __init__(self, text):
        super().__init__()
        self.open = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, names)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, self.getpos()


@pytest.mark.parametrize("name", templating.ENVIRONMENT.list_templates())
def test_templates_escape_and_refuse_missing_values(name):
    template = templating.ENVIRONMENT.get_template(name)
    assert templating.ENVIRONMENT.autoescape is True
    if name in ("page.html", "player.html"):
        with pytest.raises(jinja2.UndefinedError):
            template.render()


@pytest.mark.parametrize(
    "path", sorted(templating.STATIC.iterdir()), ids=lambda p: p.name
)
def test_static_files_can_be_embedded_in_a_page(path):
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"</(script|style)|url\(|@import", text)
    node = shutil.which("node")
    if path.suffix == ".js" and node:
        subprocess.run([node, "--check", path], check=True)
    if path.suffix == ".css":
        assert text.count("{") == text.count("}")


def _run_folder(path):
    folder = RunFolder(path)
    folder.write_config({"model": "avsdn"}, "hash")
    folder.metrics.write_text(
        "epoch,loss,accuracy,validation_accuracy,seconds\n"
        "1,0.3,0.2,0.3,20.0\n2,0.2,0.4,0.5,21.0\n3,0.1,0.6,0.5,20.0\n"
    )
    return folder


def _write(folder, scores, predictions, **changes):
    values = {
        "disclaimer": "Simulated <data>",
        "command": "python -m avsdn_tf.main",
        "settings": {"mode": "weak", "model": "avsdn <1>", "dataset": "ave", "seed": 1},
        "history": run_report.read_history(folder),
        "scores": {**scores, "validation_accuracy": 0.5, "dataset_hash": "hash"},
        "predictions": predictions,
        "categories": CATEGORIES,
    }
    return run_report.write_run_report(folder, **(values | changes))


def test_a_run_folder_gets_its_report(predictions, tmp_path):
    folder = _run_folder(tmp_path)
    scores = evaluation.evaluate(predictions, CATEGORIES)
    report = _write(folder, scores, predictions)
    assert json.loads(folder.report.read_text()) == report
    assert report["accuracy"] == 17 / 20
    # Epochs 2 and 3 have equal scores: the earlier epoch is selected.
    assert (report["selected_epoch"], report["epochs_run"]) == (2, 3)
    assert report["seconds"] == 61
    assert report["dataset_hash"] == "hash"
    assert report["disclaimer"] == "Simulated <data>"
    names = [report[name] for name in ("mode", "model", "dataset")]
    assert names == ["weak", "avsdn <1>", "ave"]
    pictures = {path.stem for path in tmp_path.glob("*.png")}
    assert pictures == {"learning_curves", "timelines", "confusion"}
    text = folder.page.read_text(encoding="utf-8")
    _Nesting(text)
    assert "Simulated &lt;data&gt;" in text
    assert "Simulated <data>" not in text
    assert "<td>seed</td><td>1</td>" in text


@pytest.fixture
def overlapping(rng):
    """Return multi-label predictions for clips of 2 to 6 segments."""
    true = rng.integers(0, 2, (12, 6, 3))
    lengths = rng.integers(2, 7, 12)
    labels = np.where(np.arange(6)[:, None] < lengths[:, None, None], true, -1)
    logits = 2 * (true - 0.5) + rng.normal(size=true.shape)
    return evaluation.Predictions(np.arange(12), logits, labels, np.zeros(12))


def test_a_multi_label_run_gets_its_report(overlapping, tmp_path):
    folder = _run_folder(tmp_path)
    text = folder.metrics.read_text()
    folder.metrics.write_text(text.replace("validation_accuracy", "validation_f1"))
    scores = evaluation.evaluate(overlapping, CATEGORIES, [0.5, 0.4 + 1e-9, 0.6])
    scores |= {"validation_f1": 0.5, "selection": "validation_f1"}
    report = _write(folder, scores, overlapping)
    assert json.loads(folder.report.read_text()) == report
    assert (report["selected_epoch"], report["selection"]) == (2, "validation_f1")
    pictures = {path.stem for path in tmp_path.glob("*.png")}
    assert pictures == {"learning_curves", "timelines"}
    page = folder.page.read_text(encoding="utf-8")
    _Nesting(page)
    assert "<td>0.4</td>" in page
    assert "Confusion" not in page
    lines = {score.name: score for score in list_scores(report)}
    assert lines["Segment F1"].value == report["segment_f1"]
    assert lines["Segment F1"].interval == report["intervals"]["segment_f1"]
    assert lines["Validation F1"].value == 0.5
    assert not {"Accuracy", "Always background"} & set(lines)
    console = Console(width=80, file=io.StringIO())
    console.print(results_table(report))
    assert "Segment F1" in console.file.getvalue()


def test_a_report_shows_attention_maps_of_the_clips_of_its_timelines(
    overlapping, tmp_path, monkeypatch
):
    folder = _run_folder(tmp_path)
    text = folder.metrics.read_text()
    folder.metrics.write_text(text.replace("validation_accuracy", "validation_f1"))
    scores = evaluation.evaluate(overlapping, CATEGORIES)
    scores |= {"validation_f1": 0.5, "selection": "validation_f1"}
    asked, drawn = [], []

    def attention_of(clips):
        asked.extend(clips)
        lengths = overlapping.is_real[clips].sum(axis=1)
        return [np.full((length, 2, 2), 0.25) for length in lengths]

    draw = figures.attention
    monkeypatch.setattr(figures, "attention", lambda c: drawn.extend(c) or draw(c))
    _write(folder, scores, overlapping, attention_of=attention_of)
    assert len(asked) == len(set(asked)) == 8
    for index, clip in zip(asked, drawn, strict=True):
        assert clip.title.startswith(f"row {overlapping.row[index]}, F1")
        is_event = (overlapping.labels[index] == 1).any(axis=1)
        np.testing.assert_array_equal(clip.is_event, is_event)
    assert (tmp_path / "attention.png").is_file()
    page = folder.page.read_text(encoding="utf-8")
    _Nesting(page)
    assert page.count("data:image/png") == overlapping.is_real[asked].sum()
    # Without maps, the report has no picture of them.
    (tmp_path / "attention.png").unlink()
    _write(folder, scores, overlapping, attention_of=lambda _: None)
    assert not (tmp_path / "attention.png").exists()
    assert "Where it looked" not in folder.page.read_text(encoding="utf-8")


def test_padding_is_not_drawn():
    truth = np.array([0, 0, 3, -1, -1])
    clip = figures.TimelineClip("row 7", truth, {"avsdn": np.array([0, 1, 1, 1, 1])})
    (axes,) = figures.timelines([clip], CATEGORIES).axes
    bars = {(patch.get_x(), patch.get_width()) for patch in axes.patches}
    assert bars == {(0, 3), (0, 2), (0, 1), (1, 2)}
    assert "1/3" in [text.get_text() for text in axes.texts]


def test_lanes_draw_the_truth_above_the_prediction():
    true, predicted = np.array([1, 1, 0, 0, 1]), np.array([0, 1, 1, 0, 1])
    clips = [
        figures.LaneClip("row 7", 4, {1: (true, predicted)}),
        figures.LaneClip("row 9", 2, {}),
    ]
    (axes,) = figures.lane_timelines(clips, CATEGORIES, "avsdn", 2.0).axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["Violin, fiddle", "no event"]
    above, below = (c.get_paths()[0].get_extents() for c in axes.collections)
    # Bars are in seconds, and omit the fifth segment, which is padding.
    assert (above.x0, above.x1, below.x0, below.x1) == (0, 4, 2, 6)
    assert above.y1 < below.y0
    many = figures.LaneClip("row 7", 4, dict.fromkeys(range(30), (true, true)))
    axes = figures.lane_timelines([many], [str(k) for k in range(30)], "a").axes[0]
    assert len(axes.get_yticklabels()) == 12
    assert "18 more categories" in axes.texts[0].get_text()
    with pytest.raises(ValueError, match="at least one clip"):
        figures.lane_timelines([], CATEGORIES, "avsdn")


def test_the_figure_of_a_multi_label_video_shows_thresholds():
    probabilities = np.array([[0.9, 0.4], [0.2, 0.8]])
    values = ("a.mp4", ("Hum", "Bark"), probabilities, 1.0)
    events = (Event(0.0, 1.0, "Hum", 0.9), Event(0.0, 2.0, "Bark", 0.6))
    options = {"multi_label": True, "thresholds": (0.5, 0.3)}
    figure = figures.prediction(VideoPrediction(*values, events, None, **options))
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["Hum", "Bark"]
    levels = [set(line.get_ydata()) for line in figure.axes[1].get_lines()]
    assert {50.0} in levels
    assert {30.0} in levels
    options["thresholds"] = (0.95, 0.95)
    figure = figures.prediction(VideoPrediction(*values, (), None, **options))
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["Hum"]


def test_scores_missing_from_an_earlier_report_are_not_listed(report):
    new = ("segment_f1", "segment_f1_macro", "map", "intervals", "multi_label")
    older = {name: value for name, value in report.items() if name not in new}
    names = [score.name for score in list_scores(report)]
    assert {"Segment F1", "Event F1 at IoU 0.5", "mAP"} <= set(names)
    left_out = {"Segment F1", "mAP"}
    expected = [name for name in names if name not in left_out]
    assert [score.name for score in list_scores(older)] == expected


def test_a_cross_modality_run_gets_its_report(tmp_path):
    folder = _run_folder(tmp_path)
    distances = 1 - np.eye(4)[np.newaxis]
    found = cross_modality.Distances(np.arange(1), distances, np.array([[0, 1, 1, 0]]))
    report = _write(folder, cross_modality.evaluate(found), None)
    assert report["a2v_accuracy"] == 1
    assert json.loads(folder.report.read_text()) == report
    assert {path.stem for path in tmp_path.glob("*.png")} == {"learning_curves"}
    text = folder.page.read_text(encoding="utf-8")
    _Nesting(text)
    assert "<td>2 s</td><td>1</td>" in text
    assert "Confusion" not in text


def test_no_report_is_written_if_another_file_fails(predictions, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("No space left")

    folder = _run_folder(tmp_path)
    monkeypatch.setattr(run_report, "write_text", fail)
    scores = evaluation.evaluate(predictions, CATEGORIES)
    with pytest.raises(UserError, match="No space left"):
        _write(folder, scores, predictions)
    assert not folder.report.exists()


@pytest.mark.parametrize(
    "text",
    [
        None,
        "epoch,loss\n",
        "epoch,loss\n1,x\n",
        "epoch,loss,accuracy,seconds\n1,0.5,0.5,1\n",
    ],
)
def test_a_damaged_history_is_a_user_error(text, tmp_path):
    folder = RunFolder(tmp_path)
    if text is not None:
        folder.metrics.write_text(text)
    with pytest.raises(UserError, match=r"metrics\.csv"):
        run_report.read_history(folder)


def test_extraction_prints_a_line_per_video_without_a_terminal():
    console = Console(file=io.StringIO(), width=80)
    with extraction_progress(console, 2) as on_done:
        on_done(pathlib.Path("videos/[b]1.mp4"), None)
        on_done(pathlib.Path("2.mp4"), "no sound")
    assert console.file.getvalue() == "1/2 [b]1.mp4\n2/2 2.mp4: failed\n"


def test_scores_of_one_clip_have_no_interval(predictions):
    one = evaluation.Predictions(
        *(getattr(predictions, name)[1:] for name in predictions.DTYPES)
    )
    scores = evaluation.evaluate(one, CATEGORIES)
    assert scores["interval"] is None
    report = {
        **scores,
        **{"model": "avsdn", "mode": "weak", "dataset": "own", "disclaimer": None},
        **{"validation_accuracy": 0.5, "selected_epoch": 1, "epochs_run": 1},
        "seconds": 1.0,
    }
    console = Console(width=80, file=io.StringIO())
    console.print(results_table(report))
    assert "100.0 %" in console.file.getvalue()
    assert " to " not in console.file.getvalue()
    figure = figures.learning_curves(HISTORY, 1)
    page = run_report.render_page(
        report,
        dict.fromkeys(("learning_curves", "timelines", "confusion"), figure),
        title="own",
        command="avsdn",
        settings={},
        versions={},
    )
    assert " % to " not in page

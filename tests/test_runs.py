"""Training, evaluating and predicting from Python."""

import json
import logging
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import avsdn_tf
from avsdn_tf import runs, videos
from avsdn_tf.errors import UserError
from avsdn_tf.features.video import VideoError
from avsdn_tf.report.prediction import write_prediction
from avsdn_tf.run_folder import RunFolder
from tests.small_videos import write_clip


@pytest.fixture(autouse=True)
def small_backbones(monkeypatch, extractor):
    monkeypatch.setattr(videos, "extractor_for", lambda *_, **__: extractor)


@pytest.fixture(scope="module")
def trained(data_dir, tmp_path_factory):
    settings = {"epochs": 2, "units": 4, "batch_size": 240, "data_dir": data_dir}
    return avsdn_tf.train(run=tmp_path_factory.mktemp("run"), **settings)


def test_train_returns_the_contents_of_the_run_folder(trained):
    folder = RunFolder(trained.folder)
    assert folder.read_report() == trained.report
    assert [row["epoch"] for row in trained.history] == [1, 2]
    assert 0 <= trained.report["accuracy"] <= 1
    assert trained.model.num_segments == 10


def test_a_config_and_its_fields_are_mutually_exclusive():
    with pytest.raises(TypeError, match="units"):
        avsdn_tf.train(avsdn_tf.Config(), units=3)


def test_settings_may_be_a_dictionary():
    with pytest.raises(UserError, match=r"^epochs=0: "):
        avsdn_tf.train({"epochs": 0})


def test_train_refuses_a_url_as_run_folder():
    with pytest.raises(UserError, match=r"^run=hf://a/b: Expected a folder"):
        avsdn_tf.train(epochs=1, run="hf://a/b")


def test_training_logs_each_epoch_and_prints_nothing(
    data_dir, tmp_path, caplog, capsys
):
    config = avsdn_tf.Config(epochs=1, units=4, batch_size=480, data_dir=data_dir)
    with caplog.at_level(logging.INFO, "avsdn_tf"):
        avsdn_tf.train(config, run=tmp_path / "run")
    lines = [record.getMessage() for record in caplog.records]
    assert any("train 480, validation 96, test 96 clips" in line for line in lines)
    assert sum(line.startswith("epoch   1/1") for line in lines) == 1
    assert capsys.readouterr().out == ""


def test_evaluate_returns_the_report(trained):
    folder = RunFolder(trained.folder)
    folder.report.unlink()
    assert avsdn_tf.evaluate(trained.folder)["accuracy"] == trained.report["accuracy"]
    assert folder.report.is_file()


def test_predict_returns_a_prediction_per_video(run_folder, tmp_path):
    videos_folder = tmp_path / "videos"
    videos_folder.mkdir()
    for seconds in (5, 3):
        write_clip(videos_folder / f"{seconds}.mp4", seconds)
    found = avsdn_tf.predict(run_folder, videos_folder)
    assert [each.name for each in found] == ["3.mp4", "5.mp4"]
    assert [len(each.probabilities) for each in found] == [3, 5]
    assert list(tmp_path.glob("**/*.html")) == []


def test_predict_writes_files_into_out(run_folder, tmp_path):
    video = write_clip(tmp_path / "a.mp4", 2)
    (found,) = avsdn_tf.predict(str(run_folder), str(video), out=tmp_path / "out")
    written = json.loads((tmp_path / "out" / "a.events.json").read_text())
    np.testing.assert_allclose(written["probabilities"], found.probabilities, atol=1e-6)


def test_a_failed_video_raises_or_is_skipped(run_folder, tmp_path, caplog):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    both = [broken, write_clip(tmp_path / "a.mp4", 2)]
    with pytest.raises(VideoError, match=r"broken\.mp4"):
        avsdn_tf.predict(run_folder, both)
    (found,) = avsdn_tf.predict(run_folder, both, skip_errors=True)
    assert found.name == "a.mp4"
    assert "broken.mp4" in caplog.text


def test_events_below_min_score_are_left_out(extractor, tmp_path):
    model = avsdn_tf.AVSDN(["Bark", "Flute"], 3, (3,), units=4, num_segments=4)
    # All segments get the same probabilities: Bark 2/3.
    for weight in model.trainable_variables:
        weight.assign(weight * 0)
    model.decoder.head.bias.assign(np.log([4.0, 1.0, 1.0]))
    video = write_clip(tmp_path / "a.mp4", 4)
    for min_score, expected in ((0.6, ["Bark"]), (0.7, [])):
        found = videos.predict_video(model, extractor, video, min_score=min_score)
        assert [event.category for event in found.events] == expected


def test_predictions_of_networks_trained_on_simulated_data_have_a_disclaimer(
    trained, tmp_path, monkeypatch
):
    seen = []

    def predict_video(*args, disclaimer, **kwargs):
        seen.append(disclaimer)

    monkeypatch.setattr(videos, "predict_video", predict_video)
    runs.open_predictor(trained.folder)(write_clip(tmp_path / "a.mp4", 2))
    assert "not on real features" in seen[0]


@pytest.mark.parametrize("name", ["movie.vtt", "movie.png", "movie.html"])
def test_predict_overwrites_no_user_files(run_folder, tmp_path, name):
    video = write_clip(tmp_path / "movie.mp4", 2)
    own = tmp_path / name
    own.write_text("mine")
    with pytest.raises(UserError, match=name):
        avsdn_tf.predict(run_folder, video, out=tmp_path)
    assert own.read_text() == "mine"
    assert not (tmp_path / "movie.events.json").exists()


@pytest.mark.parametrize("suffix", [".html", ".vtt", ".png"])
def test_predict_overwrites_no_input(run_folder, tmp_path, suffix):
    video = write_clip(tmp_path / "movie.mp4", 2).rename(tmp_path / f"movie{suffix}")
    content = video.read_bytes()
    with pytest.raises(UserError):
        avsdn_tf.predict(run_folder, video, out=tmp_path)
    assert video.read_bytes() == content


def test_predict_keeps_the_report_of_a_run(run_folder, tmp_path):
    page = run_folder / "report.html"
    page.write_text("the run's")
    video = write_clip(tmp_path / "report.mp4", 2)
    with pytest.raises(UserError, match=r"report\.html"):
        avsdn_tf.predict(run_folder, video, out=run_folder)
    assert page.read_text() == "the run's"


def test_predict_overwrites_only_unedited_predictions(run_folder, tmp_path):
    video, out = write_clip(tmp_path / "a.mp4", 2), tmp_path / "out"
    for _ in range(2):
        avsdn_tf.predict(run_folder, video, out=out)
    events = out / "a.events.csv"
    events.write_text("start_s,end_s,category\n0,1,Bark\n")
    with pytest.raises(UserError, match="changed"):
        avsdn_tf.predict(run_folder, video, out=out)
    assert "0,1,Bark" in events.read_text()


def test_videos_of_equal_names_have_separate_files(run_folder, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    first = write_clip(tmp_path / "one" / "a.mp4", 2)
    second = write_clip(tmp_path / "two" / "a.mp4", 3)
    out = tmp_path / "out"
    avsdn_tf.predict(run_folder, first, out=out)
    with pytest.raises(UserError, match="another video"):
        avsdn_tf.predict(run_folder, second, out=out)
    assert len(json.loads((out / "a.events.json").read_text())["probabilities"]) == 2
    # Files of a deleted video may be replaced.
    first.unlink()
    avsdn_tf.predict(run_folder, second, out=out)


def test_unwritable_outputs_are_reported_before_a_video_is_read(
    run_folder, tmp_path, monkeypatch
):
    video = write_clip(tmp_path / "a.mp4", 2)
    (tmp_path / "a.vtt").write_text("mine")
    monkeypatch.setattr(videos, "predict_video", lambda *_, **__: pytest.fail("read"))
    with pytest.raises(UserError, match=r"a\.vtt"):
        avsdn_tf.predict(run_folder, video, out=tmp_path)


def test_a_link_in_the_output_folder_is_not_followed(run_folder, tmp_path):
    video, out = write_clip(tmp_path / "a.mp4", 2), tmp_path / "out"
    out.mkdir()
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (out / "a.html").symlink_to(victim)
    with pytest.raises(UserError, match=r"a\.html"):
        avsdn_tf.predict(run_folder, video, out=out)
    assert victim.read_text() == "mine"


def test_a_video_whose_name_is_not_utf8_is_predicted_again(run_folder, tmp_path):
    video = write_clip(tmp_path / os.fsdecode(b"caf\xe9.mp4"), 2)
    for _ in range(2):
        avsdn_tf.predict(run_folder, video, out=tmp_path / "out")
    other = write_clip(tmp_path / "b.mp4", 2)
    for _ in range(2):
        avsdn_tf.predict(run_folder, other, out=tmp_path / "out")


def test_an_edited_file_of_a_killed_predict_is_not_overwritten(
    run_folder, tmp_path, monkeypatch
):
    video, out = write_clip(tmp_path / "a.mp4", 2), tmp_path / "out"
    avsdn_tf.predict(run_folder, video, out=out)
    replace = pathlib.Path.replace

    def kill(path, target):
        if path.name == "a.vtt":
            raise KeyboardInterrupt
        return replace(path, target)

    with monkeypatch.context() as context:
        context.setattr(pathlib.Path, "replace", kill)
        with pytest.raises(KeyboardInterrupt):
            avsdn_tf.predict(run_folder, video, out=out)
    avsdn_tf.predict(run_folder, video, out=out)
    with monkeypatch.context() as context:
        context.setattr(pathlib.Path, "replace", kill)
        with pytest.raises(KeyboardInterrupt):
            avsdn_tf.predict(run_folder, video, out=out)
    (out / "a.vtt").write_text("mine")
    with pytest.raises(UserError, match="changed"):
        avsdn_tf.predict(run_folder, video, out=out)


def test_predict_can_be_repeated_after_an_interruption(
    run_folder, tmp_path, monkeypatch
):
    video, out = write_clip(tmp_path / "a.mp4", 2), tmp_path / "out"
    (found,) = avsdn_tf.predict(run_folder, video)

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr("avsdn_tf.report.prediction.write_player_page", stop)
        with pytest.raises(KeyboardInterrupt):
            write_prediction(out, video, found)
    assert write_prediction(out, video, found).is_file()


def test_importing_the_package_does_not_import_tensorflow_datasets():
    program = (
        "import sys, avsdn_tf; assert 'tensorflow_datasets' not in sys.modules; "
        "assert callable(avsdn_tf.train); assert 'tensorflow_datasets' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)

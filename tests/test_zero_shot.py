"""Zero-shot localization: the table of categories, and the network."""

import csv

import keras
import numpy as np
import pytest

import avsdn_tf
from avsdn_tf import zero_shot
from avsdn_tf.errors import UserError
from tests.conftest import SHARED
from tests.small_videos import find_clip


def fusion(**kwargs):
    """Return a network for Bark (sounds 0 and 1, image 2) and Speech (sound 3)."""
    values = {"heard": [[0, 1], [3]], "seen": [[2], []], "background_level": 0.25}
    return avsdn_tf.LateFusion(["Bark", "Speech"], 4, (3,), **(values | kwargs))


def test_logits_follow_their_equations():
    audio = np.array([[[0.1, 0.4, 0.9, 0.3], [0, 0, 0, 0]]], "float32")
    visual = np.array([[[0.5, 0.4, 0.1], [0.2, 0.3, 0.5]]], "float32")
    logits = fusion(temperature=0.5).predict_on_batch((audio, visual))
    expected = np.log([np.sqrt(0.4 * 0.1), 0.3, 0.25]) / 0.5
    np.testing.assert_allclose(logits[0, 0], expected, rtol=1e-5)
    assert logits[0, 1].argmax() == 2
    assert np.isfinite(logits).all()


def test_multi_label_logits_are_relative_to_the_background_logit():
    rng = np.random.default_rng(0)
    clips = (rng.random((2, 9, 4)), rng.random((2, 9, 3)))
    logits = fusion(temperature=0.5).predict_on_batch(clips)
    found = fusion(temperature=0.5, multi_label=True).predict_on_batch(clips)
    np.testing.assert_allclose(found, logits[..., :2] - logits[..., 2:], rtol=1e-5)


def test_the_network_saves_and_loads_like_any_other(tmp_path):
    model = fusion()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.get_config() == model.get_config()
    assert loaded.heard_only == ["Speech"]
    rng = np.random.default_rng(0)
    clips = {"audio": rng.random((2, 3, 4)), "visual": rng.random((2, 3, 3))}
    np.testing.assert_array_equal(
        loaded.predict_on_batch(clips), model.predict_on_batch(clips)
    )
    model.export(tmp_path / "saved_model", verbose=False)


@pytest.mark.parametrize(
    "wrong",
    [
        {"heard": [[0], [4]]},
        {"heard": [[0]]},
        {"heard": [[0], []]},
        {"seen": [[-1], []]},
        {"temperature": 0},
        {"background_level": 1},
    ],
)
def test_arguments_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="Expected"):
        fusion(**wrong)


def test_the_table_contains_aves_categories_with_speech_merged():
    from tfds_ave.configs import AVE_CATEGORIES

    table = zero_shot.read_table()
    names = [entry.category for entry in table]
    speech = {"Male speech, man speaking", "Female speech, woman speaking"}
    assert {*names} == {*AVE_CATEGORIES} - speech | {"Speech"}
    model = zero_shot.load()
    assert model.heard_only == ["Speech", "Shofar"]
    # Every category is also the name of a sound class.
    sounds = zero_shot.class_names("yamnet")
    for entry in table:
        assert entry.category in [sounds[index] for index in entry.heard]
    bark = next(entry for entry in table if entry.category == "Bark")
    assert bark.seen == tuple(range(151, 269))


def test_the_sound_classes_equal_yamnets_in_order():
    path = SHARED / "networks" / "yamnet_1" / "assets" / "yamnet_class_map.csv"
    if not path.is_file():
        pytest.skip("YAMNet is not available")
    with path.open(newline="") as file:
        names = tuple(row["display_name"] for row in csv.DictReader(file))
    assert zero_shot.class_names("yamnet") == names
    assert len(set(zero_shot.class_names("imagenet"))) == 1000


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        ("Dog,Bark,beagle", None),
        ("Dog,Barks,beagle", "Bark"),
        ("Cat,Meow,tigr cat", "tiger cat"),
        ("Dog,Bark,beagle\nDog,Bark,beagle", "two lines"),
        ("Dog,,beagle", "no sound class"),
        (",Bark,beagle", "no name"),
        ("Dog,Bark", "three cells"),
        ("Dog,Bark,beagle,x", "three cells"),
        ("Dog,Bark,beagle ... Chihuahua", "no range"),
        ("", "a header"),
    ],
)
def test_errors_in_the_table_name_the_line_and_a_suggestion(tmp_path, lines, names):
    path = tmp_path / "classes.csv"
    path.write_text(f"category,heard,seen\n{lines}\n")
    if names is None:
        ((category, heard, seen),) = zero_shot.read_table(path)
        assert (category, len(heard), len(seen)) == ("Dog", 1, 1)
        return
    with pytest.raises(UserError, match=names) as raised:
        zero_shot.read_table(path)
    assert raised.value.field == "classes"


def test_a_table_of_binary_data_fails_with_one_message(tmp_path):
    path = tmp_path / "classes.csv"
    path.write_bytes(b"category,heard,seen\n\xff\xfe\x00")
    with pytest.raises(UserError, match="can't be read"):
        zero_shot.read_table(path)
    with pytest.raises(UserError, match="can't be read"):
        zero_shot.read_table(tmp_path / "none.csv")


def test_a_saved_network_loads_safely(tmp_path):
    path = tmp_path / "model.keras"
    zero_shot.load().save(path)
    model = avsdn_tf.load(path)
    assert model.backbones["audio_network"] == "yamnet_scores"
    assert len(model.categories) == 27


# Category and seconds of the event, labelled by hand, and the smallest number of
# these seconds to find.
CLIPS = {
    "baby_01951.mp4": ("Baby cry, infant cry", set(range(10)), 8),
    "dog_02754.mp4": ("Bark", set(range(9)), 6),
    "dog_BjCEufrlXm4.mp4": ("Bark", {0, 1, 3, 4, 7, 8, 9}, 5),
    "drum_02480.mp4": (None, set(), 0),
    "gun_00819.mp4": (None, set(), 0),
    "long_jump_35s.mp4": (None, set(), 0),
}


@pytest.mark.parametrize("name", CLIPS)
def test_real_clips_are_localized_without_training(name):
    networks = SHARED / "networks"
    if not networks.is_dir():
        pytest.skip(f"{networks} is not available")
    given = {
        "audio_weights": str(networks / "yamnet_1"),
        "visual_network": str(networks / "efficientnet_lite0_classification"),
    }
    (found,) = avsdn_tf.predict(zero_shot.load(**given), find_clip(name), **given)
    assert found.disclaimer == zero_shot.DISCLAIMER
    assert found.heard_only == ("Speech", "Shofar")
    category, seconds, least = CLIPS[name]
    for event in found.events:
        assert event.category in (category, "Speech")
    heard_and_seen = {
        second
        for event in found.events
        if event.category == category
        for second in range(round(event.start_s), round(event.end_s))
    }
    assert len(heard_and_seen & seconds) >= least
    assert len(heard_and_seen - seconds) <= 1

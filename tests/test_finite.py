"""NaN and infinite features are refused in arrays, videos and feature files."""

import numpy as np
import pytest

import avsdn_tf
from avsdn_tf.features.extractor import Extractor
from avsdn_tf.features.video import VideoError
from avsdn_tf.videos import predict_video
from tests.small_datasets import build, make_custom
from tests.small_videos import Brightness, Loudness, write_clip
from tfds_ave import DatasetError

BAD = [np.nan, np.inf, -np.inf]


class Broken(Loudness):
    """A backbone whose last second has a NaN or infinite feature."""

    value = np.inf

    def __call__(self, seconds):
        features = super().__call__(seconds)
        features[-1, 0] = self.value
        return features


@pytest.fixture(scope="module")
def model():
    return avsdn_tf.AVSDN(["Bark"], 3, (3,), units=2)


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("modality", ["audio", "visual"])
def test_localize_names_the_clip_with_invalid_features(model, modality, value):
    features = {name: np.ones((2, 4, 3), np.float32) for name in ("audio", "visual")}
    features[modality][1, 2, 0] = value
    with pytest.raises(ValueError, match=rf"{modality} features in clips \[1\]"):
        avsdn_tf.localize(model, features)


@pytest.mark.parametrize("value", BAD)
def test_a_video_with_invalid_features_is_named(tmp_path, model, monkeypatch, value):
    monkeypatch.setattr(Broken, "value", value)
    path = write_clip(tmp_path / "a.mp4", 2)
    extractor = Extractor(Broken(), Brightness())
    with pytest.raises(VideoError, match=r"a\.mp4: NaN or infinite audio"):
        predict_video(model, extractor, path)
    with pytest.raises(VideoError, match=r"a\.mp4: NaN or infinite audio"):
        extractor.extract(path)


# 1e39 is finite in the float64 file, but not in float32.
@pytest.mark.parametrize("value", [*BAD, 1e39])
def test_a_feature_file_with_invalid_values_is_refused(tmp_path, value):
    make_custom(tmp_path / "own")
    path = tmp_path / "own" / "clip 4.a.npy"
    values = np.load(path)
    values[2, 1] = value
    np.save(path, values)
    with pytest.raises(DatasetError, match=r"clip 4\.a\.npy: NaN or infinite"):
        build(tmp_path / "own", tmp_path / "data", "custom")

"""Describe the examples and the metadata of each config for TFDS."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from tfds_ave.configs import BACKGROUND, SEGMENT_S, SIMULATED, SPLITS, AveConfig


def describe_features(config: AveConfig) -> tfds.features.FeaturesDict:
    """Return the features of a config's examples."""
    # Categories and shapes of custom data are unknown before they are read.
    known = config.source != "custom"
    names = config.class_names if known else None
    num_segments = config.num_segments if known else None
    audio_shape = (num_segments, config.audio_width if known else None)
    visual_shape = (num_segments, *(config.visual_shape if known else (None,)))
    features = {
        "row": np.int64,
        "video_id": tfds.features.Text(),
        # Writing "bytes" is three times as fast as TFDS's default.
        "audio": tfds.features.Tensor(
            shape=audio_shape, dtype=np.float32, encoding="bytes"
        ),
        "visual": tfds.features.Tensor(
            shape=visual_shape,
            dtype=np.dtype(config.visual_dtype),
            encoding="bytes",
        ),
        "segment_labels": tfds.features.Sequence(
            tfds.features.ClassLabel(names=names), length=num_segments
        ),
        "clip_label": tfds.features.ClassLabel(names=names),
        # Weak training reads this instead of decoding segment labels.
        "segment_label_mean": tfds.features.Tensor(
            shape=(len(names) if names else None,), dtype=np.float32
        ),
        "start_s": np.float32,
        "end_s": np.float32,
        "match_split": tfds.features.ClassLabel(names=SPLITS),
    }
    if not known:
        features["events"] = tfds.features.Tensor(shape=(None, 3), dtype=np.int64)
        features["clip_categories"] = tfds.features.Sequence(tfds.features.ClassLabel())
    return tfds.features.FeaturesDict(features)


def describe_metadata(config: AveConfig) -> tfds.core.MetadataDict:
    """Return the metadata of a config that are known before a build."""
    return tfds.core.MetadataDict(
        num_segments=config.num_segments,
        segment_s=SEGMENT_S,
        audio_width=config.audio_width,
        visual_shape=list(config.visual_shape),
        has_times=True,
        backbones=config.backbones,
        disclaimer=SIMULATED if config.source == "simulated" else None,
    )


def fill_info(
    info: tfds.core.DatasetInfo,
    categories: Sequence[str],
    metadata: Mapping[str, Any],
) -> None:
    """Set the categories and metadata of custom data in their `DatasetInfo`."""
    names = [*categories, BACKGROUND]
    info.features["clip_label"].names = names
    for sequence in ("segment_labels", "clip_categories"):
        info.features[sequence].feature.names = names
    info.metadata.update(metadata)

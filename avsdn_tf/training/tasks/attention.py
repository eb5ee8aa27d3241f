"""Compute the attention maps of a trained network for clips of a data set."""

from collections.abc import Sequence

import numpy as np

from avsdn_tf.attention import attention_maps
from avsdn_tf.data.batches import read
from avsdn_tf.data.dataset import Dataset
from avsdn_tf.models import SegmentClassifier
from avsdn_tf.windows import stitch


def attention_of_clips(
    model: SegmentClassifier, dataset: Dataset, split: str, clips: Sequence[int]
) -> list[np.ndarray] | None:
    """Return the attention maps of clips; None if the network has no attention maps.

    Args:
        model: The network.
        dataset: The data.
        split: Name of a split.
        clips: Indices of the clips in the split, in stored order.

    Returns:
        Weights of each clip, `(num_segments, rows, columns)`, which sum to 1 in every
        segment. If the data set's clips differ in length, weights are averaged over
        windows, like logits.
    """
    # Try one segment before reading the data, which may be large.
    segment = {
        "audio": np.zeros((1, 1, model.audio_width), np.float32),
        "visual": np.zeros((1, 1, *model.visual_shape), np.float32),
    }
    if attention_maps(model, segment) is None:
        return None

    def outputs_of(inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        return [attention_maps(model, inputs)]

    maps = []
    for clip in clips:
        part = f"{split}[{clip}:{clip + 1}]"
        (example,) = read(dataset, part, ["audio", "visual"]).as_numpy_iterator()
        audio, visual = example["audio"], example["visual"]
        window = (dataset.is_padded and model.num_segments) or len(audio)
        maps += stitch(outputs_of, [(audio, visual)], window)
    return maps

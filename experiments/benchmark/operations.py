"""How many multiplications and additions the networks' matrix products take."""

from collections.abc import Sequence

_AUDIO_WIDTH = 128
_NUM_CLASSES = 29
_ATTENTION_UNITS = 512


def count(
    network: str,
    num_segments: int,
    visual_shape: Sequence[int],
    units: int,
    training: bool,
) -> int:
    """Returns the operations of one clip.

    Only products of matrices are counted, as multiplications and additions. Training
    computes for each product the gradient of both factors, but none of what is not
    learnt: the features. So a product with weights costs three times what it costs in
    inference, and one of features twice.

    Args:
        network: `"avsdn"` (one direction) or `"avel_att"`.
        num_segments: Segments a clip.
        visual_shape: Shape of a segment's visual feature.
        units: Width of each LSTM.
        training: Whether a training step is counted, or inference.
    """
    gates = 4 * units
    width = visual_shape[-1]
    # Multiplications of a segment that take features, and those that do not.
    if network == "avsdn":
        of_features = 2 * (_AUDIO_WIDTH + width) * gates
        others = 3 * units * gates + units * _NUM_CLASSES
        # Two fusion networks, each with two modalities and two layers.
        of_clip = 2 * 2 * 2 * units * units
    else:
        cells = visual_shape[0] * visual_shape[1]
        of_features = (
            cells * width * _ATTENTION_UNITS
            + _AUDIO_WIDTH * _ATTENTION_UNITS
            + 2 * _AUDIO_WIDTH * gates
        )
        others = (
            cells * _ATTENTION_UNITS * cells
            + _ATTENTION_UNITS * cells
            + cells * cells
            + 2 * width * gates
            + 2 * 2 * units * gates
            + 4 * units * 64
            + 64 * _NUM_CLASSES
        )
        # The sum of the cells: of its factors, the weights alone have a gradient.
        of_features += cells * width
        of_clip = 0
    features_times, others_times = (2, 3) if training else (1, 1)
    products = num_segments * (features_times * of_features + others_times * others)
    return 2 * (products + others_times * of_clip)

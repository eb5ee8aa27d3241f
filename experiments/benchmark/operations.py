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
    """Return the multiplications and additions of one clip's matrix products.

    In training a product also has the gradients of its factors. The features need none.
    So a product with weights costs three times as much as in inference, and a product
    of features twice.

    Args:
        network: `"avsdn"` (one direction) or `"avel_att"`.
        num_segments: Segments a clip.
        visual_shape: Shape of a segment's visual feature.
        units: Width of each LSTM.
        training: Whether a training step is counted, or inference.
    """
    gates = 4 * units
    width = visual_shape[-1]
    # Multiplications of a segment whose one factor are features, and the others.
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
        # The weighted sum of the cells: only the weights have a gradient.
        of_features += cells * width
        of_clip = 0
    features_times, others_times = (2, 3) if training else (1, 1)
    products = num_segments * (features_times * of_features + others_times * others)
    return 2 * (products + others_times * of_clip)

"""How many multiplications and additions the networks' matrix products take."""

from experiments.benchmark.batch import (
    ATTENTION_UNITS,
    AUDIO_WIDTH,
    NUM_CLASSES,
    Batch,
)


def count(batch: Batch, training: bool) -> int:
    """Return the multiplications and additions of one clip's matrix products.

    In training a product also has the gradients of its factors. The features need none.
    So a product with weights costs three times as much as in inference, and a product
    of features twice.

    Args:
        batch: The network and its shapes.
        training: Whether a training step is counted, or inference.
    """
    gates = 4 * batch.units
    width = batch.visual_shape[-1]
    # Multiplications of a segment whose one factor are features, and the others.
    if batch.network == "avsdn":
        of_features = 2 * (AUDIO_WIDTH + width) * gates
        others = 3 * batch.units * gates + batch.units * NUM_CLASSES
        # Two fusion networks, each with two modalities and two layers.
        of_clip = 2 * 2 * 2 * batch.units**2
    else:
        cells = batch.visual_shape[0] * batch.visual_shape[1]
        of_features = (
            cells * width * ATTENTION_UNITS
            + AUDIO_WIDTH * ATTENTION_UNITS
            + 2 * AUDIO_WIDTH * gates
            # The weighted sum of the cells, whose weights alone have a gradient.
            + cells * width
        )
        others = (
            cells * ATTENTION_UNITS * cells
            + ATTENTION_UNITS * cells
            + cells * cells
            + 2 * width * gates
            + 2 * 2 * batch.units * gates
            + 4 * batch.units * 64
            + 64 * NUM_CLASSES
        )
        of_clip = 0
    features_times, others_times = (2, 3) if training else (1, 1)
    of_segment = features_times * of_features + others_times * others
    return 2 * (batch.num_segments * of_segment + others_times * of_clip)

"""Convert the weights that Tian et al. released."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import h5py
import numpy as np

from avsdn_tf.arrays import open_hdf5
from avsdn_tf.files import expand_user
from avsdn_tf.models.attention import AudioGuidedAttention
from avsdn_tf.models.avdln import AVDLN
from avsdn_tf.models.avel import AVEL
from avsdn_tf.models.dmrn import DMRN
from avsdn_tf.official_weights.state import StateReader

# Layers in cmm_model_weights.h5, and the attributes of AVDLN that hold these layers.
_AVDLN_LAYERS = {
    "dense_1": "visual_hidden",
    "dense_2": "visual_head",
    "dense_3": "audio_hidden",
    "dense_4": "audio_head",
}


def load_official_weights(model: AVDLN, path: str | os.PathLike[str]) -> None:
    """Load Tian et al.'s cmm_model_weights.h5 into a network.

    The weights were trained on VGG-19 features of width 512 and VGGish features of
    width 128. The network is unchanged if an error is raised.

    Args:
        model: An AVDLN with `audio_width=128`, and `visual_shape=(512,)` or `(7, 7,
            512)`.
        path: The file, in Keras 2's layout.

    Raises:
        ValueError: If the file can't be read, has another layout, or the network has
            other widths.

    Example:
        >>> from avsdn_tf.official_weights import load_official_weights
        >>> model = avsdn_tf.AVDLN(categories, audio_width=128, visual_shape=(512,))
        >>> load_official_weights(model, "cmm_model_weights.h5")
    """
    path, read = expand_user(path), {}
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ValueError(
            f"Expected cmm_model_weights.h5 of Tian et al. Received: {path}, which "
            f"can't be read ({error})"
        ) from error
    with file:
        for name, attribute in _AVDLN_LAYERS.items():
            layer = getattr(model, attribute)
            weights = []
            for kind, variable in (("kernel", layer.kernel), ("bias", layer.bias)):
                key = f"{name}/{name}/{kind}:0"
                shape = tuple(variable.shape)
                # h5py raises errors of many types for damaged files.
                try:
                    array = open_hdf5(file, key)
                except Exception:
                    array = None
                if array is None or array.shape != shape:
                    raise ValueError(
                        f"Expected an array {key!r} of shape {shape}, the network's "
                        f"{attribute}. Received: {array or sorted(file)} in {path}"
                    )
                weights.append(np.asarray(array[...], np.float32))
            read[attribute] = weights
    for attribute, weights in read.items():
        getattr(model, attribute).set_weights(weights)


def convert_avel(state: Mapping[str, Any], categories: Sequence[str]) -> AVEL:
    """Return an AVEL with attention and the weights of Tian et al.'s program.

    Args:
        state: `state_dict` of their `att_Net` (AV_att.pt, or its weakly supervised
            version); values are arrays that `numpy.asarray` accepts.
        categories: Names of the event categories, without background, in the order of
            the program's classes, which is also the order of `tfds_ave`.

    Returns:
        The model, for maps of 7 x 7. The softmax of its logits equals the program's
        output.

    Raises:
        ValueError: If a name is missing or unknown, or a shape doesn't fit.

    Example:
        >>> from avsdn_tf.official_weights import convert_avel
        >>> model = convert_avel(state, categories)
        >>> model.save("avel.keras")
    """
    return _convert(
        state,
        AVEL,
        lambda model: {"L1": model.hidden, "L2": model.head},
        categories=categories,
        attention=True,
    )


def convert_dmrn(state: Mapping[str, Any], categories: Sequence[str]) -> DMRN:
    """Return a DMRN with the weights of Tian et al.'s program.

    Args:
        state: `state_dict` of their `TBMRF_Net` (DMRN.pt), as in `convert_avel`.
        categories: As in `convert_avel`.

    Returns:
        The model, as in `convert_avel`.

    Raises:
        ValueError: If a name is missing or unknown, or a shape doesn't fit.

    Example:
        >>> from avsdn_tf.official_weights import convert_dmrn
        >>> model = convert_dmrn(state, categories)
        >>> model.save("dmrn.keras")
    """
    # U_a.1 and U_v.1 are activations, which have no weights.
    return _convert(
        state,
        DMRN,
        lambda model: {
            "U_a.0": model.fusion.audio_mlp.layers[0],
            "U_a.2": model.fusion.audio_mlp.layers[1],
            "U_v.0": model.fusion.visual_mlp.layers[0],
            "U_v.2": model.fusion.visual_mlp.layers[1],
            "L2": model.head,
        },
        categories=categories,
    )


def attention_layers(attention: AudioGuidedAttention) -> dict[str, Any]:
    """Return the layers of the attention, by their names in Tian et al.'s program."""
    return {
        "affine_audio": attention.audio_projection,
        "affine_video": attention.visual_projection,
        "affine_g": attention.audio_scores,
        "affine_v": attention.visual_scores,
        "affine_h": attention.cell_score,
    }


def map_side(reader: StateReader, name: str) -> int:
    """Return the side of square feature maps: matrix `name` has a row per cell."""
    return round(reader.matrix_shape(name)[0] ** 0.5)


def _convert(
    state: Mapping[str, Any],
    network: Callable[..., Any],
    other_layers: Callable[[Any], dict[str, Any]],
    **options: Any,
) -> Any:
    """Return a network with the weights of a `state_dict`.

    `other_layers` returns the layers that AVEL and DMRN don't share, by their names in
    the program.
    """
    reader = StateReader(state, "Tian et al.")
    side = map_side(reader, "affine_v.weight")
    visual_width = reader.matrix_shape("affine_video.weight")[1]
    model = network(
        audio_width=reader.matrix_shape("affine_audio.weight")[1],
        visual_shape=(side, side, visual_width),
        units=reader.matrix_shape("lstm_audio.weight_hh_l0")[1],
        # The program differs from the paper's equation; see AudioGuidedAttention.
        audio_axis="cell",
        **options,
    )
    reader.set_lstm("lstm_audio", model.audio_encoder)
    reader.set_lstm("lstm_video", model.visual_encoder)
    layers = {**attention_layers(model.visual_pooling), **other_layers(model)}
    reader.set_dense(layers)
    reader.check_all_read()
    return model

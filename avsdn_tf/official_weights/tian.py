"""Conversion of the weights that Tian et al. released."""

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
from avsdn_tf.official_weights.state import State

# Where Keras 2 put the layers of cmm_model_weights.h5.
_AVDLN_LAYERS = {
    "dense_1": "visual_hidden",
    "dense_2": "visual_head",
    "dense_3": "audio_hidden",
    "dense_4": "audio_head",
}


def load_official_weights(model: AVDLN, path: str | os.PathLike[str]) -> None:
    """Load Tian et al.'s cmm_model_weights.h5 into a network.

    They were trained on VGG-19 features, 512 wide, and VGGish, 128 wide. A file that
    doesn't fit leaves the network unchanged.

    Args:
        model: The network; `AVDLN(audio_width=128, visual_shape=(512,))`, or
            `visual_shape=(7, 7, 512)`.
        path: The file, of Keras 2's layout.

    Raises:
        ValueError: If the file can't be read, has another layout, or the network has
            other widths.
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
                # Errors of many types: h5py reads a damaged file, or a stranger's.
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
        state: The state of their `att_Net` (AV_att.pt, or the weakly supervised one) by
            its PyTorch names, such as `lstm_audio.weight_ih_l0`; values that
            `numpy.asarray` accepts.
        categories: Names of the event categories in the order of the program's classes,
            which is that of `tfds_ave`; background is the class after them.

    Returns:
        The model. Its probabilities, the softmax of its logits, are those of the
        program, whose maps are 7 x 7.

    Raises:
        ValueError: If a name is missing or unknown, or a shape doesn't fit.
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
        state: The state of their `TBMRF_Net` (DMRN.pt) by its PyTorch names.
        categories: As in `convert_avel`.

    Returns:
        The model, as in `convert_avel`.

    Raises:
        ValueError: If a name is missing or unknown, or a shape doesn't fit.
    """
    # Their module counts the activation in between.
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
    """Return the layers of the attention by the names of the program's modules."""
    return {
        "affine_audio": attention.audio_projection,
        "affine_video": attention.visual_projection,
        "affine_g": attention.audio_scores,
        "affine_v": attention.visual_scores,
        "affine_h": attention.cell_score,
    }


def map_side(left: State, name: str) -> int:
    """Return the side of the program's maps: its scores are as wide as these."""
    return round(left.matrix_shape(name)[0] ** 0.5)


def _convert(
    state: Mapping[str, Any],
    network: Callable[..., Any],
    own_layers: Callable[[Any], dict[str, Any]],
    **options: Any,
) -> Any:
    """Return a network with the weights of a state.

    `own_layers` returns those of a network's layers that AVEL and DMRN don't share, by
    the names of their modules.
    """
    left = State(state, "Tian et al.")
    side = map_side(left, "affine_v.weight")
    visual_width = left.matrix_shape("affine_video.weight")[1]
    model = network(
        audio_width=left.matrix_shape("affine_audio.weight")[1],
        visual_shape=(side, side, visual_width),
        units=left.matrix_shape("lstm_audio.weight_hh_l0")[1],
        # The program differs from its equation, see AudioGuidedAttention.
        audio_axis="cell",
        **options,
    )
    left.set_lstm("lstm_audio", model.audio_encoder)
    left.set_lstm("lstm_video", model.visual_encoder)
    left.set_dense({**attention_layers(model.visual_pooling), **own_layers(model)})
    left.check_all_read()
    return model

"""Weights that the authors of AVE released, for the networks of this package."""

import os

import h5py
import numpy as np

from avsdn_tf.models.cross_modal import AVDLN

# Where Keras 2 put the layers of cmm_model_weights.h5.
_AVDLN_LAYERS = {
    "dense_1": "visual_hidden",
    "dense_2": "visual_head",
    "dense_3": "audio_hidden",
    "dense_4": "audio_head",
}


def load_official_weights(model: AVDLN, path: str | os.PathLike[str]) -> None:
    """Gives a network the weights of Tian et al.'s cmm_model_weights.h5.

    They were trained on VGG-19 features, 512 wide, and VGGish, 128 wide. The network is
    left as it was where the file does not fit.

    Args:
        model: The network; `AVDLN(audio_width=128, visual_shape=(512,))`, or
            `visual_shape=(7, 7, 512)`.
        path: The file, of Keras 2's layout.

    Raises:
        ValueError: If the file can't be read, has another layout, or the network has
            other widths.
    """
    read = {}
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
                array = file.get(key)
                if not isinstance(array, h5py.Dataset):
                    raise ValueError(
                        f"Expected an array {key!r}, as cmm_model_weights.h5 of Tian "
                        f"et al. has it. Received: {path} with {sorted(file)}"
                    )
                if array.shape != tuple(variable.shape):
                    raise ValueError(
                        f"Expected {key!r} of shape {tuple(variable.shape)}, the "
                        f"network's {attribute}. Received: {array.shape} in {path}"
                    )
                weights.append(np.asarray(array[...], np.float32))
            read[attribute] = weights
    for attribute, weights in read.items():
        getattr(model, attribute).set_weights(weights)

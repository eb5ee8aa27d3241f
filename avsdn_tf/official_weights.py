"""Conversion of the weights that the authors of AVE released.

Their cross-modality network is a Keras 2 file. Their localization networks are PyTorch
modules, whose state is a mapping of names to arrays:

    state = {name: array.numpy() for name, array in module.state_dict().items()}
    model = convert_avel(state, categories)
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import h5py
import numpy as np

from avsdn_tf.models.avdln import AVDLN
from avsdn_tf.models.avel import AVEL
from avsdn_tf.models.dmrn import DMRN
from avsdn_tf.models.lstm import SequenceLSTM

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
    reader = _State(state)
    model = AVEL(categories, attention=True, **_sizes(reader))
    _convert_encoders(model, reader)
    reader.dense("L1", model.hidden)
    reader.dense("L2", model.head)
    reader.finish()
    return model


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
    reader = _State(state)
    model = DMRN(categories, **_sizes(reader))
    _convert_encoders(model, reader)
    for letter, mlp in (("a", model.fusion.audio_mlp), ("v", model.fusion.visual_mlp)):
        # Their module counts the activation in between.
        reader.dense(f"U_{letter}.0", mlp.layers[0])
        reader.dense(f"U_{letter}.2", mlp.layers[1])
    reader.dense("L2", model.head)
    reader.finish()
    return model


class _State:
    """PyTorch state from which each array is taken once."""

    def __init__(self, state: Mapping[str, Any]) -> None:
        self._left = {name: np.asarray(array) for name, array in state.items()}

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a matrix."""
        shape = self._find(name).shape
        if len(shape) != 2:
            raise ValueError(f"Expected {name!r} to be a matrix. Received: {shape}")
        return shape

    def dense(self, name: str, layer: Any) -> None:
        """Set the weights of a Dense layer to those of a Linear module, transposed."""
        weights = [self._take(f"{name}.weight", reversed(layer.kernel.shape)).T]
        if layer.use_bias:
            weights.append(self._take(f"{name}.bias", layer.bias.shape))
        layer.set_weights(weights)

    def lstm(self, name: str, layer: SequenceLSTM) -> None:
        """Set the weights of a bidirectional LSTM to those of PyTorch's module.

        The gates have the same order (input, forget, cell, output); PyTorch adds two
        biases where Keras has one.
        """
        weights = []
        kernel, recurrent_kernel, bias = layer.get_weights()[:3]
        for suffix in ("l0", "l0_reverse"):
            weights += [
                self._take(f"{name}.weight_ih_{suffix}", kernel.T.shape).T,
                self._take(f"{name}.weight_hh_{suffix}", recurrent_kernel.T.shape).T,
                self._take(f"{name}.bias_ih_{suffix}", bias.shape)
                + self._take(f"{name}.bias_hh_{suffix}", bias.shape),
            ]
        layer.set_weights(weights)

    def finish(self) -> None:
        """Raise ValueError if an array is left."""
        if self._left:
            raise ValueError(
                "Expected the state of one network alone. Received also: "
                f"{', '.join(sorted(self._left))}"
            )

    def _find(self, name: str) -> np.ndarray:
        if name not in self._left:
            raise ValueError(
                f"Expected an array {name!r}, as the program of Tian et al. names it. "
                f"Received: {', '.join(sorted(self._left)) or 'no more'}"
            )
        return self._left[name]

    def _take(self, name: str, shape: Any) -> np.ndarray:
        array, shape = self._find(name), tuple(shape)
        if array.shape != shape:
            raise ValueError(
                f"Expected {name!r} of shape {shape}. Received: {array.shape}"
            )
        return self._left.pop(name).astype(np.float32)


def _sizes(reader: _State) -> dict[str, Any]:
    """Return the constructor arguments that fit a state.

    The program's scores are as wide as its maps have cells: 7 x 7.
    """
    units = reader.shape("lstm_audio.weight_hh_l0")[1]
    audio_width = reader.shape("affine_audio.weight")[1]
    visual_width = reader.shape("affine_video.weight")[1]
    cells = reader.shape("affine_v.weight")[0]
    side = round(cells**0.5)
    return {
        "audio_width": audio_width,
        "visual_shape": (side, side, visual_width),
        "units": units,
        # The program differs from its equation, see AudioGuidedAttention.
        "audio_axis": "cell",
    }


def _convert_encoders(model: AVEL, reader: _State) -> None:
    """Convert the layers that AVEL and DMRN have in common."""
    attention = model.visual_pooling
    reader.dense("affine_audio", attention.audio_projection)
    reader.dense("affine_video", attention.visual_projection)
    reader.dense("affine_g", attention.audio_scores)
    reader.dense("affine_v", attention.visual_scores)
    reader.dense("affine_h", attention.cell_score)
    reader.lstm("lstm_audio", model.audio_encoder)
    reader.lstm("lstm_video", model.visual_encoder)

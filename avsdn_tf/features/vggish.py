"""VGGish in Keras: log-mel front end, network, and loading of weights.

Weights are read from the variables of a SavedModel or a checkpoint, and no graph from
the file runs.

Reference:
    Hershey et al., "CNN architectures for large-scale audio classification", ICASSP
    2017, https://arxiv.org/abs/1609.09430. The constants are those of
    https://github.com/tensorflow/models/tree/master/research/audioset/vggish.
"""

import dataclasses
import os
import pathlib
import re
from typing import Any

import keras
import numpy as np
import tensorflow as tf

# The released weights need this data format. Keras's global setting may differ.
_DATA_FORMAT = "channels_last"


@dataclasses.dataclass(frozen=True)
class FrontEnd:
    """The constants of VGGish's log-mel front end.

    1. STFT: Hann windows of `window_samples` at `hop_samples`, FFT of `fft_samples`.
    2. Magnitudes, summed by `mel_bands` triangular filters, evenly spaced from
       `lowest_hz` to `highest_hz` on the mel scale 1127 ln(1 + f / 700).
    3. `log(mel + log_offset)`. An input of the network is `num_frames` windows: 15,600
       samples, 0.975 s.
    """

    sample_rate_hz: int = 16_000
    window_samples: int = 400
    hop_samples: int = 160
    fft_samples: int = 512
    mel_bands: int = 64
    lowest_hz: float = 125.0
    highest_hz: float = 7500.0
    log_offset: float = 0.01
    num_frames: int = 96

    @property
    def num_samples(self) -> int:
        """Number of waveform samples in one input of the network."""
        return self.window_samples + (self.num_frames - 1) * self.hop_samples


FRONT_END = FrontEnd()
WIDTH = 128
_CONVOLUTIONS = ((64,), (128,), (256, 256), (512, 512))
_DENSE = (4096, 4096, WIDTH)


def log_mel(seconds: tf.Tensor) -> tf.Tensor:
    """Return the log-mel spectrogram of the first 0.975 s of each second.

    Args:
        seconds: `(num_seconds, 16000)` float32, mono, in [-1, 1].

    Returns:
        `(num_seconds, 96, 64, 1)` float32.
    """
    front = FRONT_END
    spectrum = tf.abs(
        tf.signal.stft(
            seconds[:, : front.num_samples],
            front.window_samples,
            front.hop_samples,
            front.fft_samples,
        )
    )
    to_mel = tf.signal.linear_to_mel_weight_matrix(
        front.mel_bands,
        front.fft_samples // 2 + 1,
        front.sample_rate_hz,
        front.lowest_hz,
        front.highest_hz,
    )
    return tf.math.log(spectrum @ to_mel + front.log_offset)[..., tf.newaxis]


def build_network(precision: str = "float32") -> keras.Sequential:
    """Build VGGish, from log-mel input to embeddings before the ReLU.

    Args:
        precision: Keras dtype policy.
    """
    layers: list[Any] = [
        keras.Input((FRONT_END.num_frames, FRONT_END.mel_bands, 1), name="log_mel")
    ]
    for block in _CONVOLUTIONS:
        layers += [
            keras.layers.Conv2D(
                width,
                3,
                padding="same",
                activation="relu",
                data_format=_DATA_FORMAT,
                dtype=precision,
            )
            for width in block
        ]
        layers.append(
            keras.layers.MaxPool2D(2, data_format=_DATA_FORMAT, dtype=precision)
        )
    layers.append(keras.layers.Flatten(data_format=_DATA_FORMAT, dtype=precision))
    layers += [
        keras.layers.Dense(
            width, activation="relu" if width != WIDTH else None, dtype=precision
        )
        for width in _DENSE
    ]
    return keras.Sequential(layers, name="vggish")


def load_weights(network: keras.Sequential, path: str | os.PathLike[str]) -> None:
    """Load VGGish's weights from a SavedModel's folder or a checkpoint.

    Arrays are matched by shape, and arrays of equal shape by the order of their names.
    The kernels all have different shapes. The names of biases of equal width sort in
    the order of the layers, in TF-Slim (`vggish/conv3/conv3_1/biases`) as well as in a
    SavedModel (`_variables/5`).

    Args:
        network: The result of `build_network`.
        path: The folder of a SavedModel, the file `vggish_model.ckpt`, or the path of a
            checkpoint without the suffix `.index`.

    Raises:
        ValueError: If the file can't be read or has other weights.
    """
    shapes = [tuple(variable.shape) for variable in network.weights]
    arrays = _read_arrays(pathlib.Path(path), set(shapes))
    if sorted(array.shape for array in arrays) != sorted(shapes):
        raise ValueError(
            f"Expected the {len(shapes)} arrays of VGGish's weights. Received: a "
            f"checkpoint with {len(arrays)} arrays of their shapes"
        )
    values = []
    for shape in shapes:
        index = next(i for i, array in enumerate(arrays) if array.shape == shape)
        values.append(arrays.pop(index))
    network.set_weights(values)


def _read_arrays(path: pathlib.Path, kept: set[tuple[int, ...]]) -> list[np.ndarray]:
    """Return a checkpoint's arrays of the shapes `kept`, in natural order of names."""
    checkpoint = path / "variables" / "variables" if path.is_dir() else path
    try:
        reader = tf.train.load_checkpoint(str(checkpoint))
        shapes = reader.get_variable_to_shape_map()
        names = [name for name in shapes if tuple(shapes[name]) in kept]
        return [reader.get_tensor(name) for name in sorted(names, key=_natural)]
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        raise ValueError(f"Expected a checkpoint. Received: {error}") from error


def _natural(name: str) -> list[Any]:
    """Return a key that sorts `variables/10` after `variables/9`."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]

"""Make audio features as AVE's were made: VGGish on each second."""

import contextlib
import dataclasses
import os
import sys
import types
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from avsdn_tf.backbones import VGGISH
from avsdn_tf.errors import UserError, first_line
from avsdn_tf.files import expand_user, without_patterns


@dataclasses.dataclass(frozen=True)
class FrontEnd:
    """The constants of VGGish's log-mel front end (Hershey et al., ICASSP 2017).

    The module of TensorFlow Hub includes the front end; these constants are for
    programs that rebuild it.

    A Hann window of `window_samples` moves by `hop_samples`; the magnitudes of an FFT
    of `fft_samples` are summed in `mel_bands` triangles, evenly spaced between the two
    frequencies on the mel scale 1127 ln(1 + f / 700); `log(mel + log_offset)` of
    `num_frames` windows is the network's input: 15,600 samples, 0.975 s.
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
    def patch_samples(self) -> int:
        """Samples from the start of a patch to the start of the next patch."""
        return self.num_frames * self.hop_samples


class AudioNetwork:
    """VGGish with a final ReLU, which AVE's features have and the module lacks.

    The module cuts a longer waveform into patches of 0.96 s, which drift away from the
    seconds. Therefore each second is padded with silence to two patches, and the second
    patch is dropped. One call for all seconds takes two thirds of the time of a call
    for each, since the weights of the dense layers (270 MB) are read once.

    Args:
        handle: Address of a TensorFlow Hub module, or the folder of a SavedModel of the
            same signature: `(samples,)` float32 at 16 kHz, mono, in [-1, 1], to
            `(patches, width)`.

    Attributes:
        width: Width of the features.
        module: The TensorFlow Hub module.
        features_of: `__call__` as a `tf.function`, from a tensor to a tensor.

    Raises:
        UserError: If the module can't be loaded, or has another signature.

    Reference:
        Hershey et al., "CNN architectures for large-scale audio classification", ICASSP
        2017, https://arxiv.org/abs/1609.09430.
    """

    def __init__(self, handle: str | os.PathLike[str] = VGGISH) -> None:
        self.handle = expand_user(handle)
        try:
            with _replaced_pkg_resources():
                # Training doesn't need it, and the import takes half a second.
                import tensorflow_hub as hub

            with without_patterns(self.handle) as name:
                module = hub.load(name)
        # Errors of many types: no network, no such file, no model.
        except Exception as error:
            raise UserError(
                f"can't be loaded ({type(error).__name__}: {first_line(error)}). "
                f"Expected a network connection to {VGGISH}, or the folder of that "
                "module, downloaded and unpacked.",
                field="vggish",
                value=self.handle,
            ) from error

        rate_hz, patch_samples = FrontEnd().sample_rate_hz, FrontEnd().patch_samples

        @tf.function(input_signature=[tf.TensorSpec((None, rate_hz), tf.float32)])
        def features_of(seconds: tf.Tensor) -> tf.Tensor:
            padded = tf.pad(seconds, [(0, 0), (0, 2 * patch_samples - rate_hz)])
            return tf.nn.relu(module(tf.reshape(padded, [-1]))[::2])

        self.module, self.features_of = module, features_of
        try:
            num_rows, self.width = features_of(np.zeros((2, rate_hz), np.float32)).shape
            if num_rows != 2:
                raise ValueError(f"expected 2 patches of two seconds, got {num_rows}")
        # Errors of many types: a module may hold any graph.
        except Exception as error:
            raise UserError(
                "Expected a module that makes (patches, width) of a waveform "
                "(samples,) at 16 kHz, a patch every 0.96 s. Received a module that "
                f"fails: {first_line(error)}",
                field="vggish",
                value=self.handle,
            ) from error

    def __call__(self, seconds: np.ndarray) -> np.ndarray:
        """Return the features of seconds of sound.

        Args:
            seconds: `(num_seconds, 16000)` float32, mono, in [-1, 1].

        Returns:
            `(num_seconds, width)` float32, at least 0.
        """
        return self.features_of(seconds).numpy()


@contextlib.contextmanager
def _replaced_pkg_resources() -> Iterator[None]:
    """Replace pkg_resources, of which tensorflow_hub 0.16.1 takes one function.

    Setuptools 82 lacks pkg_resources, and earlier versions warn on its import.
    """
    name = "pkg_resources"
    if name in sys.modules:
        yield
        return
    # A dependency of TensorFlow.
    from packaging.version import parse

    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].parse_version = parse
    try:
        yield
    finally:
        del sys.modules[name]

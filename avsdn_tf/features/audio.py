"""Audio features as AVE has them: VGGish, one second at a time.

VGGish is a convolutional network on a log-mel spectrogram. Its TensorFlow Hub module
holds the front end too, with the constants that `FrontEnd` names for whoever has to
rebuild it elsewhere.
"""

import dataclasses
import os
import warnings

import numpy as np
import tensorflow as tf

from avsdn_tf.errors import UserError, first_line
from avsdn_tf.files import without_patterns

VGGISH = "https://tfhub.dev/google/vggish/1"


@dataclasses.dataclass(frozen=True)
class FrontEnd:
    """The constants of VGGish's log-mel front end (Hershey et al., ICASSP 2017).

    A Hann window of `window_samples` moves by `hop_samples`; the magnitudes of an FFT
    of `fft_samples` are summed in `mel_bands` triangles, evenly spaced between the two
    frequencies on the mel scale 1127 ln(1 + f / 700); `log(mel + log_offset)` of
    `num_frames` windows is what the network sees: 15,600 samples, 0.975 s.
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
        """Samples from one patch of a longer waveform to the next."""
        return self.num_frames * self.hop_samples


class AudioNetwork:
    """VGGish, with the final ReLU that AVE's features have and the module lacks.

    Every second is looked at on its own: of a longer waveform the module makes patches
    of 0.96 s, which drift from the seconds. So each second is followed by silence up to
    the patch after the next, and every other patch is dropped. That is twice the
    patches, yet takes two thirds of the time of a call a second: the weights of the
    dense layers, 270 MB, are read once for all.

    Args:
        handle: Address of a TensorFlow Hub module, or the folder of a SavedModel of the
            same signature: `(samples,)` float32 at 16 kHz, mono, in [-1, 1], to
            `(patches, width)`.

    Attributes:
        module: The TensorFlow Hub module.
        features_of: What a call does, for graphs: from a tensor to a tensor.

    Raises:
        UserError: If it can't be loaded, or has another signature.

    Reference:
        Hershey et al., "CNN architectures for large-scale audio classification", ICASSP
        2017, https://arxiv.org/abs/1609.09430.
    """

    def __init__(self, handle: str | os.PathLike[str] = VGGISH) -> None:
        self.handle = os.fspath(handle)
        try:
            with warnings.catch_warnings():
                # It imports what setuptools deprecates; nobody here can help it.
                warnings.filterwarnings("ignore", "pkg_resources is deprecated")
                # Half a second that training can do without.
                import tensorflow_hub as hub

            with without_patterns(self.handle) as name:
                module = hub.load(name)
        # What goes wrong below is of many kinds: no network, no such file, no model.
        except Exception as error:
            raise UserError(
                f"--vggish={self.handle}: can't be loaded "
                f"({type(error).__name__}: {first_line(error)}). Expected a "
                f"network connection to {VGGISH}, or the folder of that module, "
                "downloaded and unpacked, by --vggish=FOLDER."
            ) from error

        rate_hz, patch_samples = FrontEnd().sample_rate_hz, FrontEnd().patch_samples

        @tf.function(input_signature=[tf.TensorSpec((None, rate_hz), tf.float32)])
        def features_of(seconds: tf.Tensor) -> tf.Tensor:
            apart = tf.pad(seconds, [(0, 0), (0, 2 * patch_samples - rate_hz)])
            return tf.nn.relu(module(tf.reshape(apart, [-1]))[::2])

        self.module, self.features_of = module, features_of
        try:
            num_rows, self.width = features_of(np.zeros((2, rate_hz), np.float32)).shape
            if num_rows != 2:
                raise ValueError(f"expected 2 patches of two seconds, got {num_rows}")
        except (TypeError, ValueError, IndexError, tf.errors.OpError) as error:
            raise UserError(
                f"--vggish={self.handle}: expected a module that makes (patches, "
                "width) of a waveform (samples,) at 16 kHz, a patch every 0.96 s. "
                f"Received one that fails: {first_line(error)}"
            ) from error

    def __call__(self, seconds: np.ndarray) -> np.ndarray:
        """Returns the features of seconds of sound.

        Args:
            seconds: `(num_seconds, 16000)` float32, mono, in [-1, 1].

        Returns:
            `(num_seconds, width)` float32, at least 0.
        """
        return self.features_of(seconds).numpy()

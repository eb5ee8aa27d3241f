"""VGGish with random weights, and with the signature of the Hub module."""

import keras
import numpy as np
import tensorflow as tf

from avsdn_tf.features.vggish import FRONT_END


def mel_matrix():
    """Return the weights of mel bands, `(257, 64)`: triangles on HTK's mel scale."""

    def mel(hertz):
        return 1127 * np.log1p(np.asarray(hertz) / 700)

    bins_hz = np.linspace(
        0, FRONT_END.sample_rate_hz / 2, FRONT_END.fft_samples // 2 + 1
    )
    edges = np.linspace(
        mel(FRONT_END.lowest_hz), mel(FRONT_END.highest_hz), FRONT_END.mel_bands + 2
    )
    at = mel(bins_hz)[:, None]
    lower, center, upper = edges[:-2], edges[1:-1], edges[2:]
    weights = np.minimum(
        (at - lower) / (center - lower), (upper - at) / (upper - center)
    )
    weights = np.maximum(weights, 0)
    weights[0] = 0
    return weights


def numpy_log_mel(waveform):
    """Compute the front end's patches, `(patches, 96, 64)`, in plain NumPy."""
    f = FRONT_END
    count = 1 + (len(waveform) - f.window_samples) // f.hop_samples
    starts = f.hop_samples * np.arange(count)
    frames = waveform[starts[:, None] + np.arange(f.window_samples)]
    # The periodic window, as in TensorFlow: NumPy's `hanning` is symmetric.
    hann = 0.5 - 0.5 * np.cos(
        2 * np.pi * np.arange(f.window_samples) / f.window_samples
    )
    spectrum = np.abs(np.fft.rfft(frames * hann, f.fft_samples))
    log_mel = np.log(spectrum @ mel_matrix() + f.log_offset)
    patches = count // f.num_frames
    return log_mel[: patches * f.num_frames].reshape(patches, f.num_frames, f.mel_bands)


def network():
    """Return VGGish's variant of the convolutional network of Hershey et al."""
    layers = [keras.Input((FRONT_END.num_frames, FRONT_END.mel_bands, 1))]
    for widths in ((64,), (128,), (256, 256), (512, 512)):
        layers += [
            keras.layers.Conv2D(width, 3, padding="same", activation="relu")
            for width in widths
        ]
        layers.append(keras.layers.MaxPool2D(2))
    layers.append(keras.layers.Flatten())
    layers += [keras.layers.Dense(width, "relu") for width in (4096, 4096)]
    layers.append(keras.layers.Dense(128))
    return keras.Sequential(layers)


class VGGish(tf.Module):
    """Maps a waveform `(samples,)` to features `(patches, 128)` before the ReLU."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.mel = tf.constant(mel_matrix(), tf.float32)

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.float32)])
    def log_mel(self, waveform):
        f = FRONT_END
        spectrum = tf.abs(
            tf.signal.stft(waveform, f.window_samples, f.hop_samples, f.fft_samples)
        )
        log_mel = tf.math.log(spectrum @ self.mel + f.log_offset)
        patches = tf.shape(log_mel)[0] // f.num_frames
        return tf.reshape(
            log_mel[: patches * f.num_frames], (-1, f.num_frames, f.mel_bands)
        )

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.float32)])
    def __call__(self, waveform):
        return self.model(self.log_mel(waveform)[..., None])


def save(folder, model=None):
    """Write a SavedModel with the signature of the Hub module."""
    keras.utils.set_random_seed(0)
    module = VGGish(model or network())
    tf.saved_model.save(module, str(folder))
    return module

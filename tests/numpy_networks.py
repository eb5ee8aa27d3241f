"""The networks' equations in plain NumPy, to test the layers."""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm(sequence, kernel, recurrent_kernel, bias, hidden=None, cell=None):
    """Eq. 1 of Lin et al. in Keras's gate order: input, forget, cell, output."""
    batch, num_segments, _ = sequence.shape
    units = recurrent_kernel.shape[0]
    hidden = np.zeros((batch, units)) if hidden is None else hidden
    cell = np.zeros((batch, units)) if cell is None else cell
    outputs = []
    for t in range(num_segments):
        gates = sequence[:, t] @ kernel + hidden @ recurrent_kernel + bias
        i, f, g, o = np.split(gates, 4, axis=-1)
        cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
        hidden = sigmoid(o) * np.tanh(cell)
        outputs.append(hidden)
    return np.stack(outputs, axis=1), hidden, cell


def mlp(x, weights):
    """Dense, tanh, dense."""
    first, first_bias, second, second_bias = weights
    return np.tanh(x @ first + first_bias) @ second + second_bias


def fusion(audio, visual, audio_mlp, visual_mlp, merge="sum"):
    """Eq. 2 of Lin et al."""
    update = (mlp(audio, audio_mlp) + mlp(visual, visual_mlp)) / 2
    fused = np.tanh(audio + update) + np.tanh(visual + update)
    return fused / 2 if merge == "mean" else fused


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)

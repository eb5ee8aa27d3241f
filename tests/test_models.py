import gc

import keras
import numpy as np
import pytest
import tensorflow as tf

import avsdn_tf
from avsdn_tf.models import SegmentClassifier
from avsdn_tf.models.attention import AudioGuidedAttention, SpatialMean
from avsdn_tf.models.decoder import Decoder
from avsdn_tf.models.fusion import DMRNFusion
from avsdn_tf.models.lstm import SegmentLSTM, SequenceLSTM
from avsdn_tf.models.registry import MODELS
from tests import numpy_networks as expected

CATEGORIES = ["Bark", "Violin, fiddle", "Frying (food)"]


def randomize(layer, rng):
    """Randomize all trainable weights: a zero bias would hide a missing addition."""
    # Other weights include the state of dropout's seed, an unsigned integer.
    for weight in layer.trainable_weights:
        weight.assign(rng.normal(0, 0.5, weight.shape))


def make_inputs(rng, num_segments=6, visual_shape=(7,), batch=2):
    return {
        "audio": rng.normal(size=(batch, num_segments, 5)).astype("float32"),
        "visual": rng.normal(size=(batch, num_segments, *visual_shape)).astype(
            "float32"
        ),
    }


# SegmentLSTM unrolls the loop over 6 segments, and uses Keras's loop for 40.
lengths = pytest.mark.parametrize("num_segments", [6, 40])


@lengths
def test_lstm_follows_the_corrected_equation_1(rng, num_segments):
    layer = SequenceLSTM(4)
    sequence = rng.normal(size=(3, num_segments, 5)).astype("float32")
    layer(sequence)
    randomize(layer, rng)
    for actual, wanted in zip(
        layer(sequence), expected.lstm(sequence, *layer.get_weights()), strict=True
    ):
        np.testing.assert_allclose(actual, wanted, atol=1e-6)


def test_lstm_starts_from_given_states(rng):
    layer = SequenceLSTM(4)
    sequence = rng.normal(size=(3, 6, 5)).astype("float32")
    hidden, cell = rng.normal(size=(2, 3, 4)).astype("float32")
    layer(sequence)
    randomize(layer, rng)
    actual = layer(sequence, hidden, cell)
    wanted = expected.lstm(sequence, *layer.get_weights(), hidden, cell)
    for one, other in zip(actual, wanted, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    with pytest.raises(ValueError, match="both states or neither"):
        layer(sequence, hidden)


@lengths
def test_bidirectional_lstm_splits_states_by_direction(rng, num_segments):
    layer = SequenceLSTM(4, bidirectional=True)
    sequence = rng.normal(size=(3, num_segments, 5)).astype("float32")
    hidden, cell = rng.normal(size=(2, 3, 8)).astype("float32")
    layer(sequence)
    randomize(layer, rng)
    weights = layer.get_weights()
    forward = expected.lstm(sequence, *weights[:3], hidden[:, :4], cell[:, :4])
    backward = expected.lstm(
        sequence[:, ::-1], *weights[3:], hidden[:, 4:], cell[:, 4:]
    )
    outputs, last_hidden, last_cell = layer(sequence, hidden, cell)
    np.testing.assert_allclose(
        outputs, np.concatenate([forward[0], backward[0][:, ::-1]], -1), atol=1e-6
    )
    np.testing.assert_allclose(
        last_hidden, np.concatenate([forward[1], backward[1]], -1), atol=1e-6
    )
    np.testing.assert_allclose(
        last_cell, np.concatenate([forward[2], backward[2]], -1), atol=1e-6
    )


@pytest.mark.parametrize(
    "asked",
    [
        {"activation": "relu"},
        {"recurrent_activation": "hard_sigmoid"},
        {"use_bias": False},
        {"dropout": 0.1},
        {"recurrent_dropout": 0.1},
    ],
)
def test_an_lstm_with_another_cell_is_refused(asked):
    with pytest.raises(ValueError, match=r"Use keras\.layers\.LSTM"):
        SegmentLSTM(4, **asked)


@pytest.mark.parametrize("merge", ["sum", "mean"])
@pytest.mark.parametrize("shared_mlp", [True, False])
def test_fusion_follows_equation_2(rng, merge, shared_mlp):
    layer = DMRNFusion(shared_mlp, merge)
    audio, visual = rng.normal(size=(2, 3, 4)).astype("float32")
    layer(audio, visual)
    randomize(layer, rng)
    audio_mlp = layer.audio_mlp.get_weights()
    visual_mlp = layer.visual_mlp.get_weights()
    assert len(layer.weights) == (4 if shared_mlp else 8)
    np.testing.assert_allclose(
        layer(audio, visual),
        expected.fusion(audio, visual, audio_mlp, visual_mlp, merge),
        atol=1e-6,
    )


def test_fusion_by_hand():
    # Weights of 0 leave tanh(1) + tanh(-2).
    layer = DMRNFusion()
    audio, visual = np.array([[1.0]]), np.array([[-2.0]])
    layer(audio, visual)
    layer.set_weights([np.zeros(w.shape) for w in layer.get_weights()])
    np.testing.assert_allclose(
        layer(audio, visual), [[0.7615942 - 0.9640276]], atol=1e-6
    )


def test_fusion_refuses_unknown_options_and_different_shapes():
    with pytest.raises(ValueError, match=r"'sum', 'mean'.*merge='max'"):
        DMRNFusion(merge="max")
    with pytest.raises(ValueError, match=r"same shape.*\(2, 4\).*\(2, 5\)"):
        DMRNFusion()(np.zeros((2, 4)), np.zeros((2, 5)))


def test_decoder_appends_the_state_to_every_segment(rng):
    layer = Decoder(3, units=4, append_state=True)
    audio = rng.normal(size=(2, 6, 5)).astype("float32")
    visual = rng.normal(size=(2, 6, 7)).astype("float32")
    hidden, cell = rng.normal(size=(2, 2, 4)).astype("float32")
    layer(audio, visual, hidden, cell)
    randomize(layer, rng)
    *lstm_weights, head, head_bias = layer.get_weights()
    repeated = np.repeat(hidden[:, None], 6, axis=1)
    outputs, _, _ = expected.lstm(
        np.concatenate([audio, visual, repeated], -1), *lstm_weights, hidden, cell
    )
    np.testing.assert_allclose(
        layer(audio, visual, hidden, cell), outputs @ head + head_bias, atol=1e-5
    )


def test_spatial_mean_averages_maps_and_passes_vectors(rng):
    maps = rng.normal(size=(2, 3, 4, 5, 6)).astype("float32")
    np.testing.assert_allclose(SpatialMean()(maps), maps.mean((2, 3)), atol=1e-6)
    vectors = maps[:, :, 0, 0]
    np.testing.assert_array_equal(SpatialMean()(vectors), vectors)


def test_avsdn_follows_its_equations(rng):
    model = avsdn_tf.AVSDN(CATEGORIES, audio_width=5, visual_shape=(7,), units=4)
    randomize(model, rng)
    inputs = make_inputs(rng)
    audio, visual = inputs["audio"], inputs["visual"]
    _, audio_h, audio_c = expected.lstm(audio, *model.audio_encoder.get_weights())
    _, visual_h, visual_c = expected.lstm(visual, *model.visual_encoder.get_weights())
    hidden_mlp = model.hidden_fusion.get_weights()
    cell_mlp = model.cell_fusion.get_weights()
    *lstm_weights, head, head_bias = model.decoder.get_weights()
    outputs, _, _ = expected.lstm(
        np.concatenate([audio, visual], -1),
        *lstm_weights,
        expected.fusion(audio_h, visual_h, hidden_mlp, hidden_mlp),
        expected.fusion(audio_c, visual_c, cell_mlp, cell_mlp),
    )
    np.testing.assert_allclose(model(inputs), outputs @ head + head_bias, atol=1e-5)


def test_avsdn_has_the_number_of_weights_of_its_paper():
    model = avsdn_tf.AVSDN([str(k) for k in range(28)])
    units, audio, visual = 128, 128, 2048

    def lstm(width):
        return 4 * units * (width + units + 1)

    fusion = 2 * (units * units + units)
    assert model.count_params() == (
        lstm(audio) + lstm(visual) + 2 * fusion + lstm(audio + visual) + 129 * 29
    )


def make_model(name, visual_shape, **options):
    entry = MODELS[name]
    return entry.network(
        CATEGORIES,
        audio_width=5,
        visual_shape=visual_shape,
        units=4,
        **options,
        **entry.fixed,
    )


CLASSIFIERS = [
    name for name in MODELS if issubclass(MODELS[name].network, SegmentClassifier)
]
NEED_MAPS = {name for name in MODELS if MODELS[name].needs_maps}
EVERY_MODEL = [
    (name, shape, {})
    for name in CLASSIFIERS
    for shape in ((7,), (2, 3, 4))
    if not (name in NEED_MAPS and len(shape) == 1)
] + [
    ("avsdn", (7,), {"bidirectional": True, "dropout": 0.5}),
    ("avsdn", (7,), {"append_state": True, "shared_mlp": False, "merge": "mean"}),
    ("avsdn", (7,), {"shared_fusion": True}),
    ("avel", (7,), {"dropout": 0.5}),
]


@pytest.mark.parametrize(("name", "visual_shape", "options"), EVERY_MODEL)
def test_model_saves_and_loads_and_accepts_any_length(
    name, visual_shape, options, rng, tmp_path
):
    model = make_model(name, visual_shape, **options)
    randomize(model, rng)
    inputs = make_inputs(rng, visual_shape=visual_shape)
    before = np.asarray(model(inputs))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(inputs), before)
    assert loaded.categories == CATEGORIES
    assert loaded.visual_shape == visual_shape
    assert loaded.get_config() == model.get_config()
    assert before.shape == (2, 6, 4)
    longer = make_inputs(rng, num_segments=9, visual_shape=visual_shape, batch=3)
    assert loaded(longer).shape == (3, 9, 4)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_weight_has_a_gradient(name, rng):
    model = make_model(name, (2, 3, 4))
    inputs = make_inputs(rng, visual_shape=(2, 3, 4))
    with tf.GradientTape() as tape:
        outputs = model.compute_outputs(inputs, training=True)
        total = sum(tf.reduce_sum(output**2) for output in outputs.values())
    gradients = tape.gradient(total, model.trainable_variables)
    assert all(np.abs(gradient).max() > 0 for gradient in gradients)


def test_model_learns_with_keras_fit(rng):
    keras.utils.set_random_seed(0)
    model = make_model("avsdn", (7,))
    model.compile(
        keras.optimizers.Adam(0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    inputs = make_inputs(rng, batch=16)
    labels = rng.integers(0, 4, (16, 6))
    history = model.fit(inputs, labels, epochs=30, verbose=0).history["loss"]
    assert history[-1] < 0.9 * history[0]


@pytest.mark.parametrize("audio_axis", ["hidden", "cell"])
def test_attention_follows_its_equation(rng, audio_axis):
    layer = AudioGuidedAttention(units=3, audio_axis=audio_axis)
    audio = rng.normal(size=(2, 6, 5)).astype("float32")
    visual = rng.normal(size=(2, 6, 2, 3, 4)).astype("float32")
    layer(audio, visual)
    randomize(layer, rng)
    w_a, b_a = layer.audio_projection.get_weights()
    w_v, b_v = layer.visual_projection.get_weights()
    (q,) = layer.audio_scores.get_weights()
    (p,) = layer.visual_scores.get_weights()
    (w,) = layer.cell_score.get_weights()
    attended = np.zeros((2, 6, 4))
    for clip, segment in np.ndindex(2, 6):
        heard = np.maximum(audio[clip, segment] @ w_a + b_a, 0) @ q
        cells = visual[clip, segment].reshape(6, 4)
        seen = np.maximum(cells @ w_v + b_v, 0) @ p
        # Rows are cells of the map, columns are hidden units.
        heard = heard[None] if audio_axis == "hidden" else heard[:, None]
        weights = expected.softmax((np.tanh(seen + heard) @ w)[:, 0])
        attended[clip, segment] = weights @ cells
    actual, weights = layer(audio, visual)
    np.testing.assert_allclose(actual, attended, atol=1e-5)
    assert weights.shape == (2, 6, 2, 3)
    np.testing.assert_allclose(np.sum(weights, axis=(2, 3)), 1, atol=1e-6)
    with pytest.raises(ValueError, match="feature maps"):
        AudioGuidedAttention()(audio, visual[:, :, 0, 0])
    with pytest.raises(ValueError, match="audio_axis='time'"):
        AudioGuidedAttention(audio_axis="time")


def encode_both_ways(sequence, layer):
    weights = layer.get_weights()
    forward, _, _ = expected.lstm(sequence, *weights[:3])
    backward, _, _ = expected.lstm(sequence[:, ::-1], *weights[3:])
    return np.concatenate([forward, backward[:, ::-1]], axis=-1)


@pytest.mark.parametrize("modalities", ["audio", "visual", "both"])
def test_avel_follows_its_equations(rng, modalities):
    model = avsdn_tf.AVEL(
        CATEGORIES, 5, visual_shape=(2, 3, 4), modalities=modalities, units=4
    )
    randomize(model, rng)
    inputs = make_inputs(rng, visual_shape=(2, 3, 4))
    encoded = []
    if modalities != "visual":
        encoded.append(encode_both_ways(inputs["audio"], model.audio_encoder))
    if modalities != "audio":
        mean = inputs["visual"].mean(axis=(2, 3))
        encoded.append(encode_both_ways(mean, model.visual_encoder))
    w1, b1 = model.hidden.get_weights()
    w2, b2 = model.head.get_weights()
    hidden = np.maximum(np.maximum(np.concatenate(encoded, -1), 0) @ w1 + b1, 0)
    np.testing.assert_allclose(model(inputs), hidden @ w2 + b2, atol=1e-5)


def test_dmrn_follows_its_equations_and_copies_encoders(rng):
    source = avsdn_tf.AVEL(
        CATEGORIES, 5, visual_shape=(2, 3, 4), attention=True, units=4
    )
    randomize(source, rng)
    model = avsdn_tf.DMRN(CATEGORIES, 5, visual_shape=(2, 3, 4), units=4)
    randomize(model, rng)
    with pytest.raises(ValueError, match=r"Expected an AVEL of.*'cell'"):
        model.load_encoders(
            avsdn_tf.AVEL(
                CATEGORIES,
                5,
                visual_shape=(2, 3, 4),
                attention=True,
                audio_axis="cell",
                units=4,
            )
        )
    model.load_encoders(source)
    inputs = make_inputs(rng, visual_shape=(2, 3, 4))
    attended, _ = source.visual_pooling(inputs["audio"], inputs["visual"])
    fused = expected.fusion(
        encode_both_ways(inputs["audio"], source.audio_encoder),
        encode_both_ways(np.asarray(attended), source.visual_encoder),
        model.fusion.audio_mlp.get_weights(),
        model.fusion.visual_mlp.get_weights(),
        merge="mean",
    )
    w, b = model.head.get_weights()
    np.testing.assert_allclose(model(inputs), fused @ w + b, atol=1e-5)


@pytest.mark.parametrize("modality", ["audio", "visual"])
def test_decoder_starts_from_one_modality(rng, modality):
    model = avsdn_tf.AVSDN(CATEGORIES, 5, (7,), units=4, initial_state=modality)
    randomize(model, rng)
    inputs = make_inputs(rng)
    encoder = getattr(model, f"{modality}_encoder")
    _, hidden, cell = expected.lstm(inputs[modality], *encoder.get_weights())
    logits = model.decoder(inputs["audio"], inputs["visual"], hidden, cell)
    np.testing.assert_allclose(model(inputs), logits, atol=1e-5)


def test_label_guides_predict_clip_logits_from_encoder_states(rng):
    model = avsdn_tf.AVSDN(CATEGORIES, 5, (7,), units=4, label_guided=True)
    randomize(model, rng)
    inputs = make_inputs(rng)
    outputs = model.compute_outputs(inputs)
    for modality in ("audio", "visual"):
        encoder = getattr(model, f"{modality}_encoder").get_weights()
        guide = getattr(model, f"{modality}_guide").get_weights()
        _, hidden, _ = expected.lstm(inputs[modality], *encoder)
        np.testing.assert_allclose(
            outputs[f"{modality}_clip_logits"],
            expected.mlp(hidden, guide),
            atol=1e-5,
        )


def test_dropout_drops_a_feature_in_all_segments(rng):
    model = avsdn_tf.AVSDN(CATEGORIES, audio_width=50, visual_shape=(7,), dropout=0.5)
    dropped = np.asarray(model.audio_dropout(np.ones((2, 6, 50)), training=True)) == 0
    assert 0.2 < dropped.mean() < 0.8
    assert (dropped == dropped[:, :1]).all()


def test_model_refuses_arguments_out_of_range():
    with pytest.raises(ValueError, match="at least one name"):
        avsdn_tf.AVSDN([])
    with pytest.raises(ValueError, match=r"visual_shape=\(7, 7\)"):
        avsdn_tf.AVSDN(CATEGORIES, visual_shape=(7, 7))
    with pytest.raises(ValueError, match="initial_state='both'"):
        avsdn_tf.AVSDN(CATEGORIES, initial_state="both")
    with pytest.raises(ValueError, match=r"feature maps.*visual_shape=\(2048,\)"):
        avsdn_tf.AVEL(CATEGORIES, attention=True)
    with pytest.raises(ValueError, match="modalities='smell'"):
        avsdn_tf.AVEL(CATEGORIES, modalities="smell")


def test_model_runs_in_mixed_precision(rng):
    model = avsdn_tf.AVSDN(
        CATEGORIES, audio_width=5, visual_shape=(7,), units=4, dtype="mixed_bfloat16"
    )
    assert model.decoder.compute_dtype == model.compute_dtype == "bfloat16"
    # Layers compute in bfloat16, but the logits are float32.
    logits = model(make_inputs(rng))
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"
    assert all(w.dtype == "float32" for w in model.weights)


def test_logits_are_not_rounded_in_mixed_precision(rng):
    attention = {"visual_shape": (2, 2, 7), "attention": True}
    networks = [
        (avsdn_tf.AVSDN, {"visual_shape": (7,)}),
        (avsdn_tf.AVEL, {"visual_shape": (7,)}),
        (avsdn_tf.DMRN, {"visual_shape": (2, 2, 7)}),
        (avsdn_tf.AVEL, attention),
    ]
    for kind, options in networks:
        model = kind(CATEGORIES, 5, **options, units=4, dtype="mixed_bfloat16")
        inputs = {
            "audio": rng.random((2, 3, 5), np.float32),
            "visual": rng.random((2, 3, *options["visual_shape"]), np.float32),
        }
        logits = np.asarray(model(inputs))
        rounded = keras.ops.convert_to_numpy(keras.ops.cast(logits, "bfloat16"))
        assert (logits != rounded.astype(np.float32)).mean() > 0.5


@keras.saving.register_keras_serializable(package="test_models")
class ManyLSTMs(keras.Model):
    """A network of six bidirectional LSTMs."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.lstms = []
        for _ in range(6):
            self.lstms.append(SequenceLSTM(2, bidirectional=True))
            # Free temporary objects, so that new objects may get the same IDs.
            gc.collect()
        self(keras.Input((1, 2)))

    def call(self, sequence):
        return sum(lstm(sequence)[0] for lstm in self.lstms)


def test_loaded_lstms_share_no_layers(tmp_path, rng):
    model = ManyLSTMs()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    layers = [
        layer
        for lstm in loaded.lstms
        for layer in (lstm.lstm.forward_layer, lstm.lstm.backward_layer)
    ]
    assert len({id(layer) for layer in layers}) == 12
    sequence = rng.normal(size=(2, 3, 2)).astype("f")
    np.testing.assert_allclose(loaded(sequence), model(sequence), atol=1e-5)

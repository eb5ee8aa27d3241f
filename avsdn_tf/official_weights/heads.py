"""Convert the `state_dict`s of CMRAN, PSP, CPSP, CMBS and CACE-Net.

Weights of modules that the authors' program creates but never calls are ignored.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from avsdn_tf.models.cace import CACENet
from avsdn_tf.models.channel_spatial import (
    ChannelSpatialAttention,
    SelfGuidedAttention,
    UnscaledAttention,
)
from avsdn_tf.models.cmbs import CMBS, GatedNetwork
from avsdn_tf.models.cmran import CMRAN
from avsdn_tf.models.cpsp import CPSP
from avsdn_tf.models.propagation import PSPEncoder
from avsdn_tf.models.psp import PSP
from avsdn_tf.models.transformer import (
    CrossModalInteraction,
    TransformerBlock,
)
from avsdn_tf.official_weights.state import StateReader
from avsdn_tf.official_weights.tian import attention_layers, map_side

# Modules that the program never calls: the layers that PyTorch's encoders and decoders
# are copied from, and the decoders' self-attention.
_TEMPLATES = tuple(
    f"{modality}_{part}"
    for modality in ("audio", "video")
    for part in (
        "encoder.encoder_layer.",
        "decoder.decoder_layer.",
        "decoder.decoder.layers.0.self_attn.",
    )
)
_ATTENTION = "spatial_channel_att"
_PSP_UNUSED = ("v_classify.", "a_classify.")
# Height and width of VGG-19's maps, which CMRAN, CMBS and CACE-Net read.
_SIDE = 7


def convert_psp(state: Mapping[str, Any], categories: Sequence[str]) -> PSP:
    """Return a PSP with the weights of Zhou et al.'s program.

    Args:
        state: `state_dict` of their `psp_net`, supervised or weakly supervised; values
            are arrays that `numpy.asarray` accepts.
        categories: Names of the event categories, without background, in the order of
            the program's classes. `tfds_ave` has the same order.

    Returns:
        The model. Its logits equal those of the program.

    Raises:
        ValueError: If a name is missing or unknown, or a shape doesn't fit.

    Example:
        >>> from avsdn_tf.official_weights import convert_psp
        >>> model = convert_psp(state, categories)
        >>> model.save("psp.keras")
    """
    weak = any(name.endswith("W3.weight") for name in state)
    unused = ("temperature", "W1.", "W2.") if weak else ("linear_v.", "L3.", "L4.")
    reader = StateReader(state, "Zhou et al.", (*_PSP_UNUSED, *unused))
    model = PSP(categories, **_psp_options(reader, weak), weak=weak)
    _set_psp_encoder(reader, model.encoder)
    reader.set_dense({"L1": model.hidden, "L2": model.head})
    if weak:
        reader.set_dense({"W3": model.segment_weight})
    reader.check_all_read()
    return model


def convert_cpsp(state: Mapping[str, Any], categories: Sequence[str]) -> CPSP:
    """Return a CPSP with the weights of Zhou et al.'s program.

    Args:
        state: `state_dict` of their `fully_psp_net` or `weakly_psp_net`, as in
            `convert_psp`.
        categories: As in `convert_psp`.

    Returns:
        The model. Its predicted classes equal those of the program.

    Raises:
        ValueError: If a name is missing or unknown, or a shape doesn't fit.

    Example:
        >>> from avsdn_tf.official_weights import convert_cpsp
        >>> model = convert_cpsp(state, categories)
        >>> model.save("cpsp.keras")
    """
    unused = (*_PSP_UNUSED, "linear_v.", "L1.", "L2.")
    reader = StateReader(state, "Zhou et al.", unused)
    # Only the weakly supervised network has a class for background here.
    weak = reader.matrix_shape("category_classifier.0.weight")[0] > len(categories)
    model = CPSP(categories, **_psp_options(reader), weak=weak)
    _set_psp_encoder(reader, model.encoder)
    heads = {"event_classifier.0": model.event_head}
    reader.set_dense({**heads, "category_classifier.0": model.category_head})
    reader.check_all_read()
    return model


def convert_cmran(state: Mapping[str, Any], categories: Sequence[str]) -> CMRAN:
    """Return a CMRAN with the weights of Xu et al.'s program.

    Args:
        state: `state_dict` of their `supv_main_model` or `weak_main_model`, as in
            `convert_psp`.
        categories: As in `convert_psp`.

    Returns:
        The model. Its predicted classes equal those of the program.

    Raises:
        ValueError: If a name is missing or unknown, or a shape doesn't fit.

    Example:
        >>> from avsdn_tf.official_weights import convert_cmran
        >>> model = convert_cmran(state, categories)
        >>> model.save("cmran.keras")
    """
    unused = (*_TEMPLATES, f"{_ATTENTION}.affine_video_guided_")
    reader = StateReader(state, "Xu et al.", unused)
    num_classes, _ = reader.matrix_shape("localize_module.event_classifier.weight")
    model = CMRAN(categories, **_options(reader), weak=num_classes > len(categories))
    _set_channel_spatial(reader, model.spatial_attention)
    _set_encoders(reader, model)
    _set_interaction(reader, "AVInter", model.interaction)
    _set_heads(reader, model)
    reader.check_all_read()
    return model


def convert_cmbs(state: Mapping[str, Any], categories: Sequence[str]) -> CMBS:
    """Return a CMBS with the weights of Xia and Zhao's program.

    Args:
        state: `state_dict` of their `supv_main_model` or `weak_main_model`, as in
            `convert_psp`.
        categories: As in `convert_psp`.

    Returns:
        The model. Its predicted classes equal those of the program. The weakly
        supervised program predicts no background; set `model.always_event = False` to
        let the gates predict background.

    Raises:
        ValueError: If a name is missing or unknown, or a shape doesn't fit.

    Example:
        >>> from avsdn_tf.official_weights import convert_cmbs
        >>> model = convert_cmbs(state, categories)
        >>> model.save("cmbs.keras")
    """
    weak = any(name.endswith("CAS_model.classifier.0.weight") for name in state)
    unused = ("classifier.",) if weak else ("video_norm.", "audio_norm.")
    unused = (*_TEMPLATES, *unused, f"{_ATTENTION}.ave_bottleneck.")
    reader = StateReader(state, "Xia and Zhao", unused)
    model = CMBS(categories, **_options(reader), weak=weak, always_event=weak)
    _set_self_guided(reader, model.spatial_attention, "norm")
    _set_gated(reader, model)
    if weak:
        # In the program, this layer is a convolution with kernel size 1.
        kernel = model.category_head.kernel
        name = "CAS_model.classifier.0.weight"
        matrix = reader.take(name, (*reversed(kernel.shape), 1))
        model.category_head.set_weights([matrix[..., 0].T])
    else:
        _set_lstms(reader, model)
        _set_heads(reader, model)
    reader.check_all_read()
    return model


def convert_cace(state: Mapping[str, Any], categories: Sequence[str]) -> CACENet:
    """Return a CACE-Net with the weights of He et al.'s program.

    Args:
        state: `state_dict` of their `supv_main_model` with co-guidance, as in
            `convert_psp`.
        categories: As in `convert_psp`.

    Returns:
        The model, with contrast enabled as in their evaluation. Its predicted classes
        equal those of the program.

    Raises:
        ValueError: If a name is missing or unknown, or a shape doesn't fit.

    Example:
        >>> from avsdn_tf.official_weights import convert_cace
        >>> model = convert_cace(state, categories)
        >>> model.save("cace.keras")
    """
    unused = [f"{_ATTENTION}.{name}" for name in ("ave_bottleneck.", "v_norm2.")]
    reader = StateReader(state, "He et al.", (*_TEMPLATES, *unused, "a_fc."))
    model = CACENet(categories, **_options(reader))
    attention = model.spatial_attention
    _set_self_guided(reader, attention.visual_attention, "v_norm")
    for names, layer in (
        (("video_query2", "video_key2", "video_value2"), attention.cell_attention),
        (("audio_query", "audio_key", "audio_value"), attention.audio_attention),
        (("v_query", "vaudio_key", "vaudio_value"), attention.guide),
    ):
        _set_unscaled(reader, names, layer)
    reader.set_norms({f"{_ATTENTION}.a_norm": attention.audio_norm})
    _set_gated(reader, model)
    _set_lstms(reader, model)
    _set_heads(reader, model)
    reader.set_dense({"localize_module.encoder_q.0": model.contrast_projection})
    model.contrast.assign(1.0)
    reader.check_all_read()
    return model


def _psp_options(reader: StateReader, reduced: bool = False) -> dict[str, Any]:
    """Return the shape arguments of PSP and CPSP; `reduced` as in `PSPEncoder`."""
    units = reader.matrix_shape("lstm_a_v.lstm_audio.weight_hh_l0")[1]
    side = map_side(reader, "attention.affine_v.weight")
    audio = "attention.affine_audio.weight" if reduced else "fa.0.weight"
    visual_width = reader.matrix_shape("attention.affine_video.weight")[1]
    return {
        "audio_width": reader.matrix_shape(audio)[1],
        "visual_shape": (side, side, visual_width),
        "units": units,
        # The program differs from AVEL's equation; see AudioGuidedAttention.
        "audio_axis": "cell",
    }


def _set_psp_encoder(reader: StateReader, encoder: PSPEncoder) -> None:
    attention = attention_layers(encoder.visual_pooling)
    propagation = encoder.propagation
    layers = {f"attention.{name}": layer for name, layer in attention.items()}
    layers |= {
        "psp.v_L1": propagation.visual_value,
        "psp.v_L2": propagation.visual_key,
        "psp.a_L1": propagation.audio_key,
        "psp.a_L2": propagation.audio_value,
    }
    if encoder.reduced:
        layers["linear_v"] = encoder.visual_projection
    else:
        layers |= {
            "fa.0": encoder.audio_hidden,
            "fa.1": encoder.audio_projection,
            "fv.0": encoder.visual_hidden,
            "fv.1": encoder.visual_projection,
            "psp.v_fc": propagation.visual_output,
            "psp.a_fc": propagation.audio_output,
        }
    reader.set_dense(layers)
    reader.set_norms({"psp.layer_norm": propagation.norm})
    reader.set_lstm("lstm_a_v.lstm_audio", encoder.audio_encoder)
    reader.set_lstm("lstm_a_v.lstm_video", encoder.visual_encoder)


def _options(reader: StateReader) -> dict[str, Any]:
    """Return the shape arguments of CMRAN, CMBS and CACE-Net."""
    return {
        "audio_width": reader.matrix_shape(f"{_ATTENTION}.affine_audio_1.weight")[1],
        "visual_shape": (_SIDE, _SIDE, reader.matrix_shape("v_fc.weight")[1]),
        "units": reader.matrix_shape("video_encoder.affine_matrix.weight")[0],
    }


def _set_channel_spatial(reader: StateReader, layer: ChannelSpatialAttention) -> None:
    layers = {
        "affine_video_1": layer.channel_visual,
        "affine_audio_1": layer.channel_audio,
        "affine_bottleneck": layer.channel_bottleneck,
        "affine_v_c_att": layer.channel_gate,
        "affine_video_2": layer.cell_weights.cell,
        "affine_audio_2": layer.cell_weights.guide,
        "affine_v_s_att": layer.cell_weights.score,
    }
    _set_attention_dense(reader, layers)


def _set_attention_dense(reader: StateReader, layers: Mapping[str, Any]) -> None:
    reader.set_dense({f"{_ATTENTION}.{name}": dense for name, dense in layers.items()})


def _set_unscaled(
    reader: StateReader, names: Sequence[str], layer: UnscaledAttention
) -> None:
    layers = (layer.query, layer.key, layer.value)
    _set_attention_dense(reader, dict(zip(names, layers, strict=True)))


def _set_self_guided(
    reader: StateReader, layer: SelfGuidedAttention, norm: str
) -> None:
    _set_channel_spatial(reader, layer.audio_guided)
    names = ("video_query", "video_key", "video_value")
    _set_unscaled(reader, names, layer.self_attention)
    reader.set_norms({f"{_ATTENTION}.{norm}": layer.self_norm})
    layers = {
        "affine_video_ave": layer.self_weights.guide,
        "affine_video_3": layer.self_weights.cell,
        "ave_v_att": layer.self_weights.score,
    }
    _set_attention_dense(reader, layers)


def _set_encoders(reader: StateReader, model: CMRAN | GatedNetwork) -> None:
    """Set the visual projection, both encoders and both decoders."""
    reader.set_dense({"v_fc": model.visual_projection})
    for name, encoder, decoder in (
        ("audio", model.audio_encoder, model.audio_decoder),
        ("video", model.visual_encoder, model.visual_decoder),
    ):
        reader.set_dense(
            {
                f"{name}_encoder.affine_matrix": encoder.projection,
                f"{name}_decoder.affine_matrix": decoder.projection,
            }
        )
        layers = f"{name}_encoder.encoder.layers"
        _set_block(reader, f"{layers}.0", "self_attn", encoder.block)
        _set_block(reader, f"{layers}.1", "self_attn", encoder.second_block)
        layers = f"{name}_decoder.decoder.layers"
        _set_block(reader, f"{layers}.0", "multihead_attn", decoder.block)


def _set_block(
    reader: StateReader, name: str, attention: str, block: TransformerBlock
) -> None:
    reader.set_attention(f"{name}.{attention}", block.attention)
    reader.set_dense(
        {f"{name}.linear1": block.hidden, f"{name}.linear2": block.output_projection}
    )
    reader.set_norms(
        {f"{name}.norm1": block.attention_norm, f"{name}.norm2": block.output_norm}
    )


def _set_interaction(
    reader: StateReader, name: str, layer: CrossModalInteraction
) -> None:
    reader.set_attention(f"{name}.video_multihead", layer.attention)
    reader.set_norms({f"{name}.norm1": layer.norm})


def _set_gated(reader: StateReader, model: GatedNetwork) -> None:
    """Set the layers that CMBS and CACE-Net share, except LSTMs and heads."""
    _set_encoders(reader, model)
    _set_interaction(reader, "AVInter", model.visual_interaction)
    _set_interaction(reader, "VAInter", model.audio_interaction)
    # In the weakly supervised program, each gate reads the other modality.
    gates: tuple[keras.layers.Dense, ...] = (model.audio_gate, model.visual_gate)
    audio_gate, visual_gate = gates[::-1] if model.weak else gates
    reader.set_dense(
        {
            "audio_gated.0": audio_gate,
            "video_gated.0": visual_gate,
            "audio_cas": model.audio_categories,
            "video_cas": model.visual_categories,
        }
    )


def _set_lstms(reader: StateReader, model: GatedNetwork) -> None:
    reader.set_lstm("audio_visual_rnn_layer.audio_rnn", model.audio_lstm)
    reader.set_lstm("audio_visual_rnn_layer.visual_rnn", model.visual_lstm)


def _set_heads(reader: StateReader, model: CMRAN | GatedNetwork) -> None:
    reader.set_dense(
        {
            "localize_module.classifier": model.event_head,
            "localize_module.event_classifier": model.category_head,
        }
    )

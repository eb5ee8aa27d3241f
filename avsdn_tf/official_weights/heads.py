"""Conversion of the states of CMRAN, PSP, CPSP, CMBS and CACE-Net.

Each program trains a module whose `state_dict` has the names that are read here. Names
of modules that a program creates and never calls are left out.
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
from avsdn_tf.official_weights.state import State
from avsdn_tf.official_weights.tian import attention_layers, map_side

# PyTorch copies a template of each block, and the template stays.
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
# Both programs feed maps of VGG-19.
_SIDE = 7


def convert_psp(state: Mapping[str, Any], categories: Sequence[str]) -> PSP:
    """Return a PSP with the weights of Zhou et al.'s program.

    Args:
        state: The state of their `psp_net`, supervised or weakly supervised, by its
            PyTorch names; values that `numpy.asarray` accepts.
        categories: Names of the event categories in the order of the program's classes,
            which is that of `tfds_ave`; background is the class after them.

    Returns:
        The model. Its logits are those of the program.

    Raises:
        ValueError: If a name is missing or unknown, or a shape doesn't fit.
    """
    weak = any(name.endswith("W3.weight") for name in state)
    unused = ("temperature", "W1.", "W2.") if weak else ("linear_v.", "L3.", "L4.")
    left = State(state, "Zhou et al.", (*_PSP_UNUSED, *unused))
    model = PSP(categories, **_psp_options(left, weak), weak=weak)
    _set_psp_encoder(left, model.encoder)
    left.set_dense({"L1": model.hidden, "L2": model.head})
    if weak:
        left.set_dense({"W3": model.segment_weight})
    left.check_all_read()
    return model


def convert_cpsp(state: Mapping[str, Any], categories: Sequence[str]) -> CPSP:
    """Return a CPSP with the weights of Zhou et al.'s program.

    Args:
        state: The state of their `fully_psp_net` or `weakly_psp_net`, as in
            `convert_psp`.
        categories: As in `convert_psp`.

    Returns:
        The model. The classes that it predicts are those of the program.

    Raises:
        ValueError: If a name is missing or unknown, or a shape doesn't fit.
    """
    unused = (*_PSP_UNUSED, "linear_v.", "L1.", "L2.")
    left = State(state, "Zhou et al.", unused)
    # The weakly supervised one has a class for background.
    weak = left.matrix_shape("category_classifier.0.weight")[0] > len(categories)
    model = CPSP(categories, **_psp_options(left), weak=weak)
    _set_psp_encoder(left, model.encoder)
    heads = {"event_classifier.0": model.event_head}
    left.set_dense({**heads, "category_classifier.0": model.category_head})
    left.check_all_read()
    return model


def convert_cmran(state: Mapping[str, Any], categories: Sequence[str]) -> CMRAN:
    """Return a CMRAN with the weights of Xu et al.'s program.

    Args:
        state: The state of their `supv_main_model` or `weak_main_model`, as in
            `convert_psp`.
        categories: As in `convert_psp`.

    Returns:
        The model. The classes that it predicts are those of the program.

    Raises:
        ValueError: If a name is missing or unknown, or a shape doesn't fit.
    """
    unused = (*_TEMPLATES, f"{_ATTENTION}.affine_video_guided_")
    left = State(state, "Xu et al.", unused)
    num_classes, _ = left.matrix_shape("localize_module.event_classifier.weight")
    model = CMRAN(categories, **_options(left), weak=num_classes > len(categories))
    _set_channel_spatial(left, model.spatial_attention)
    _set_encoders(left, model)
    _set_interaction(left, "AVInter", model.interaction)
    _set_heads(left, model)
    left.check_all_read()
    return model


def convert_cmbs(state: Mapping[str, Any], categories: Sequence[str]) -> CMBS:
    """Return a CMBS with the weights of Xia and Zhao's program.

    Args:
        state: The state of their `supv_main_model` or `weak_main_model`, as in
            `convert_psp`.
        categories: As in `convert_psp`.

    Returns:
        The model. The classes that it predicts are those of the program. The weakly
        supervised program finds no background; without `model.always_event`, the gates
        decide.

    Raises:
        ValueError: If a name is missing or unknown, or a shape doesn't fit.
    """
    weak = any(name.endswith("CAS_model.classifier.0.weight") for name in state)
    unused = ("classifier.",) if weak else ("video_norm.", "audio_norm.")
    unused = (*_TEMPLATES, *unused, f"{_ATTENTION}.ave_bottleneck.")
    left = State(state, "Xia and Zhao", unused)
    model = CMBS(categories, **_options(left), weak=weak, always_event=weak)
    _set_self_guided(left, model.spatial_attention, "norm")
    _set_gated(left, model)
    if weak:
        # A convolution over single segments.
        kernel = model.category_head.kernel
        name = "CAS_model.classifier.0.weight"
        matrix = left.take(name, (*reversed(kernel.shape), 1))
        model.category_head.set_weights([matrix[..., 0].T])
    else:
        _set_lstms(left, model)
        _set_heads(left, model)
    left.check_all_read()
    return model


def convert_cace(state: Mapping[str, Any], categories: Sequence[str]) -> CACENet:
    """Return a CACE-Net with the weights of He et al.'s program.

    Args:
        state: The state of their `supv_main_model` with co-guidance, as in
            `convert_psp`.
        categories: As in `convert_psp`.

    Returns:
        The model, its contrast on, as their evaluation has it. The classes that it
        predicts are those of the program.

    Raises:
        ValueError: If a name is missing or unknown, or a shape doesn't fit.
    """
    unused = [f"{_ATTENTION}.{name}" for name in ("ave_bottleneck.", "v_norm2.")]
    left = State(state, "He et al.", (*_TEMPLATES, *unused, "a_fc."))
    model = CACENet(categories, **_options(left))
    attention = model.spatial_attention
    _set_self_guided(left, attention.visual_attention, "v_norm")
    for names, layer in (
        (("video_query2", "video_key2", "video_value2"), attention.cell_attention),
        (("audio_query", "audio_key", "audio_value"), attention.audio_attention),
        (("v_query", "vaudio_key", "vaudio_value"), attention.guide),
    ):
        _set_unscaled(left, names, layer)
    left.set_norms({f"{_ATTENTION}.a_norm": attention.audio_norm})
    _set_gated(left, model)
    _set_lstms(left, model)
    _set_heads(left, model)
    left.set_dense({"localize_module.encoder_q.0": model.contrast_projection})
    model.contrast.assign(1.0)
    left.check_all_read()
    return model


def _psp_options(left: State, reduced: bool = False) -> dict[str, Any]:
    """Return the widths of PSP and CPSP."""
    units = left.matrix_shape("lstm_a_v.lstm_audio.weight_hh_l0")[1]
    side = map_side(left, "attention.affine_v.weight")
    audio = "attention.affine_audio.weight" if reduced else "fa.0.weight"
    visual_width = left.matrix_shape("attention.affine_video.weight")[1]
    return {
        "audio_width": left.matrix_shape(audio)[1],
        "visual_shape": (side, side, visual_width),
        "units": units,
        # The program differs from AVEL's equation, see AudioGuidedAttention.
        "audio_axis": "cell",
    }


def _set_psp_encoder(left: State, encoder: PSPEncoder) -> None:
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
    left.set_dense(layers)
    left.set_norms({"psp.layer_norm": propagation.norm})
    left.set_lstm("lstm_a_v.lstm_audio", encoder.audio_encoder)
    left.set_lstm("lstm_a_v.lstm_video", encoder.visual_encoder)


def _options(left: State) -> dict[str, Any]:
    """Return the widths of CMRAN, CMBS and CACE-Net."""
    return {
        "audio_width": left.matrix_shape(f"{_ATTENTION}.affine_audio_1.weight")[1],
        "visual_shape": (_SIDE, _SIDE, left.matrix_shape("v_fc.weight")[1]),
        "units": left.matrix_shape("video_encoder.affine_matrix.weight")[0],
    }


def _set_channel_spatial(left: State, layer: ChannelSpatialAttention) -> None:
    layers = {
        "affine_video_1": layer.channel_visual,
        "affine_audio_1": layer.channel_audio,
        "affine_bottleneck": layer.channel_bottleneck,
        "affine_v_c_att": layer.channel_gate,
        "affine_video_2": layer.cell_weights.cell,
        "affine_audio_2": layer.cell_weights.guide,
        "affine_v_s_att": layer.cell_weights.score,
    }
    left.set_dense({f"{_ATTENTION}.{name}": of for name, of in layers.items()})


def _set_unscaled(left: State, names: Sequence[str], layer: UnscaledAttention) -> None:
    layers = (layer.query, layer.key, layer.value)
    named = zip(names, layers, strict=True)
    left.set_dense({f"{_ATTENTION}.{name}": of for name, of in named})


def _set_self_guided(left: State, layer: SelfGuidedAttention, norm: str) -> None:
    _set_channel_spatial(left, layer.audio_guided)
    names = ("video_query", "video_key", "video_value")
    _set_unscaled(left, names, layer.self_attention)
    left.set_norms({f"{_ATTENTION}.{norm}": layer.self_norm})
    layers = {
        "affine_video_ave": layer.self_weights.guide,
        "affine_video_3": layer.self_weights.cell,
        "ave_v_att": layer.self_weights.score,
    }
    left.set_dense({f"{_ATTENTION}.{name}": of for name, of in layers.items()})


def _set_encoders(left: State, model: CMRAN | GatedNetwork) -> None:
    """Set the first visual layer, both encoders and both decoders."""
    left.set_dense({"v_fc": model.visual_projection})
    for name, encoder, decoder in (
        ("audio", model.audio_encoder, model.audio_decoder),
        ("video", model.visual_encoder, model.visual_decoder),
    ):
        left.set_dense(
            {
                f"{name}_encoder.affine_matrix": encoder.projection,
                f"{name}_decoder.affine_matrix": decoder.projection,
            }
        )
        layers = f"{name}_encoder.encoder.layers"
        _set_block(left, f"{layers}.0", "self_attn", encoder.block)
        _set_block(left, f"{layers}.1", "self_attn", encoder.second_block)
        layers = f"{name}_decoder.decoder.layers"
        _set_block(left, f"{layers}.0", "multihead_attn", decoder.block)


def _set_block(left: State, name: str, attention: str, block: TransformerBlock) -> None:
    left.set_attention(f"{name}.{attention}", block.attention)
    left.set_dense(
        {f"{name}.linear1": block.hidden, f"{name}.linear2": block.output_projection}
    )
    left.set_norms(
        {f"{name}.norm1": block.attention_norm, f"{name}.norm2": block.output_norm}
    )


def _set_interaction(left: State, name: str, layer: CrossModalInteraction) -> None:
    left.set_attention(f"{name}.video_multihead", layer.attention)
    left.set_norms({f"{name}.norm1": layer.norm})


def _set_gated(left: State, model: GatedNetwork) -> None:
    """Set what CMBS and CACE-Net share, but LSTMs and heads."""
    _set_encoders(left, model)
    _set_interaction(left, "AVInter", model.visual_interaction)
    _set_interaction(left, "VAInter", model.audio_interaction)
    # The weakly supervised program's gates read the other modality's encoding.
    gates: tuple[keras.layers.Dense, ...] = (model.audio_gate, model.visual_gate)
    audio_gate, visual_gate = gates[::-1] if model.weak else gates
    left.set_dense(
        {
            "audio_gated.0": audio_gate,
            "video_gated.0": visual_gate,
            "audio_cas": model.audio_categories,
            "video_cas": model.visual_categories,
        }
    )


def _set_lstms(left: State, model: GatedNetwork) -> None:
    left.set_lstm("audio_visual_rnn_layer.audio_rnn", model.audio_lstm)
    left.set_lstm("audio_visual_rnn_layer.visual_rnn", model.visual_lstm)


def _set_heads(left: State, model: CMRAN | GatedNetwork) -> None:
    left.set_dense(
        {
            "localize_module.classifier": model.event_head,
            "localize_module.event_classifier": model.category_head,
        }
    )

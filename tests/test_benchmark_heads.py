"""Compare the two-headed networks and PSP with plain PyTorch programs."""

import contextlib
import importlib.util
import re
import types

import h5py
import keras
import numpy as np
import pytest

from avsdn_tf import official_weights
from experiments.benchmark import __main__ as command
from experiments.benchmark import our_program, parts
from experiments.benchmark.batch import Batch
from experiments.published import load_table

CATEGORIES = [f"category {i}" for i in range(28)]
SHAPE = (7, 7, 512)
HEADS = ("cmran", "psp", "cpsp", "cmbs", "cace")
needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="the extra `bench` is missing"
)
# Patterns of weight names in the plain programs, and their replacements, which yield
# the official programs' names.
ATTENTION = {
    r"spatial_channel_att\.audio\.0": "spatial_channel_att.affine_audio_1",
    r"spatial_channel_att\.visual\.0": "spatial_channel_att.affine_video_1",
    r"spatial_channel_att\.gate\.0": "spatial_channel_att.affine_bottleneck",
    r"spatial_channel_att\.gate\.2": "spatial_channel_att.affine_v_c_att",
    r"spatial_channel_att\.cells\.guide\.0": "spatial_channel_att.affine_audio_2",
    r"spatial_channel_att\.cells\.cell\.0": "spatial_channel_att.affine_video_2",
    r"spatial_channel_att\.cells\.score": "spatial_channel_att.affine_v_s_att",
    r"spatial_channel_att\.own\.guide\.0": "spatial_channel_att.affine_video_ave",
    r"spatial_channel_att\.own\.cell\.0": "spatial_channel_att.affine_video_3",
    r"spatial_channel_att\.own\.score": "spatial_channel_att.ave_v_att",
    r"spatial_channel_att\.related\.": "spatial_channel_att.video_",
}
NAMES = {
    r"^cell_attention\.(\w+)": r"spatial_channel_att.video_\g<1>2",
    r"^audio_attention\.": "spatial_channel_att.audio_",
    r"^guide\.query": "spatial_channel_att.v_query",
    r"^guide\.": "spatial_channel_att.vaudio_",
    r"^audio_norm": "spatial_channel_att.a_norm",
    r"^query\.0": "localize_module.encoder_q.0",
    r"^attention\.(audio_guided\.)?": "spatial_channel_att.",
    **ATTENTION,
    r"^projection\.0": "v_fc",
    r"^visual_(encoder|decoder)": r"video_\1",
    r"coder\.projection": "coder.affine_matrix",
    r"encoder\.blocks\.(\d)\.attention": r"encoder.encoder.layers.\1.self_attn",
    r"encoder\.blocks": "encoder.encoder.layers",
    r"decoder\.block\.attention": "decoder.decoder.layers.0.multihead_attn",
    r"decoder\.block": "decoder.decoder.layers.0",
    r"(layers\.\d)\.hidden": r"\1.linear1",
    r"(layers\.\d)\.output": r"\1.linear2",
    r"(layers\.\d)\.norms\.0": r"\1.norm1",
    r"(layers\.\d)\.norms\.1": r"\1.norm2",
    r"^audio_interaction": "VAInter",
    r"^(visual_)?interaction": "AVInter",
    r"Inter\.attention": "Inter.video_multihead",
    r"Inter\.norm": "Inter.norm1",
    r"^(audio|visual)_lstm": r"audio_visual_rnn_layer.\1_rnn",
    r"^visual_(gate|scores)": r"video_\1",
    r"_gate\.": "_gated.0.",
    r"_scores\.": "_cas.",
    r"^event\.": "localize_module.classifier.",
    r"^category\.": "localize_module.event_classifier.",
}
PSP_NAMES = {
    r"^encoder\.attention\.": "encoder.attention_",
    **{
        f"encoder.attention_{place}": f"attention.affine_{name}"
        for place, name in enumerate(("audio", "video", "g", "v", "h"))
    },
    r"^encoder\.audio_projection": "fa",
    r"^encoder\.visual_projection": "fv",
    r"^encoder\.audio_encoder": "lstm_a_v.lstm_audio",
    r"^encoder\.visual_encoder": "lstm_a_v.lstm_video",
    **{
        rf"^encoder\.layers\.{place}\.0": f"psp.{name}"
        for place, name in enumerate(("v_L1", "v_L2", "a_L1", "a_L2", "v_fc", "a_fc"))
    },
    r"^encoder\.norm": "psp.layer_norm",
    r"^hidden\.0": "L1",
    r"^head": "L2",
    r"^event": "event_classifier.0",
    r"^category": "category_classifier.0",
}


def as_official(network, module):
    """Return a plain program's weights, renamed as in the official program."""
    state = {}
    for name, array in module.state_dict().items():
        for pattern, new in (PSP_NAMES if "psp" in network else NAMES).items():
            name = re.sub(pattern, new, name)
        if network == "cace":
            name = name.replace(
                "spatial_channel_att.norm", "spatial_channel_att.v_norm"
            )
        state[name] = array.numpy()
    return state


@needs_torch
@pytest.mark.parametrize("network", HEADS)
def test_the_pytorch_network_equals_ours(network, monkeypatch):
    import torch

    from experiments.benchmark import torch_heads

    # Disable CACE-Net's noise.
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    batch = Batch(network, SHAPE, size=6, num_segments=5)
    other = torch_heads.build(batch).eval()
    convert = getattr(official_weights, f"convert_{network}")
    model = convert(as_official(network, other), CATEGORIES)
    if "psp" in network:
        # `audio_axis` is "hidden" in the paper and the plain programs, but "cell" in
        # the official programs and the converted model.
        config = {**model.get_config(), "audio_axis": "hidden"}
        weights = model.get_weights()
        model = type(model).from_config(config)
        model.set_weights(weights)
    audio, visual, target = batch.random()
    with torch.no_grad():
        found = other(torch.tensor(audio), torch.tensor(visual))
        loss = float(other.loss(found, torch.tensor(target)))
    outputs = model.compute_outputs({"audio": audio, "visual": visual})
    names = {"event": "event_logits", "category": "category_logits"}
    names = {"logits": "logits"} if network == "psp" else names
    for name, ours in names.items():
        np.testing.assert_allclose(outputs[ours], found[name], atol=1e-4)
    cross_entropy = keras.losses.CategoricalCrossentropy(from_logits=True)
    wanted = model.clip_losses(cross_entropy, target, outputs)
    assert np.mean(wanted) == pytest.approx(loss, rel=1e-3)


@needs_torch
@pytest.mark.parametrize("network", ["cmran", "psp"])
def test_both_programs_train_a_step(network, data_dir):
    from experiments.benchmark import torch_heads

    batch = Batch(network, (7, 7, 16), size=3, num_segments=4)
    torch_heads.training(batch, clip_norm=0.1)()
    torch_heads.training(batch, dtype="float64")()
    assert our_program.step(batch, data_dir, settings={"clip_norm": 0.1})() > 0


def test_measure_heads_compares_speed(monkeypatch):
    asked = []

    def compete(programs, batch, repeats, seconds, least):
        asked.append((batch.network, batch.size))
        assert {len(program) for program in programs.values()} == {3}
        return {name: [[0.25 if name == "avsdn_tf" else 0.5]] for name in programs}

    monkeypatch.setattr(parts, "compete", compete)
    dataset = types.SimpleNamespace(visual_shape=(2048,))
    found = list(parts.measure_heads(command.parse(["heads"]), dataset))
    assert asked == [
        *(("cmran", 32), ("psp", 128), ("cpsp", 64), ("cmbs", 64), ("cace", 64))
    ]
    assert [each.ratios["avsdn_tf"] for each in found] == [2] * 5


@needs_torch
def test_measure_heads_compares_memory_on_maps(monkeypatch, tmp_path):
    rows = [row for row in load_table("heads") if row.model == "psp"]
    monkeypatch.setattr(parts, "load_table", lambda name: rows)
    monkeypatch.setattr(
        parts, "compete", lambda programs, *_: {name: [[1.0]] for name in programs}
    )
    files = str(tmp_path / "features.h5")
    with h5py.File(files, "w") as file:
        file.create_dataset("audio", (256, 10, 128), "f4")
        file.create_dataset("visual", (256, 10, 7, 7, 512), "f4")
        file.create_dataset("labels", (256, 10), "i8")
        file["rows_train"] = file["rows_validation"] = np.arange(256)
    monkeypatch.setattr(
        parts, "_feature_file", lambda dataset: contextlib.nullcontext(files)
    )
    asked = []

    def run(flags):
        asked.extend(flags)
        return 2_000_000_000

    monkeypatch.setattr(parts, "run_command", run)
    dataset = types.SimpleNamespace(
        name="tfds_ave/vgg19", visual_shape=(7, 7, 512), num_segments=10
    )
    _, memory = parts.measure_heads(command.parse(["heads"]), dataset)
    assert {"--model=psp", "--batch_size=128", "--epochs=1"} <= {*asked}
    assert memory.values["avsdn_tf"] == [2]
    (eager,), (published,) = (
        memory.values[name] for name in ("PyTorch", "PyTorch, as published")
    )
    # As published, PSP holds all clips in float64: 0.51 GB of visual features.
    assert 0.2 < eager < published - 0.2

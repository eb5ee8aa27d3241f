"""The authors' programs of PSP, CPSP, CMRAN, CMBS and CACE-Net in NumPy.

A state contains all arrays of a program's checkpoint, also those of unused modules.
"""

import numpy as np

from tests.numpy_networks import sigmoid, softmax

SIDE, VISUAL, AUDIO, UNITS, CATEGORIES = 7, 512, 128, 256, 28
CELLS = SIDE * SIDE


def relu(x):
    return np.maximum(x, 0)


class States:
    """Draws random arrays by name, in float32."""

    def __init__(self, rng):
        self.rng = rng
        self.state = {}

    def draw(self, name, *shape):
        values = self.rng.normal(size=shape) / shape[-1] ** 0.5
        self.state[name] = values.astype("float32")

    def linear(self, name, outputs, inputs, bias=True):
        self.draw(f"{name}.weight", outputs, inputs)
        if bias:
            self.draw(f"{name}.bias", outputs)

    def linears(self, prefix, shapes, bias=True):
        for name, (outputs, inputs) in shapes.items():
            self.linear(f"{prefix}{name}", outputs, inputs, bias)

    def norm(self, name, width):
        self.draw(f"{name}.weight", width)
        self.draw(f"{name}.bias", width)

    def lstm(self, name, width, units):
        for suffix in ("l0", "l0_reverse"):
            self.draw(f"{name}.weight_ih_{suffix}", 4 * units, width)
            self.draw(f"{name}.weight_hh_{suffix}", 4 * units, units)
            self.draw(f"{name}.bias_ih_{suffix}", 4 * units)
            self.draw(f"{name}.bias_hh_{suffix}", 4 * units)

    def attention(self, name):
        self.draw(f"{name}.in_proj_weight", 3 * UNITS, UNITS)
        self.draw(f"{name}.in_proj_bias", 3 * UNITS)
        self.linear(f"{name}.out_proj", UNITS, UNITS)

    def block(self, name, width, is_decoder=False):
        self.attention(f"{name}.self_attn")
        if is_decoder:
            self.attention(f"{name}.multihead_attn")
        self.linear(f"{name}.linear1", width, UNITS)
        self.linear(f"{name}.linear2", UNITS, width)
        self.norm(f"{name}.norm1", UNITS)
        self.norm(f"{name}.norm2", UNITS)

    def transformers(self, modality, width, encoder, decoder):
        """Draw the arrays of a modality's encoder and decoder.

        The checkpoint also contains the layers that PyTorch copies to build the two,
        `encoder_layer` and `decoder_layer`. They are unused.
        """
        self.linear(f"{modality}_encoder.affine_matrix", UNITS, width)
        for part in ("encoder_layer", "encoder.layers.0", "encoder.layers.1"):
            self.block(f"{modality}_encoder.{part}", encoder)
        self.linear(f"{modality}_decoder.affine_matrix", UNITS, width)
        for part in ("decoder_layer", "decoder.layers.0"):
            self.block(f"{modality}_decoder.{part}", decoder, is_decoder=True)

    def interaction(self, name):
        self.attention(f"{name}.video_multihead")
        self.norm(f"{name}.norm1", UNITS)


def psp_state(rng, weak=False):
    s = States(rng)
    _draw_psp(s, weak)
    s.linear("L1", 64, 256, bias=False)
    s.linear("L2", 29, 64, bias=False)
    if weak:
        s.draw("temperature", 1, 29)
        s.linears("", {"W1": (1, 256), "W2": (1, 64), "W3": (1, 29)}, bias=False)
    else:
        s.linears("", {"L3": (64, 256), "L4": (2, 64)})
    return s.state


def cpsp_state(rng, weak=False):
    s = States(rng)
    _draw_psp(s)
    s.linear("L1", 64, 256, bias=False)
    s.linear("L2", 28 + weak, 64, bias=False)
    s.linear("event_classifier.0", 1, 256)
    s.linear("category_classifier.0", 28 + weak, 256)
    return s.state


def _draw_psp(s, reduced=False):
    if not reduced:
        s.linears("fa.", {"0": (256, AUDIO), "1": (128, 256)}, bias=False)
        s.linears("fv.", {"0": (256, VISUAL), "1": (128, 256)}, bias=False)
        for name in ("v_classify", "a_classify"):
            s.linears(f"{name}.", {"L1": (64, 256), "L2": (28, 64)}, bias=False)
    s.linear("linear_v", 128, VISUAL)
    affine = {"affine_audio": (512, 128), "affine_video": (512, VISUAL)}
    s.linears("attention.", affine)
    scores = {"affine_v": (CELLS, 512), "affine_g": (CELLS, 512)}
    s.linears("attention.", {**scores, "affine_h": (1, CELLS)}, bias=False)
    for modality in ("audio", "video"):
        s.lstm(f"lstm_a_v.lstm_{modality}", 128, 128)
    names = ("v_L1", "v_L2", "a_L1", "a_L2", *(() if reduced else ("v_fc", "a_fc")))
    s.linears("psp.", dict.fromkeys(names, (256, 256)), bias=False)
    s.norm("psp.layer_norm", 256)


def cmran_state(rng, weak=False):
    s = States(rng)
    _draw_channel_spatial(s)
    guided = {"affine_video_guided_1": (64, 512), "affine_video_guided_2": (128, 64)}
    s.linears("spatial_channel_att.", guided)
    s.linear("v_fc", 512, VISUAL)
    s.transformers("video", 512, 2048, 2048)
    s.transformers("audio", AUDIO, 2048, 2048)
    s.interaction("AVInter")
    _draw_heads(s, weak)
    return s.state


def _draw_heads(s, weak=False):
    s.linear("localize_module.classifier", 1, UNITS)
    s.linear("localize_module.event_classifier", CATEGORIES + weak, UNITS)


def _draw_channel_spatial(s):
    shapes = {
        "affine_video_1": (512, 512),
        "affine_audio_1": (512, AUDIO),
        "affine_bottleneck": (256, 512),
        "affine_v_c_att": (512, 256),
        "affine_video_2": (256, 512),
        "affine_audio_2": (256, AUDIO),
        "affine_v_s_att": (1, 256),
    }
    s.linears("spatial_channel_att.", shapes)


def _draw_self_guided(s, norm, more=()):
    _draw_channel_spatial(s)
    for suffix in ("", *more):
        shapes = {f"video_{n}{suffix}": (128, 512) for n in ("query", "key")}
        s.linears(
            "spatial_channel_att.", {**shapes, f"video_value{suffix}": (512, 512)}
        )
        s.norm(f"spatial_channel_att.{norm}{suffix}", 512)
    shapes = {
        "affine_video_ave": (256, 512),
        "affine_video_3": (256, 512),
        "ave_bottleneck": (256, 512),
        "ave_v_att": (1, 256),
    }
    s.linears("spatial_channel_att.", shapes)


def _draw_gated(s, num_scores):
    s.linear("v_fc", 512, VISUAL)
    for name in ("audio", "video"):
        s.linear(f"{name}_gated.0", 1, UNITS)
        s.linear(f"{name}_cas", num_scores, UNITS)
    s.interaction("AVInter")
    s.interaction("VAInter")


def cmbs_state(rng, weak=False):
    s = States(rng)
    _draw_self_guided(s, "norm")
    _draw_gated(s, CATEGORIES + weak)
    if weak:
        s.transformers("video", 512, 2048, 1024)
        s.transformers("audio", AUDIO, 2048, 1024)
        s.draw("CAS_model.classifier.0.weight", 29, UNITS, 1)
        s.linear("classifier", 1, UNITS)
        return s.state
    s.transformers("video", 512, 1024, 1024)
    s.transformers("audio", UNITS, 1024, 1024)
    _draw_lstms(s)
    _draw_heads(s)
    for name in ("video_norm", "audio_norm"):
        s.norm(name, UNITS)
    return s.state


def _draw_lstms(s):
    s.lstm("audio_visual_rnn_layer.audio_rnn", AUDIO, UNITS // 2)
    s.lstm("audio_visual_rnn_layer.visual_rnn", 512, UNITS)


def cace_state(rng):
    s = States(rng)
    _draw_self_guided(s, "v_norm", more=("2",))
    shapes = dict.fromkeys(
        ("vaudio_key", "vaudio_value", "audio_query", "audio_key", "audio_value"),
        (AUDIO, AUDIO),
    )
    s.linears("spatial_channel_att.", {**shapes, "v_query": (AUDIO, 512)})
    s.norm("spatial_channel_att.a_norm", AUDIO)
    _draw_gated(s, CATEGORIES)
    s.linear("a_fc", AUDIO, AUDIO)
    s.transformers("video", 512, 1024, 512)
    s.transformers("audio", UNITS, 1024, 512)
    _draw_lstms(s)
    _draw_heads(s)
    s.linear("localize_module.encoder_q.0", UNITS, UNITS)
    return s.state


class Program:
    """Layers that the programs share, with the arrays of a state."""

    def __init__(self, state):
        self.state = state

    def linear(self, name, x):
        bias = self.state.get(f"{name}.bias", 0)
        return x @ self.state[f"{name}.weight"].T + bias

    def norm(self, name, x, epsilon=1e-5):
        center = x - x.mean(-1, keepdims=True)
        scaled = center / np.sqrt(x.var(-1, keepdims=True) + epsilon)
        return scaled * self.state[f"{name}.weight"] + self.state[f"{name}.bias"]

    def lstm(self, name, sequence):
        units = self.state[f"{name}.weight_hh_l0"].shape[1]
        outputs = []
        for suffix, step in (("l0", 1), ("l0_reverse", -1)):
            hidden = cell = np.zeros((len(sequence), units))
            steps = []
            weights = {
                part: self.state[f"{name}.{part}_{suffix}"]
                for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            }
            for x in np.moveaxis(sequence, 1, 0)[::step]:
                gates = x @ weights["weight_ih"].T + weights["bias_ih"]
                gates += hidden @ weights["weight_hh"].T + weights["bias_hh"]
                i, f, g, o = np.split(gates, 4, axis=1)
                cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
                hidden = sigmoid(o) * np.tanh(cell)
                steps.append(hidden)
            outputs.append(np.stack(steps[::step], axis=1))
        return np.concatenate(outputs, axis=-1)

    def attention(self, name, query, memory, num_heads):
        matrices = np.split(self.state[f"{name}.in_proj_weight"], 3)
        biases = np.split(self.state[f"{name}.in_proj_bias"], 3)
        heads = []
        q, k, v = (
            x @ matrix.T + bias
            for x, matrix, bias in zip(
                (query, memory, memory), matrices, biases, strict=True
            )
        )
        width = UNITS // num_heads
        for start in range(0, UNITS, width):
            part = slice(start, start + width)
            scores = q[..., part] @ np.swapaxes(k[..., part], 1, 2) / width**0.5
            heads.append(softmax(scores) @ v[..., part])
        return self.linear(f"{name}.out_proj", np.concatenate(heads, -1))

    def block(self, name, query, memory, attention="self_attn"):
        attended = self.attention(f"{name}.{attention}", query, memory, 4)
        x = self.norm(f"{name}.norm1", query + attended)
        hidden = relu(self.linear(f"{name}.linear1", x))
        return self.norm(f"{name}.norm2", x + self.linear(f"{name}.linear2", hidden))

    def encode(self, modality, x):
        x = self.linear(f"{modality}_encoder.affine_matrix", x)
        for layer in (0, 1):
            x = self.block(f"{modality}_encoder.encoder.layers.{layer}", x, x)
        return x

    def decode(self, modality, x, memory):
        query = self.linear(f"{modality}_decoder.affine_matrix", x)
        memory = np.concatenate([memory, query], axis=1)
        name = f"{modality}_decoder.decoder.layers.0"
        return self.block(name, query, memory, "multihead_attn")

    def interact(self, name, one, other, num_heads):
        product = one * other
        memory = np.concatenate([other, one], axis=1)
        attended = self.attention(f"{name}.video_multihead", product, memory, num_heads)
        return self.norm(f"{name}.norm1", product + attended)

    def cell_weights(self, cells, guide, names):
        """Return the attention weights of cells.

        Args:
            cells: Features of the cells.
            guide: Features of the segments.
            names: Names of the layers for cells, guide and scores.
        """
        of_cells, of_guide, score = (f"spatial_channel_att.{name}" for name in names)
        products = relu(self.linear(of_cells, cells))
        products = products * relu(self.linear(of_guide, guide))[..., None, :]
        return softmax(np.tanh(self.linear(score, products))[..., 0])

    def channel_spatial(self, audio, cells, compared):
        at = "spatial_channel_att."
        seen = relu(self.linear(f"{at}affine_video_1", compared)).mean(-2)
        query = seen * relu(self.linear(f"{at}affine_audio_1", audio))
        query = relu(self.linear(f"{at}affine_bottleneck", query))
        gate = 1 + sigmoid(self.linear(f"{at}affine_v_c_att", query))
        gated = cells * gate[..., None, :]
        names = ("affine_video_2", "affine_audio_2", "affine_v_s_att")
        weights = self.cell_weights(gated, audio, names)
        return np.einsum("btn,btnd->btd", weights, gated)

    def unscaled(self, x, memory, names):
        query, key, value = (f"spatial_channel_att.{name}" for name in names)
        keys = np.swapaxes(self.linear(key, memory), -1, -2)
        return softmax(self.linear(query, x) @ keys) @ self.linear(value, memory)

    def related_cells(self, cells, norm, suffix=""):
        names = [f"video_{name}{suffix}" for name in ("query", "key", "value")]
        attended = self.unscaled(cells, cells, names)
        return self.norm(f"spatial_channel_att.{norm}", cells + attended)

    def self_guided(self, audio, cells, norm, strength):
        related = self.related_cells(cells, norm)
        names = ("affine_video_3", "affine_video_ave", "ave_v_att")
        weights = self.cell_weights(related, related.mean(-2), names)
        own = np.einsum("btn,btnd->btd", weights, related)
        heard = self.channel_spatial(audio, cells, related)
        return heard + strength * sigmoid(own) * heard

    def cells(self, visual):
        visual = visual.reshape(*visual.shape[:2], CELLS, VISUAL)
        return relu(self.linear("v_fc", visual))


def largest_4(x):
    return np.sort(x, axis=1)[:, -4:].mean(axis=1)


def run_psp_trunk(program, audio, visual, threshold, reduced=False):
    """Return the fused segments."""
    if not reduced:
        audio = program.linear("fa.1", program.linear("fa.0", audio))
    cells = visual.reshape(*visual.shape[:2], CELLS, VISUAL)
    seen = program.linear(
        "attention.affine_v", relu(program.linear("attention.affine_video", cells))
    )
    heard = relu(program.linear("attention.affine_audio", audio))
    heard = program.linear("attention.affine_g", heard)[..., None]
    scores = program.linear("attention.affine_h", np.tanh(seen + heard))[..., 0]
    visual = np.einsum("btn,btnd->btd", softmax(scores), cells)
    if reduced:
        visual = program.linear("linear_v", visual)
    else:
        visual = program.linear("fv.1", program.linear("fv.0", visual))
    a = program.lstm("lstm_a_v.lstm_audio", audio)
    v = program.lstm("lstm_a_v.lstm_video", visual)
    v1, v2 = (relu(program.linear(f"psp.v_L{n}", v)) for n in (1, 2))
    a1, a2 = (relu(program.linear(f"psp.a_L{n}", a)) for n in (1, 2))
    affinity = v2 @ np.swapaxes(a1, 1, 2) / 16

    def shares(rows):
        rows = rows / (rows.sum(-1, keepdims=True) + 1e-8)
        rows = rows * (rows > threshold)
        return rows if reduced else rows / (rows.sum(-1, keepdims=True) + 1e-8)

    v = v + shares(affinity) @ a2
    a = a + shares(np.swapaxes(affinity, 1, 2)) @ v1
    if not reduced:
        v = relu(program.linear("psp.v_fc", v))
        a = relu(program.linear("psp.a_fc", a))
    return sum(program.norm("psp.layer_norm", x, 1e-6) for x in (v, a)) / 2


def run_psp(state, audio, visual, weak=False):
    """Return the segment logits."""
    program = Program(state)
    fused = run_psp_trunk(program, audio, visual, 0.095 if weak else 0.099, weak)
    logits = program.linear("L2", relu(program.linear("L1", fused)))
    if weak:
        logits = logits * sigmoid(relu(program.linear("W3", logits)))
    return logits


def run_cpsp(state, audio, visual, weak=False):
    """Return event and category logits."""
    program = Program(state)
    fused = run_psp_trunk(program, audio, visual, 0.095 if weak else 0.099)
    event = program.linear("event_classifier.0", fused)[..., 0]
    return event, program.linear("category_classifier.0", fused.mean(axis=1))


def run_heads(program, fused, added=0, query=0):
    """Return event and category logits of the fused segments."""
    event = program.linear("localize_module.classifier", fused + query)[..., 0]
    clip = fused.max(axis=1)
    return event, program.linear("localize_module.event_classifier", clip) + added


def run_cmran(state, audio, visual, weak=False):
    """Return event and category logits."""
    program = Program(state)
    cells = program.cells(visual)
    visual = program.channel_spatial(audio, cells, cells)
    heard = program.decode("audio", audio, program.encode("video", visual))
    seen = program.decode("video", visual, program.encode("audio", audio))
    return run_heads(
        program, program.interact("AVInter", seen, heard, 2 if weak else 4)
    )


def run_gated(program, audio, visual):
    """Return fused segments and clip scores of CMBS and CACE-Net.

    Args:
        program: Layers of the program.
        audio: Audio features.
        visual: Visual features after spatial attention.
    """
    audio = program.lstm("audio_visual_rnn_layer.audio_rnn", audio)
    visual = program.lstm("audio_visual_rnn_layer.visual_rnn", visual)
    seen_memory = program.encode("video", visual)
    heard_memory = program.encode("audio", audio)
    heard = program.decode("audio", audio, seen_memory)
    seen = program.decode("video", visual, heard_memory)
    audio_gate = sigmoid(program.linear("audio_gated.0", heard_memory))
    video_gate = sigmoid(program.linear("video_gated.0", seen_memory))
    seen, heard = seen + 0.1 * audio_gate * seen, heard + 0.1 * video_gate * heard
    scores = largest_4(program.linear("video_cas", seen))
    scores = (scores + largest_4(program.linear("audio_cas", heard))) / 2
    seen = program.interact("AVInter", seen, heard, 4)
    heard = program.interact("VAInter", heard, seen, 4)
    return (seen + heard) / 2, scores


def run_cmbs(state, audio, visual):
    """Return event and category logits of the supervised program."""
    program = Program(state)
    visual = program.self_guided(audio, program.cells(visual), "norm", 0.4)
    fused, scores = run_gated(program, audio, visual)
    return run_heads(program, fused, 0.3 * scores)


def run_weak_cmbs(state, audio, visual):
    """Return the mean of the gates, and category logits."""
    program = Program(state)
    visual = program.self_guided(audio, program.cells(visual), "norm", 0.5)
    seen_memory = program.encode("video", visual)
    heard_memory = program.encode("audio", audio)
    heard = program.decode("audio", audio, seen_memory)
    seen = program.decode("video", visual, heard_memory)
    audio_gate = sigmoid(program.linear("audio_gated.0", seen_memory))
    video_gate = sigmoid(program.linear("video_gated.0", heard_memory))
    seen = 0.8 * seen + 0.2 * audio_gate * seen
    heard = 0.8 * heard + 0.2 * video_gate * heard
    seen_scores = sigmoid(program.linear("video_cas", seen))
    heard_scores = sigmoid(program.linear("audio_cas", heard))
    seen = program.interact("AVInter", seen, heard, 2)
    heard = program.interact("VAInter", heard, seen, 2)
    scores = (seen + heard) / 2 @ state["CAS_model.classifier.0.weight"][..., 0].T
    scores = 0.5 * seen_scores * scores + 0.5 * heard_scores * scores
    return (audio_gate + video_gate)[..., 0] / 2, largest_4(scores)


def run_cace(state, audio, visual):
    """Return event and category logits of a CACE-Net whose `contrast` is 1."""
    program = Program(state)
    cells = program.cells(visual)
    visual = program.self_guided(audio, cells, "v_norm", 0.4)
    names = ("audio_query", "audio_key", "audio_value")
    heard = audio + program.unscaled(audio, audio, names)
    heard = program.norm("spatial_channel_att.a_norm", heard)
    # The program applies the first norm to both attentions.
    guide = program.related_cells(cells, "v_norm", "2").mean(-2)
    names = ("v_query", "vaudio_key", "vaudio_value")
    audio = audio + 0.3 * sigmoid(program.unscaled(guide, heard, names)) * audio
    fused, scores = run_gated(program, audio, visual)
    query = relu(program.linear("localize_module.encoder_q.0", fused))
    return run_heads(program, fused, 0.3 * scores, 0.6 * query)

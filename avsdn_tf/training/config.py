"""Every setting of a run, with its default and its meaning, in one place."""

import dataclasses
import math
from typing import Any

from avsdn_tf.errors import UserError

CROSS_MODAL = "cross_modal"
MODES = ("supervised", "weak", CROSS_MODAL)
# What only modes that predict classes look at.
_CLASS_SETTINGS = ("loss", "label_smoothing")
# What only the weak mode looks at.
_WEAK_SETTINGS = ("weak_label", "pooling")
WEAK_LABELS = ("average", "mil", "mil_background")


def _setting(default: Any, text: str, choices: tuple[str, ...] = ()) -> Any:
    """Returns a field; the command line makes its flag from what it holds."""
    return dataclasses.field(
        default=default,
        metadata={"help": text, "choices": choices, "kind": type(default)},
    )


def _setting_by_mode(default: int, cross_modal: int, text: str) -> Any:
    """Returns the field of a number whose default depends on the mode."""
    return dataclasses.field(
        default=None,
        metadata={
            "help": f"{text} {default} if not given; {cross_modal} if cross_modal.",
            "choices": (),
            "kind": type(default),
            "default": default,
            CROSS_MODAL: cross_modal,
        },
    )


@dataclasses.dataclass(frozen=True)
class Config:
    """What a run learns, from what, and how.

    The defaults are the reading of the AVSDN paper that the README explains.

    Raises:
        UserError: If a value is out of its range, or two contradict each other.
    """

    mode: str = _setting(
        "supervised",
        "What is learnt: to localize events from segment labels (supervised) or from "
        "clip labels alone (weak), or to find what is heard in the picture and what is "
        "seen in the sound (cross_modal).",
        MODES,
    )
    model: str = _setting("avsdn", "The network.")
    dataset: str = _setting(
        "tfds_ave/synthetic", "Data set, as TFDS names it: tfds_ave/CONFIG."
    )
    data_dir: str | None = _setting(
        None, "Where TFDS keeps data sets; TFDS's own default if not given."
    )
    epochs: int = _setting_by_mode(300, 20, "Most epochs to train.")
    patience: int = _setting(
        20, "Epochs without a better validation accuracy after which training stops."
    )
    batch_size: int = _setting_by_mode(
        64, 8, "Clips in a training batch; single segments if cross_modal."
    )
    learning_rate: float = _setting(1e-3, "Adam's learning rate.")
    decay_steps: int = _setting(
        0, "Steps after which the learning rate falls to a tenth; 0: never."
    )
    weight_decay: float = _setting(0.0, "Decoupled weight decay (AdamW) if positive.")
    ema: float = _setting(
        0.0,
        "Momentum of the moving average of the weights that is validated and saved in "
        "place of the last weights; 0: none.",
    )
    seed: int = _setting(0, "Seed of weights, dropout and order of the clips.")
    loss: str = _setting(
        "binary_crossentropy",
        "Loss on the softmax: the paper's binary cross-entropy, categorical "
        "cross-entropy, or AVEL's soft margin.",
        ("binary_crossentropy", "categorical_crossentropy", "soft_margin"),
    )
    label_smoothing: float = _setting(
        0.0, "Share of every training label that is spread over all classes."
    )
    weak_label: str = _setting(
        "average",
        "Clip label of weak mode: mean of the segment labels (average, the paper's), "
        "the clip's category (mil), or that and background clips (mil_background).",
        WEAK_LABELS,
    )
    pooling: str = _setting(
        "average",
        "Weak mode: how segment logits become clip logits.",
        ("average", "max"),
    )
    units: int = _setting(128, "Width of each LSTM, in each direction.")
    bidirectional: bool = _setting(False, "LSTMs that read in both directions.")
    shared_mlp: bool = _setting(True, "One fusion MLP for both modalities.")
    merge: str = _setting("sum", "How the fused halves merge.", ("sum", "mean"))
    shared_fusion: bool = _setting(
        False, "One fusion network for hidden and cell state."
    )
    append_state: bool = _setting(
        False, "Append the fused hidden state to the decoder's input in every segment."
    )
    dropout: float = _setting(
        0.0,
        "Share of the features, and of what the last layers read, dropped in training.",
    )
    strategy: str = _setting(
        "auto",
        "Where to train: on one device (single), on all GPUs of this machine "
        "(mirrored), on all workers that TF_CONFIG names (multi_worker), or on as many "
        "of these as there are (auto).",
        ("auto", "single", "mirrored", "multi_worker"),
    )
    precision: str = _setting(
        "float32",
        "What the trained network computes in; its weights are always float32.",
        ("float32", "mixed_bfloat16", "mixed_float16"),
    )
    xla: str = _setting(
        "none",
        "What XLA compiles: nothing, or the network and its gradients, which can be "
        "faster without dropout, starts later and takes more memory.",
        ("none", "step"),
    )
    deterministic: bool = _setting(
        False,
        "Same seed, same weights, also on GPUs, where it costs speed; on CPUs they are "
        "the same without it.",
    )
    clip_norm: float = _setting(
        0.0, "Largest norm of a step's gradient, to which longer ones are cut; 0: any."
    )
    checkpoint_minutes: float = _setting(
        10.0, "Minutes after which a checkpoint is saved within an epoch."
    )
    encoders: str | None = _setting(
        None, "Run folder of avel_att, whose attention and encoders dmrn starts from."
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if getattr(self, field.name) is None and CROSS_MODAL in field.metadata:
                which = CROSS_MODAL if self.mode == CROSS_MODAL else "default"
                object.__setattr__(self, field.name, field.metadata[which])
            value, choices = getattr(self, field.name), field.metadata["choices"]
            if choices and value not in choices:
                raise UserError(
                    f"--{field.name}: expected one of {', '.join(choices)}. "
                    f"Received: {value}"
                )
        if (self.mode == CROSS_MODAL) != (self.model == CROSS_MODAL):
            raise UserError(
                "--mode=cross_modal and --model=cross_modal go together. "
                f"Received: --mode={self.mode} --model={self.model}"
            )
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise UserError(
                    f"--{field.name}: expected a finite number. Received: {value}"
                )
            if value == field.default:
                continue
            if self.mode == CROSS_MODAL and field.name in _CLASS_SETTINGS:
                raise UserError(
                    f"--{field.name}: --mode=cross_modal has no such setting; it "
                    f"predicts no classes. Received: {value}"
                )
            if self.mode != "weak" and field.name in _WEAK_SETTINGS:
                raise UserError(
                    f"--{field.name}: expected --mode=weak, which alone has this "
                    f"setting. Received: --mode={self.mode} --{field.name}={value}"
                )
        if not 0 <= self.seed < 2**32:
            raise UserError(
                f"--seed: expected a number in [0, 2**32). Received: {self.seed}"
            )
        positive = ("epochs", "patience", "batch_size", "learning_rate", "units")
        for name in (*positive, "checkpoint_minutes"):
            if not getattr(self, name) > 0:
                raise UserError(
                    f"--{name}: expected a positive number. "
                    f"Received: {getattr(self, name)}"
                )
        for name in ("dropout", "label_smoothing", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(
                    f"--{name}: expected a share in [0, 1). "
                    f"Received: {getattr(self, name)}"
                )
        for name in ("weight_decay", "decay_steps", "clip_norm"):
            if getattr(self, name) < 0:
                raise UserError(
                    f"--{name}: expected no negative number. "
                    f"Received: {getattr(self, name)}"
                )

    def to_dict(self) -> dict[str, Any]:
        """Returns the settings, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> "Config":
        """Makes a Config of what `to_dict` gave.

        Raises:
            UserError: If a name is unknown.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(settings) - known)
        if unknown:
            raise UserError(
                f"Unknown settings {', '.join(unknown)}. "
                "Expected those of this version of avsdn_tf; was the run made by a "
                "newer one?"
            )
        return cls(**settings)

"""The settings of a run, with their defaults and help texts."""

import dataclasses
import math
import os
from collections.abc import Callable, Mapping
from typing import Any

from avsdn_tf.errors import UserError
from avsdn_tf.files import expand_user

# Cross-modality localization, and the name of its network.
CROSS_MODAL = "cross_modal"
AVDLN = "avdln"
MODES = ("supervised", "weak", CROSS_MODAL)
# Settings of the modes that predict classes.
_CLASS_SETTINGS = ("labels", "loss", "label_smoothing")
# Settings of weak mode.
_WEAK_SETTINGS = ("weak_label", "pooling")
_POSITIVE = (
    "epochs",
    "patience",
    "batch_size",
    "learning_rate",
    "decay_factor",
    "units",
    "checkpoint_minutes",
)
_COUNTS = ("epochs", "patience", "batch_size", "units", "decay_steps")
_SHARES = ("dropout", "label_smoothing", "ema")
_NOT_NEGATIVE = ("weight_decay", "decay_steps", "clip_norm")
WEAK_LABELS = ("average", "average_background", "mil", "mil_background")


def _setting(default: Any, text: str, choices: tuple[str, ...] = ()) -> Any:
    """Return a field; the command line creates a flag from its metadata."""
    return dataclasses.field(
        default=default,
        metadata={"help": text, "choices": choices, "kind": type(default)},
    )


def _setting_by_mode(default: Any, cross_modal: Any, text: str) -> Any:
    """Return a field whose default depends on the mode."""
    return dataclasses.field(
        default=None,
        metadata={
            "help": text,
            "choices": (),
            "kind": type(default),
            "default": default,
            CROSS_MODAL: cross_modal,
        },
    )


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of a run: task, data set, network and training.

    The defaults are the AVSDN paper's recipe; docs/network.md explains them.

    Raises:
        UserError: If a value is out of its range, or two values contradict each other.

    Example:
        >>> config = avsdn_tf.Config(mode="weak", model="avel", units=64)
        >>> config.model, config.units, config.dataset
        ('avel', 64, 'tfds_ave/synthetic')
    """

    mode: str = _setting(
        "supervised",
        "Train on segment labels (supervised), on clip labels (weak), or for "
        "cross-modality localization (cross_modal).",
        MODES,
    )
    model: str = _setting_by_mode("avsdn", AVDLN, "Network.")
    dataset: str = _setting("tfds_ave/synthetic", "TFDS name, tfds_ave/CONFIG.")
    data_dir: str | None = _setting(
        None, "TFDS's folder of data sets, if not TFDS's default."
    )
    labels: str = _setting(
        "auto",
        "One class a segment (single), any number of categories (multi), or multi if "
        "events of the data set overlap (auto).",
        ("auto", "single", "multi"),
    )
    epochs: int = _setting_by_mode(300, 20, "Maximum number of epochs.")
    patience: int = _setting(20, "Epochs to wait for a better validation score.")
    batch_size: int = _setting_by_mode(
        64, 8, "Clips in a training batch; segments in mode cross_modal."
    )
    learning_rate: float = _setting(1e-3, "Adam's learning rate.")
    decay_steps: int = _setting(
        0, "Step after which the learning rate is divided by 10; 0: never."
    )
    decay_epochs: str = _setting(
        "",
        "Epochs after which the learning rate is multiplied by decay_factor, such as "
        "10,20,30.",
    )
    decay_factor: float = _setting(0.5, "Factor of decay_epochs.")
    weight_decay: float = _setting(0.0, "Decoupled weight decay (AdamW); 0: none.")
    ema: float = _setting(
        0.0,
        "Momentum of the exponential moving average of the weights, which is validated "
        "and saved in place of the weights; 0: none.",
    )
    seed: int = _setting(0, "Random seed of weights, dropout and shuffling.")
    loss: str = _setting(
        "binary_crossentropy",
        "Loss on the softmax: binary cross-entropy (AVSDN's), categorical "
        "cross-entropy, or soft margin (AVEL's).",
        ("binary_crossentropy", "categorical_crossentropy", "soft_margin"),
    )
    label_smoothing: float = _setting(
        0.0, "Share of each training label that is spread over all classes."
    )
    weak_label: str = _setting(
        "average",
        "Clip label of mode weak: mean of the segment labels (average, the paper's) "
        "or the clip's category (mil); _background adds background clips.",
        WEAK_LABELS,
    )
    pooling: str = _setting(
        "average",
        "Mode weak: pooling of segment logits to clip logits.",
        ("average", "max"),
    )
    units: int = _setting(128, "Units of each LSTM, in each direction.")
    bidirectional: bool = _setting(False, "Bidirectional LSTMs.")
    shared_mlp: bool = _setting(True, "One fusion MLP for both modalities.")
    merge: str = _setting(
        "sum", "Sum or mean of the fused audio and visual states.", ("sum", "mean")
    )
    shared_fusion: bool = _setting(
        False, "One fusion network for hidden and cell state."
    )
    append_state: bool = _setting(
        False, "Append the fused hidden state to the decoder's input in every segment."
    )
    dropout: float = _setting(
        0.0,
        "Dropout rate of features and last layers.",
    )
    strategy: str = _setting(
        "auto",
        "Devices: one (single), all GPUs of this machine (mirrored), all workers of "
        "TF_CONFIG (multi_worker), or all that are found (auto).",
        ("auto", "single", "mirrored", "multi_worker"),
    )
    precision: str = _setting(
        "float32",
        "Keras dtype policy of the network; weights stay float32.",
        ("float32", "mixed_bfloat16", "mixed_float16"),
    )
    xla: str = _setting(
        "none",
        "What XLA compiles: nothing (none), or the network and its gradients (step), "
        "which can be faster without dropout, starts later and uses more memory.",
        ("none", "step"),
    )
    deterministic: bool = _setting(
        False,
        "Use deterministic GPU kernels, which are slower: the same seed gives the same "
        "weights. CPUs are always deterministic.",
    )
    clip_norm: float = _setting(
        0.0, "Maximum norm of a step's gradient (gradient clipping); 0: none."
    )
    checkpoint_minutes: float = _setting(
        10.0, "Minutes between checkpoints within an epoch."
    )
    encoders: str | None = _setting(
        None, "Run folder of avel_att whose attention and encoders initialize dmrn."
    )

    def __post_init__(self) -> None:
        is_cross_modal = self.mode == CROSS_MODAL
        for field in dataclasses.fields(self):
            if getattr(self, field.name) is None and CROSS_MODAL in field.metadata:
                default = field.metadata[CROSS_MODAL if is_cross_modal else "default"]
                object.__setattr__(self, field.name, default)
            self._check_type(field)
            self._check_choice(field)
        if is_cross_modal != (self.model == AVDLN):
            raise UserError(
                f"mode {CROSS_MODAL} and model {AVDLN} go together. Received mode "
                f"{self.mode}.",
                field="model",
                value=self.model,
            )
        for field in dataclasses.fields(self):
            self._check_mode(field)
        self._check_ranges()
        self._check_decay()
        # Absolute, so that the run can be evaluated from any working directory.
        if self.data_dir is not None and "://" not in os.fspath(self.data_dir):
            data_dir = os.path.abspath(expand_user(self.data_dir))
            object.__setattr__(self, "data_dir", data_dir)

    def _check_type(self, field: dataclasses.Field[Any]) -> None:
        """Check the type of numbers and booleans; convert NumPy scalars."""
        value, kind = getattr(self, field.name), field.metadata["kind"]
        if getattr(value, "shape", None) == ():
            value = value.item()
            object.__setattr__(self, field.name, value)
        if kind in (bool, int, float) and not _has_type(value, field):
            message = f"Expected a value of type {kind.__name__}."
            raise UserError(message, field=field.name, value=value)

    def _check_choice(self, field: dataclasses.Field[Any]) -> None:
        value, choices = getattr(self, field.name), field.metadata["choices"]
        if choices and value not in choices:
            raise UserError(
                f"Expected one of {', '.join(choices)}.", field=field.name, value=value
            )
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError("Expected a finite number.", field=field.name, value=value)

    def _check_mode(self, field: dataclasses.Field[Any]) -> None:
        """Raise UserError if a changed setting has no effect in the mode."""
        value = getattr(self, field.name)
        if value == field.default:
            return
        if self.mode == CROSS_MODAL and field.name in _CLASS_SETTINGS:
            reason = "Mode cross_modal predicts no classes and has no such setting."
        elif self.mode != "weak" and field.name in _WEAK_SETTINGS:
            reason = f"Only mode weak has this setting. Received mode {self.mode}."
        else:
            return
        raise UserError(reason, field=field.name, value=value)

    @property
    def decay_boundaries(self) -> list[int]:
        """The epochs of `decay_epochs`."""
        return [int(epoch) for epoch in self.decay_epochs.split(",") if epoch]

    def _check_decay(self) -> None:
        """Check that `decay_epochs` ascend, and that `decay_steps` isn't set too."""
        where = {"field": "decay_epochs", "value": self.decay_epochs}
        try:
            epochs = self.decay_boundaries
        except (AttributeError, ValueError):
            epochs = [0]
        if epochs != sorted(set(epochs)) or min(epochs, default=1) < 1:
            message = "Expected ascending epochs from 1 with commas, such as 10,20,30."
            raise UserError(message, **where)
        if epochs and self.decay_steps:
            raise UserError("Expected decay_epochs or decay_steps, not both.", **where)

    def _check_ranges(self) -> None:
        ranges: list[tuple[str, Callable[[Any], bool], tuple[str, ...]]] = [
            ("an integer in [0, 2**32)", lambda v: 0 <= v < 2**32, ("seed",)),
            # TensorFlow counts in int32.
            ("an integer below 2**31", lambda v: v < 2**31, _COUNTS),
            ("a positive number", lambda v: v > 0, _POSITIVE),
            ("a number in [0, 1)", lambda v: 0 <= v < 1, _SHARES),
            ("0 or a positive number", lambda v: v >= 0, _NOT_NEGATIVE),
        ]
        for expected, fits, names in ranges:
            for name in names:
                value = getattr(self, name)
                if not fits(value):
                    raise UserError(f"Expected {expected}.", field=name, value=value)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as a JSON-ready dictionary."""
        return dataclasses.asdict(self)

    def to_flags(self) -> list[str]:
        """Return the command line's flags for the settings that are not defaults."""
        default = Config(mode=self.mode).to_dict()
        return [f"--mode={self.mode}"] + [
            f"--{'' if value else 'no'}{name}"
            if isinstance(value, bool)
            else f"--{name}={value}"
            for name, value in self.to_dict().items()
            if value != default[name]
        ]

    @classmethod
    def from_dict(
        cls, settings: Mapping[str, Any], path: os.PathLike[str] | None = None
    ) -> "Config":
        """Return the Config of a dictionary that `to_dict` returned.

        Args:
            settings: The settings.
            path: The file that contains the settings, for error messages.

        Raises:
            UserError: If a name is unknown, or a value is wrong.
        """
        place = "" if path is None else f"{path}: "
        fields = {field.name: field for field in dataclasses.fields(cls)}
        unknown = sorted(map(ascii, set(settings) - set(fields)))
        if unknown:
            raise UserError(
                f"{place}unknown settings {', '.join(unknown)}. Another version of "
                "avsdn_tf may have written them."
            )
        wrong = [
            f"{name} {value!a:.80}"
            for name, value in settings.items()
            if not _has_type(value, fields[name])
        ]
        if wrong:
            raise UserError(
                f"{place}expected settings of a run. Received values of another type: "
                f"{', '.join(wrong)}"
            )
        try:
            return cls(**settings)
        except UserError as error:
            # Without `field`: the value is from the file, not from an argument.
            raise UserError(f"{place}{error}") from error


def _has_type(value: Any, field: dataclasses.Field[Any]) -> bool:
    kind = field.metadata["kind"]
    kinds = {float: (int, float), type(None): (str,)}.get(kind, (kind,))
    return type(value) in kinds or (value is None and field.default is None)

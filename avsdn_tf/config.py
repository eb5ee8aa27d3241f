"""Every setting of a run, with its default and its meaning, in one place."""

import dataclasses
from typing import Any

from avsdn_tf.errors import UserError

MODES = ("supervised", "weak")
WEAK_LABELS = ("average", "mil", "mil_background")


def _setting(default: Any, text: str, choices: tuple[str, ...] = ()) -> Any:
    """Returns a field; the command line makes its flag from the text and choices."""
    return dataclasses.field(
        default=default, metadata={"help": text, "choices": choices}
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
        "What is learnt from: segment labels (supervised) or clip labels alone (weak).",
        MODES,
    )
    model: str = _setting("avsdn", "The network.")
    dataset: str = _setting(
        "tfds_ave/synthetic", "Data set, as TFDS names it: tfds_ave/CONFIG."
    )
    data_dir: str | None = _setting(
        None, "Where TFDS keeps data sets; TFDS's own default if not given."
    )
    epochs: int = _setting(300, "Most epochs to train.")
    patience: int = _setting(
        20, "Epochs without a better validation accuracy after which training stops."
    )
    batch_size: int = _setting(64, "Clips in a training batch.")
    learning_rate: float = _setting(1e-3, "Adam's learning rate.")
    weight_decay: float = _setting(0.0, "Decoupled weight decay (AdamW) if positive.")
    seed: int = _setting(0, "Seed of weights, dropout and order of the clips.")
    loss: str = _setting(
        "binary_crossentropy",
        "Loss on the softmax: the paper's binary, or categorical cross-entropy.",
        ("binary_crossentropy", "categorical_crossentropy"),
    )
    weak_label: str = _setting(
        "average",
        "Clip label of weak mode: mean of the segment labels (average, the paper's), "
        "the event's category (mil), or that and background clips (mil_background).",
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
        0.0, "Share of features and of decoder outputs dropped in training."
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, choices = getattr(self, field.name), field.metadata["choices"]
            if choices and value not in choices:
                raise UserError(
                    f"--{field.name}: expected one of {', '.join(choices)}. "
                    f"Received: {value}"
                )
        for name in ("epochs", "patience", "batch_size", "learning_rate", "units"):
            if not getattr(self, name) > 0:
                raise UserError(
                    f"--{name}: expected a positive number. "
                    f"Received: {getattr(self, name)}"
                )
        if not 0 <= self.dropout < 1:
            raise UserError(
                f"--dropout: expected a share in [0, 1). Received: {self.dropout}"
            )
        if self.weight_decay < 0:
            raise UserError(
                "--weight_decay: expected no negative number. "
                f"Received: {self.weight_decay}"
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

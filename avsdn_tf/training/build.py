"""Building the network and the optimizer that the settings name."""

from collections.abc import Mapping
from typing import Any

import keras

from avsdn_tf.data.dataset import Dataset
from avsdn_tf.errors import UserError
from avsdn_tf.models import DMRN
from avsdn_tf.models.registry import MODEL_OPTIONS, MODELS, ModelEntry
from avsdn_tf.models.two_heads import TwoHeadedClassifier
from avsdn_tf.run_folder import RunFolder
from avsdn_tf.training.config import CROSS_MODAL, Config


def build_optimizer(
    config: Config, steps_per_epoch: int = 1
) -> keras.optimizers.Optimizer:
    """Return Adam with the settings' schedule, decay and average of weights."""
    learning_rate = config.learning_rate
    steps = [epoch * steps_per_epoch for epoch in config.decay_boundaries]
    values = [learning_rate * config.decay_factor**n for n in range(1 + len(steps))]
    if config.decay_steps:
        steps, values = [config.decay_steps], [learning_rate, learning_rate / 10]
    if steps:
        learning_rate = keras.optimizers.schedules.PiecewiseConstantDecay(
            # Keras's boundary is the last step of a value, counted from 0.
            [step - 1 for step in steps],
            values,
        )
    return keras.optimizers.Adam(
        learning_rate,
        weight_decay=config.weight_decay or None,
        use_ema=config.ema > 0,
        ema_momentum=config.ema,
        global_clipnorm=config.clip_norm or None,
        # Small gradients are zero in half precision.
        loss_scale_factor=1024.0 if config.precision == "mixed_float16" else None,
    )


def check_options(config: Config) -> ModelEntry:
    """Return the entry of the network that the settings name.

    Raises:
        UserError: If there is no such network, or it has not the settings' options.
    """
    if config.model not in MODELS:
        raise UserError(
            f"Expected one of {', '.join(MODELS)}.", field="model", value=config.model
        )
    entry = MODELS[config.model]
    default = Config()
    for name in MODEL_OPTIONS - set(entry.options):
        if getattr(config, name) != getattr(default, name):
            options = ", ".join(entry.options) or "none"
            raise UserError(
                f"{config.model} has no such option. Its options: {options}.",
                field=name,
                value=getattr(config, name),
            )
    if issubclass(entry.network, TwoHeadedClassifier) and config.loss != default.loss:
        raise UserError(
            f"{config.model} has losses of its own.", field="loss", value=config.loss
        )
    if config.mode == "weak" and entry.weak is None:
        raise UserError(
            f"{config.model} has no weakly supervised variant.",
            field="mode",
            value=config.mode,
        )
    return entry


def build_model(config: Config, dataset: Dataset) -> keras.Model:
    """Build the network that the settings name, as wide as the data.

    Raises:
        UserError: If there is no such network, or it doesn't fit settings or data.
    """
    entry = check_options(config)
    options = {name: getattr(config, name) for name in entry.options}
    if is_multi_label(config, dataset):
        options["multi_label"] = True
    if config.mode == "weak":
        options |= entry.weak
    try:
        model = entry.network(
            dataset.categories,
            dataset.audio_width,
            dataset.visual_shape,
            num_segments=dataset.num_segments,
            segment_s=dataset.segment_s,
            backbones=dataset.backbones.to_dict(),
            **options,
            **entry.fixed,
        )
    except ValueError as error:
        raise UserError(
            f"Doesn't fit {config.dataset}: {error}{_remedy(entry, dataset, options)}",
            field="model",
            value=config.model,
        ) from error
    if config.encoders is not None:
        _load_encoders(model, config)
    return model


def is_multi_label(config: Config, dataset: Dataset) -> bool:
    """Return whether a segment has any number of categories, not one class.

    Raises:
        UserError: If it must have one class, and events of the data overlap.
    """
    if config.labels == "single" and dataset.multi_label:
        raise UserError(
            f"Events of {config.dataset} overlap: a segment has several categories. "
            "Expected multi, or auto.",
            field="labels",
            value=config.labels,
        )
    # Cross-modality localization learns no categories.
    is_wanted = config.labels == "multi" or dataset.multi_label
    return is_wanted and config.mode != CROSS_MODAL


def _remedy(entry: ModelEntry, dataset: Dataset, options: Mapping[str, Any]) -> str:
    if options.get("multi_label") and issubclass(entry.network, TwoHeadedClassifier):
        return ". Take another network, such as avsdn, avel or psp"
    if entry.needs_maps and len(dataset.visual_shape) == 1:
        return ". Take feature maps, such as tfds_ave/vgg19, or model avel"
    return ""


def _load_encoders(model: keras.Model, config: Config) -> None:
    """Start a DMRN from the encoders of a trained AVEL with attention."""
    where = {"field": "encoders", "value": config.encoders}
    if not isinstance(model, DMRN):
        raise UserError(
            "Only model dmrn starts from another run's encoders. Received model "
            f"{config.model}.",
            **where,
        )
    folder = RunFolder(config.encoders)
    folder.check_ended("encoders")
    found = Config.from_dict(folder.read_settings(), folder.config).model
    if found != "avel_att":
        raise UserError(
            f"Expected a run of model avel_att. Received one of {found}.", **where
        )
    try:
        model.load_encoders(folder.load_model())
    except ValueError as error:
        raise UserError(str(error), **where) from error

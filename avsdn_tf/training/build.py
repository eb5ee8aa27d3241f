"""Build the network and the optimizer from a run's settings."""

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
    """Return Adam with the learning-rate schedule and other options of the settings."""
    learning_rate = config.learning_rate
    steps = [epoch * steps_per_epoch for epoch in config.decay_boundaries]
    values = [learning_rate * config.decay_factor**n for n in range(1 + len(steps))]
    if config.decay_steps:
        steps, values = [config.decay_steps], [learning_rate, learning_rate / 10]
    if steps:
        learning_rate = keras.optimizers.schedules.PiecewiseConstantDecay(
            # Keras's boundary is the last step with the old value, counted from 0.
            [step - 1 for step in steps],
            values,
        )
    return keras.optimizers.Adam(
        learning_rate,
        weight_decay=config.weight_decay or None,
        use_ema=config.ema > 0,
        ema_momentum=config.ema,
        global_clipnorm=config.clip_norm or None,
        # In float16, small gradients underflow to zero.
        loss_scale_factor=1024.0 if config.precision == "mixed_float16" else None,
    )


def check_options(config: Config) -> ModelEntry:
    """Return the registry entry of the network, and check its options.

    Raises:
        UserError: If the network is unknown, or a setting is not one of its options.
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
            f"{config.model} has its own losses.", field="loss", value=config.loss
        )
    if config.mode == "weak" and entry.weak is None:
        raise UserError(
            f"{config.model} has no weakly supervised variant.",
            field="mode",
            value=config.mode,
        )
    return entry


def build_model(config: Config, dataset: Dataset) -> keras.Model:
    """Build the network that the settings describe, for the shapes of the data.

    Raises:
        UserError: If the network is unknown, or doesn't fit settings or data.
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
    """Return whether the network is multi-label.

    Raises:
        UserError: If `labels` is single, and events of the data set overlap.
    """
    if config.labels == "single" and dataset.multi_label:
        raise UserError(
            f"Events of {config.dataset} overlap: a segment may have several "
            "categories. Expected multi, or auto.",
            field="labels",
            value=config.labels,
        )
    # Cross-modality localization has no labels of categories.
    is_requested = config.labels == "multi" or dataset.multi_label
    return is_requested and config.mode != CROSS_MODAL


def _remedy(entry: ModelEntry, dataset: Dataset, options: Mapping[str, Any]) -> str:
    if options.get("multi_label") and issubclass(entry.network, TwoHeadedClassifier):
        return ". Use another network, such as avsdn, avel or psp"
    if entry.needs_maps and len(dataset.visual_shape) == 1:
        return ". Use feature maps, such as tfds_ave/vgg19, or model avel"
    return ""


def _load_encoders(model: keras.Model, config: Config) -> None:
    """Initialize a DMRN with the encoders of a trained AVEL with attention."""
    where = {"field": "encoders", "value": config.encoders}
    if not isinstance(model, DMRN):
        raise UserError(
            "Only model dmrn can be initialized with another run's encoders. Received "
            f"model {config.model}.",
            **where,
        )
    folder = RunFolder(config.encoders)
    folder.check_ended("encoders")
    name = Config.from_dict(folder.read_settings(), folder.config).model
    if name != "avel_att":
        raise UserError(
            f"Expected a run of model avel_att. Received a run of {name}.", **where
        )
    try:
        model.load_encoders(folder.load_model())
    except ValueError as error:
        raise UserError(str(error), **where) from error

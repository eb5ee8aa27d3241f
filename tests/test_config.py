import dataclasses
import json
import typing

import numpy as np
import pytest

from avsdn_tf.errors import UserError
from avsdn_tf.training.config import AVDLN, CROSS_MODAL, Config


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"mode": "strong"}, "mode"),
        ({"model": AVDLN}, "model"),
        ({"mode": CROSS_MODAL, "model": "avel"}, "model"),
        ({"mode": CROSS_MODAL, "loss": "soft_margin"}, "loss"),
        ({"mode": CROSS_MODAL, "weak_label": "mil"}, "weak_label"),
        ({"pooling": "max"}, "pooling"),
        ({"epochs": 0}, "epochs"),
        ({"dropout": 1.0}, "dropout"),
        ({"ema": 1.0}, "ema"),
        ({"label_smoothing": -0.1}, "label_smoothing"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"learning_rate": float("inf")}, "learning_rate"),
        ({"checkpoint_minutes": float("inf")}, "checkpoint_minutes"),
        ({"clip_norm": float("nan")}, "clip_norm"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"decay_steps": -1}, "decay_steps"),
        ({"decay_epochs": "10,x"}, "decay_epochs"),
        ({"decay_epochs": "20,10"}, "decay_epochs"),
        ({"decay_epochs": 10}, "decay_epochs"),
        ({"decay_epochs": "10", "decay_steps": 5}, "decay_epochs"),
        ({"decay_factor": 0.0}, "decay_factor"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**32}, "seed"),
    ],
)
def test_a_wrong_setting_is_named(settings, field):
    with pytest.raises(UserError) as error:
        Config(**settings)
    assert error.value.field == field
    assert error.value.value is settings[field]


def test_defaults_depend_on_the_mode():
    config = Config(mode=CROSS_MODAL)
    assert (config.model, config.epochs, config.batch_size) == (AVDLN, 20, 8)
    assert Config(mode=CROSS_MODAL, epochs=300).epochs == 300
    config = Config()
    assert (config.model, config.epochs, config.batch_size) == ("avsdn", 300, 64)


def test_every_default_has_the_type_of_its_field():
    kinds = typing.get_type_hints(Config)
    for name, value in dataclasses.asdict(Config()).items():
        assert isinstance(value, kinds[name]), name


def test_settings_are_equal_after_conversion_to_json():
    config = Config(mode="weak", units=7)
    assert Config.from_dict(config.to_dict()) == config
    for settings in ({"spin": 1}, {"epochs": "many"}, {"seed": []}):
        with pytest.raises(UserError):
            Config.from_dict(settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", "3"),
        ("epochs", 1.5),
        ("epochs", True),
        ("units", [3]),
        ("learning_rate", "0.1"),
        ("bidirectional", "false"),
        ("bidirectional", 1),
    ],
)
def test_a_value_of_another_type_is_refused(name, value):
    with pytest.raises(UserError, match=f"^{name}.*Expected a value of type"):
        Config(**{name: value})


def test_numpy_numbers_are_converted_to_python_numbers():
    config = Config(epochs=np.int64(3), dropout=np.float32(0.5), mode=np.str_("weak"))
    assert (config.epochs, config.dropout) == (3, 0.5)
    json.dumps(config.to_dict())

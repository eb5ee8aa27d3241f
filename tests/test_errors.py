import keras
import numpy as np
import pytest
import tensorflow as tf

from avsdn_tf.errors import CombinedUserError, UserError, call_all, first_line
from avsdn_tf.features.extractor import build_extractor


def message_of(function, *args):
    with pytest.raises(Exception, match=r"\w") as raised:
        function(*args)
    return first_line(raised.value)


class _Add(keras.layers.Layer):
    def call(self, x):
        return x + keras.ops.zeros((7,))


class _Reshape(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec((None,), tf.float32)])
    def __call__(self, x):
        tf.debugging.assert_less(x, 3.0, "Expected less than 3")
        return tf.reshape(x, (-1, 7))


def test_the_first_line_states_why_a_graph_failed(tmp_path):
    module = _Reshape()
    assert "10 values" in message_of(module, tf.zeros(10))
    assert "Expected less than 3" in message_of(module, tf.fill(7, 5.0))
    tf.saved_model.save(module, str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    assert "10 values" in message_of(loaded, tf.zeros(10))
    # While TensorFlow traces a graph, the reason is at the end of the message.
    message = message_of(tf.function(lambda: loaded(tf.zeros(10))))
    assert "divisible by 7" in message


def test_the_first_line_states_why_a_layer_failed():
    message = message_of(_Add(), np.zeros((2, 3)))
    assert "[2,3] vs. [7]" in message
    assert "\x1b" not in message


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("one\ntwo"), "one"),
        (ValueError("\n  two"), "two"),
        (KeyError(), "KeyError"),
        (ValueError("Graph execution error:\n"), "ValueError"),
    ],
)
def test_the_first_line_of_any_error_states_its_cause(error, expected):
    assert first_line(error) == expected


def test_call_all_calls_every_function_before_raising():
    def fail(field):
        raise UserError("no", field=field, value=1)

    assert call_all(lambda: 1, lambda: 2) == [1, 2]
    with pytest.raises(CombinedUserError) as raised:
        call_all(lambda: fail("a"), lambda: 2, lambda: fail("b"))
    assert raised.value.render("--") == "--a=1: no\n--b=1: no"
    assert str(raised.value) == "a=1: no\nb=1: no"
    with pytest.raises(UserError) as raised:
        call_all(lambda: fail("a"), lambda: 2)
    assert raised.value.field == "a"


def test_all_unloadable_backbones_are_named_in_one_error(tmp_path):
    with pytest.raises(CombinedUserError) as raised:
        build_extractor(
            vggish=str(tmp_path / "no_vggish"),
            visual_weights=str(tmp_path / "no_weights.h5"),
        )
    first, second = raised.value.render("--").splitlines()
    assert first.startswith(f"--vggish={tmp_path}/no_vggish: ")
    assert second.startswith(f"--visual_weights={tmp_path}/no_weights.h5: ")

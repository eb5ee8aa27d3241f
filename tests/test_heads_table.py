"""Tables of published networks, with parameters, operations and memory."""

import csv
import os
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import avsdn_tf
from avsdn_tf.data.dataset import open_dataset
from avsdn_tf.errors import UserError
from avsdn_tf.models.registry import MODELS
from avsdn_tf.training.build import build_model
from avsdn_tf.training.config import Config
from experiments import run, runs
from experiments.costs import count_macs, count_parameters, peak_bytes
from experiments.published import HEADS, load_table
from tests.experiment_runs import write_run
from tests.small_datasets import build, make_ave


def test_parameters_and_macs_of_a_network():
    model = avsdn_tf.AVEL(["Bark"], 3, (2, 2, 5), units=4, num_segments=6)
    lstms = 2 * 4 * 4 * ((3 + 4) + (5 + 4))
    heads = 16 * 64 + 64 * 2
    assert count_macs(model) == 6 * (lstms + heads)
    biases = 2 * 2 * 4 * 4 + 64 + 2
    assert count_parameters(model) == lstms + heads + biases


def test_macs_of_matmul_and_einsum():
    @keras.saving.register_keras_serializable(package="test_heads_table")
    class Products(avsdn_tf.AVEL):
        def compute_outputs(self, inputs, training=False):
            del training
            x = inputs["audio"]
            pairs = tf.matmul(x, x, transpose_b=True)
            weighted = tf.einsum("btu,bud->btd", pairs, x)
            return {"logits": tf.matmul(weighted, x, transpose_a=True)}

    model = Products(["Bark"], 3, (5,), units=4, num_segments=6)
    assert count_macs(model) == 3 * (6 * 6 * 3) - 6 * 6 * 3 + 3 * 6 * 3


def test_peak_memory_of_a_process():
    peak = peak_bytes(os.getpid())
    assert peak is None or peak > 2**20
    assert peak_bytes(2**30) is None


def test_tables_have_a_row_for_every_network():
    models = {name: [row.model for row in load_table(name)] for name in HEADS}
    heads = ["cmran", "psp", "cpsp", "cmbs", "cace"]
    assert models["heads"] == ["avel_att", "dmrn", "avsdn", *heads]
    assert models["weak_heads"] == ["avel_att", "avsdn", *heads[:-1]]
    assert [row.order for row in load_table("heads")] == list(range(1, 9))
    # Only networks with a weak variant have weakly supervised rows.
    for table in HEADS:
        for row in load_table(table):
            assert row.mode == "supervised" or MODELS[row.model].weak is not None
            assert row.fits("tfds_ave/vgg19")


@pytest.fixture(scope="module")
def maps_dir(tmp_path_factory):
    """Return a TFDS folder with a small data set of feature maps."""
    folder = tmp_path_factory.mktemp("maps")
    build(make_ave(folder / "ave", "vgg19"), folder / "data", "vgg19")
    return folder / "data"


def test_the_heads_table_trains_a_network_and_compares_it_with_the_best(
    tmp_path, maps_dir, capsys
):
    words = [
        "heads",
        "--seeds=1",
        "--epochs=1",
        f"--data_dir={maps_dir}",
        f"--runs={tmp_path / 'runs'}",
        f"--results={tmp_path}",
    ]
    args = run.parse(words)
    assert args.dataset == ("tfds_ave/vgg19",)
    dataset = open_dataset("tfds_ave/vgg19", args.data_dir)
    clips = [int(clip["row"]) for clip in dataset.builder.as_dataset(split="test")]
    # Write finished runs for all rows but PSP, which is trained.
    for row in run.load_rows(args):
        (planned,) = runs.plan(row, args)
        wrong = 1 if row.model == "cpsp" else 3
        if row.model != "psp":
            write_run(planned.folder, wrong, planned.config, clips, dataset.disclaimer)
    run.main(words)
    assert "training supervised,psp" in capsys.readouterr().out
    (table,) = tmp_path.glob("heads-vgg19*.md")
    text = re.sub(" +", " ", table.read_text())
    assert "| paper (AVE) | by others (AVE) | ours |" in text
    assert "| CMBS | VGG-19 | paper | 79.3 | 78.2 | 70.0 |" in text
    (path,) = tmp_path.glob("heads-vgg19*.csv")
    with path.open(newline="") as file:
        lines = {line["model"]: line for line in csv.DictReader(file)}
    assert lines["cpsp"]["best_minus"] == ""
    assert float(lines["cmbs"]["best_minus"]) == pytest.approx(0.2)
    trained = lines["psp"]
    assert 0 <= float(trained["accuracy"]) <= 1
    model = avsdn_tf.PSP([str(number) for number in range(28)], num_segments=10)
    assert int(trained["parameters"]) == count_parameters(model) == 1_546_609
    assert int(trained["macs"]) == count_macs(model)
    if peak_bytes(os.getpid()):
        assert int(trained["peak_bytes"]) > 2**27
    assert np.isnan(float(lines["cmbs"]["macs"] or "nan"))
    assert "1.55 M" in text


def test_unsupported_modes_and_losses_are_refused(maps_dir):
    dataset = open_dataset("tfds_ave/vgg19", maps_dir)
    with pytest.raises(UserError, match="cace has no weakly supervised") as error:
        build_model(Config(mode="weak", model="cace"), dataset)
    assert error.value.field == "mode"
    assert build_model(Config(mode="weak", model="psp"), dataset).weak
    with pytest.raises(UserError, match="cpsp has its own losses"):
        build_model(Config(model="cpsp", loss="soft_margin"), dataset)


def test_the_heads_table_refuses_the_flag_recipe(capsys):
    with pytest.raises(SystemExit):
        run.main(["heads", "--recipe=best"])
    assert "--recipe=best: heads has fixed recipes" in capsys.readouterr().err

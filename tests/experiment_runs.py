"""Write finished runs without training."""

import json

import numpy as np

from avsdn_tf.evaluation import Predictions
from avsdn_tf.run_folder import RunFolder
from avsdn_tf.training.config import Config

DISCLAIMER = "these are not AVE results"


def write_run(path, wrong, config=None, clips=(3, 1, 2, 0), disclaimer=DISCLAIMER):
    """Write a run with wrong predictions in the first `wrong` segments of each clip."""
    folder = RunFolder(path)
    labels = np.zeros((len(clips), 10), int)
    predicted = labels.copy()
    predicted[:, :wrong] = 1
    path.mkdir(parents=True)
    Predictions(
        row=np.array(clips),
        logits=np.eye(3)[predicted],
        labels=labels,
        clip_labels=np.zeros(len(clips), int),
    ).save(folder.predictions)
    report = {
        "accuracy": 1 - wrong / 10,
        "validation_accuracy": 0.5,
        "partial_clip_accuracy": 0.31,
        "background_recall": 0.32,
        "event_f1": None if wrong == 4 else 0.33,
        "seconds": 1 / 3,
        "disclaimer": disclaimer,
        "trivial": {"always_background": 0.1},
    }
    folder.report.write_text(json.dumps(report))
    config = (config or Config()).to_dict()
    versions = {"tensorflow": "2.0", "keras": "3.0", "avsdn_tf": "0.0", "numpy": "1.0"}
    folder.config.write_text(json.dumps({"config": config, "versions": versions}))

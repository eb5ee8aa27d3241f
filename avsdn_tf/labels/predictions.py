"""Predicted events as labels: a first manifest, which a person corrects."""

import os
import pathlib
from collections.abc import Mapping

from avsdn_tf.errors import UserError
from avsdn_tf.events import VideoPrediction
from avsdn_tf.labels import Collection
from avsdn_tf.labels.checks import Clip
from avsdn_tf.labels.collect import Labels, Problems
from avsdn_tf.labels.files import LabelledEvent
from avsdn_tf.labels.media import Medium, choose_keys
from avsdn_tf.labels.splits import DEFAULT_SHARES, check_splits, draw_splits


def label_by_predictions(
    predictions: Mapping[pathlib.Path, VideoPrediction],
) -> Collection:
    """Return clips of predicted videos, with drawn splits; without events: background.

    Raises:
        UserError: If no video has an event, or two names can't be told apart.
    """
    videos = {pathlib.Path(os.path.abspath(path)): path for path in predictions}
    folder = pathlib.Path(os.path.commonpath([path.parent for path in videos]))
    clips = []
    for key, (_, (path,)) in choose_keys(
        [(path.stem, (path,)) for path in videos], folder
    ).items():
        found = predictions[videos[path]]
        # Labels count from the start of the video, not on the players' clock.
        events = tuple(
            LabelledEvent(
                event.category,
                event.start_s - found.start_s,
                event.end_s - found.start_s,
                "",
            )
            for event in found.events
        )
        medium = Medium(key, frozenset(), (path,), found.duration_s)
        clips.append(Clip(medium, events, None, key))
    if not any(clip.events for clip in clips):
        raise UserError("No event was found, so there are no labels to write.")
    clips = draw_splits(clips, DEFAULT_SHARES, seed=0)
    return Collection(
        clips=clips,
        labels=Labels([], {"predicted": len(clips)}, {}, len(clips)),
        unreadable={},
        num_missing=0,
        num_cut=0,
        num_skipped=0,
        are_splits_drawn=True,
        warnings=check_splits(clips, True, Problems()),
    )

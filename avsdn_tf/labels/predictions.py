"""Use predicted events as the labels of a first manifest, to be corrected by hand."""

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
    """Return clips with predicted events and drawn splits.

    Raises:
        UserError: If no video has an event, or two videos have the same name.
    """
    videos = {pathlib.Path(os.path.abspath(path)): path for path in predictions}
    folder = pathlib.Path(os.path.commonpath([path.parent for path in videos]))
    clips = []
    for key, (_, (path,)) in choose_keys(
        [(path.stem, (path,)) for path in videos], folder
    ).items():
        prediction = predictions[videos[path]]
        # Convert player times to times from the start of the video.
        events = tuple(
            LabelledEvent(
                event.category,
                event.start_s - prediction.start_s,
                event.end_s - prediction.start_s,
                "",
            )
            for event in prediction.events
        )
        medium = Medium(key, frozenset(), (path,), prediction.duration_s)
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

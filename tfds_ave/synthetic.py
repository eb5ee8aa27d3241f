"""Generate simulated clips in AVE's shapes.

Every category has an audio kind and a visual kind. Several categories share a kind, but
no two categories share both kinds: one modality narrows a segment down to a few
categories, and both modalities determine the category. As in AVE, an event is one run
of segments, and background segments lack sound, picture or both.
"""

from collections.abc import Iterator

import numpy as np

from tfds_ave.annotations import segment_labels
from tfds_ave.clips import Clip, background_name
from tfds_ave.configs import AveConfig

NUM_CLIPS = {"train": 480, "validation": 96, "test": 96, "background": 32}
NUM_KINDS = 7

# Number of clips of each category in AVE.
_FREQUENCIES = (
    *(188, 176, 171, 184, 188, 175, 178, 187, 172, 163, 182, 138, 102, 99),
    *(186, 176, 160, 183, 100, 83, 69, 160, 60, 64, 180, 109, 154, 156),
)
# Fraction of AVE's clips with background segments.
_PARTIAL_FRACTION = 0.336
# Lengths of events in clips with background segments, in AVE's proportions.
_PARTIAL_LENGTHS_S = (2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 8, 9)
# Probabilities that background segments are audible only, visible only, or neither.
_MISSING_PROBABILITIES = (0.4, 0.35, 0.25)
_SEED = 20190207
# Fraction of the features that a kind activates.
_ACTIVE_FRACTION = 0.2
# Tuned so that trained networks need both modalities.
_AUDIO_NOISE = 0.4
_VISUAL_NOISE = 0.9


def audio_kind(category: int) -> int:
    """Return the audio kind of a category; four categories share each kind."""
    return category // 4 % NUM_KINDS


def visual_kind(category: int) -> int:
    """Return the visual kind of a category; four categories share each kind."""
    return category % NUM_KINDS


def generate_clips(config: AveConfig, split: str) -> Iterator[Clip]:
    """Yield a split's clips, deterministically.

    Features are float32 and nonnegative, as after a ReLU. Rows of `background` start at
    0, as in AVE's noisy files.
    """
    audio_prototypes = _prototypes(config.audio_width, 1)
    visual_prototypes = _prototypes(int(np.prod(config.visual_shape)), 2)
    index = list(NUM_CLIPS).index(split)
    rng = np.random.default_rng([_SEED, 3, index])
    categories = rng.permutation(_quotas(NUM_CLIPS[split], len(config.categories)))
    lengths_s = rng.permutation(_event_lengths_s(NUM_CLIPS[split], config.num_segments))
    is_background = split == "background"
    first_row = 0 if is_background else sum([*NUM_CLIPS.values()][:index])
    events = zip(categories.tolist(), lengths_s.tolist(), strict=True)
    for row, (category, length_s) in enumerate(events, start=first_row):
        start_s = int(rng.integers(config.num_segments - length_s + 1))
        end_s = start_s + length_s
        if is_background:
            start_s = end_s = 0
        labels = segment_labels(
            category, start_s, end_s, config.num_segments, config.background
        )
        event = labels != config.background
        missing = rng.choice(3, p=_MISSING_PROBABILITIES)
        audible = event | (missing == 0)
        visible = event | (missing == 1)
        yield Clip(
            row=row,
            video_id=background_name(row) if is_background else f"synthetic_{row:05d}",
            audio=_features(
                rng, audio_prototypes[audio_kind(category)], audible, _AUDIO_NOISE
            ),
            visual=_features(
                rng, visual_prototypes[visual_kind(category)], visible, _VISUAL_NOISE
            ).reshape(config.num_segments, *config.visual_shape),
            segment_labels=labels,
            clip_label=config.background if is_background else category,
            start_s=start_s,
            end_s=end_s,
            match_split="train" if is_background else split,
        )


def _prototypes(width: int, stream: int) -> np.ndarray:
    """Return the noiseless feature of each kind, `(NUM_KINDS, width)`."""
    rng = np.random.default_rng([_SEED, stream])
    active = rng.random((NUM_KINDS, width)) < _ACTIVE_FRACTION
    return np.where(active, rng.gamma(2.0, 0.4, active.shape), 0.0)


def _quotas(num_clips: int, num_categories: int) -> np.ndarray:
    """Return `num_clips` category indices in AVE's proportions.

    The method of largest remainders gives rare categories clips in small splits, too.
    """
    weights = np.resize(_FREQUENCIES, num_categories).astype(np.float64)
    exact = weights / weights.sum() * num_clips
    counts = np.floor(exact).astype(int)
    most_short = np.argsort(counts - exact, kind="stable")
    counts[most_short[: num_clips - counts.sum()]] += 1
    return np.repeat(np.arange(num_categories), counts)


def _event_lengths_s(num_clips: int, num_segments: int) -> np.ndarray:
    """Return the lengths of `num_clips` events, most of them the whole clip."""
    lengths = np.full(num_clips, num_segments)
    num_partial = round(num_clips * _PARTIAL_FRACTION)
    lengths[:num_partial] = np.minimum(
        np.resize(_PARTIAL_LENGTHS_S, num_partial), num_segments
    )
    return lengths


def _features(
    rng: np.random.Generator, prototype: np.ndarray, present: np.ndarray, noise: float
) -> np.ndarray:
    """Return one modality's features, `(num_segments, width)` float32, at least 0."""
    # Scale the clip's prototype by a random factor with mean 1.
    strength = rng.gamma(4.0, 0.25)
    clip_noise = rng.normal(0.0, 0.5 * noise, prototype.shape)
    segment_noise = rng.normal(0.0, noise, (len(present), *prototype.shape))
    values = strength * present[:, None] * prototype + clip_noise + segment_noise
    return np.maximum(values, 0.0).astype(np.float32)

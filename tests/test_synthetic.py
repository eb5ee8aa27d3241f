"""Simulated clips are reproducible, and their categories need both modalities."""

import collections

import numpy as np
import pytest

from tfds_ave.configs import SYNTHETIC
from tfds_ave.synthetic import NUM_CLIPS, audio_kind, generate_clips, visual_kind


@pytest.fixture(scope="module")
def train():
    return list(generate_clips(SYNTHETIC, "train"))


def test_clips_are_equal_in_every_build(train):
    again = list(generate_clips(SYNTHETIC, "train"))
    assert [clip.row for clip in train] == list(range(480))
    for first, second in zip(train, again, strict=True):
        np.testing.assert_array_equal(first.audio, second.audio)
        np.testing.assert_array_equal(first.visual, second.visual)
        np.testing.assert_array_equal(first.segment_labels, second.segment_labels)


def test_splits_share_no_row_and_no_feature(train):
    rows = [clip.row for clip in train]
    for split in ("validation", "test"):
        clips = list(generate_clips(SYNTHETIC, split))
        rows += [clip.row for clip in clips]
        assert not np.array_equal(clips[0].audio, train[0].audio)
    assert sorted(rows) == list(range(480 + 96 + 96))


def test_features_have_the_documented_shapes_types_and_range(train):
    for clip in train[:5]:
        assert clip.audio.shape == (10, 128)
        assert clip.visual.shape == (10, 2048)
        assert clip.audio.dtype == clip.visual.dtype == np.float32
        assert min(clip.audio.min(), clip.visual.min()) >= 0
        assert clip.audio.std() > 0.1


def test_one_modality_matches_four_categories_and_both_match_one():
    pairs = {(audio_kind(k), visual_kind(k)) for k in range(28)}
    assert len(pairs) == 28
    assert set(collections.Counter(a for a, _ in pairs).values()) == {4}
    assert set(collections.Counter(v for _, v in pairs).values()) == {4}


def test_features_depend_only_on_the_kind(train):
    """Audio depends on the audio kind alone, visual features on the visual kind."""
    for modality, kind in (("audio", audio_kind), ("visual", visual_kind)):
        means = {}
        for category in range(28):
            segments = [
                getattr(clip, modality)[clip.segment_labels == category].mean(axis=0)
                for clip in train
                if clip.clip_label == category
            ]
            means[category] = np.mean(segments, axis=0)
        within, between = [], []
        for a in range(28):
            for b in range(a):
                distance = np.abs(means[a] - means[b]).mean()
                (within if kind(a) == kind(b) else between).append(distance)
        assert max(within) < min(between)


def test_background_segments_lack_a_modality_or_both(train):
    """Compare the strongest features of background and event segments."""
    patterns = collections.Counter()
    for clip in train:
        event = clip.segment_labels != 28
        if event.all():
            continue
        present = []
        for features in (clip.audio, clip.visual):
            top = np.argsort(features[event].mean(axis=0))[-12:]
            strength = features[:, top]
            ratio = strength[~event].mean() / strength[event].mean()
            present.append(bool(ratio > 0.75))
        patterns[tuple(present)] += 1
    total = sum(patterns.values())
    assert patterns[True, True] < 0.1 * total
    for seen_or_heard in ((True, False), (False, True), (False, False)):
        assert patterns[seen_or_heard] > 0.1 * total


def test_an_event_is_one_run_and_background_is_as_frequent_as_in_ave(train):
    labels = np.stack([clip.segment_labels for clip in train])
    for clip in train:
        expected = np.full(10, 28)
        expected[clip.start_s : clip.end_s] = clip.clip_label
        np.testing.assert_array_equal(clip.segment_labels, expected)
        assert clip.end_s - clip.start_s >= 2
    assert 0.165 < (labels == 28).mean() < 0.185
    assert 0.3 < (labels == 28).any(axis=1).mean() < 0.37


def test_categories_are_imbalanced_and_all_in_every_labelled_split(train):
    for split in ("train", "validation", "test"):
        counts = collections.Counter(
            clip.clip_label for clip in generate_clips(SYNTHETIC, split)
        )
        assert set(counts) == set(range(28))
    counts = collections.Counter(clip.clip_label for clip in train)
    assert max(counts.values()) > 2.5 * min(counts.values())


def test_background_clips_have_no_event():
    clips = list(generate_clips(SYNTHETIC, "background"))
    assert len(clips) == NUM_CLIPS["background"]
    for row, clip in enumerate(clips):
        assert clip.row == row
        assert clip.video_id == f"background_{row:03d}"
        assert clip.clip_label == 28
        assert clip.segment_labels.tolist() == [28] * 10

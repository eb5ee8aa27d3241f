"""Labels of annotation tools and published data sets are converted to events."""

import dataclasses
import json

import numpy as np
import pytest

from avsdn_tf import labels
from avsdn_tf.labels.files import LabelFile, parse_time, segments_to_times
from avsdn_tf.labels.formats import FORMATS, recognize
from avsdn_tf.labels.media import FeatureFiles, find_media
from tests.small_videos import write_clip


def write_features(folder, **rows):
    """Write audio and visual feature files; `rows` maps clips to row counts."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, count in rows.items():
        np.save(folder / f"{name}.audio.npy", np.zeros((count, 4), np.float32))
        np.save(folder / f"{name}.visual.npy", np.zeros((count, 6), np.float32))


def write_all(folder, files):
    """Write label files; content that is not a string is written as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / name).write_text(text, encoding="utf-8")


def collect(folder, *label_paths, **options):
    """Collect the clips of a folder; by default, splits may lack categories."""
    names = [field.name for field in dataclasses.fields(labels.Splitting)]
    how = {name: options.pop(name) for name in names if name in options}
    splitting = labels.Splitting(**{"allow_missing_categories": True, **how})
    return labels.collect_clips(folder, label_paths, splitting=splitting, **options)


def times(clip):
    return [(event.category, event.start_s, event.end_s) for event in clip.events]


def events_of(folder, *label_paths, **options):
    found = collect(folder, *label_paths, **options)
    return {clip.medium.key: times(clip) for clip in found.clips}


BARKS = [("Bark", 1.0, 2.5), ("Bark", 4.0, 10.0)]
ONE_VIDEO = {
    "audacity": {"dog.txt": "1.0\t2.5\tBark\n\\\t200\t900\n\n4\t10.0\tBark\n"},
    "webvtt": {
        "dog.vtt": "WEBVTT - seen twice\n\nNOTE nothing\n\nfirst\n00:01.000 --> "
        "00:02.500 align:start\n<b>Bark</b>\n\n00:00:04.000 --> 00:00:10.000\nBark\n"
    },
    "events": {
        "dog.events.json": {
            "start_s": 3.0,
            "events": [
                {"start_s": 4.0, "end_s": 5.5, "category": "Bark", "score": 0.7},
                {"start_s": 7.0, "end_s": 13.0, "category": "Bark", "score": 1},
            ],
            "classes": ["Bark", "Background"],
        }
    },
    "csv": {"dog.csv": "Onset,Offset,Label\n1,2.5,Bark\n4,10,Bark\n"},
    "activitynet": {
        "all.json": {
            "version": "x",
            "database": {
                "dog": {
                    "duration": 10.0,
                    "subset": "training",
                    "annotations": [
                        {"segment": [1, 2.5], "label": "Bark"},
                        {"segment": [4, 10.0], "label": "Bark", "label_id": 3},
                    ],
                },
                "elsewhere": {"subset": "testing", "annotations": []},
            },
        }
    },
}


@pytest.mark.parametrize("name", ONE_VIDEO)
def test_label_files_of_tools_are_recognized_and_read(tmp_path, name):
    write_features(tmp_path / "media", dog=10)
    write_all(tmp_path / "labels", ONE_VIDEO[name])
    (file,) = (tmp_path / "labels").iterdir()
    assert recognize(LabelFile(file, file.name)) == name
    assert events_of(tmp_path / "media", tmp_path / "labels") == {"dog": BARKS}


@pytest.mark.parametrize(
    "text",
    [
        "filename,onset,offset,event_label\ndog.wav,1,2.5,Bark\ndog.wav,4,10,Bark\n",
        "file\tbegin\tend\tlabel\ndog\t0:01\t0:02.5\tBark\ndog\t4\t10\tBark\n",
        "video;start;end;class\na/dog.mp4;1,0;2,5;Bark\ndog;4;10,0;Bark\n",
        "Label,Begin Time (s),End Time (s),File\nBark,1,2.5,dog\nBark,4,10,dog\n",
        "start_s,end_s,category,score,disclaimer,video\n1,2.5,Bark,0.5,,dog\n"
        "4,10,Bark,0.5,,dog\n",
    ],
)
def test_tables_accept_many_column_names(tmp_path, text):
    write_features(tmp_path, dog=10)
    write_all(tmp_path, {"labels.csv": text})
    assert events_of(tmp_path) == {"dog": BARKS}


def test_a_table_may_label_background_and_have_splits_and_groups(tmp_path):
    write_features(tmp_path, a=4, b=4, c=4, d=4)
    table = (
        "file,onset,offset,label,split,place\n"
        "a,0,1,'=Bark,train,yard\n"
        "b,,,,val,street\n"
        "c,,,background,train,yard\n"
        "d,1,2,Horn,test,road\n"
    )
    write_all(tmp_path, {"all.csv": table})
    found = collect(tmp_path, group="place")
    assert [clip.split for clip in found.clips] == [
        *("train", "validation", "train", "test"),
    ]
    assert [times(clip) for clip in found.clips] == [
        *([("=Bark", 0.0, 1.0)], [], [], [("Horn", 1.0, 2.0)]),
    ]
    assert found.clips[0].group == found.clips[2].group != found.clips[1].group
    assert not found.are_splits_drawn


FLAGS = [0, 1, 1, 0, 0, 0, 0, 0, 0, 1]
FLAGGED = [("frog croaking", 1.0, 3.0), ("frog croaking", 9.0, 10.0)]
PUBLISHED = {
    "avel": {
        "vggsound-avel50k.csv": "video_id,category,split\nabcdefghijk,frog croaking,"
        "train\n-bcdefghijk,frog croaking,test\nmissing,yodelling,val\n",
        "vggsound-avel50k_labels.json": [
            {"abcdefghijk": {"label": FLAGS}},
            {"-bcdefghijk": {"label": [[0] * 10]}},
            {"missing": {"label": FLAGS}},
        ],
    },
    "ov_ave": {
        "ovave_dataset_meta.csv": "split,cls_name,cls_type,vid_name\n"
        "train,frog croaking,close,abcdefghijk\ntest,frog croaking,open,-bcdefghijk\n",
        "released_ovavel_dataset_anno.json": {
            "abcdefghijk": {"category": "frog croaking", "label": json.dumps(FLAGS)},
            "-bcdefghijk": {"category": "frog croaking", "label": str([0] * 10)},
            "missing": {"category": "yodelling", "label": str(FLAGS)},
        },
    },
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_event_flags_of_ten_segments_are_read(tmp_path, name):
    # VGGSound's files are often named by video ID and start time.
    write_features(tmp_path / "media", abcdefghijk_000030=10, **{"-bcdefghijk": 10})
    write_all(tmp_path / "labels", PUBLISHED[name])
    found = collect(tmp_path / "media", tmp_path / "labels")
    by_key = {clip.medium.key: clip for clip in found.clips}
    assert times(by_key["abcdefghijk_000030"]) == FLAGGED
    assert times(by_key["-bcdefghijk"]) == []
    assert by_key["abcdefghijk_000030"].split == "train"
    assert found.labels.formats == {name: 2}
    assert found.num_missing == 1


def test_ave_pm_labels_are_read(tmp_path):
    write_features(tmp_path / "media", **{"3": 10, "8": 10, "28": 7})
    files = {
        "class_name_mapping.csv": "class_id,class_name\n22,moving with forklift\n"
        "13,playing hang (instrument)\n",
        "train.csv": "sample_id,onset,offset,label\n3,1.98,8.98,22\n",
        "val.csv": "sample_id,onset,offset,label\n8,0.0,10.0,13\n",
        "test.csv": "sample_id,onset,offset,label\n28,4.19,7.3,22\n99,0,1,22\n",
    }
    write_all(tmp_path / "labels", files)
    found = collect(tmp_path / "media", tmp_path / "labels")
    assert {clip.medium.key: (clip.split, times(clip)) for clip in found.clips} == {
        "3": ("train", [("moving with forklift", 1.98, 8.98)]),
        "8": ("validation", [("playing hang (instrument)", 0.0, 10.0)]),
        # The event is cut at the end of the clip.
        "28": ("test", [("moving with forklift", 4.19, 7.0)]),
    }
    assert (found.num_cut, found.num_missing) == (1, 1)


def test_llp_events_are_the_intersection_of_audio_and_visual_events(tmp_path):
    names = ("aaaaaaaaaaa_20_30", "bbbbbbbbbbb_0_10", "ccccccccccc_5_15")
    # LLP's feature files are named by video ID alone.
    write_features(tmp_path / "media", **{name[:11]: 10 for name in names})
    files = {
        "AVVP_train.csv": f"filename\tevent_labels\n{names[0]}\tSpeech,Dog\n",
        "AVVP_val_pd.csv": f"filename\tevent_labels\n{names[1]}\tDog,Car\n",
        "AVVP_test_pd.csv": f"filename\tevent_labels\n{names[2]}\tCar\n",
        "AVVP_eval_audio.csv": "filename\tonset\toffset\tevent_labels\n"
        f"{names[1]}\t0\t4\tDog\n{names[1]}\t3\t8\tDog\n{names[1]}\t0\t9\tCar\n"
        f"{names[2]}\t9\t9\tCar\n",
        "AVVP_eval_visual.csv": "filename\tonset\toffset\tevent_labels\n"
        f"{names[1]}\t2\t10\tDog\n{names[2]}\t0\t10\tCar\n",
    }
    write_all(tmp_path / "labels", files)
    found = collect(tmp_path / "media", tmp_path / "labels")
    assert {clip.medium.key: (clip.split, times(clip)) for clip in found.clips} == {
        names[0][:11]: ("train", [("Dog", None, None), ("Speech", None, None)]),
        names[1][:11]: ("validation", [("Dog", 2.0, 8.0)]),
        names[2][:11]: ("test", []),
    }
    assert found.labels.formats == {"llp": 5}


def test_overlaps_and_splits_of_unav_are_read(tmp_path):
    write_features(tmp_path / "media", **{"-Rjmgv0O_p0": 46})
    entry = {
        "duration": 46,
        "annotations": [
            {"segment": [0, 45.67432], "label": "playing base guitar", "label_id": 37},
            {"segment": [32.715, 43.07432], "label": "female singing", "label_id": 11},
            {"segment": [40, 46.5], "label": "female singing", "label_id": 11},
        ],
        "subset": "validation",
    }
    database = {"version": "unav100", "database": {"-Rjmgv0O_p0": entry}}
    write_all(tmp_path / "labels", {"unav100_annotations.json": database})
    (clip,) = collect(tmp_path / "media", tmp_path / "labels", splits="file").clips
    assert clip.split == "validation"
    assert times(clip) == [
        ("playing base guitar", 0.0, 45.67432),
        ("female singing", 32.715, 46.0),
    ]


def test_a_test_set_without_published_labels_is_not_background(tmp_path):
    write_features(tmp_path, dog=10, cat=10)
    content = json.loads(json.dumps(ONE_VIDEO["activitynet"]["all.json"]))
    content["database"]["cat"] = {"subset": "testing", "annotations": []}
    write_all(tmp_path, {"all.json": content})
    assert events_of(tmp_path, unlabelled="skip") == {"dog": BARKS}


def test_an_empty_label_file_is_background(tmp_path):
    write_features(tmp_path, dog=10, street=10)
    write_all(tmp_path, {"dog.txt": "1\t2\tBark\n", "street.txt": ""})
    assert events_of(tmp_path) == {"dog": [("Bark", 1.0, 2.0)], "street": []}


def test_labels_match_videos_in_folders_of_the_same_names(tmp_path):
    for folder, text in (("a", "0\t1\tBark\n"), ("b", "2\t3\tBark\n")):
        write_features(tmp_path / "media" / folder, clip=4)
        write_all(tmp_path / "labels" / folder, {"clip.txt": text})
    assert events_of(tmp_path / "media", tmp_path / "labels") == {
        "a_clip": [("Bark", 0.0, 1.0)],
        "b_clip": [("Bark", 2.0, 3.0)],
    }


def test_unreadable_videos_are_skipped_and_readable_ones_measured(tmp_path):
    write_clip(tmp_path / "two.mp4", 2)
    write_clip(tmp_path / "three.mkv", 3)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    media, unreadable = find_media(tmp_path)
    lengths = {medium.key: medium.length_s for medium in media}
    assert lengths == pytest.approx({"two": 2, "three": 3}, abs=0.2)
    assert [medium.key for medium in unreadable] == ["broken"]
    # An unreadable video with labels is no error.
    write_all(tmp_path, {"all.csv": "file,start,end,label\nbroken,0,1,a\ntwo,0,1,a\n"})
    found = collect(tmp_path, unlabelled="skip")
    assert [clip.medium.key for clip in found.clips] == ["two"]
    assert len(found.unreadable) == 1


def test_feature_files_are_found_by_pattern_and_measured_by_hop(tmp_path):
    for folder, rows, width in (("vggish", 20, 128), ("r2plus1d", 8, 512)):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "dog.npy", np.zeros((rows, width), np.float32))
    features = FeatureFiles("vggish/*.npy", "r2plus1d/*.npy", 0.5, 1.0, 2.5)
    ((dog,), unreadable) = find_media(tmp_path, features)
    assert (dog.key, dog.length_s, unreadable) == ("dog", 8.0, {})
    names = {path.parent.name for path in dog.files}
    assert names == {"vggish", "r2plus1d"}


def test_a_corrected_file_overrides_other_files_of_its_prediction(tmp_path):
    from avsdn_tf.events import Event, VideoPrediction
    from avsdn_tf.report.prediction import write_prediction

    media, out = tmp_path / "media", tmp_path / "out"
    media.mkdir()
    for name in ("dog", "cat"):
        write_clip(media / f"{name}.mp4", 3)
        prediction = VideoPrediction(
            f"{name}.mp4",
            ("Bark",),
            np.full((3, 2), 0.5),
            1.0,
            (Event(0.0, 1.0, "Bark", 0.5),),
            "A disclaimer",
        )
        write_prediction(out, media / f"{name}.mp4", prediction)
    found = collect(media, out)
    assert {clip.medium.key: times(clip) for clip in found.clips} == {
        "cat": [("Bark", 0.0, 1.0)],
        "dog": [("Bark", 0.0, 1.0)],
    }
    assert found.labels.num_predicted == 2
    # Correct the table of one video and the subtitles of the other.
    table = out / "dog.events.csv"
    table.write_text(table.read_text().replace("0.0,1.0,Bark", "1.5,2.5,Growl"))
    subtitles = out / "cat.vtt"
    subtitles.write_text(subtitles.read_text().replace("Bark 50.0 %", "Meow"))
    found = collect(media, out)
    assert {clip.medium.key: times(clip) for clip in found.clips} == {
        "cat": [("Meow", 0.0, 1.0)],
        "dog": [("Growl", 1.5, 2.5)],
    }
    assert found.labels.num_predicted == 0


def test_corrected_times_count_from_the_start_of_the_video(tmp_path):
    from avsdn_tf.events import Event, VideoPrediction
    from avsdn_tf.report.event_files import write_event_files

    for end in ("events.json", "events.csv", "vtt"):
        folder = tmp_path / end
        folder.mkdir()
        write_clip(folder / "dog.mp4", 3)
        prediction = VideoPrediction(
            "dog.mp4",
            ("Bark",),
            np.full((3, 2), 0.5),
            1.0,
            (Event(10.5, 11.5, "Bark", 0.5),),
            None,
            start_s=10.5,
        )
        for file in write_event_files(folder, "dog", prediction):
            if file.name not in (f"dog.{end}", "dog.events.json"):
                file.unlink()
        # Pass only the label file. The JSON beside it records the start.
        (found,) = collect(folder, folder / f"dog.{end}").clips
        assert times(found) == [("Bark", 0.0, 1.0)]
    # The user may rename the JSON file.
    folder = tmp_path / "events.json"
    (folder / "dog.events.json").rename(folder / "dog.json")
    (found,) = collect(folder, folder / "dog.json").clips
    assert times(found) == [("Bark", 0.0, 1.0)]


@pytest.mark.parametrize(
    ("value", "expected"),
    [("1.5", 1.5), (2, 2.0), ("01:02.5", 62.5), ("1:00:00", 3600.0), (" 3 ", 3.0)],
)
def test_times_are_read_as_numbers_and_clock_times(value, expected):
    assert parse_time(value) == expected


@pytest.mark.parametrize(
    "value", ["1,5", "", "x", None, True, "nan", "1e999", [1], 10**400]
)
def test_invalid_times_are_refused(value):
    with pytest.raises(ValueError, match=r"no time|decimal comma"):
        parse_time(value)


def test_consecutive_active_segments_are_one_event():
    assert segments_to_times([1, 1, 0, 1]) == [(0, 2), (3, 4)]
    assert segments_to_times([0, 0]) == []


def test_the_command_lists_all_formats_and_each_has_a_summary():
    from avsdn_tf.cli import manifest

    assert tuple(FORMATS) == manifest.FORMATS
    assert all(known.summary for known in FORMATS.values())


def test_tables_without_times_are_weak_labels(tmp_path):
    write_features(tmp_path, dog=10, cat=10)
    table = "video_id,category,split\ndog,Bark,train\ndog,Speech,train\ncat,Meow,train"
    write_all(tmp_path, {"all.csv": table})
    found = {key: set(events) for key, events in events_of(tmp_path).items()}
    assert found == {
        "dog": {("Bark", None, None), ("Speech", None, None)},
        "cat": {("Meow", None, None)},
    }


def test_given_splits_are_kept_and_missing_splits_drawn(tmp_path):
    names = [f"clip_{i}" for i in range(8)]
    write_features(tmp_path, **dict.fromkeys(names, 4))
    rows = [f"{name},0,2,Bark,{'val' if i < 2 else ''}" for i, name in enumerate(names)]
    write_all(tmp_path, {"all.csv": "\n".join(["file,start,end,label,split", *rows])})
    found = collect(tmp_path)
    splits = [clip.split for clip in found.clips]
    assert splits[:2] == ["validation", "validation"]
    assert set(splits) == {"train", "validation", "test"}
    assert found.are_splits_drawn


def test_event_flags_past_the_end_of_a_video_are_dropped(tmp_path):
    write_features(tmp_path, abcdefghijk=8)
    entry = {"category": "frog croaking", "label": [0] * 6 + [1, 1, 0, 1]}
    write_all(tmp_path, {"all.json": {"abcdefghijk": entry}})
    found = collect(tmp_path)
    assert times(found.clips[0]) == [("frog croaking", 6.0, 8.0)]
    assert found.num_cut == 1


def test_top_subtitles_are_labels_except_the_disclaimer(tmp_path):
    write_features(tmp_path, dog=10)
    text = (
        "WEBVTT\n\n00:00:00.000 --> 00:00:10.000 line:0\nNot trained\n\n"
        "00:01.000 --> 00:02.500 line:0\nBark &amp; growl 87.5 %\n"
    )
    write_all(tmp_path, {"dog.vtt": text})
    assert events_of(tmp_path) == {"dog": [("Bark & growl", 1.0, 2.5)]}


def test_table_names_assign_splits(tmp_path):
    write_features(tmp_path, a=4, b=4, c=4)
    names = ("train", "val", "test")
    for name, clip in zip(names, "abc", strict=True):
        text = f"\nfile,start,end,label\n{clip},1,2,Bark\n"
        write_all(tmp_path, {f"{name}_labels.csv": text})
    found = collect(tmp_path)
    assert [clip.split for clip in found.clips] == ["train", "validation", "test"]
    assert not found.are_splits_drawn
    # The name of a single table assigns no split.
    rows = "\n".join(f"{clip},1,2,Bark" for clip in "abc")
    for name in names:
        (tmp_path / f"{name}_labels.csv").unlink()
    write_all(tmp_path, {"test.csv": f"file,start,end,label\n{rows}\n"})
    assert collect(tmp_path).are_splits_drawn

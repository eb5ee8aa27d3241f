"""Invalid labels: one message names all wrong lines."""

import pytest

from avsdn_tf.errors import CombinedUserError, UserError
from tests.test_labels import collect, write_all, write_features


def refusal(folder, *label_paths, **options):
    """Return the lines of the error message, as the command line shows them."""
    with pytest.raises(UserError) as error:
        collect(folder, *label_paths, **options)
    return error.value.render("--").splitlines()


def test_all_wrong_lines_are_named_in_one_error(tmp_path):
    write_features(tmp_path, dog=10, cat=10)
    rows = [
        *("dog,1,2,Bark", "dog,5,4,Bark", "dog,9,12,Bark", "dog,-1,1,Bark"),
        *("dog,3,3,Bark", "dog,x,4,Bark", "dog,6,7", "cow,1,2,Moo", "cat,1,2,"),
        *("cat,1.5,3,bark", "dog,1.5,3,Bark", "cat,4,5,# Meow", "cat,11,11.5,Bark"),
    ]
    text = "\n".join(["file,onset,offset,label", *rows])
    write_all(tmp_path, {"all.csv": text})
    lines = refusal(tmp_path)
    wrong = sorted({int(line.split("line ")[1].split(":")[0]) for line in lines})
    assert wrong == [3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]


@pytest.mark.parametrize(
    ("per_s", "field"), [(1000, "ticks_per_s=1000"), (25, "ticks_per_s=25")]
)
def test_times_in_another_unit_are_recognized_and_converted(tmp_path, per_s, field):
    write_features(tmp_path, dog=10)
    rows = [f"{start * per_s}\t{end * per_s}\tBark" for start, end in ((1, 3), (6, 8))]
    write_all(tmp_path, {"dog.txt": "\n".join(rows)})
    *lines, hint = refusal(tmp_path)
    assert [line.split(":")[0] for line in lines] == [
        *("dog.txt, line 1", "dog.txt, line 2"),
    ]
    assert hint.startswith(f"--{field}: ")
    (clip,) = collect(tmp_path, ticks_per_s=per_s).clips
    assert [(e.start_s, e.end_s) for e in clip.events] == [(1.0, 3.0), (6.0, 8.0)]


def test_a_time_beyond_the_video_is_not_read_in_another_unit(tmp_path):
    write_features(tmp_path, dog=10)
    write_all(tmp_path, {"dog.txt": "1\t3\tBark\n12\t14\tBark\n"})
    (line,) = refusal(tmp_path)
    assert line.startswith("dog.txt, line 2: 12 to 14 s")


@pytest.mark.parametrize(
    "text",
    ["onset,offset,label\n0,5,1,5,Bark\n", 'onset,offset,label\n"0,5","1,5",Bark\n'],
)
def test_decimal_commas_need_semicolons(tmp_path, text):
    write_features(tmp_path, dog=10)
    write_all(tmp_path, {"dog.csv": text})
    (line,) = refusal(tmp_path)
    assert line.startswith("dog.csv, line 2: ")
    assert "decimal" in line


def test_audacity_labels_with_decimal_commas_are_refused(tmp_path):
    write_features(tmp_path, dog=10)
    write_all(tmp_path, {"dog.txt": "0,5\t1,5\tBark\n2,0\t3,0\tBark\n"})
    lines = refusal(tmp_path)
    assert len(lines) == 2
    assert all("decimal comma" in line for line in lines)


def test_two_label_files_of_one_video_are_refused(tmp_path):
    write_features(tmp_path, dog=10, cat=10)
    write_all(
        tmp_path,
        {
            "dog.txt": "1\t3\tBark\n",
            "dog.csv": "onset,offset,label\n1,3,Bark\n",
            "all.csv": "file,onset,offset,label\ncat,1,3,Meow\ndog,1,3,Bark\n",
        },
    )
    (line,) = refusal(tmp_path)
    assert all(name in line for name in ("dog.txt", "dog.csv", "all.csv"))
    (clip,) = collect(tmp_path, label_format="audacity", unlabelled="skip").clips
    assert clip.medium.key == "dog"


def test_two_spellings_of_a_category_are_refused(tmp_path):
    write_features(tmp_path, dog=10, cat=10)
    write_all(
        tmp_path,
        {
            "dog.txt": "1\t2\tDog bark\n3\t4\tDog bark\n5\t6\tdog_bark\n",
            "cat.txt": "1\t2\tDog  Bark\n",
        },
    )
    lines = refusal(tmp_path)
    assert {line.split(":")[0] for line in lines} == {
        *("dog.txt, line 3", "cat.txt, line 1"),
    }
    assert all("write 'Dog bark'" in line for line in lines)


def test_clips_without_labels_are_named(tmp_path):
    write_features(tmp_path, dog=10, cat=10, cow=10)
    write_all(tmp_path, {"dog.txt": "1\t2\tBark\n"})
    *lines, hint = refusal(tmp_path)
    assert [line.split(".")[0] for line in lines] == ["cat", "cow"]
    assert hint.startswith("--unlabelled: ")
    assert len(collect(tmp_path, unlabelled="skip").clips) == 1
    found = collect(tmp_path, unlabelled="background")
    assert sum(not clip.events for clip in found.clips) == 2


def test_a_category_missing_from_a_split_is_named(tmp_path):
    write_features(tmp_path, a=4, b=4, c=4, d=4)
    rows = ("a,0,1,Bark,train", "b,0,1,Bark,val", "c,0,1,Bark,test", "d,0,1,Meow,test")
    text = "\n".join(["file,onset,offset,label,split", *rows])
    write_all(tmp_path, {"all.csv": text})
    line, hint = refusal(tmp_path, allow_missing_categories=False)
    assert line.startswith("Meow: no clip of split train and validation (test 1)")
    assert hint.startswith("--allow_missing_categories: ")
    assert len(collect(tmp_path).warnings) == 1


def test_groups_in_two_splits_and_unknown_splits_are_refused(tmp_path):
    write_features(tmp_path, a_1=4, a_2=4, b_1=4)
    rows = ("a_1,0,1,Bark,train", "a_2,0,1,Bark,test", "b_1,0,1,Bark,holdout")
    text = "\n".join(["file,onset,offset,label,split", *rows])
    write_all(tmp_path, {"all.csv": text})
    assert "holdout" in refusal(tmp_path, splits="file")[0]
    write_all(tmp_path, {"all.csv": text.replace("holdout", "val")})
    (line,) = refusal(tmp_path, splits="file", group=r"(.+)_\d")
    assert "a_1" in line
    assert "a_2" in line
    with pytest.raises(UserError, match="group"):
        collect(tmp_path, group="nowhere")
    with pytest.raises(UserError, match="regular expression"):
        collect(tmp_path, group="(a")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("dog.json", '{"database": ['),
        ("dog.json", "[" * 100_000),
        ("dog.json", '{"a": NaN}'),
        ("dog.csv", 'onset,offset,label\n1,2,"Bark\n'),
        ("dog.csv", "when,what\n1,Bark\n"),
        ("dog.vtt", "00:01.000 --> 00:02.000\nBark\n"),
        ("dog.txt", "Bark from one second on\n"),
    ],
)
def test_a_file_named_like_a_video_must_contain_labels(tmp_path, name, content):
    write_features(tmp_path, dog=10)
    write_all(tmp_path, {name: content})
    (line,) = refusal(tmp_path)
    assert line.startswith(f"{name}: ")


@pytest.mark.parametrize(
    "database",
    [
        {"dog": 3},
        {"dog": {"annotations": {}}},
        {"dog": {"annotations": [3]}},
        {"dog": {"annotations": [{"segment": [1], "label": "a"}]}},
        {"dog": {"annotations": [{"segment": [1, 2], "label": 3}]}},
        {"dog": {"annotations": [{"segment": [1, None], "label": "a"}]}},
        {"dog": {"annotations": [{"segment": 5, "label": "a"}]}},
    ],
)
def test_json_of_another_structure_is_refused(tmp_path, database):
    write_features(tmp_path, dog=10)
    write_all(tmp_path, {"all.json": {"database": database}})
    assert refusal(tmp_path)[0].startswith("all.json, dog")


@pytest.mark.parametrize(
    "entry",
    [
        *(3, {"label": 3}, {"label": []}, {"label": "[0, 2]"}, {"label": "[0"}),
        *({"label": [0, "1"]}, {"label": [{}]}),
    ],
)
def test_flags_of_another_structure_are_refused(tmp_path, entry):
    write_features(tmp_path, dog=10, cat=10)
    good = {"category": "Meow", "label": [0, 1]}
    bad = {"category": "Bark", **entry} if isinstance(entry, dict) else entry
    write_all(tmp_path, {"all.json": {"cat": good, "dog": bad}})
    assert refusal(tmp_path)[0].startswith("all.json, dog")


def test_non_utf_8_text_and_files_without_labels_are_refused(tmp_path):
    write_features(tmp_path, dog=10)
    (tmp_path / "dog.txt").write_bytes("1\t2\tChi\u00ean\n".encode("latin-1"))
    (line,) = refusal(tmp_path)
    assert "UTF-8" in line
    (tmp_path / "dog.txt").write_text("1\t2\tBark\n")
    (tmp_path / "README.txt").write_text("How these were made.\n")
    found = collect(tmp_path)
    assert list(found.labels.ignored) == ["README.txt"]


def test_published_labels_of_other_videos_are_refused(tmp_path):
    write_features(tmp_path, dog=10)
    entry = {"category": "Bark", "label": [1] * 10}
    write_all(tmp_path, {"all.json": {"abcdefghijk": entry}})
    first, *_ = refusal(tmp_path)
    assert "abcdefghijk" in first
    assert "dog" in first


def test_missing_videos_labels_and_events_are_reported(tmp_path):
    with pytest.raises(UserError, match="at least one video"):
        collect(tmp_path)
    write_features(tmp_path, dog=10)
    with pytest.raises(UserError, match="no labels"):
        collect(tmp_path)
    write_all(tmp_path, {"dog.txt": ""})
    with pytest.raises(UserError, match="No clip has an event"):
        collect(tmp_path)


def test_feature_files_of_different_lengths_are_unreadable(tmp_path):
    import numpy as np

    write_features(tmp_path, dog=10, cat=10)
    np.save(tmp_path / "cat.visual.npy", np.zeros((12, 6), np.float32))
    write_all(tmp_path, {"dog.txt": "1\t2\tBark\n"})
    found = collect(tmp_path)
    (reason,) = found.unreadable.values()
    assert "10 s" in reason
    assert "12 s" in reason


def test_ten_thousand_categories_are_read_and_wrong_lines_reported(tmp_path):
    write_features(tmp_path, dog=10)
    rows = [f"dog,0,{1 + i % 9},category {i}" for i in range(10_000)]
    text = "\n".join(["file,onset,offset,label", *rows])
    write_all(tmp_path, {"all.csv": text})
    (clip,) = collect(tmp_path).clips
    assert len(clip.categories) == 10_000
    write_all(tmp_path, {"all.csv": text.replace(",0,", ",20,")})
    with pytest.raises(CombinedUserError) as error:
        collect(tmp_path)
    assert len(error.value.errors) == 10_000


@pytest.mark.parametrize(
    ("header", "named"),
    [
        ("file,start_ms,end_ms,label", "start_ms"),
        ("file,frame,label,label", "frame"),
        ("file,onset,offset,label,label", "one column label"),
    ],
)
def test_unread_time_columns_are_refused(tmp_path, header, named):
    write_features(tmp_path, dog=10)
    row = ",".join(["dog", "1", "2", "Bark", "Bark"][: header.count(",") + 1])
    write_all(tmp_path, {"all.csv": f"{header}\n{row}\n"})
    assert named in "\n".join(refusal(tmp_path))


def test_a_clip_must_not_mix_labels_with_and_without_times(tmp_path):
    write_features(tmp_path, dog=10)
    write_all(tmp_path, {"all.csv": "file,start,end,label\ndog,1,2,a\ndog,,,b\n"})
    (line,) = refusal(tmp_path)
    assert line.startswith("all.csv, line 3: b without times")


def test_a_clip_that_lacks_a_feature_file_is_named(tmp_path):
    write_features(tmp_path, dog=10, cat=10, cow=10)
    (tmp_path / "cat.visual.npy").unlink()
    (tmp_path / "cow.audio.npy").write_bytes(b"x")
    rows = [f"{name},1,2,a" for name in ("dog", "cat", "cow")]
    write_all(tmp_path, {"all.csv": "\n".join(["file,start,end,label", *rows])})
    found = collect(tmp_path)
    assert [clip.medium.key for clip in found.clips] == ["dog"]
    reasons = {medium.key: reason for medium, reason in found.unreadable.items()}
    assert list(reasons) == ["cat", "cow"]
    assert "cat.audio.npy" in reasons["cat"]


def test_an_unreadable_table_is_one_error(tmp_path):
    write_features(tmp_path, dog=10, cat=10)
    write_all(tmp_path, {"all.csv": "onset,offset,label\n1,2,a\n"})
    (line,) = refusal(tmp_path)
    assert "a column that names videos" in line


def test_a_rare_category_that_may_be_misspelt_is_a_warning(tmp_path):
    write_features(tmp_path, dog=10)
    names = ["Speech", "Speech", "Speech", "Speach", "Cat", "Car", "Take 1", "Take 2"]
    lines = [f"{i}\t{i + 1}\t{name}" for i, name in enumerate(names)]
    write_all(tmp_path, {"dog.txt": "\n".join(lines)})
    warnings = [w for w in collect(tmp_path).warnings if "misspelt" in w]
    assert warnings == ["Speach (1 label) may be a misspelt Speech (3 labels)."]


def test_the_case_of_a_name_is_suggested(tmp_path):
    write_features(tmp_path, dog_1=10)
    write_all(tmp_path, {"all.csv": "file,start,end,label\nDOG_1,1,2,a\n"})
    (line,) = refusal(tmp_path)
    assert line.endswith("Did you mean dog_1?")

"""OV-AVE: a flag for each of a video's ten seconds, a category, and a table of splits.

`released_ovavel_dataset_anno.json` holds `{VIDEO: {"category": ..., "label": "[0, 1,
...]"}}`, and `ovave_dataset_meta.csv` has the columns split, cls_name, cls_type and
vid_name. Both files are in https://github.com/jasongief/OV-AVEL (`meta_anno_files`). A
flag is 1 if the event is audible and visible. As in that repository's loaders, a video
whose flags are all 0 is background.
"""

from collections.abc import Sequence

from avsdn_tf.labels.avel import is_flags, read_flags, read_table
from avsdn_tf.labels.files import LabelFile, VideoLabels


def recognizes(file: LabelFile) -> bool:
    """Return whether a file holds flags with categories, or is the table of splits."""
    is_table = file.has_columns("split", "cls_name", "vid_name")
    return is_table or (
        file.is_json_of(dict) and is_flags(file.json, "category", "label")
    )


def read(files: Sequence[LabelFile], problems: list[str]) -> list[VideoLabels]:
    """Return the labels of each video that has flags."""
    rows = read_table(files, "vid_name", "cls_name", problems)
    return read_flags(files, rows, problems)

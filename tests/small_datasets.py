"""Small data sets for tests: files in AVE's layout, and a user's own data."""

import csv

import h5py
import numpy as np
import tensorflow_datasets as tfds

from tests.small_videos import write_clip
from tfds_ave import sources
from tfds_ave.configs import AVE_CATEGORIES
from tfds_ave.tfds_ave_dataset_builder import Builder

ROWS = 30
ORDERS = {
    "train": [*range(0, 20)][::-1],
    "validation": [20, 22, 24, 26, 28],
    "test": [21, 23, 25, 27, 29],
}
# Splits for cross-modality localization.
MATCH_ORDERS = {
    "train": [row for row in range(ROWS) if row % 3],
    "validation": [0, 6, 12, 18, 24],
    "test": [3, 9, 15, 21, 27],
}
SHAPES = {
    "resnet152": (2048,),
    "vgg19": (7, 7, 512),
    "resnet152_maps": (7, 7, 2048),
}
VISUAL = {
    "resnet152": "visual_feature_vec",
    "vgg19": "visual_feature",
    "resnet152_maps": "visual_feature_resnet152",
}
FEATURE_COLUMNS = ("key", "split", "category", "start_s", "end_s", "audio", "visual")
VIDEO_COLUMNS = (*FEATURE_COLUMNS[:5], "video")


def write(path, array, key="avadataset"):
    with h5py.File(path, "w") as file:
        file[key] = array


def read(path, key="avadataset"):
    with h5py.File(path) as file:
        return file[key][...]


def set_value(path, index, value):
    """Overwrite a value in a feature file."""
    with h5py.File(path, "r+") as file:
        file["avadataset"][index] = value


def row_times(row):
    return (0, 0) if row == 7 else (row % 4, 10 - row % 3)


def make_ave(folder, config="resnet152", visual_dtype=np.float32, noisy=True):
    """Write small files in AVE's layout."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    lines = []
    for row in range(ROWS):
        start, end = row_times(row)
        category = AVE_CATEGORIES[row % 28]
        lines.append(f"{category}&-id{row:08d}&good&{start}&{end}\n")
    (folder / "Annotations.txt").write_text("".join(lines))
    for split, name in sources.ORDERS.items():
        write(folder / name, np.array(ORDERS[split], np.int64), "order")
    for split, name in sources.MATCH_ORDERS.items():
        write(folder / name, np.array(MATCH_ORDERS[split], np.int64), "order")
    visual = rng.random((ROWS, 10, *SHAPES[config]), np.float32).astype(visual_dtype)
    write(folder / "audio_feature.h5", rng.random((ROWS, 10, 128)))
    write(folder / f"{VISUAL[config]}.h5", visual)
    if noisy:
        write(folder / "audio_feature_noisy.h5", rng.random((4, 10, 128)))
        write(folder / f"{VISUAL[config]}_noisy.h5", visual[:4] + 1)
    return folder


def write_manifest(folder, rows, columns=FEATURE_COLUMNS):
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)


def make_custom(folder, visual_shape=(6,), num_segments=4):
    """Write nine clips of two categories and background, three per split.

    Audio features have width 5. Return the rows of the manifest.
    """
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    (folder / "categories.txt").write_text("# ours\nDoor, slamming\nKettle\n")
    rows = []
    for index in range(9):
        key = f"clip {index}"
        np.save(folder / f"{key}.a.npy", rng.normal(size=(num_segments, 5)))
        np.save(
            folder / f"{key}.v.npy",
            rng.random((num_segments, *visual_shape), np.float32),
        )
        category = ("Door, slamming", "Kettle", "Background")[index % 3]
        times = ("", "") if category == "Background" else (0.5, 2)
        split = ("train", "validation", "test")[index // 3]
        rows.append([key, split, category, *times, f"{key}.a.npy", f"{key}.v.npy"])
    write_manifest(folder, rows)
    return rows


def make_custom_videos(folder, lengths_s=(3, 3, 3)):
    """Write videos with an event from 1 to 3 s; return the manifest's rows."""
    folder.mkdir()
    (folder / "categories.txt").write_text("Beep\n")
    rows = []
    for index, length_s in enumerate(lengths_s):
        write_clip(folder / f"{index}.mp4", length_s)
        split = ("train", "validation", "test")[min(index, 2)]
        rows.append([f"c{index}", split, "Beep", 1, 3, f"{index}.mp4"])
    write_manifest(folder, rows, VIDEO_COLUMNS)
    return rows


def build(folder, data_dir, config="resnet152", windows=(None, None), **beam):
    """Build a config from a manual folder, and return its builder."""
    builder = Builder(data_dir=data_dir, config=config)
    builder.window_s, builder.hop_s = windows
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=folder, **beam)
    )
    return builder


def examples(builder, split):
    """Return a split's examples by row."""
    return {int(e["row"]): e for e in tfds.as_numpy(builder.as_dataset(split=split))}

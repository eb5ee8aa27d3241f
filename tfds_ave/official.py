"""Check AVE's official files, and read them row by row."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping

import h5py
import numpy as np

from avsdn_tf.arrays import open_hdf5
from tfds_ave import sources
from tfds_ave.annotations import Annotation, read_annotations, segment_labels
from tfds_ave.clips import Clip, background_name
from tfds_ave.configs import AveConfig
from tfds_ave.errors import DatasetError, shorten
from tfds_ave.look import find_gaps, find_shared
from tfds_ave.sources import SourceFile

_ARRAY = "avadataset"
_ORDER = "order"


@dataclasses.dataclass(frozen=True)
class OfficialData:
    """AVE's annotations, splits and files.

    Attributes:
        config: The config.
        annotations: The rows of Annotations.txt.
        orders: Rows of each split.
        match_splits: Each row's split in cross-modality localization.
        files: The files, by their official names.
    """

    config: AveConfig
    annotations: list[Annotation]
    orders: dict[str, np.ndarray]
    match_splits: dict[int, str]
    files: Mapping[str, SourceFile]

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits, with `background` if both of its files exist."""
        noisy = (sources.AUDIO_NOISY, self.config.visual_noisy_file)
        has_background = all(name in self.files for name in noisy)
        return (*self.orders, "background") if has_background else tuple(self.orders)

    @property
    def num_clips(self) -> int:
        """Number of clips in all splits except `background`."""
        return sum(map(len, self.orders.values()))

    @property
    def warnings(self) -> list[str]:
        """Warnings about the clips."""
        rows = [
            (split, self.annotations[row])
            for split, order in self.orders.items()
            for row in order.tolist()
        ]
        warnings = (
            find_shared((a.video_id, split, a.video_id) for split, a in rows),
            find_gaps(
                ((split, a.category) for split, a in rows),
                self.config.categories,
                self.orders,
            ),
        )
        return [warning for warning in warnings if warning]

    def clips(self, split: str) -> Iterator[Clip]:
        """Yield a split's clips in the order of its order file.

        Raises:
            DatasetError: If features are not finite or can't be read.
        """
        is_background = split == "background"
        if is_background:
            audio_name, visual_name = sources.AUDIO_NOISY, self.config.visual_noisy_file
        else:
            audio_name, visual_name = sources.AUDIO, self.config.visual_file
        audio_file, visual_file = self.files[audio_name], self.files[visual_name]
        with (
            _open_array(audio_file, _ARRAY) as audio,
            _open_array(visual_file, _ARRAY) as visual,
        ):
            rows = np.arange(len(audio)) if is_background else self.orders[split]
            for row in rows.tolist():
                yield self.make_clip(
                    row,
                    _read_row(audio, audio_file, row, "float32"),
                    _read_row(visual, visual_file, row, self.config.visual_dtype),
                    is_background=is_background,
                )

    def make_clip(
        self, row: int, audio: np.ndarray, visual: np.ndarray, *, is_background: bool
    ) -> Clip:
        """Return the clip of a row with the given features."""
        config = self.config
        if is_background:
            category, video_id = config.background, background_name(row)
            start_s, end_s, match_split = 0, 0, "train"
        else:
            annotation = self.annotations[row]
            category = config.categories.index(annotation.category)
            video_id, match_split = annotation.video_id, self.match_splits[row]
            start_s, end_s = annotation.start_s, annotation.end_s
        labels = segment_labels(
            category, start_s, end_s, config.num_segments, config.background
        )
        return Clip(
            row=row,
            video_id=video_id,
            audio=audio,
            visual=visual,
            segment_labels=labels,
            clip_label=category,
            start_s=start_s,
            end_s=end_s,
            match_split=match_split,
        )


def open_official(config: AveConfig, files: Mapping[str, SourceFile]) -> OfficialData:
    """Open AVE's files, and check everything except the values of features.

    Raises:
        DatasetError: If a file can't be read, has another layout, or contradicts
            another file.
    """
    annotations = read_annotations(
        files[sources.ANNOTATIONS].path, config.categories, config.num_segments
    )
    rows = len(annotations)
    audio_shape = (config.num_segments, config.audio_width)
    visual_shape = (config.num_segments, *config.visual_shape)
    if config.source == "files":
        visual_file = files[config.visual_file]
        _check_features(files[sources.AUDIO], audio_shape, rows, sources.ANNOTATIONS)
        _check_features(visual_file, visual_shape, rows, sources.ANNOTATIONS)
    orders = _read_orders(files, sources.ORDERS, rows)
    match_splits = _read_match_splits(files, orders, rows)
    data = OfficialData(config, annotations, orders, match_splits, files)
    if "background" in data.splits:
        noisy_rows = _check_features(files[sources.AUDIO_NOISY], audio_shape)
        _check_features(
            files[config.visual_noisy_file],
            visual_shape,
            noisy_rows,
            sources.AUDIO_NOISY,
        )
    _compare_labels(data)
    return data


@contextlib.contextmanager
def _open_array(file: SourceFile, key: str) -> Iterator[h5py.Dataset]:
    """Open the array of an HDF5 file."""
    try:
        opened = h5py.File(file.path, "r")
    except OSError as error:
        raise DatasetError(
            f"{file}: damaged, truncated, or no HDF5 file ({error}). Expected AVE's "
            f"file of this name, received {file.path.stat().st_size} bytes. Replace it "
            "by a complete copy."
        ) from error
    with opened:
        # h5py raises errors of many types for damaged files.
        try:
            array = open_hdf5(opened, key)
        except Exception as error:
            raise DatasetError(
                f"{file}: wrong layout ({error}). Expected an array under key {key!r}, "
                f"received keys {shorten(sorted(opened))}. Replace it by AVE's file of "
                "that name."
            ) from error
        yield array


def _check_features(
    file: SourceFile,
    row_shape: tuple[int, ...],
    rows: int | None = None,
    rows_of: str = "",
) -> int:
    """Check the shape and dtype of a feature file; return its number of rows.

    `rows_of` names the file that has the expected number of rows.
    """
    with _open_array(file, _ARRAY) as array:
        if array.shape[1:] != row_shape or array.dtype.kind != "f":
            raise DatasetError(
                f"{file}: wrong layout. Expected (rows, "
                f"{', '.join(map(str, row_shape))}) of float32 or float64, received "
                f"{array.shape} of {array.dtype}. Replace it by the features of this "
                "config."
            )
        if rows is not None and len(array) != rows:
            raise DatasetError(
                f"{file}: wrong number of rows. Expected {rows}, as in {rows_of}, "
                f"received {len(array)}. Use both files from the same release."
            )
        return len(array)


def _read_orders(
    files: Mapping[str, SourceFile], names: Mapping[str, str], rows: int
) -> dict[str, np.ndarray]:
    """Read the rows of each split, and check that no row occurs twice."""
    orders: dict[str, np.ndarray] = {}
    owners: dict[int, SourceFile] = {}
    for split, name in names.items():
        file = files[name]
        with _open_array(file, _ORDER) as array:
            fits = array.ndim == 1 and array.dtype.kind in "iu"
            if not fits or not 0 < len(array) <= rows:
                raise DatasetError(
                    f"{file}: wrong layout. Expected a list of 1 to {rows} row "
                    f"numbers, received {array.shape} of {array.dtype}. Replace it by "
                    "AVE's file."
                )
            orders[split] = _read(array, file, ...).astype(np.int64)
        for index, row in enumerate(orders[split].tolist()):
            if not 0 <= row < rows:
                raise DatasetError(
                    f"{file}, entry {index}: row out of range. Expected 0 to "
                    f"{rows - 1}, the rows of {sources.ANNOTATIONS}, received {row}. "
                    "Use both files from the same release."
                )
            if row in owners:
                raise DatasetError(
                    f"{file}, entry {index}: repeated row. Expected each row in one "
                    f"place, received row {row}, which {owners[row].name} already "
                    "holds. Replace both by AVE's files."
                )
            owners[row] = file
    return orders


def _read_match_splits(
    files: Mapping[str, SourceFile], orders: Mapping[str, np.ndarray], rows: int
) -> dict[int, str]:
    """Return each row's split in cross-modality localization."""
    match_orders = _read_orders(files, sources.MATCH_ORDERS, rows)
    match_splits = {
        row: split for split, order in match_orders.items() for row in order.tolist()
    }
    for split, order in orders.items():
        if missing := sorted({*order.tolist()} - match_splits.keys()):
            others = ", ".join(str(files[n]) for n in sources.MATCH_ORDERS.values())
            raise DatasetError(
                f"{others}: row {missing[0]} is missing. Expected each row of "
                f"{sources.ORDERS[split]} in one of them. Use all order files from the "
                "same release."
            )
    return match_splits


def _compare_labels(data: OfficialData) -> None:
    """Check that optional label files agree with the annotations."""
    config = data.config
    one_hot = np.eye(len(config.class_names), dtype=np.float32)
    categories = [config.categories.index(a.category) for a in data.annotations]
    segments = np.stack(
        [
            segment_labels(
                category, a.start_s, a.end_s, config.num_segments, config.background
            )
            for category, a in zip(categories, data.annotations, strict=True)
        ]
    )
    expected_labels = {
        "labels.h5": one_hot[segments],
        "mil_labels.h5": one_hot[categories],
        "labels_closs.h5": (segments != config.background).astype(np.float32),
    }
    remedy = "Use both files from the same release, or remove the label file."
    for name, expected in expected_labels.items():
        if name not in data.files:
            continue
        file = data.files[name]
        with _open_array(file, _ARRAY) as array:
            if array.shape != expected.shape:
                raise DatasetError(
                    f"{file}: wrong shape. Expected {expected.shape}, as for "
                    f"{sources.ANNOTATIONS}, received {array.shape}. {remedy}"
                )
            is_equal = _read(array, file, ...) == expected
        differing = np.flatnonzero(~is_equal.reshape(len(is_equal), -1).all(axis=1))
        if len(differing):
            row = int(differing[0])
            raise DatasetError(
                f"{file}, row {row}: other labels. Expected those of "
                f"{data.annotations[row]}, received other labels in this row and "
                f"{len(differing) - 1} more. {remedy}"
            )


def _read(array: h5py.Dataset, file: SourceFile, index: object) -> np.ndarray:
    try:
        return array[index]
    except OSError as error:
        raise DatasetError(
            f"{file}: can't be read ({error}). Replace the file by a complete copy."
        ) from error


def _read_row(
    array: h5py.Dataset, file: SourceFile, row: int, dtype: str
) -> np.ndarray:
    """Read the features of one clip; raise DatasetError if they overflow `dtype`."""
    values = _read(array, file, row)
    # Overflow is reported below.
    with np.errstate(over="ignore"):
        stored = values.astype(dtype)
    finite = np.isfinite(stored).reshape(len(stored), -1).all(axis=1)
    if finite.all():
        return stored
    segment = int(np.argmin(finite))
    bad = values[segment][~np.isfinite(stored[segment])][0]
    raise DatasetError(
        f"{file}, row {row}, segment {segment}: invalid feature. Expected finite "
        f"numbers within the range of {dtype}, received {bad}. Extract this clip again."
    )

"""The TFDS builder of AVE."""

import os
import pathlib
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from tfds_ave import custom, official, sources, synthetic, videos
from tfds_ave.clips import Clip
from tfds_ave.configs import (
    BACKGROUND,
    CONFIGS,
    SEGMENT_S,
    SIMULATED,
    SPLITS,
    STAND_IN,
    AveConfig,
)
from tfds_ave.errors import DatasetError
from tfds_ave.manifest import read_manifest
from tfds_ave.videos import Video


class Builder(tfds.core.GeneratorBasedBuilder):
    """AVE: audio-visual events with one label a second, as precomputed features."""

    VERSION = tfds.core.Version("1.2.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {
        "1.2.0": "Metadata with shapes, backbones and disclaimer.",
        "1.1.0": "Every example has its split of cross-modality localization.",
        "1.0.0": "First release.",
    }
    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
    `synthetic` needs no file. The other configs look for each file in the manual folder
    (--manual_dir) first, and download missing files where they can; README.md of
    tfds_ave lists them. The visual features of `resnet152` and `resnet152_maps` were
    never released: add your own. `videos` needs AVE_Dataset.zip, or the folder AVE of
    its videos; `custom` needs your manifest.csv and categories.txt.
    """

    # `tfds build tfds_ave` builds all of BUILDER_CONFIGS, and must work without any
    # file of AVE: the list holds the default alone. All configs have a name.
    BUILDER_CONFIGS: ClassVar[list[AveConfig]] = [CONFIGS[0]]
    builder_configs: ClassVar[dict[str, AveConfig]] = {c.name: c for c in CONFIGS}

    def __init__(self, *, config: str | AveConfig | None = None, **kwargs: Any) -> None:
        """Create the builder of a config.

        Args:
            config: Name of a config, or an `AveConfig`; None for the default.
            **kwargs: Arguments of `tfds.core.DatasetBuilder`.

        Raises:
            DatasetError: If no config has that name.
        """
        if isinstance(config, str) and config.split(":")[0] not in self.builder_configs:
            raise DatasetError(
                f"unknown config. Expected one of {sorted(self.builder_configs)}, "
                f"received {config!r}."
            )
        super().__init__(config=config, **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.builder_config
        # Custom data decide categories and shapes once they are read.
        known = config.source != "custom"
        names = config.class_names if known else None
        num_segments = config.num_segments if known else None
        audio_shape = (num_segments, config.audio_width if known else None)
        visual_shape = (num_segments, *(config.visual_shape if known else (None,)))
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "row": np.int64,
                    "video_id": tfds.features.Text(),
                    # "bytes" is three times as fast to write as TFDS's default.
                    "audio": tfds.features.Tensor(
                        shape=audio_shape, dtype=np.float32, encoding="bytes"
                    ),
                    "visual": tfds.features.Tensor(
                        shape=visual_shape,
                        dtype=np.dtype(config.visual_dtype),
                        encoding="bytes",
                    ),
                    "segment_labels": tfds.features.Sequence(
                        tfds.features.ClassLabel(names=names), length=num_segments
                    ),
                    "clip_label": tfds.features.ClassLabel(names=names),
                    # Stored, so that weak training decodes no segment labels.
                    "segment_label_mean": tfds.features.Tensor(
                        shape=(len(names) if names else None,), dtype=np.float32
                    ),
                    "start_s": np.float32,
                    "end_s": np.float32,
                    "match_split": tfds.features.ClassLabel(names=SPLITS),
                }
            ),
            homepage="https://github.com/YapengTian/AVE-ECCV18",
            metadata=tfds.core.MetadataDict(
                num_segments=config.num_segments,
                segment_s=SEGMENT_S,
                audio_width=config.audio_width,
                visual_shape=list(config.visual_shape),
                has_times=True,
                backbones={"visual_network": config.visual_network},
                disclaimer=SIMULATED if config.source == "simulated" else None,
            ),
        )

    def download_and_prepare(
        self,
        *,
        download_dir: os.PathLike[str] | str | None = None,
        download_config: tfds.download.DownloadConfig | None = None,
        **kwargs: Any,
    ) -> None:
        """Build the data set.

        Args:
            download_dir: Folder of downloads.
            download_config: Options of TFDS, such as `manual_dir` and Beam's.
            **kwargs: Other arguments of `tfds.core.DatasetBuilder`.

        Raises:
            DatasetError: If data are missing or wrong.
        """
        downloads = os.fspath(download_dir or self.data_dir_root / "downloads")
        manual_dir = download_config.manual_dir if download_config else None
        # Absolute, since Beam's workers may have another working folder.
        self._manual_dir = pathlib.Path(
            os.fspath(manual_dir or pathlib.Path(downloads) / "manual")
        ).resolve()
        self._download_config = download_config
        super().download_and_prepare(
            download_dir=download_dir, download_config=download_config, **kwargs
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        config = self.builder_config
        if config.source == "simulated":
            return {
                split: self._generate_examples(synthetic.generate_clips(config, split))
                for split in synthetic.NUM_CLIPS
            }
        if config.source == "custom":
            data = self._open_custom()
            return {
                split: self._generate_examples(data.clips(split)) for split in SPLITS
            }
        # dl_manager.manual_dir would raise without naming the files if the folder is
        # missing.
        files = sources.find_files(config, dl_manager, self._manual_dir)
        data = official.open_official(config, files)
        if config.source == "videos":
            found = videos.find_videos(data, self._manual_dir)
            data = videos.VideoData(data, self._extract(found))
        return {
            split: self._generate_examples(data.clips(split)) for split in data.splits
        }

    def _open_custom(self) -> custom.CustomData:
        """Read the user's own data, and write what they decide into the metadata."""
        manifest = read_manifest(self._manual_dir)
        extracted = self._extract(
            [Video(clip.key, clip.video) for clip in manifest.clips if clip.video]
        )
        data = custom.open_custom(manifest, extracted)
        names = [*manifest.categories, BACKGROUND]
        self.info.features["clip_label"].names = names
        self.info.features["segment_labels"].feature.names = names
        self.info.metadata.update(
            num_segments=data.num_segments,
            audio_width=data.audio_width,
            visual_shape=list(data.visual_shape),
            has_times=manifest.has_times,
            labels_hash=manifest.labels_hash(),
        )
        return data

    def _extract(
        self, wanted: list[Video]
    ) -> dict[str, tuple[pathlib.Path, pathlib.Path]]:
        """Return the feature files of videos, and record their backbones."""
        if not wanted:
            return {}
        # Importing the backbones takes seconds; most builds need none.
        from tfds_ave import extraction

        paths, backbones = extraction.extract_videos(
            wanted, self._manual_dir, self.builder_config, self._download_config
        )
        self.info.metadata.update(backbones=backbones)
        return paths

    def _generate_examples(
        self, clips: Iterator[Clip]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        num_classes = self.info.features["clip_label"].num_classes
        for clip in clips:
            # VGGish's features are released after its final ReLU.
            if self.builder_config.source == "files" and clip.audio.min() < 0:
                self.info.metadata["disclaimer"] = STAND_IN
            yield clip.row, clip.to_example(num_classes)

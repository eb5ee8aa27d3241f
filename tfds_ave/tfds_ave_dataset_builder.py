"""The TFDS builder of AVE."""

import contextlib
import os
import pathlib
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from tfds_ave import custom, official, sources, synthetic, videos
from tfds_ave.clips import MATCH_SPLITS, Clip
from tfds_ave.configs import (
    BACKGROUND,
    CONFIGS,
    SEGMENT_S,
    SIMULATED,
    STAND_IN,
    AveConfig,
)
from tfds_ave.errors import DatasetError
from tfds_ave.videos import Video


class Builder(tfds.core.GeneratorBasedBuilder):
    """AVE: audio-visual events, one label a second, as precomputed features."""

    VERSION = tfds.core.Version("1.2.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {
        "1.2.0": "The metadata describe the data set: shapes, backbones, disclaimer.",
        "1.1.0": "Every example says its split of the cross-modality task.",
        "1.0.0": "First release.",
    }
    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
    `synthetic` needs no file. `resnet152`, `resnet152_maps` and `vgg19` look for each
    file in the manual folder first (--manual_dir), and download what is not there and
    can be had:

    - Annotations.txt, train_order.h5, val_order.h5, test_order.h5, and the splits of
      the cross-modality task train_order_match.h5, val_order_match.h5,
      test_order_match.h5: from
      https://github.com/YapengTian/AVE-ECCV18/tree/93f843f/data (downloaded).
    - audio_feature.h5: VGGish, from the Google Drive of that repository (downloaded).
    - `vgg19`: visual_feature.h5, from there too (downloaded; 7.7 GB).
    - `resnet152`: visual_feature_vec.h5, (4143, 10, 2048), and `resnet152_maps`:
      visual_feature_resnet152.h5, (4143, 10, 7, 7, 2048). Never released: put your own.
    - `videos`: AVE_Dataset.zip, or the folder AVE of its videos.
    - `custom`: your own manifest.csv and categories.txt, see README.md.
    - For the background split: audio_feature_noisy.h5 (downloaded) and, in the manual
      folder, visual_feature_noisy.h5 or visual_feature_vec_noisy.h5.
    - labels.h5, mil_labels.h5, labels_closs.h5: compared with the annotations if there.
    """

    # `tfds build tfds_ave` makes all of BUILDER_CONFIGS, and must work on a machine
    # that has no file of AVE. So that list holds the default alone, while every config
    # can be had by name.
    BUILDER_CONFIGS: ClassVar[list[AveConfig]] = [CONFIGS[0]]
    builder_configs: ClassVar[dict[str, AveConfig]] = {c.name: c for c in CONFIGS}

    def __init__(self, *, config: str | AveConfig | None = None, **kwargs: Any) -> None:
        """Makes the builder of a config.

        Args:
            config: Name of a config, or a config of one's own.
            **kwargs: What every TFDS builder takes.

        Raises:
            DatasetError: If no config has that name.
        """
        if isinstance(config, str) and config.split(":")[0] not in self.builder_configs:
            raise DatasetError(
                f"unknown config. Expected one of {sorted(self.builder_configs)}, "
                f"received {config!r}. Choose one with --config=NAME."
            )
        super().__init__(config=config, **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.builder_config
        # One's own data decide categories and shapes when they are read; the metadata
        # then hold them.
        known = config.source != "custom"
        names = config.class_names if known else None
        steps = config.num_segments if known else None
        audio_shape = (steps, config.audio_width if known else None)
        visual_shape = (steps, *(config.visual_shape if known else (None,)))
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "row": np.int64,
                    "video_id": tfds.features.Text(),
                    # "bytes" is written three times as fast as TFDS's default.
                    "audio": tfds.features.Tensor(
                        shape=audio_shape, dtype=np.float32, encoding="bytes"
                    ),
                    "visual": tfds.features.Tensor(
                        shape=visual_shape,
                        dtype=np.dtype(config.visual_dtype),
                        encoding="bytes",
                    ),
                    "segment_labels": tfds.features.Sequence(
                        tfds.features.ClassLabel(names=names), length=steps
                    ),
                    "clip_label": tfds.features.ClassLabel(names=names),
                    # On its own, so that weak training reads no segment label.
                    "segment_label_mean": tfds.features.Tensor(
                        shape=(len(names) if names else None,), dtype=np.float32
                    ),
                    "start_s": np.float32,
                    "end_s": np.float32,
                    "match_split": tfds.features.ClassLabel(names=MATCH_SPLITS),
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
        """Builds the dataset, or leaves nothing behind.

        Args:
            download_dir: Folder of downloads.
            download_config: TFDS's options; `manual_dir` among them.
            **kwargs: What TFDS takes besides.

        Raises:
            DatasetError: If data is missing or bad.
        """
        downloads = pathlib.Path(
            os.fspath(download_dir or self.data_dir_root / "downloads")
        )
        self._download_config = download_config
        manual_dir = download_config.manual_dir if download_config else None
        # Beam's workers may have another working folder.
        self._manual_dir = pathlib.Path(
            os.fspath(manual_dir or downloads / "manual")
        ).resolve()
        version = pathlib.Path(os.fspath(self.data_path))
        dataset = version.parent.parent
        made_by_tfds = (
            dataset / ".config" / "metadata.json",
            dataset / ".config",
            version.parent,
            dataset,
            downloads / "extracted",
            downloads / self.name,
            downloads,
            dataset.parent,
        )
        with _removed_on_error(*made_by_tfds):
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
                split: self._generate_examples(data.clips(split))
                for split in custom.SPLITS
            }
        # dl_manager.manual_dir raises where the folder does not exist, without a word
        # on the files.
        files = sources.find_files(config, dl_manager, self._manual_dir)
        data = official.open_official(config, files)
        if config.source == "videos":
            found = videos.find_videos(data, self._manual_dir)
            data = videos.VideoData(data, self._extract(found))
            data.check_lengths()
        return {
            split: self._generate_examples(data.clips(split)) for split in data.splits
        }

    def _open_custom(self) -> custom.CustomData:
        """Reads one's own data, and makes known what it decides."""
        manifest = custom.read_manifest(self._manual_dir)
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
        if not wanted:
            return {}
        # The networks take seconds to import, and most builds need none.
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


@contextlib.contextmanager
def _removed_on_error(*paths: pathlib.Path) -> Iterator[None]:
    """Removes, after an error, those of the files and empty folders that are new."""
    new = [path for path in paths if not path.exists()]
    try:
        yield
    except BaseException:
        for path in new:
            with contextlib.suppress(
                OSError
            ):  # Not there, or in use by something else.
                path.rmdir() if path.is_dir() else path.unlink()
        raise

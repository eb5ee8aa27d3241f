"""The TFDS builder of AVE."""

import functools
import math
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from avsdn_tf.files import expand_user
from tfds_ave import (
    building,
    custom,
    custom_files,
    fingerprint,
    look,
    official,
    sources,
    synthetic,
    videos,
)
from tfds_ave.categories import CATEGORIES
from tfds_ave.clips import Clip
from tfds_ave.configs import CONFIGS, SPLITS, STAND_IN, AveConfig
from tfds_ave.errors import (
    DatasetError,
    explain_build_errors,
    raise_errors,
    shorten,
)
from tfds_ave.examples import describe_features, describe_metadata, fill_info
from tfds_ave.manifest import MANIFEST, read_manifest
from tfds_ave.videos import Video


class Builder(tfds.core.GeneratorBasedBuilder):
    """AVE: audio-visual events with one label per second, as precomputed features.

    Example:
        >>> import tfds_ave
        >>> builder = tfds_ave.Builder(config="synthetic")
        >>> builder.download_and_prepare()
        >>> clips = builder.as_dataset(split="train")
        >>> clips.element_spec["audio"].shape
        TensorShape([10, 128])
    """

    VERSION = tfds.core.Version("1.2.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {
        "1.2.0": "Metadata with shapes, backbones and disclaimer.",
        "1.1.0": "Every example has its split of cross-modality localization.",
        "1.0.0": "First release.",
    }
    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
    `synthetic` needs no files. The other configs search the manual folder
    (--manual_dir), and download missing files if they are public; README.md of tfds_ave
    lists the files. The visual features of `resnet152` and `resnet152_maps` were never
    released: extract them yourself. `videos` needs AVE_Dataset.zip, or its folder AVE
    with the videos. `custom` needs your manifest.csv and categories.txt.
    """

    # `tfds build tfds_ave` builds all BUILDER_CONFIGS, and must work without AVE's
    # files, so the list contains only the default config. TFDS finds the other configs
    # by name in `builder_configs`.
    BUILDER_CONFIGS: ClassVar[list[AveConfig]] = [CONFIGS[0]]
    builder_configs: ClassVar[dict[str, AveConfig]] = {c.name: c for c in CONFIGS}

    # Called with messages for the user.
    say: Callable[[str], None] = staticmethod(logging.warning)
    # Called with the stage of the build, the number of done items, and the total.
    on_progress: Callable[[str, int, int], None] = staticmethod(lambda *_: None)
    # Windows of training clips in `custom`: length (default: 10) and hop (default: the
    # length) in seconds. None accepts the windows of an existing data set.
    window_s: int | None = None
    hop_s: int | None = None
    # The new builder that rebuilt the data set, if `_build` created one.
    _successor: "Builder | None" = None

    def __init__(
        self,
        *,
        config: str | AveConfig | None = None,
        data_dir: os.PathLike[str] | str | None = None,
        **kwargs: Any,
    ) -> None:
        """Create the builder of a config.

        Args:
            config: Name of a config, or an `AveConfig`; None for the default.
            data_dir: TFDS's folder of data sets; None for its default.
            **kwargs: Arguments of `tfds.core.DatasetBuilder`.

        Raises:
            DatasetError: If no config has that name.
        """
        if isinstance(config, str) and config.split(":")[0] not in self.builder_configs:
            raise DatasetError(
                f"unknown config. Expected one of {sorted(self.builder_configs)}, "
                f"received {config!r}."
            )
        data_dir = expand_user(data_dir) if data_dir else None
        super().__init__(config=config, data_dir=data_dir, **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.builder_config
        info = self.dataset_info_from_configs
        about = {"homepage": "https://github.com/YapengTian/AVE-ECCV18"}
        if config.source == "custom":
            # AVE's description and citation don't apply to the user's own data.
            info = functools.partial(tfds.core.DatasetInfo, builder=self)
            about = {"description": config.description}
        return info(
            **about,
            features=describe_features(config),
            metadata=describe_metadata(config),
        )

    @property
    def info(self) -> tfds.core.DatasetInfo:
        """TFDS's description of the data set."""
        return super().info if self._successor is None else self._successor.info

    def download_and_prepare(
        self,
        *,
        download_dir: os.PathLike[str] | str | None = None,
        download_config: tfds.download.DownloadConfig | None = None,
        **kwargs: Any,
    ) -> None:
        """Build the data set unless it exists.

        Args:
            download_dir: Folder of downloads.
            download_config: Options of TFDS, such as `manual_dir` and Beam's options.
            **kwargs: Other arguments of `tfds.core.DatasetBuilder`.

        Raises:
            DatasetError: If data are missing or invalid, the existing data set was
                built from other data than those in `manual_dir`, or the data set can't
                be written. An existing data set is kept.
        """
        options = download_config or tfds.download.DownloadConfig()
        downloads = expand_user(download_dir or self.data_dir_root / "downloads")
        manual_dir = options.manual_dir or pathlib.Path(downloads) / "manual"
        # Absolute, because Beam's workers may have another working directory.
        self._manual_dir = pathlib.Path(expand_user(manual_dir)).resolve()
        self._download_config = options
        folder = self.data_path
        with explain_build_errors(folder):
            # Try to reuse without a lock, because locking needs write permission.
            if not building.find_leftovers(folder) and self._reuse(download_config):
                return
            with building.lock_folder(folder, self.say):
                if self._reuse(download_config):
                    return
                is_default = download_dir is None
                with (
                    building.keep_previous(folder),
                    building.remove_empty(downloads, is_default=is_default),
                ):
                    self._build(downloads, **kwargs)

    def _reuse(self, options: tfds.download.DownloadConfig | None) -> bool:
        """Return whether the data set exists and doesn't need to be built.

        With options, as passed by build commands, the source files are also compared.
        """
        mode = options.download_mode if options else None
        if not self.data_path.exists() or (mode and mode.overwrite_dataset):
            return False
        if mode == tfds.download.GenerateMode.UPDATE_DATASET_INFO:
            super().download_and_prepare(download_config=options)
            return True
        if not self.is_prepared():
            raise DatasetError(
                f"{self.data_path}: this folder holds no data set. Remove it, or add "
                "--overwrite."
            )
        if options and self.builder_config.source != "simulated":
            self._check_source(self._manual_dir if options.manual_dir else None)
        # If `info` has no splits, another process has just built the data set.
        if not self.info.splits:
            self.info.read_from_directory(self.data_dir)
        return True

    def _check_source(self, folder: pathlib.Path | None) -> None:
        """Raise DatasetError if the data set's source files have changed.

        Compare the files in `folder`. Default: the folder of the recorded files.
        """
        self._check_windows()
        self.on_progress("comparing files", 0, 0)
        source = fingerprint.read_fingerprint(self.data_path)
        if source:
            changes = fingerprint.find_changes(source, folder, read_data=True)
        else:
            changes = [f"no {fingerprint.SOURCE} names its source"] if folder else []
        if changes:
            origin = source.folder if source else "unknown files"
            is_other = folder and str(folder) != origin
            other = f"not from {folder}" if is_other else "which has changed since"
            raise DatasetError(
                f"{self.data_path} was built from {origin}, {other}: "
                f"{', '.join(shorten(changes, 5))}. Add --overwrite to build it again, "
                "or choose another data_dir."
            )

    @property
    def windows(self) -> tuple[int, int]:
        """Length and hop of windows in a new data set, in seconds."""
        return custom_files.choose_windows(self.window_s, self.hop_s)

    def _check_windows(self) -> None:
        """Raise DatasetError if the data set was built with other windows."""
        for name in ("window_s", "hop_s"):
            requested, built = getattr(self, name), self.info.metadata.get(name)
            if requested not in (None, built):
                raise DatasetError(
                    f"{self.data_path} was built with {name}={built}, not {requested}. "
                    "Add --overwrite to build it again, or choose another data_dir."
                )

    def _build(self, downloads: str, **kwargs: Any) -> None:
        """Build the data set, whose folder doesn't exist."""
        # Use a new builder if this builder has metadata of the old data set.
        builder = type(self)(**self._original_state) if self.info.splits else self
        vars(builder).update(
            _manual_dir=self._manual_dir,
            _download_config=self._download_config,
            say=self.say,
            on_progress=self.on_progress,
            window_s=self.window_s,
            hop_s=self.hop_s,
        )
        self.on_progress("starting", 0, 0)
        super(Builder, builder).download_and_prepare(
            download_dir=downloads, download_config=self._download_config, **kwargs
        )
        if builder is not self:
            self._successor = builder

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        config = self.builder_config
        if config.source == "simulated":
            self._expect(sum(synthetic.NUM_CLIPS.values()))
            return {
                split: self._generate_examples(synthetic.generate_clips(config, split))
                for split in synthetic.NUM_CLIPS
            }
        if config.source == "custom":
            data = self._open_custom()
            return {
                split: self._generate_examples(data.clips(split)) for split in SPLITS
            }
        self.on_progress("finding files", 0, 0)
        # `dl_manager.manual_dir` would raise an error that doesn't name the files.
        files = sources.find_files(config, dl_manager, self._manual_dir)
        data = official.open_official(config, files)
        if config.source == "videos":
            data = self._open_videos(data)
        else:
            self._record_source(*sources.list_sources(config, self._manual_dir))
            self._warn(data.warnings)
        self._expect(data.num_clips)
        return {
            split: self._generate_examples(data.clips(split)) for split in data.splits
        }

    def _open_videos(self, data: official.OfficialData) -> videos.VideoData:
        """Extract the features of AVE's videos."""
        all_videos = videos.find_videos(data, self._manual_dir)
        names, _ = sources.list_sources(self.builder_config, self._manual_dir)
        names.append(videos.SETTINGS)
        self._record_source(names, [video.path for video in all_videos])
        self._warn(data.warnings)
        precheck = functools.partial(
            videos.precheck, self.builder_config.num_segments, len(all_videos)
        )
        return videos.VideoData(data, self._extract(all_videos, precheck))

    def _open_custom(self) -> custom.CustomData:
        """Read the user's own data, and set the metadata that depend on them."""
        folder = self._manual_dir
        windows = self.windows
        manifest = read_manifest(folder)
        clip_videos = [Video(c.key, c.video) for c in manifest.clips if c.video]
        definitions = [MANIFEST, CATEGORIES, videos.SETTINGS]
        files = [path for clip in manifest.clips for path in clip.files]
        source = self._record_source(definitions, files)
        self._warn(custom_files.find_warnings(manifest, folder, source))
        precheck = functools.partial(custom_files.precheck, manifest)
        paths = self._extract(clip_videos, precheck)
        data = custom_files.open_custom(manifest, paths, *windows)
        self._warn(data.warnings)
        fill_info(self.info, manifest.categories, data.metadata)
        examples = data.example_lengths.values()
        self._expect(sum(map(len, examples)), sum(map(sum, examples)))
        return data

    def _record_source(
        self, definitions: Iterable[str], data: Iterable[pathlib.Path]
    ) -> fingerprint.Fingerprint:
        """Write source.json into the data set's folder."""
        self.on_progress("reading checksums", 0, 0)
        self._source = fingerprint.take_fingerprint(self._manual_dir, definitions, data)
        self._warn([])
        return self._source

    def _warn(self, warnings: Iterable[str]) -> None:
        """Show warnings to the user, and record them in source.json."""
        for warning in warnings:
            self.say(f"{self.name}/{self.builder_config.name}: {warning}")
            self._source.warnings.append(warning)
        path = self.data_path / fingerprint.SOURCE
        path.write_text(self._source.model_dump_json(exclude_none=True) + "\n")

    def _expect(self, num_clips: int, num_segments: int | None = None) -> None:
        """Check the disk space, and start counting clips.

        `num_segments` is the total number of segments of all clips.
        """
        metadata = self.info.metadata
        if num_segments is None:
            num_segments = num_clips * metadata["num_segments"]
        visual_bytes = np.dtype(self.builder_config.visual_dtype).itemsize
        segment_bytes = (
            metadata["audio_width"] * 4
            + math.prod(metadata["visual_shape"]) * visual_bytes
        )
        if not building.is_address(self.data_path):
            folder = pathlib.Path(self.data_path).parent
            look.check_space([(folder, num_segments * segment_bytes)])
        self._num_clips, self._num_written = num_clips, 0

    def _extract(
        self,
        all_videos: list[Video],
        precheck: Callable[[Mapping[str, float]], list[str]],
    ) -> dict[str, tuple[pathlib.Path, pathlib.Path]]:
        """Extract the features of videos, record the backbones, return feature files.

        Args:
            all_videos: The videos.
            precheck: Function that returns errors. Its argument is the length in
                seconds that each video's header states, by key.
        """
        folder, config = self._manual_dir, self.builder_config
        if not all_videos:
            if (folder / videos.SETTINGS).is_file():
                from tfds_ave.settings import describe_features, name_settings

                with name_settings(folder):
                    backbones = describe_features(folder)
                self.info.metadata.update(backbones=backbones)
            return {}
        # Import late: the backbones take seconds, and most builds don't need them.
        from tfds_ave import extraction

        probe = extraction.probe_videos(all_videos, folder, config, self.on_progress)
        problems = precheck(probe.lengths_s)
        if probe.failures:
            failed = extraction.failed_message(probe.failures, len(all_videos), folder)
            if config.source == "custom":
                problems.append(failed)
            else:
                # Users can't repair AVE's videos: extract the others.
                self.say(failed)
        raise_errors(problems)
        look.check_space([(folder, probe.feature_bytes)])
        paths, backbones = extraction.extract_videos(
            all_videos, folder, config, self._download_config, self.on_progress
        )
        self.info.metadata.update(backbones=backbones)
        return paths

    def _generate_examples(
        self, clips: Iterator[Clip]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        num_classes = self.info.features["clip_label"].num_classes
        source = self.builder_config.source
        for index, clip in enumerate(clips):
            # AVE's released audio features are outputs of a ReLU, so negative features
            # are a stand-in.
            if source == "files" and clip.audio.min() < 0:
                self.info.metadata["disclaimer"] = STAND_IN
            # In `custom`, windows of one clip share a row, so a row is no key.
            key = index if source == "custom" else clip.row
            yield key, clip.to_example(num_classes)
            self._num_written += 1
            self.on_progress("writing clips", self._num_written, self._num_clips)

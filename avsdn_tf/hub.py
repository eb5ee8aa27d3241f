"""Upload runs to the Hugging Face Hub, and download shared runs.

A repository holds the run's files in its folder `run`, a model card with the report's
scores, and the unpacked model in its root, where `keras.saving.load_model` expects it.
"""

import os
import pathlib
import re
import shutil
import tempfile
import zipfile
from types import ModuleType

from avsdn_tf.errors import UserError, first_line
from avsdn_tf.report.card import write_card
from avsdn_tf.run_folder import RunFolder

_ADDRESS = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", re.ASCII)
_RUN = "run"
# TensorBoard's logs and checkpoints are not shared: no reader of a run needs them.
_FILES = (
    *("config.json", "report.json", "report.html", "model.keras", "SHA256SUMS"),
    *("metrics.csv", "predictions.npz"),
    *("learning_curves.png", "timelines.png", "attention.png", "confusion.png"),
)


def is_address(run: str | os.PathLike[str]) -> bool:
    """Return whether a run is an address on the Hub, `hf://...`."""
    return os.fspath(run).startswith("hf://")


def fetch_run(address: str) -> pathlib.Path:
    """Download a shared run unless it is cached, and return its local folder.

    Args:
        address: `hf://USER/NAME`, or `hf://USER/NAME@REVISION`.

    Raises:
        UserError: If the address is invalid, or the download fails.
    """
    repo_id, revision = _parse(address)
    hub = _import_hub()
    # The Hub's own cache consists of symbolic links, which `RunFolder` refuses.
    folder = pathlib.Path(hub.constants.HF_HOME) / "avsdn_tf" / repo_id
    folder = folder / (revision or "main")
    try:
        hub.snapshot_download(
            repo_id,
            revision=revision,
            allow_patterns=[f"{_RUN}/{name}" for name in _FILES],
            local_dir=folder,
        )
    # Errors of many types: no network, no such repository, no permission.
    except Exception as error:
        raise UserError(
            f"can't be downloaded ({first_line(error)}). Expected a run that was "
            "shared with `avsdn push`.",
            field="run",
            value=address,
        ) from error
    return folder / _RUN


def push_run(run: str | os.PathLike[str], address: str) -> str:
    """Upload a run and return the URL of its repository.

    Args:
        run: The folder of a run whose training has ended.
        address: `hf://USER/NAME`. The repository is created if it doesn't exist.

    Raises:
        UserError: If the run or the address is invalid, or the upload fails.
    """
    repo_id, revision = _parse(address)
    folder = RunFolder(run)
    folder.check_ended()
    folder.load_model()  # Checks the file and its checksum.
    api = _import_hub().HfApi(library_name="avsdn_tf")
    with tempfile.TemporaryDirectory() as tmp_dir:
        root = pathlib.Path(tmp_dir)
        with zipfile.ZipFile(folder.model) as archive:
            archive.extractall(root)
        (root / _RUN).mkdir()
        for name in _FILES:
            if (folder.path / name).is_file():
                shutil.copyfile(folder.path / name, root / _RUN / name)
        write_card(root / "README.md", folder, repo_id)
        try:
            url = api.create_repo(repo_id, exist_ok=True)
            api.upload_folder(
                repo_id=repo_id,
                folder_path=root,
                revision=revision,
                commit_message="Share a run of avsdn_tf",
            )
        # Errors of many types: no network, no token, no permission.
        except Exception as error:
            raise UserError(
                f"{address}: can't be shared ({first_line(error)}). Log in with `hf "
                "auth login` and a token that has write permission."
            ) from error
    return str(url)


def _parse(address: str) -> tuple[str, str | None]:
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise UserError(f"{address}: expected an address such as hf://USER/NAME.")
    return match[1], match[2]


def _import_hub() -> ModuleType:
    try:
        # An optional dependency.
        import huggingface_hub
        import huggingface_hub.constants
    except ImportError as error:
        raise UserError(
            "Sharing runs needs huggingface_hub: pip install 'avsdn_tf[hub]'."
        ) from error
    return huggingface_hub

"""The notebooks, executed as a reader would."""

import pathlib
import re

import pytest

nbformat = pytest.importorskip("nbformat", reason="the extra `docs` is not installed")
nbclient = pytest.importorskip("nbclient", reason="the extra `docs` is not installed")

pytestmark = pytest.mark.slow
NOTEBOOKS = pathlib.Path(__file__).resolve().parents[1] / "docs" / "notebooks"


def execute(name, folder, monkeypatch):
    """Returns the text that each code cell printed or ended in; an error is raised."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(folder / "tensorflow_datasets"))
    monkeypatch.setenv("TMPDIR", str(folder))
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    # The kernel of the interpreter that runs the tests, whatever is registered by name.
    client = nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    return [
        "".join(
            output.get("text") or output["data"].get("text/plain", "")
            for output in cell.outputs
        )
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def test_the_training_notebook(tmp_path, monkeypatch):
    texts = execute("train", tmp_path, monkeypatch)
    assert "epoch   8/8" in texts[0]
    accuracy = re.search(r"test accuracy (\d+\.\d)%", texts[1])
    # Always background scores 17.8 %.
    assert float(accuracy[1]) > 40
    assert re.search(r"\d to \d+ s: .+, score 0\.\d\d", texts[-1])


def test_the_video_notebook(tmp_path, monkeypatch):
    texts = execute("video", tmp_path, monkeypatch)
    assert re.search(r"\(20, \d+\), \(20, \d+\)", texts[1])
    events = re.findall(r"(\d+\.\d) to +(\d+\.\d) s", texts[3])
    assert len(events) >= 3

"""Downloads of public networks, from a local server."""

import http.server
import io
import tarfile
import threading

import numpy as np
import pytest
import tensorflow as tf

from avsdn_tf.cli import fetch
from avsdn_tf.errors import UserError
from avsdn_tf.features import downloads, extractor, sources
from avsdn_tf.features.audio import AudioNetwork
from tests.commands import avsdn


class Module(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec((None,), tf.float32)])
    def __call__(self, waveform):
        return tf.reshape(waveform, (-1, 4000))[:, :5]


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("module")
    tf.saved_model.save(Module(), str(folder))
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        tar.add(folder, ".")
    return content.getvalue()


@pytest.fixture
def server(archive, tmp_path, monkeypatch):
    """Serve complete and broken modules; yield the address and the requested paths."""
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "hub"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    answers = {
        "/whole": (200, archive),
        "/half": (200, archive[: len(archive) // 2]),
        "/page": (200, b"<html>Sign in</html>"),
        "/forbidden": (403, b"no"),
    }
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            path = self.path.partition("?")[0]
            asked.append(path)
            code, content = answers.get(path, (404, b""))
            self.send_response(code)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{running.server_port}"
    yield address, asked
    running.shutdown()
    running.server_close()


def test_a_failed_source_is_logged_once_and_the_next_is_tried(
    server, monkeypatch, caplog
):
    address, asked = server
    first = f"{address}/forbidden"
    others = (f"{address}/page", f"{address}/half", f"{address}/whole")
    monkeypatch.setitem(sources.ALTERNATIVES, first, others)
    assert sources.cached(first) is None
    path = sources.resolve(first)
    assert tf.saved_model.contains_saved_model(path)
    (record,) = caplog.records
    for part in ("/forbidden: ", "403", "/page: ", "/half: "):
        assert part in record.getMessage()
    # The download is cached: no second request.
    asked.clear()
    assert sources.resolve(first) == path
    assert asked == []


@pytest.mark.parametrize("name", ["forbidden", "missing", "page", "half"])
def test_a_failed_download_raises_one_line_and_leaves_no_folder(server, tmp_path, name):
    address, _ = server
    with pytest.raises(UserError, match="can't be loaded") as caught:
        AudioNetwork(f"{address}/{name}", "hub")
    assert len(str(caught.value).splitlines()) == 1
    assert not [path for path in (tmp_path / "hub").iterdir() if path.is_dir()]


def test_a_module_from_an_address_is_loaded(server):
    address, _ = server
    network = AudioNetwork(f"{address}/whole", "hub")
    assert network(np.ones((2, 16_000), np.float32)).shape == (2, 5)


def test_the_fetch_command_lists_all_downloads():
    assert tuple(known.name for known in downloads.downloads()) == fetch.NETWORKS


def test_fetch_reports_finished_and_failed_downloads(server, monkeypatch, capsys):
    address, _ = server
    made = [
        downloads.Download(
            name,
            "predict",
            (f"{address}/{name}",),
            lambda name=name: sources.cached(f"{address}/{name}"),
            lambda progress, name=name: sources.resolve(f"{address}/{name}", progress),
        )
        for name in ("whole", "forbidden")
    ]
    monkeypatch.setattr(downloads, "downloads", lambda: made)
    monkeypatch.setattr(fetch, "NETWORKS", ("whole", "forbidden"))
    assert avsdn("fetch") == 1
    shown = capsys.readouterr().out
    assert "forbidden failed: " in shown
    assert "403" in shown
    assert avsdn("fetch", "whole") == 0
    with pytest.raises(UserError, match="whole"):
        avsdn("fetch", "other")


def test_doctor_names_the_command_that_fetches_a_download(server, monkeypatch, capsys):
    address, _ = server
    made = downloads.Download(
        "whole", "predict", (f"{address}/forbidden",), lambda: None, print
    )
    monkeypatch.setattr(downloads, "downloads", lambda: [made])
    assert avsdn("doctor") == 0
    shown = capsys.readouterr().out
    assert "predict: avsdn fetch whole" in shown
    assert "501" in shown


def test_the_error_of_missing_downloads_names_the_fetch_command(server, monkeypatch):
    def fail(field):
        raise UserError("no connection", field=field)

    monkeypatch.setattr(extractor, "AudioNetwork", lambda *_: fail("audio_weights"))
    monkeypatch.setattr(extractor, "VisualNetwork", lambda *_: fail("visual_weights"))
    with pytest.raises(UserError, match="avsdn fetch yamnet resnet152 --to=") as caught:
        extractor.build_extractor("resnet152_maps", audio_network="yamnet_scores")
    assert len(str(caught.value).splitlines()) == 3

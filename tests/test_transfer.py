"""Interrupted downloads resume, from a local server."""

import http.server
import threading
import urllib.error

import pytest

from avsdn_tf.features.transfer import download, download_module

CONTENT = bytes(range(256)) * 20_000


class Server(http.server.ThreadingHTTPServer):
    """Serves one file, and closes the connection after `most` bytes."""

    most, tag, has_ranges, has_length = None, '"1"', True, True

    def __init__(self):
        self.asked = []
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server_port}/file"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, first = self.server, 0
        wanted = self.headers.get("Range")
        server.asked.append(wanted)
        is_same = self.headers.get("If-Range") == server.tag
        if wanted and is_same and server.has_ranges:
            first = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if first >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if first else 200)
        self.send_header("ETag", server.tag)
        if server.has_length:
            self.send_header("Content-Length", str(len(CONTENT) - first))
        self.end_headers()
        self.wfile.write(CONTENT[first:][: server.most])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Server() as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def names(folder):
    return sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))


def test_an_interrupted_download_resumes(server, tmp_path):
    path, seen = tmp_path / "cache" / "file", []
    server.most = 3_000_000
    with pytest.raises(OSError, match=r"3,000,000 of 5,120,000 bytes"):
        download(server.address, path)
    assert names(path.parent) == ["file.part", "file.part.version"]
    server.most = None
    download(server.address, path, lambda *progress: seen.append(progress))
    assert server.asked == [None, "bytes=3000000-"]
    assert seen[0] == (3_000_000, len(CONTENT))
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert path.read_bytes() == CONTENT
    assert names(path.parent) == ["file"]
    # An existing file is not requested again.
    download(server.address, path)
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    "change", [{"tag": '"2"'}, {"has_ranges": False}, {"tag": 'W/"1"'}]
)
def test_a_changed_file_is_downloaded_from_the_start(server, tmp_path, change):
    path = tmp_path / "file"
    server.most = 1000
    with pytest.raises(OSError, match="1,000 of"):
        download(server.address, path)
    path.with_name("file.part").write_bytes(b"x" * 1000)
    server.most = None
    vars(server).update(change)
    assert download(server.address, path).read_bytes() == CONTENT


def test_a_complete_partial_file_is_renamed(server, tmp_path):
    path = tmp_path / "file"
    path.with_name("file.part").write_bytes(CONTENT)
    path.with_name("file.part.version").write_text(server.tag)
    assert download(server.address, path).read_bytes() == CONTENT


def test_a_download_without_content_length_is_accepted(server, tmp_path):
    server.has_length = False
    assert download(server.address, tmp_path / "file").read_bytes() == CONTENT


def test_errors_leave_no_file(server, tmp_path):
    with pytest.raises(OSError, match=r"expected an archive, received b'\\x00\\x01"):
        download_module(server.address, tmp_path / "module")
    assert names(tmp_path) == []
    server.shutdown()
    server.server_close()
    with pytest.raises(urllib.error.URLError):
        download(server.address, tmp_path / "file")
    assert names(tmp_path) == []

"""Push and load runs, with a local server in place of the Hugging Face Hub."""

import base64
import hashlib
import http.server
import json
import threading

import keras
import pytest

import avsdn_tf
from avsdn_tf import hub
from avsdn_tf.errors import UserError
from avsdn_tf.run_folder import RunFolder
from tests.commands import avsdn


def tag_of(content):
    return hashlib.sha1(content).hexdigest()


class Hub(http.server.BaseHTTPRequestHandler):
    """Answers huggingface_hub's client: creates, stores and serves repositories."""

    protocol_version = "HTTP/1.1"
    files: dict[str, dict[str, bytes]]
    commit = tag_of(b"commit")

    def log_message(self, *_):
        pass

    def answer(self, content, code=200, **headers):
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_POST(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        parts = self.path.strip("/").split("/")
        if self.path == "/api/repos/create":
            asked = json.loads(content)
            name = f"{asked.get('organization') or 'user'}/{asked['name']}"
            self.files.setdefault(name, {})
            self.answer({"url": f"http://{self.headers['Host']}/{name}"})
        elif parts[-2] == "preupload":
            files = json.loads(content)["files"]
            modes = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                for f in files
            ]
            self.answer({"files": modes})
        elif parts[-2] == "commit":
            name = "/".join(parts[2:4])
            stored = self.files[name]
            for line in map(json.loads, content.splitlines()):
                if line["key"] == "file":
                    value = line["value"]
                    stored[value["path"]] = base64.b64decode(value["content"])
            url = f"http://{self.headers['Host']}/{name}/commit/{self.commit}"
            self.answer({"commitUrl": url, "commitOid": self.commit})
        else:
            self.answer({}, 200)

    def do_GET(self):
        path, _, _ = self.path.partition("?")
        parts = path.strip("/").split("/")
        if parts[0] == "api":
            name = "/".join(parts[2:4])
            if name not in self.files:
                self.answer({"error": "no"}, 404, X_Error_Code="RepoNotFound")
                return
            if "tree" in parts:
                tree = [
                    {
                        "type": "file",
                        "path": file,
                        "size": len(content),
                        "oid": tag_of(content),
                    }
                    for file, content in self.files[name].items()
                ]
                self.answer(tree)
                return
            siblings = [{"rfilename": file} for file in self.files[name]]
            self.answer({"id": name, "sha": self.commit, "siblings": siblings})
            return
        name, file = "/".join(parts[:2]), "/".join(parts[4:])
        content = self.files.get(name, {}).get(file)
        if content is None:
            self.answer({}, 404, X_Error_Code="EntryNotFound")
            return
        self.answer(content, ETag=f'"{tag_of(content)}"', X_Repo_Commit=self.commit)

    def do_HEAD(self):
        self.do_GET()


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Start the server; yield the files of each repository by its name."""
    constants = pytest.importorskip("huggingface_hub.constants")
    Hub.files = {}
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{running.server_port}"
    for name, value in (
        ("ENDPOINT", address),
        (
            "HUGGINGFACE_CO_URL_TEMPLATE",
            address + "/{repo_id}/resolve/{revision}/{filename}",
        ),
        ("HF_HOME", str(tmp_path / "home")),
        ("HF_HUB_CACHE", str(tmp_path / "home" / "hub")),
        ("HF_HUB_DISABLE_XET", True),
    ):
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    yield Hub.files
    running.shutdown()
    running.server_close()


@pytest.fixture(scope="module")
def run(data_dir, tmp_path_factory):
    settings = {"epochs": 1, "units": 4, "batch_size": 480, "data_dir": data_dir}
    return avsdn_tf.train(run=tmp_path_factory.mktemp("run"), **settings).folder


def test_a_shared_run_is_downloaded_unchanged(server, run):
    assert avsdn("push", f"--run={run}", "hf://user/mine") == 0
    stored = server["user/mine"]
    for name in ("model.keras", "report.json", "config.json", "SHA256SUMS"):
        assert stored[f"run/{name}"] == (run / name).read_bytes()
    assert not any("checkpoints" in name for name in stored)
    card = stored["README.md"].decode()
    report = RunFolder(run).read_report()
    for part in ("library_name: keras", "# avsdn, supervised", "| Accuracy | "):
        assert part in card
    assert f"**{report['disclaimer']}**" in card
    found, expected = avsdn_tf.load("hf://user/mine"), avsdn_tf.load(run)
    assert found.get_config() == expected.get_config()
    pairs = zip(found.get_weights(), expected.get_weights(), strict=True)
    assert all((one == other).all() for one, other in pairs)


def test_keras_loads_the_same_repository(server, run):
    hub.push_run(run, "hf://user/mine")
    model = keras.saving.load_model("hf://user/mine")
    assert isinstance(model, avsdn_tf.AVSDN)


def test_a_model_changed_during_the_download_is_refused(server, run):
    hub.push_run(run, "hf://user/mine")
    content = server["user/mine"]["run/model.keras"]
    server["user/mine"]["run/model.keras"] = content[:-1] + bytes([content[-1] ^ 1])
    with pytest.raises(UserError, match="checksum"):
        avsdn_tf.load("hf://user/mine")


def test_failed_uploads_and_downloads_are_user_errors(server, run_folder, tmp_path):
    for address in ("hf://user", "hf://user/../other", "hf://"):
        with pytest.raises(UserError, match="expected an address"):
            avsdn_tf.load(address)
    with pytest.raises(UserError, match="can't be downloaded") as error:
        avsdn_tf.load("hf://user/none")
    assert len(str(error.value).splitlines()) == 1
    for folder, reason in ((tmp_path, "Expected a folder"), (run_folder, "report")):
        with pytest.raises(UserError, match=reason):
            hub.push_run(folder, "hf://user/mine")
    assert server == {}

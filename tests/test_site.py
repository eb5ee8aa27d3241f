"""The site: it builds without a warning, holds every page, and works offline."""

import pathlib
import re
import subprocess
import sys

import pytest

from tests.test_api import DOCUMENTED

pytest.importorskip("material", reason="the extra `docs` is not installed")

pytestmark = pytest.mark.slow
ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Return the folder of the site, and what the build logged."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", f"--site-dir={folder}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder, done.stderr


def test_every_page_is_in_the_navigation(built):
    assert "not included in the" not in built[1]


def test_every_public_name_has_an_anchor(built):
    pages = "".join(
        page.read_text("utf-8") for page in (built[0] / "api").glob("*.html")
    )
    for name in DOCUMENTED:
        assert f'id="{name}"' in pages, name
    private = re.findall(r'id="((?:avsdn_tf|tfds_ave)[\w.]*\._[a-z]\w*)"', pages)
    assert private == []


def test_pages_request_nothing_from_other_sites(built):
    request = re.compile(r'<(?:script|img|iframe)[^>]* src="?https?:|<link[^>]*https?:')
    for page in built[0].rglob("*.html"):
        assert not request.search(page.read_text("utf-8")), page


def test_search_works_without_a_server(built):
    index = (built[0] / "search" / "search_index.js").read_text("utf-8")
    assert index.startswith("var __index = {")
    home = (built[0] / "index.html").read_text("utf-8")
    assert 'src="javascripts/iframe-worker.js"' in home
    assert 'href="videos.html"' in home

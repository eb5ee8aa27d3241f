"""Make pages of the site from texts that live elsewhere in the repository.

Links are written as paths between files of the repository, so that they work where the
repository is read; here they become links between the pages of the site.
"""

import pathlib
import posixpath
import re
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_RESULTS = "experiments/results"
# Where a file of the repository is in the site. Files of docs/ need no entry.
_MOVED = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "CITATION.cff": "CITATION.cff",
    # A browser needs an ending to show the file.
    "LICENSE": "LICENSE.txt",
    "tfds_ave/README.md": "tfds_ave.md",
    "avsdn_tf/zero_shot/categories.csv": "categories.csv",
    "experiments/best.json": "results/best.json",
    **{
        f"{_RESULTS}/{path}": f"results/{path}"
        for path in sorted(
            file.relative_to(_ROOT / _RESULTS)
            for file in (_ROOT / _RESULTS).rglob("*")
            if file.is_file()
        )
    },
}
_ORIGINS = {uri: origin for origin, uri in _MOVED.items()}
# [text](target) and ![text](target), but for addresses and anchors of the same page.
_LINK = re.compile(r"(\]\()(?![a-z]+:|#)([^)#\s]+)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the results in the navigation, by their titles."""
    pages = [uri for uri in _ORIGINS if uri.startswith("results/")]
    results = next(entry for entry in config.nav if "Results" in entry)
    results["Results"] = [uri for uri in pages if uri.endswith(".md")]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files that live outside docs/."""
    for origin, uri in _MOVED.items():
        files.append(File.generated(config, uri, abs_src_path=str(_ROOT / origin)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Turn links between files of the repository into links between pages."""
    uri = page.file.src_uri
    origin = _ORIGINS.get(uri, f"docs/{uri}")

    def link(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(origin), match[2]))
        target = _MOVED.get(target, target.removeprefix("docs/"))
        return match[1] + posixpath.relpath(target, posixpath.dirname(uri) or ".")

    return _LINK.sub(link, markdown)

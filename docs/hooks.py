"""Add files from elsewhere in the repository to the site.

The links of Markdown files are paths in the repository, so that they work in the
repository, too. These hooks turn them into links between the pages of the site.
"""

import pathlib
import posixpath
import re
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.nav import Navigation, Section
from mkdocs.structure.pages import Page

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_RESULTS = "experiments/results"
# Prefix of the benchmarks' files in `_RESULTS`; the other files are tables of scores.
_BENCHMARK = "benchmark-"
# Path in the site of each file outside docs/.
_MOVED = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "CITATION.cff": "CITATION.cff",
    # Without an extension, browsers download the file instead of showing it.
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
# [text](target) and ![text](target), except URLs and anchors of the same page.
_LINK = re.compile(r"(\]\()(?![a-z]+:|#)([^)#\s]+)")
# `avsdn_tf.load` and `avsdn_tf.load("runs/first")`, except in the text of a link.
_API_NAME = re.compile(
    r"(?<!\[)`((?:avsdn_tf|tfds_ave)(?:\.\w+)+)(?:\([^`\n]*\))?`(?!\])"
)
_PUBLIC = {
    name
    for page in sorted((_ROOT / "docs" / "api").glob("*.md"))
    for name in re.findall(r"^::: (\S+)", page.read_text("utf-8"), re.MULTILINE)
}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the results in the navigation, below the pages that explain them."""
    sections = {}
    for section in config.nav:
        for entries in section.values():
            for entry in entries if isinstance(entries, list) else ():
                sections |= entry if isinstance(entry, dict) else {}
    for uri, origin in sorted(_ORIGINS.items()):
        if uri.startswith("results/") and uri.endswith(".md"):
            is_benchmark = posixpath.basename(uri).startswith(_BENCHMARK)
            section = sections["Speed and memory" if is_benchmark else "Results"]
            section.append({_short_title(_ROOT / origin): uri})
    return config


def _short_title(path: pathlib.Path) -> str:
    """Return the title of a page of results, shortened for the navigation."""
    title = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
    title = title.replace(" (stand-in, not AVE)", "").replace("tfds_ave/", "")
    return re.sub(r",? on ([\w ]+)$", r" (\1)", title)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files of `_MOVED` to the site."""
    for origin, uri in _MOVED.items():
        files.append(File.generated(config, uri, abs_src_path=str(_ROOT / origin)))
    return files


def on_nav(nav: Navigation, **_: Any) -> Navigation:
    """Link the title of each nested section to the first page of that section."""
    groups = [item for item in nav.items if isinstance(item, Section)]
    for section in (item for group in groups for item in group.children):
        if isinstance(section, Section):
            file = section.children[0].file
            if file.src_uri.endswith(".md"):
                # The theme links a section's title to its page named index.
                file.name = "index"
    return nav


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Turn links between files of the repository into links between pages.

    Also highlight commands as shell code, and link API names to the API pages.
    """
    uri = page.file.src_uri
    origin = _ORIGINS.get(uri, f"docs/{uri}")
    if uri.startswith("results/"):
        # Hide the table of contents: the tables are wide, and a page has one heading.
        page.meta.setdefault("hide", ["toc"])

    def link(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(origin), match[2]))
        target = _MOVED.get(target, target.removeprefix("docs/"))
        return match[1] + posixpath.relpath(target, posixpath.dirname(uri) or ".")

    markdown = _LINK.sub(link, markdown)
    markdown = markdown.replace("```console\n", "```bash\n")
    return _API_NAME.sub(_link_to_api, markdown)


def _link_to_api(match: re.Match[str]) -> str:
    code, name = match[0], match[1]
    return f"[{code}][{name}]" if name in _PUBLIC else code

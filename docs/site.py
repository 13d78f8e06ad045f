"""What the site of the documentation needs besides the pages: a hook of MkDocs.

Pages link to files of the checkout, as they should where they are read there. The site has the
pages of the checkout's root too; links to other files become the names of those files.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
ROOT_PAGES = ("SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md")
"""Pages of the checkout's root that the site shows; README.md is its first page's sibling."""

_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)")
_CODE = re.compile(r"^( *)(```|~~~).*?^\1\2[ \t]*$|`[^`\n]*`", re.MULTILINE | re.DOTALL)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Writes out the patterns of the navigation: every page of a folder, in order."""
    docs = Path(config.docs_dir)
    config.nav = _written_out(config.nav, docs)
    return config


def _written_out(nav: Any, docs: Path) -> Any:
    if isinstance(nav, dict):
        return {title: _written_out(part, docs) for title, part in nav.items()}
    if not isinstance(nav, list):
        return nav
    found: list[Any] = []
    for part in nav:
        if isinstance(part, str) and "*" in part:
            names = sorted(path.relative_to(docs).as_posix() for path in docs.rglob("*.md"))
            pages = [name for name in names if _is_in(name, part) and name not in found]
            found += pages
        else:
            found.append(_written_out(part, docs))
    return found


def _is_in(name: str, pattern: str) -> bool:
    return name.startswith(pattern.removesuffix("*.md"))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages of the checkout's root."""
    from mkdocs.structure.files import File

    for name in ROOT_PAGES:
        text = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, name, content=_from_root(text)))
    return files


def _from_root(text: str) -> str:
    """Makes the links of a page of the root relative to the folder of the documentation."""
    return _outside_code(text, lambda link: link.replace("](docs/", "]("))


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Resolves links that leave the documentation."""
    folder = posixpath.dirname(page.file.src_uri)

    def resolve(match: re.Match[str]) -> str:
        words, link = match.groups()
        path, hash_, anchor = link.partition("#")
        if not path or "://" in path or path.startswith("mailto:"):
            return match[0]
        target = posixpath.normpath(posixpath.join(folder, path))
        if files.get_file_from_path(target) is not None:
            return match[0]
        inside = target.removeprefix("../")
        if not ((Path(config.docs_dir) / target).exists() or (ROOT / inside).exists()):
            return match[0]  # MkDocs reports it
        if inside.startswith("docs/"):
            inside = inside.removeprefix("docs/")
        if inside == "README.md":
            inside, anchor = "README.md", ""
        if (Path(config.docs_dir) / inside).is_dir():
            inside = f"{inside}/README.md"
        if files.get_file_from_path(inside) is None:
            return f"{words} (`{inside}`)"
        relative = posixpath.relpath(inside, folder or ".")
        return f"[{words}]({relative}{'#' + anchor if hash_ and anchor else ''})"

    return _outside_code(markdown, lambda text: _LINK.sub(resolve, text))


def _outside_code(text: str, change: Any) -> str:
    """Changes a text but its code: a link there is not one."""
    parts, end = [], 0
    for code in _CODE.finditer(text):
        parts += [change(text[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*parts, change(text[end:])])

"""MkDocs hook: a page links to a file outside docs/ as `../LOG.md`, which works in a checkout; the site gets that file, too.

Nothing is copied by hand. A link to a file that does not exist fails the build.
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

OUTSIDE = re.compile(r"\]\(\.\./([^)#\s]+)")


def on_files(files: Files, config: Any) -> Files:
    """Add every file outside docs/ that a page links to."""
    root = Path(config.config_file_path).parent
    linked = {
        target for page in Path(config.docs_dir).glob("*.md") for target in OUTSIDE.findall(page.read_text("utf-8"))
    }
    linked.add("CODE_OF_CONDUCT.md")  # CONTRIBUTING.md links to it
    for target in sorted(linked):
        if not (root / target).is_file():
            raise PluginError(f"docs: a page links to ../{target}, which does not exist")
        files.append(File.generated(config, target, abs_src_path=str(root / target)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Point those links to where the files lie in the site."""
    if page.file.src_uri == "CONTRIBUTING.md":
        markdown = markdown.replace("](README.md)", "](index.md)")  # the site has no README
    return OUTSIDE.sub(r"](\1", markdown)

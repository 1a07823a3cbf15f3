"""The pages of the site that come from the code and from runs: MkDocs calls the functions below."""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import api_pages
import catalogue_pages
import notebook_pages
import run_pages
import spec_pages
from equations import with_equations
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

_MARKER = re.compile(r"^<!-- options: (\w+) -->$", re.MULTILINE)
_NAMED = re.compile(r"^<!-- (file|change): (\S+) -->\n```(\w+)$", re.MULTILINE)
_generated: dict[str, str | bytes] = {}


def _made() -> dict[str, str | bytes]:
    """Address → content of every page and picture that is not a file under docs/."""
    with tempfile.TemporaryDirectory() as folder, run_pages.Scoreboard(Path(folder)) as scoreboard:
        made: dict[str, str | bytes] = {}
        kinds = spec_pages.kind_pages()
        made |= {f"reference/specs/{kind}.md": text for kind, text in kinds.items()}
        made["reference/specs/index.md"] = spec_pages.specs_index(kinds)
        made["reference/devices.md"] = spec_pages.devices_page()
        if (study := spec_pages.study_page()) is not None:
            made["reference/study.md"] = study
        made["reference/formats.md"] = catalogue_pages.formats_page()
        made["reference/recipes.md"] = catalogue_pages.recipes_page()
        made["reference/networks.md"] = catalogue_pages.zoo_page()
        packages = api_pages.pages()
        made |= {f"reference/python/{name}.md": text for name, text in packages.items()}
        made["reference/python/index.md"] = api_pages.index(list(packages))
        made |= {f"results/{name}.md": text for name, text in run_pages.network_pages().items()}
        for path in sorted(notebook_pages.NOTEBOOKS.glob("*.ipynb")):
            text, pictures = notebook_pages.page(notebook_pages.executed(path), path)
            made[f"studies/{path.stem}.md"] = text
            made |= {f"studies/{name}": content for name, content in pictures.items()}
        made["results/scores.md"], made["results/scoreboard.png"] = scoreboard.page()
    return made


def on_config(config: MkDocsConfig) -> None:
    """Make the pages, and put those of a folder where the navigation says ``folder/*``."""
    _generated.clear()
    _generated.update(_made())
    assert config.nav is not None
    config.nav = _expanded(config.nav)


def _expanded(entries: list[Any]) -> list[Any]:
    done: list[Any] = []
    for entry in entries:
        if isinstance(entry, str) and entry.endswith("/*"):
            folder = entry.removesuffix("*")
            pages = [
                name for name in _generated if name.endswith(".md") and name.startswith(folder) and "/" not in name[len(folder) :]
            ]
            done += sorted((name for name in pages if not name.endswith("/index.md")), key=lambda name: name.removesuffix(".md"))
        elif isinstance(entry, dict):
            done.append({title: _expanded(value) if isinstance(value, list) else value for title, value in entry.items()})
        elif not (isinstance(entry, str) and entry.startswith("reference/") and entry not in _generated):
            done.append(entry)
    return done


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages to those under docs/."""
    for name, content in _generated.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Tables of options where a page asks for them, and names over the files and changes that it tells of."""
    titled = _NAMED.sub(lambda found: f'```{found[3]} title="{"in " * (found[1] == "change")}{found[2]}"', markdown)
    return _MARKER.sub(lambda found: catalogue_pages.options_table(found[1]), titled)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Equations as MathML."""
    return with_equations(html)
